"""Two phases: the head alone on the frozen body, then the unfrozen layers with it."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from tests.small import MOBILENET, small_config, small_dataset, small_folds, small_protocol, small_segmentation
from tests.test_augmentation import Operations
from tests.test_lockstep import without_store
from trainables.lockstep import Lockstep
from trainables.optimisation import plateau_decays

DATASET = small_dataset(images=24, size_px=32, channels=3)
FINE_TUNED = {
    **MOBILENET,
    "unfrozen_layers": 8,
    "head_epochs": 2,
    "head_learning_rate": 1e-2,
    "head_batch_size": 6,
    "learning_rate": 1e-3,
}


def make(dataset=DATASET, epochs: int = 4, metric: str = "accuracy", **given) -> Lockstep:
    config = small_config(**FINE_TUNED | given)
    return Lockstep(config, dataset, small_folds(dataset, 2), small_protocol(max_epochs=epochs, metric=metric))


def trained(lockstep: Lockstep, epochs: int | None = None) -> Lockstep:
    while not lockstep.finished and lockstep.epoch != epochs:
        lockstep.advance()
    return lockstep


def mean(lockstep: Lockstep, name: str) -> list[float]:
    curve = pl.DataFrame(lockstep.curve)
    return curve.group_by("epoch", maintain_order=True).agg(pl.col(name).mean())[name].to_list()


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parts of the network that are not the same."""
    return {name.split(".")[0] for name in before if not before[name].equal(after[name])}


def test_the_head_is_trained_alone_and_then_with_the_body():
    one = make()
    weights = [[fold.weights() for fold in one._group.folds]]
    for _ in range(4):
        one.advance()
        weights.append([fold.weights() for fold in one._group.folds])
    for fold in range(2):
        parts = [changed(before[fold], after[fold]) for before, after in pairwise(weights)]
        assert parts == [{"head"}, {"head"}, {"head", "body"}, {"head", "body"}]
    assert mean(one, "learning_rate") == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])
    assert one.finished


def test_without_a_body_to_join_it_two_phases_are_one_with_a_new_optimizer():
    """With plain gradient descent, which has no memory, they are the same."""
    descent = {"optimizer": "sgd", "momentum": 0.0, "unfrozen_layers": 0, "head_learning_rate": None}
    one, two = (trained(make(**descent, head_epochs=epochs, head_batch_size=None)) for epochs in (0, 2))
    assert one.curve == two.curve
    one, two = (
        trained(make(**descent | {"momentum": 0.9}, head_epochs=epochs, head_batch_size=None)) for epochs in (0, 2)
    )
    assert one.curve[:4] == two.curve[:4]
    assert one.curve[4:] != two.curve[4:]


def test_the_frozen_body_is_not_computed_again():
    one = make(unfrozen_layers=None)
    for convolves in (False, False, True):
        with Operations() as operations:
            one.advance()
        assert any("conv" in name for name in operations.names) == convolves


def test_features_of_the_whole_body_are_shared_and_those_of_the_second_phase_wait(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))

    def stored() -> int:
        return len(list(tmp_path.glob("features-*.npy")))

    make(head_epochs=0, unfrozen_layers=0)
    assert stored() == 1
    one = trained(make(), 2)
    assert stored() == 1
    one.advance()
    assert stored() == 2
    make(unfrozen_layers=None)
    assert stored() == 2


@pytest.mark.parametrize("given", [{}, {"unfrozen_layers": None, "head_batch_size": None}])
def test_stored_features_change_the_first_phase_by_rounding_only(given, monkeypatch):
    with_store = trained(make(**given), 2)
    assert with_store._group.folds[0]._trained.body is not with_store._group.folds[0].network.body
    without_store(monkeypatch)
    without = trained(make(**given), 2)
    for first, second in zip(with_store.curve, without.curve, strict=True):
        assert first == pytest.approx(second, rel=2e-3)


VARIANTS = {
    "stored": {},
    "whole network": {"unfrozen_layers": None, "ema": 0.9, "body_rate": 0.1},
    "augmented": {"flip": True, "rotation_deg": 20.0, "schedule": "cosine", "warmup_epochs": 1.0, "ema": 0.5},
    "mixed": {"mixup": 0.4, "dense_batch_norm": True, "schedule": "plateau", "decay_epochs": 1},
}


@pytest.mark.parametrize("stop_at", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_that_was_stopped_in_either_phase_ends_with_the_same_numbers(variant, stop_at, tmp_path):
    options = VARIANTS[variant]
    straight = trained(make(**options))
    trained(make(**options), stop_at).save(tmp_path)
    torch.manual_seed(99)  # whatever the process did in between
    resumed = make(**options)
    resumed.load(tmp_path)
    trained(resumed)
    assert resumed.curve == straight.curve
    assert (resumed.best_epoch, resumed.epoch) == (straight.best_epoch, straight.epoch)
    for name, tensor in straight._group.folds[0].weights().items():
        assert resumed._group.folds[0].weights()[name].equal(tensor)
    for first, second in zip(straight._group.best(), resumed._group.best(), strict=True):
        assert all(second[name].equal(tensor) for name, tensor in first.items())


def test_a_schedule_begins_anew_with_the_second_phase():
    cosine = make(epochs=7, head_epochs=3, schedule="cosine", warmup_epochs=1.0, head_batch_size=None, patience=99)
    rates = mean(trained(cosine), "learning_rate")
    # Of the last batch of each epoch, one of two: half an epoch before its end.
    alone = trained(make(epochs=4, head_epochs=0, schedule="cosine", warmup_epochs=1.0, patience=99))
    assert rates[3:] == pytest.approx(mean(alone, "learning_rate"))
    assert rates[0] == pytest.approx(0.5 * 1e-2, rel=0.1)
    assert rates[2] < 0.2 * 1e-2
    step = trained(make(epochs=6, head_epochs=3, schedule="step", gamma=0.1, decay_epochs=2, patience=99))
    assert mean(step, "learning_rate") == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-3, 1e-4])
    plateau = trained(
        make(epochs=8, head_epochs=4, schedule="plateau", decay_epochs=1, head_learning_rate=1e-12, patience=99)
    )
    losses, rates = mean(plateau, "log_loss"), mean(plateau, "learning_rate")
    assert plateau_decays(losses[:4], 1) > 0
    assert [rate / 1e-12 for rate in rates[:4]] == pytest.approx(
        [0.5 ** plateau_decays(losses[:epoch], 1) for epoch in range(4)]
    )
    assert rates[4:] == pytest.approx([1e-3 * 0.5 ** plateau_decays(losses[4:epoch], 1) for epoch in range(4, 8)])


def test_patience_ends_no_first_phase_and_begins_anew_with_the_second():
    still = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "patience": 1}
    one = trained(make(epochs=30, head_epochs=5, **still))
    ranks = [(score, -loss) for score, loss in zip(mean(one, "accuracy"), mean(one, "log_loss"), strict=True)][5:]
    best = max(range(len(ranks)), key=lambda epoch: ranks[epoch])
    assert one.epoch == 5 + best + 1 + 1 < 30


def test_a_second_phase_that_is_worse_than_the_first_at_first_has_all_its_patience():
    one = trained(make(epochs=30, head_epochs=3, patience=2), 4)
    for entry in one.curve:
        entry |= {"accuracy": 0.9 if entry["epoch"] <= 3 else 0.1, "log_loss": entry["epoch"]}
    assert not one.finished
    one.curve += [entry | {"epoch": epoch, "log_loss": 99.0} for epoch in (5, 6) for entry in one.curve[-2:]]
    assert one.finished, "two epochs after the best of its own"


def test_a_first_phase_as_long_as_the_trial_leaves_an_epoch_for_the_body(tmp_path):
    one = make(epochs=2, head_epochs=9)
    before = one._group.folds[0].weights()
    trained(one, 1)
    assert changed(before, one._group.folds[0].weights()) == {"head"}
    one.save(tmp_path)
    trained(one)
    assert changed(before, one._group.folds[0].weights()) == {"head", "body"}
    resumed = make(epochs=2, head_epochs=9)
    resumed.load(tmp_path)
    assert trained(resumed).curve == one.curve


def test_a_head_for_masks_is_trained_alone_as_well():
    dataset = small_segmentation(24)
    options = {"model": "encoder_decoder", "image_size_px": 16, "unfrozen_layers": 2}
    one = make(dataset, metric="dice", **options)
    before = one._group.folds[0].weights()
    trained(one, 2)
    assert changed(before, one._group.folds[0].weights()) == {"head"}
    trained(one)
    assert changed(before, one._group.folds[0].weights()) == {"head", "body"}
    assert one.curve[-1]["train_loss"] < one.curve[0]["train_loss"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"unfrozen_layers": None, "ema": 0.9},
        {"model": "asproudis_cnn", "body_dropout": 0.4, "unfrozen_layers": None, "flip": True},
        {"model": "asproudis_mura_cnn", "body_dropout": 0.4, "unfrozen_layers": 2},
    ],
)
def test_the_weights_of_a_best_epoch_in_the_first_phase_are_of_whole_networks(given):
    """Which begin where those of the second phase do, and give the predictions that were kept."""
    one = trained(make(**given), 2)
    weights, predictions = one._group.best(), one._best_predictions.copy()
    one.advance()
    for fold, best in zip(one._group.folds, weights, strict=True):
        assert best.keys() == fold.weights().keys()
        (fold._average or fold.network).load_state_dict(best)
        np.testing.assert_allclose(
            fold.predict(one._group.fetch), predictions[fold.validation_rows.numpy()], rtol=1e-4, atol=1e-6
        )
