"""Balancing: inside the training images of a fold, as promised, and nowhere else."""

from typing import get_args

import numpy as np
import optuna
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from datasets import InputError
from search_spaces import parts
from tests.small import MOBILENET, small_config, small_dataset, small_folds, small_protocol, small_segmentation
from trainables import fold as fold_module
from trainables.balance import MOST_TIMES, classes_of, divisor, epoch_order, loss_weights
from trainables.config import USUAL_AUGMENTATION, Balance, TrialConfig
from trainables.lockstep import Lockstep

counts = st.lists(st.integers(1, 30), min_size=2, max_size=6)
seeds = st.integers(0, 100)


def balanced(balance: str, **given) -> TrialConfig:
    """With an augmentation for the repeats, where they are to have one."""
    return small_config(balance=balance, **{"flip": True} if balance == "augmented_oversample" else {}, **given)


def unequal(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets (images, 1) of which the first rows are validated, and the row numbers of the training images."""
    rng = np.random.default_rng(seed)
    train = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    targets = np.concatenate([np.arange(len(counts)), train])[:, None]
    return targets, np.arange(len(counts), len(targets))


def drawn(config: TrialConfig, targets: np.ndarray, train_rows: np.ndarray, seed: int = 0):
    torch.manual_seed(seed)
    return epoch_order(config, torch.from_numpy(train_rows), classes_of(targets[train_rows]))


@given(counts, seeds, st.sampled_from(["none", "class_weights", "sample_weights"]))
def test_without_oversampling_an_epoch_is_every_training_image_once(counts, seed, balance):
    targets, train_rows = unequal(counts)
    rows, augmented = drawn(small_config(balance=balance), targets, train_rows, seed)
    assert sorted(rows.tolist()) == train_rows.tolist()
    assert augmented.all()


@given(counts, seeds, st.sampled_from([None, 1, 7, 40]), st.sampled_from(["oversample", "augmented_oversample"]))
def test_oversampled_classes_have_as_many_images_as_promised(counts, seed, oversample_to, balance):
    targets, train_rows = unequal(counts)
    rows, _ = drawn(balanced(balance, oversample_to=oversample_to), targets, train_rows, seed)
    assert set(rows.tolist()) == set(train_rows.tolist()), "every training image at least once, no other"
    wanted = oversample_to or max(counts)
    promised = [max(count, min(wanted, MOST_TIMES * count)) for count in counts]
    assert np.bincount(targets[rows, 0]).tolist() == promised
    for index in range(len(counts)):  # no image of a class is drawn more than once more often than another
        times = np.bincount(rows)[train_rows[targets[train_rows, 0] == index]]
        assert times.max() - times.min() <= 1


def test_eight_labels_in_rare_combinations_do_not_blow_up_an_epoch_or_a_weight():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 8)) < [0.02, 0.05, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5]).astype(np.int64)
    rows = np.arange(2000)
    combinations = np.bincount(classes_of(labels))
    assert len(combinations) * combinations.max() > 12 * 2000, "to which all would be brought without a limit"
    for oversample_to in (None, 1500):
        config = small_config(balance="oversample", oversample_to=oversample_to)
        order, _ = epoch_order(config, torch.from_numpy(rows), classes_of(labels))
        assert np.bincount(order).max() <= MOST_TIMES == 10
    labels[:, 0] = rows == 7
    for balance in ("class_weights", "sample_weights"):
        assert loss_weights(small_config(balance=balance), labels, rows).max() <= MOST_TIMES
    assert loss_weights(small_config(balance="class_weights"), labels, rows)[7, 0] == MOST_TIMES


def test_seed_002s_1500_of_each_class():
    targets, train_rows = unequal([849, 2024, 1084, 993])
    rows, _ = drawn(small_config(balance="oversample", oversample_to=1500), targets, train_rows)
    assert np.bincount(targets[rows, 0]).tolist() == [1500, 2024, 1500, 1500]


@given(counts, seeds)
def test_only_repeats_are_augmented(counts, seed):
    targets, train_rows = unequal(counts)
    rows, augmented = drawn(balanced("augmented_oversample"), targets, train_rows, seed)
    assert sorted(rows[~augmented].tolist()) == train_rows.tolist()


@given(counts, seeds)
def test_an_epoch_is_drawn_from_its_seed_and_another_differs(counts, seed):
    targets, train_rows = unequal([*counts, 31])
    config = balanced("augmented_oversample")
    first, again, other = (drawn(config, targets, train_rows, s) for s in (seed, seed, seed + 1))
    assert first[0].equal(again[0])
    assert first[1].equal(again[1])
    assert not first[0].equal(other[0])


@given(counts, seeds)
def test_weights_are_those_of_scikit_learn_on_the_training_rows(counts, seed):
    targets, train_rows = unequal(counts, seed)
    for balance in ("class_weights", "sample_weights"):
        weights = loss_weights(small_config(balance=balance), targets, train_rows)
        expected = np.minimum(compute_sample_weight("balanced", targets[train_rows, 0]), MOST_TIMES)
        np.testing.assert_allclose(weights[train_rows, 0], expected, rtol=1e-5)
        assert weights[: len(counts)].isnan().all(), "validation images have none"


def test_validation_labels_change_no_weight():
    targets, train_rows = unequal([3, 9])
    changed = targets.copy()
    changed[:2] = 1
    for balance in ("class_weights", "sample_weights"):
        weights = [loss_weights(small_config(balance=balance), one, train_rows) for one in (targets, changed)]
        assert weights[0][train_rows].equal(weights[1][train_rows])


def test_of_several_targets_class_weights_know_each_and_sample_weights_the_combination():
    targets = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    rows = np.arange(4)
    apart = loss_weights(small_config(balance="class_weights"), targets, rows)
    assert apart[:, 0].tolist() == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    assert apart[:, 1].tolist() == pytest.approx([4 / 6, 4 / 6, 2, 4 / 6])
    together = loss_weights(small_config(balance="sample_weights"), targets, rows)
    assert together.tolist() == [pytest.approx([w, w]) for w in (4 / 6, 4 / 6, 4 / 3, 4 / 3)]
    assert classes_of(targets).tolist() == [0, 0, 1, 2]


def test_class_weights_are_normalised_within_the_batch_and_sample_weights_are_not():
    def mean(losses: torch.Tensor, weights: torch.Tensor, **given) -> float:
        return ((losses * weights).sum(0) / divisor(small_config(**given), weights, len(weights))).item()

    losses, weights = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [1.5]])
    assert mean(losses, weights, balance="class_weights") == pytest.approx(3.5 / 2)
    assert mean(losses, weights, balance="sample_weights") == pytest.approx(3.5 / 2)
    assert mean(losses[1:], weights[1:], balance="class_weights") == pytest.approx(2)
    assert mean(losses[1:], weights[1:], balance="sample_weights") == pytest.approx(3)
    assert mean(losses, torch.ones(2, 1)) == pytest.approx(1.5)


# --- in training


def rare(images: int = 48, **given):
    """One image in four is of the second class."""
    dataset = small_dataset(images, **given)
    return dataset.rows(np.flatnonzero(np.arange(images) % 8 % 3 != 1))


def trained(balance: str, dataset=None, **given) -> Lockstep:
    dataset = dataset or rare()
    lockstep = Lockstep(balanced(balance, **given), dataset, small_folds(dataset, 2), small_protocol(max_epochs=1))
    lockstep.advance()
    return lockstep


def test_every_balance_trains_and_none_is_the_other():
    losses = {tuple(trained(balance).report()["folds"]["log_loss"]) for balance in get_args(Balance)}
    assert len(losses) == 5


def test_training_sees_no_image_of_the_validation_side(monkeypatch):
    seen: list[set[int]] = []
    original = fold_module.epoch_order

    def watched(*given):
        rows, augmented = original(*given)
        seen.append(set(rows.tolist()))
        return rows, augmented

    monkeypatch.setattr(fold_module, "epoch_order", watched)
    dataset = rare()
    trained("augmented_oversample", dataset)
    for rows, (train_rows, _) in zip(seen, small_folds(dataset, 2), strict=True):
        assert rows == set(train_rows.tolist())


def test_stored_features_serve_every_balance():
    dataset = rare(24, size_px=32, channels=3)
    for balance in ("oversample", "class_weights", "augmented_oversample"):
        lockstep = trained(balance, dataset, **MOBILENET, unfrozen_layers=0)
        assert lockstep.cut is not None
        assert not lockstep.diverged


def test_masks_cannot_be_balanced():
    dataset = small_segmentation()
    config = small_config(model="encoder_decoder", balance="oversample")
    with pytest.raises(InputError, match="balance='oversample': images with masks have no classes"):
        Lockstep(config, dataset, small_folds(dataset, 2), small_protocol(metric="dice"))


def asked(oversample_to: tuple[int | None, ...]) -> list[tuple[TrialConfig, dict]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(60)]
    return [(small_config(**parts.balance_and_augmentation(trial, oversample_to)), trial.params) for trial in trials]


def test_every_balance_is_searched_and_of_what_is_searched_no_two_are_the_same():
    found = asked((None, 1500))
    assert {config.balance for config, _ in found} == set(get_args(Balance))
    assert {config.oversample_to for config, _ in found if "oversample" in config.balance} == {None, 1500}
    configs = {tuple(sorted(params.items(), key=str)): config for config, params in found}
    assert len(set(configs.values())) == len(configs) >= 3 * 2 + 2 * 2 + 2
    assert all("oversample_to" not in params for _, params in asked((None,)))


def test_augmented_repeats_are_augmented_as_usual_and_the_record_says_so():
    for config, params in asked((None,)):
        assert ("augment" in params) == (config.balance != "augmented_oversample")
        augmented = params.get("augment", True)
        assert ("magnitude" in params) == config.flip == augmented
        for name in ("rotation_deg", "zoom", "contrast"):
            assert getattr(config, name) == USUAL_AUGMENTATION[name] * params.get("magnitude", 0.0)


def test_weights_go_to_the_device_once_an_epoch_and_fit_their_images(monkeypatch):
    seen: list[torch.Tensor] = []
    original = fold_module.divisor

    def watched(config, weights_BT, images):
        seen.append(weights_BT)
        return original(config, weights_BT, images)

    monkeypatch.setattr(fold_module, "divisor", watched)
    dataset = rare()
    trained("class_weights", dataset)
    assert len(seen) == 2 * 2
    assert len({weights.untyped_storage().data_ptr() for weights in seen}) == 2, "one for each fold's epoch"
    weights = torch.cat(seen)[:, 0]
    assert not weights.isnan().any()
    assert weights.unique().numel() > 1


def test_predictions_of_a_balanced_trial_are_whole(tmp_path):
    dataset = rare()
    trained("oversample", dataset).save(tmp_path)
    predictions = pl.read_parquet(tmp_path / "predictions.parquet").to_numpy()
    assert predictions.shape == (len(dataset), 2)
    assert np.isfinite(predictions).all()
