"""Mixup and CutMix: timm's mixing, and a loss with the labels of both images."""

import numpy as np
import pytest
import torch
from timm.data import mixup as timms

from datasets import InputError
from tests.small import (
    MOBILENET,
    small_config,
    small_dataset,
    small_folds,
    small_multitask,
    small_protocol,
    small_segmentation,
)
from trainables import fold as fold_module
from trainables.lockstep import Lockstep
from trainables.mixing import mixed, rectangle
from trainables.objectives.classification import Classification


def images_and_mixed(seed: int = 0, images: int = 5, **given) -> tuple[torch.Tensor, torch.Tensor, float]:
    torch.manual_seed(seed)
    batch = torch.rand(images, 3, 8, 12).contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    result, share = mixed(small_config(**given), batch)
    assert batch.equal(before), "the images themselves must stay"
    assert result.is_contiguous(memory_format=torch.channels_last)
    return batch, result, share


def test_nothing_asked_for_is_nothing_mixed():
    batch, result, share = images_and_mixed()
    assert share == 1
    assert result is batch


@pytest.mark.parametrize("images", [1, 4, 5])
def test_mixup_blends_each_image_with_the_one_at_the_other_end_of_the_batch(images):
    batch, result, share = images_and_mixed(images=images, mixup=0.4)
    assert 0 < share < 1
    torch.testing.assert_close(result, share * batch + (1 - share) * batch.flip(0))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_whole_number_is_a_concentration_like_any_other(name):
    assert images_and_mixed(**{name: 1})[1].equal(images_and_mixed(**{name: 1.0})[1])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_an_image_alone_in_its_batch_cannot_be_mixed(name):
    with pytest.raises(InputError, match=f"{name}=0.2: must be 0 with batch_size=1"):
        small_config(batch_size=1, **{name: 0.2})


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_takes_a_rectangle_of_the_other_image_and_its_area_is_the_share(seed):
    batch, result, share = images_and_mixed(seed, images=4, cutmix=1.0)
    taken = (result != batch).any(1)
    assert result.where(~taken[:, None], 0).equal(batch.where(~taken[:, None], 0))
    assert result.where(taken[:, None], 0).equal(batch.flip(0).where(taken[:, None], 0))
    assert taken.float().mean((1, 2)).tolist() == pytest.approx([1 - share] * 4)
    if taken[0].any():
        rows, columns = taken[0].any(1), taken[0].any(0)
        assert taken[0].equal(rows[:, None] & columns), "a rectangle"


def test_the_rectangle_is_timms(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 40, 2).tolist()
        centre, share = (int(rng.integers(height)), int(rng.integers(width))), float(rng.random())
        drawn = iter(centre)
        monkeypatch.setattr(timms.np.random, "randint", lambda *_, drawn=drawn, **__: next(drawn))
        rows, columns = rectangle(height, width, share, centre)
        assert (rows.start, rows.stop, columns.start, columns.stop) == timms.rand_bbox((height, width), share)


def test_with_both_each_is_drawn_about_half_of_the_time_and_shares_are_of_their_own_distribution():
    config = small_config(mixup=50.0, cutmix=50.0)  # shares close to one half
    ramp = torch.arange(40000.0).view(2, 1, 200, 100)
    drawn = []
    torch.manual_seed(0)
    for _ in range(200):
        result, share = mixed(config, ramp)
        drawn.append((bool((result.round() == result).all()), share))
    assert 70 < sum(cut for cut, _ in drawn) < 130
    of_mixup = [share for cut, share in drawn if not cut]
    assert np.mean(of_mixup) == pytest.approx(0.5, abs=0.02)
    assert np.std(of_mixup) == pytest.approx((0.25 / 101) ** 0.5, rel=0.25)  # of Beta(50, 50)


def lockstep(dataset=None, epochs: int = 2, metric: str = "accuracy", **given) -> Lockstep:
    dataset = dataset or small_dataset()
    protocol = small_protocol(max_epochs=epochs, metric=metric)
    return Lockstep(small_config(**given), dataset, small_folds(dataset, 2), protocol)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("balance", ["none", "class_weights"])
def test_the_loss_is_the_cross_entropy_with_timms_mixed_labels(balance, name, classes, accumulate, monkeypatch):
    """Of which each label counts as much as its class does."""
    shares, seen = [], []

    def watched_mixed(*given):
        result, share = mixed(*given)
        shares.append(share)
        return result, share

    def watched_losses(self, logits, targets, *given):
        seen.append((len(shares) - 1, logits.detach(), targets[:, 0]))
        return losses(self, logits, targets, *given)

    losses = Classification.losses
    monkeypatch.setattr(fold_module, "mixed", watched_mixed)
    monkeypatch.setattr(Classification, "losses", watched_losses)
    dataset = small_dataset(52, classes=classes)
    dataset = dataset.rows(np.flatnonzero(np.arange(52) % 8 != 1))  # of the second class half as many
    one = lockstep(dataset, epochs=1, batch_size=32, accumulate=accumulate, balance=balance, **{name: 0.8})
    one.advance()
    assert len(shares) == 2, "one batch in each of two folds"
    for fold, share in enumerate(shares):
        assert 0 < share < 1
        of_fold = [(logits, labels) for batch, logits, labels in seen if batch == fold]
        assert (len(of_fold) == 2) == (accumulate == 1), "each part with two labels"
        logits = torch.cat([logits for logits, _ in of_fold[::2]])
        own, others = (torch.cat([labels for _, labels in of_fold[start::2]]) for start in (0, 1))
        assert others.equal(own.flip(0))
        counts = own.bincount()
        weights = len(own) / (classes * counts) if balance == "class_weights" else torch.ones(classes)
        soft = timms.mixup_target(own, classes, lam=share) * weights
        two = logits if classes > 2 else torch.cat([torch.zeros_like(logits), logits], 1)
        expected = -(soft * two.log_softmax(1)).sum() / weights[own].sum()
        assert one.curve[fold]["train_loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("balance", ["none", "class_weights"])
@pytest.mark.parametrize("given", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_images_train_reproducibly_and_unlike_others(given, balance):
    for dataset in (small_dataset(38), small_multitask(38)):
        first, again, plain = (lockstep(dataset, balance=balance, **options) for options in (given, given, {}))
        for one in (first, again, plain):
            one.advance()
            one.advance()
        assert first.curve == again.curve
        assert not first.diverged
        assert first.curve != plain.curve


def test_images_with_bars_are_still_learned_when_mixed():
    one = lockstep(epochs=10, mixup=0.2, metric="accuracy")
    while not one.finished:
        one.advance()
    assert one.report()["accuracy"] > 0.9


def test_mixed_pixels_are_not_stored_features():
    dataset = small_dataset(24, size_px=32, channels=3)
    for given, stored in (({}, True), ({"mixup": 0.2}, False), ({"cutmix": 1.0}, False)):
        assert (lockstep(dataset, **MOBILENET, unfrozen_layers=0, **given).cut is not None) == stored


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_masks_cannot_be_mixed(name):
    with pytest.raises(InputError, match=f"{name}=0.2: it must be 0 for segmentation"):
        lockstep(small_segmentation(), metric="dice", model="encoder_decoder", **{name: 0.2})
