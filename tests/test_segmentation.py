"""Masks: scores of known cases, a network that learns them, and what is refused."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datasets import InputError
from datasets.pixels import masks
from tests.small import small_config, small_dataset, small_folds, small_protocol, small_segmentation
from trainables.lockstep import Lockstep
from trainables.objectives.segmentation import Segmentation

CERTAIN = 30.0
"""A logit."""


def encoder_decoder(**given):
    params = {"model": "encoder_decoder", "dense_widths": (), "learning_rate": 1e-2, "batch_norm": True}
    return small_config(**params | given)


def make(dataset=None, max_epochs=3, metric="dice", repeats=1, **given) -> Lockstep:
    dataset = dataset or small_segmentation()
    folds = small_folds(dataset, 2, repeats)
    return Lockstep(encoder_decoder(**given), dataset, folds, small_protocol(metric=metric, max_epochs=max_epochs))


def trained(lockstep: Lockstep) -> Lockstep:
    while not lockstep.finished:
        lockstep.advance()
    return lockstep


def scored(predicted: np.ndarray, truth: np.ndarray, classes: int = 2) -> np.ndarray:
    """Dice and IoU per image of predicted classes (B, H, W)."""
    found = Segmentation(truth, classes)
    predicted_t, truth_t = torch.from_numpy(predicted).long(), torch.from_numpy(truth)
    if classes == 2:
        logits = (predicted_t.float()[:, None] * 2 - 1) * CERTAIN
    else:
        logits = torch.nn.functional.one_hot(predicted_t, classes).permute(0, 3, 1, 2) * CERTAIN
    return found.predictions(logits, truth_t).numpy()[:, :2]


def test_scores_of_known_masks():
    truth, predicted = np.zeros((2, 1, 4, 4), np.uint8)
    truth[0, :2], predicted[0, 1:3] = 1, 1  # 8 and 8 pixels, 4 of them the same
    assert scored(predicted, truth).tolist() == [pytest.approx([0.5, 1 / 3])]


def test_an_empty_mask_met_by_an_empty_prediction_counts_one_and_a_missed_one_zero():
    empty, some = np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), np.uint8)
    assert scored(empty, empty).tolist() == [[1, 1]]
    assert scored(some, empty).tolist() == [[0, 0]]
    assert scored(empty, some).tolist() == [[0, 0]]


def test_of_several_classes_those_that_are_there_or_are_predicted_count():
    truth, predicted = np.zeros((2, 1, 4, 4), np.uint8)
    truth[0, 0], predicted[0, 0] = 1, 1
    assert scored(predicted, truth, classes=4).tolist() == [[1, 1]], "classes 2 and 3 are not there"
    predicted[0, 3] = 2
    assert scored(predicted, truth, classes=4).tolist() == [[0.5, 0.5]], "a class that is not there was predicted"


@given(hnp.arrays(np.uint8, (2, 3, 6, 6), elements=st.integers(0, 1)))
def test_dice_and_iou_of_one_image_are_one_another(both):
    truth, predicted = both
    dice, iou = scored(predicted, truth).T
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou), rtol=1e-5)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_array_equal(scored(truth, truth), 1)


@given(st.integers(0, 50), st.sampled_from([2, 3]))
def test_the_loss_falls_to_nothing_where_every_pixel_is_right(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (3, 8, 8), generator=generator).to(torch.uint8)
    found = Segmentation(truth.numpy(), classes)
    right = torch.nn.functional.one_hot(truth.long(), classes).permute(0, 3, 1, 2).float() * 2 - 1
    right = right[:, 1:] if classes == 2 else right
    losses = [found.losses(right * sure, truth) for sure in (CERTAIN, 0.1, -CERTAIN)]
    assert losses[0].max() < 1e-3
    assert (losses[0] < losses[1]).all()
    assert (losses[1] < losses[2]).all()


def test_the_log_loss_is_that_of_the_pixels():
    truth = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    logits = torch.logit(torch.tensor([[[[0.2, 0.9], [0.5, 0.6]]]]))
    log_loss = Segmentation(truth.numpy(), 2).predictions(logits, truth)[0, 2]
    assert log_loss.item() == pytest.approx(-np.log([0.8, 0.9, 0.5, 0.6]).mean(), rel=1e-5)


@pytest.mark.parametrize(("classes", "channels", "guessing"), [(2, 2, 0.4), (3, 3, 0.3), (2, 1, 0.4)])
def test_masks_can_be_learned(classes, channels, guessing, tmp_path):
    dataset = small_segmentation(classes=classes, channels=channels)
    lockstep = trained(make(dataset, max_epochs=20, batch_size=2))
    report = lockstep.report()
    assert report["dice"] > guessing + 0.25
    assert set(report["folds"]) == {"dice", "iou", "log_loss"}
    lockstep.save(tmp_path)
    predictions = pl.read_parquet(tmp_path / "predictions.parquet")
    assert (predictions.columns, predictions.height) == (["dice", "iou", "log_loss", "area"], len(dataset))
    per_fold = [predictions["dice"].to_numpy()[rows].mean() for _, rows in small_folds(dataset, 2)]
    assert report["folds"]["dice"] == pytest.approx(per_fold)


def test_a_trial_with_masks_and_augmentation_resumes_exactly(tmp_path):
    given = {"flip": True, "rotation_deg": 36.0, "zoom": 0.1, "contrast": 0.1, "schedule": "plateau", "repeats": 2}
    straight = trained(make(**given))
    stopped = make(**given)
    stopped.advance()
    stopped.save(tmp_path)
    resumed = make(**given)
    resumed.load(tmp_path)
    assert trained(resumed).curve == straight.curve


def test_training_sees_masks_that_were_moved_with_their_images():
    """Wherever the square is bright, whatever the augmentation did, the mask must say so."""
    lockstep = make(small_segmentation(images=24, channels=1), flip=True, rotation_deg=30.0)
    torch.manual_seed(0)
    rows = torch.arange(24)
    images, targets = lockstep._group.fetch(rows, torch.ones(24, dtype=torch.bool))
    assert ((images[:, 0] > 0.65) == (targets == 1)).float().mean() > 0.97
    plain, unmoved = lockstep._group.fetch(rows)
    assert ((plain[:, 0] > 0.65) == (unmoved == 1)).all()
    assert (targets != unmoved).any()


def test_augmentation_does_not_reach_the_stored_masks():
    dataset = small_segmentation()
    before = np.array(masks(dataset, 16))
    trained(make(dataset, max_epochs=1, flip=True, rotation_deg=36.0))
    assert (masks(dataset, 16) == before).all()


def test_a_frozen_body_of_masks_is_stored_and_cut_as_any_other():
    lockstep = trained(make(max_epochs=1, unfrozen_layers=0))
    assert lockstep.cut is not None
    assert lockstep.trainable_parameters == 5


@pytest.mark.parametrize(
    ("dataset", "config", "metric", "says"),
    [
        (small_segmentation(), small_config(), "dice", "gives an answer per image, and a segmentation task"),
        (small_dataset(), encoder_decoder(), "accuracy", "gives an answer per pixel, and a binary task"),
        (small_segmentation(), encoder_decoder(), "auroc", "metric 'auroc': choose from dice, iou, log_loss"),
        (small_dataset(), small_config(), "dice", "metric 'dice': choose from auroc"),
    ],
)
def test_what_does_not_belong_to_the_kind_is_refused(dataset, config, metric, says):
    with pytest.raises(InputError, match=says):
        Lockstep(config, dataset, small_folds(dataset, 2), small_protocol(metric=metric))
