"""What the kinds of task differ in: outputs, losses, predictions and scores of one and of several targets."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from datasets import InputError
from datasets.folds import Folds
from tests.small import (
    small_config,
    small_dataset,
    small_folds,
    small_multitask,
    small_protocol,
    small_segmentation,
)
from trainables.lockstep import Lockstep
from trainables.metrics import OF_CLASSES, check_scorable, scores
from trainables.objectives import objective
from trainables.objectives.classification import Classification

MULTITASK = small_multitask()


def trained(dataset=MULTITASK, max_epochs=2, **given) -> Lockstep:
    lockstep = Lockstep(small_config(**given), dataset, small_folds(dataset), small_protocol(max_epochs=max_epochs))
    while not lockstep.finished:
        lockstep.advance()
    return lockstep


@pytest.mark.parametrize(
    ("dataset", "outputs", "columns"),
    [
        (small_dataset(), 1, ("a", "b")),
        (small_dataset(classes=4), 4, ("a", "b", "c", "d")),
        (
            MULTITASK,
            1 + 1 + 3,
            ("height:a", "height:b", "side:left", "side:right", "shade:light", "shade:grey", "shade:dark"),
        ),
        (small_segmentation(), 1, ("dice", "iou", "log_loss", "area")),
        (small_segmentation(classes=3), 3, ("dice", "iou", "log_loss", "area")),
    ],
)
def test_each_kind_has_its_outputs_and_columns(dataset, outputs, columns):
    found = objective(dataset, small_config())
    assert (found.outputs, found.columns) == (outputs, columns)
    logits = torch.randn(len(dataset), outputs, *(dataset.kind == "segmentation") * (16, 16))
    targets = torch.from_numpy(np.array(found.targets))
    predictions = found.predictions(logits, targets)
    assert predictions.shape == (len(dataset), len(columns))
    assert found.losses(logits, targets).shape == (len(dataset), len(found.shares))
    assert set(found.scores(np.arange(len(dataset)), predictions.numpy())) == set(found.metrics)


def test_the_loss_is_the_mean_of_scored_targets_and_a_share_of_the_others():
    for weight in (0.0, 0.3):
        found = objective(MULTITASK, small_config(auxiliary_weight=weight))
        logits, targets = torch.randn(48, 5), torch.from_numpy(found.targets)
        height = F.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0].float())
        side = F.binary_cross_entropy_with_logits(logits[:, 1], targets[:, 1].float())
        size = F.cross_entropy(logits[:, 2:], targets[:, 2])
        loss = found.losses(logits, targets).mean(0) @ torch.tensor(found.shares)
        assert loss.item() == pytest.approx(((height + side) / 2 + weight * size).item())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothing_spreads_a_share_of_the_truth_over_the_classes(smoothing):
    for dataset, classes in ((small_dataset(), 2), (small_dataset(classes=4), 4)):
        found = objective(dataset, small_config())
        logits, targets = torch.randn(48, found.outputs), torch.from_numpy(found.targets)
        logits_BC = torch.cat([torch.zeros(48, 1), logits], dim=1) if classes == 2 else logits
        truth_BC = F.one_hot(targets[:, 0], classes) * (1 - smoothing) + smoothing / classes
        expected = -(truth_BC * logits_BC.log_softmax(1)).sum(1)
        losses = found.losses(logits, targets, smoothing)
        torch.testing.assert_close(losses[:, 0], expected)
        assert smoothing or torch.equal(losses, found.losses(logits, targets))


def test_the_loss_of_an_image_of_which_a_network_is_wrongly_certain_is_not_cut_off():
    dataset = small_dataset()
    found = objective(dataset, small_config())
    targets = torch.from_numpy(found.targets)
    for certain in (10.0, 17.0, 30.0, -17.0, -30.0):
        logits = torch.full((48, 1), certain)
        told = found.scores(np.arange(48), found.predictions(logits, targets).numpy())
        assert told["log_loss"] == pytest.approx(found.losses(logits, targets).mean().item(), rel=1e-4)


def test_masks_are_not_smoothed_and_say_so():
    with pytest.raises(InputError, match=r"label_smoothing=0.1: it must be 0 for segmentation"):
        objective(small_segmentation(), small_config(label_smoothing=0.1))


def test_the_score_is_the_mean_of_scored_targets_and_each_has_its_own():
    found = objective(MULTITASK, small_config())
    rows = np.arange(6, 40)
    predictions = found.predictions(torch.randn(48, 5), torch.zeros(48, 3)).numpy()[rows]
    told = found.scores(rows, predictions)
    side = scores(MULTITASK.table["target_side"].to_numpy()[rows], predictions[:, 2:4])
    size = scores(MULTITASK.table["target_shade"].to_numpy()[rows], predictions[:, 4:])
    height = scores(MULTITASK.targets[rows], predictions[:, :2])
    for metric in OF_CLASSES:
        assert told[f"{metric}:height"] == height[metric]
        assert told[f"{metric}:side"] == side[metric]
        assert told[f"{metric}:shade"] == size[metric]
        assert told[metric] == pytest.approx((height[metric] + side[metric]) / 2)


def test_one_target_scores_without_a_name():
    dataset = small_dataset()
    found = Classification.of(dataset, auxiliary_weight=1.0)
    probabilities = np.tile(np.array([[0.4, 0.6]], np.float32), (48, 1))
    assert found.scores(np.arange(48), probabilities) == scores(dataset.targets, probabilities)


def test_several_targets_are_learned_together(tmp_path):
    lockstep = trained(max_epochs=6, dense_widths=())
    report = lockstep.report()
    assert np.mean(report["folds"]["accuracy:height"]) > 0.9
    assert np.mean(report["folds"]["accuracy:side"]) > 0.9
    assert report["accuracy"] == pytest.approx(
        (np.mean(report["folds"]["accuracy:height"]) + np.mean(report["folds"]["accuracy:side"])) / 2
    )
    lockstep.save(tmp_path)
    predictions = pl.read_parquet(tmp_path / "predictions.parquet")
    assert predictions.columns == list(objective(MULTITASK, small_config()).columns)
    for target in ("height:", "side:", "shade:"):
        probabilities = predictions.select(pl.selectors.starts_with(target)).to_numpy()
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_auxiliary_targets_are_trained_along_as_much_as_they_count():
    log_loss = {}
    for weight in (0.0, 3.0):
        report = trained(max_epochs=6, auxiliary_weight=weight).report()
        log_loss[weight] = np.mean(report["folds"]["log_loss:shade"])
    assert log_loss[3.0] < log_loss[0.0] - 0.1


def sides(rows: list[int]):
    """`MULTITASK` with a right side, and a grey shade, in these rows only."""
    rare = pl.Series(np.isin(np.arange(48), rows).astype(int))
    return dataclasses.replace(MULTITASK, table=MULTITASK.table.with_columns(target_side=rare, target_shade=rare))


def in_folds(fold_of: list[int]) -> Folds:
    return Folds(np.array([fold_of]))


def test_a_fold_that_does_not_validate_a_class_of_a_scored_target_has_no_auroc_and_says_so():
    dataset, folds = sides([0, 47]), in_folds([i % 3 for i in range(48)])  # in folds 0 and 2
    says = (
        r"metric 'auroc': fold 1 validates no image of side 'right'.*choose fewer folds, another metric, or leave that"
    )
    with pytest.raises(InputError, match=says):
        Lockstep(small_config(), dataset, folds, small_protocol(metric="auroc"))
    lockstep = Lockstep(small_config(), dataset, folds, small_protocol(metric="balanced_accuracy"))
    lockstep.advance()
    assert np.isfinite(lockstep.report()["balanced_accuracy"])
    unscored = dataclasses.replace(dataset, further=(dataset.further[1],))
    Lockstep(small_config(), unscored, folds, small_protocol(metric="auroc"))


@pytest.mark.parametrize("metric", ["auroc", "accuracy", "log_loss"])
def test_a_class_of_a_scored_target_that_a_fold_cannot_learn_is_refused_whatever_the_metric(metric):
    folds = in_folds([i % 3 for i in range(48)])
    for dataset, name in (
        (sides([0, 3]), "side 'right'"),  # all of them validated in fold 0
        (
            dataclasses.replace(
                small_dataset(), table=small_dataset().table.with_columns(target=pl.Series([1] + [0] * 47))
            ),
            "label 'b'",
        ),
    ):
        with pytest.raises(
            InputError, match=f"metric '{metric}': fold 0 trains on no image of {name}.*leave that label"
        ):
            check_scorable(metric, dataset, folds)
    unscored = dataclasses.replace(sides([0, 3]), further=(MULTITASK.further[1],))
    check_scorable(metric, unscored, in_folds([i // 2 % 3 for i in range(48)]))
    check_scorable("dice", small_segmentation(), in_folds([i % 3 for i in range(36)]))


@pytest.mark.parametrize("dataset", [small_dataset(), MULTITASK, small_segmentation()])
def test_every_kind_says_what_its_images_may_be_balanced_by(dataset):
    labels = objective(dataset, small_config()).labels
    assert (labels.dtype, labels.shape) == (np.int64, (len(dataset), 1 + len(dataset.further)))
    assert len(np.unique(labels[:, 0])) == (1 if dataset.kind == "segmentation" else 2)


@pytest.mark.parametrize("balance", ["class_weights", "sample_weights", "oversample"])
def test_several_targets_can_be_balanced(balance):
    lockstep = trained(max_epochs=1, balance=balance)
    assert not lockstep.diverged
    assert lockstep.curve != trained(max_epochs=1).curve


def test_a_trial_of_several_targets_resumes_exactly(tmp_path):
    straight = trained(max_epochs=2)
    stopped = Lockstep(small_config(), MULTITASK, small_folds(MULTITASK), small_protocol(max_epochs=2))
    stopped.advance()
    stopped.save(tmp_path)
    resumed = Lockstep(small_config(), MULTITASK, small_folds(MULTITASK), small_protocol(max_epochs=2))
    resumed.load(tmp_path)
    resumed.advance()
    assert resumed.curve == straight.curve
