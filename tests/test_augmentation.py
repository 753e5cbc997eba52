"""Augmentation: drawn for each image of a batch, within its ranges."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.small import small_config
from trainables.augmentation import augmentation
from trainables.config import AUGMENTATIONS
from trainables.images import AS_IT_IS, pixel_fetch
from trainables.models import Body


def augmented(images: torch.Tensor, **config) -> torch.Tensor:
    augment = augmentation(small_config(**config))
    assert augment is not None
    torch.manual_seed(0)
    return augment(images)


def test_nothing_asked_for_is_nothing_done():
    assert augmentation(small_config()) is None


def test_every_image_of_a_batch_is_augmented_differently():
    images = torch.rand(1, 3, 16, 16).expand(6, 3, 16, 16).clone()
    for config in ({"rotation_deg": 36.0}, {"zoom": 0.1}, {"contrast": 0.1}):
        changed = augmented(images, **config)
        assert changed.shape == images.shape
        assert len({tensor.sum().item() for tensor in changed}) == 6, config


def test_flip_mirrors_about_half_of_the_images():
    images = torch.rand(200, 1, 4, 4)
    changed = augmented(images, flip=True)
    mirrored = [bool(after.equal(before.flip(-1))) for before, after in zip(images, changed, strict=True)]
    kept = [bool(after.equal(before)) for before, after in zip(images, changed, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_contrast_keeps_the_mean_and_changes_the_spread_within_its_range():
    images = torch.rand(50, 1, 16, 16) * 0.4 + 0.3
    changed = augmented(images, contrast=0.1)
    assert (changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() < 0.01
    ratios = changed.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.89 < ratios.min() < 0.95
    assert 1.05 < ratios.max() < 1.11


def test_zoom_scales_within_its_range():
    images = torch.zeros(100, 1, 65, 65)
    images[:, :, 22:43, 22:43] = 1  # 21 x 21 pixels
    sides = augmented(images, zoom=0.1).sum((1, 2, 3)).sqrt()
    assert 18.5 < sides.min() < 20
    assert 22 < sides.max() < 23.5


def test_masks_move_with_their_images_and_keep_their_classes():
    """Images that show their own mask: after any move the two still agree, but for the resampling along edges."""
    masks = torch.zeros(40, 32, 32, dtype=torch.uint8)
    masks[:, 6:20, 4:14], masks[:, 12:24, 16:28] = 1, 2
    images = masks[:, None].float().expand(40, 3, 32, 32) / 2
    augment = augmentation(small_config(flip=True, rotation_deg=36.0, zoom=0.1))
    assert augment is not None
    torch.manual_seed(0)
    moved, moved_masks = augment.together(images, masks)
    assert moved_masks.dtype == torch.uint8
    assert set(moved_masks.unique().tolist()) == {0, 1, 2}
    seen = (moved[:, 0] * 2).round().to(torch.uint8)
    assert (seen == moved_masks).float().mean((1, 2)).min() > 0.93
    assert (moved_masks != masks).float().mean((1, 2)).min() > 0.01, "nothing moved"
    torch.manual_seed(0)
    assert augment(images).equal(moved), "masks must not change what happens to images"


def test_contrast_leaves_masks_alone():
    augment = augmentation(small_config(contrast=0.5))
    assert augment is not None
    masks = torch.randint(0, 2, (4, 8, 8), dtype=torch.uint8)
    images, kept = augment.together(torch.rand(4, 1, 8, 8), masks)
    assert kept.equal(masks)
    assert images.shape == (4, 1, 8, 8)


def test_of_a_batch_only_the_chosen_images_are_augmented():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    targets = np.arange(6)[:, None]
    fetch = pixel_fetch(
        pixels, targets, Body(nn.Identity(), 1), "cpu", augmentation(small_config(rotation_deg=36.0, zoom=0.1))
    )
    rows = torch.tensor([4, 0, 5])
    plain, labels = fetch(rows)
    assert labels[:, 0].tolist() == rows.tolist()
    assert (plain[:, 0] * 255).round().to(torch.uint8).equal(torch.from_numpy(pixels[rows, :, :, 0]))
    some, _ = fetch(rows, torch.tensor([0, AS_IT_IS, 3]))
    assert [bool(a.equal(b)) for a, b in zip(some, plain, strict=True)] == [False, True, False]
    assert fetch(rows, torch.full((3,), AS_IT_IS))[0].equal(plain)


class Operations(TorchDispatchMode):
    """The names of all that torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("of_masks", [False, True])
def test_a_batch_that_is_augmented_as_a_whole_is_not_scattered_and_stays_channels_last(of_masks):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    targets = rng.integers(0, 2, (6, 8, 8) if of_masks else (6, 1)).astype(np.uint8)
    body = Body(nn.Identity(), 3, mean=(0.5,), std=(0.2,))
    fetch = pixel_fetch(pixels, targets, body, "cpu", augmentation(small_config(flip=True)), masks=of_masks)
    names = {}
    for views in ([0] * 6, [0] * 5 + [AS_IT_IS]):
        with Operations() as operations:
            images, _ = fetch(torch.arange(6), torch.tensor(views))
        names[AS_IT_IS not in views] = operations.names
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert "aten::index_put_" not in names[True]
    assert "aten::index_put_" in names[False]


def test_images_stay_in_range():
    changed = augmented(torch.rand(8, 3, 16, 16), flip=True, rotation_deg=36.0, zoom=0.1, contrast=0.5)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_vertical_flip_turns_about_half_of_the_images_upside_down():
    images = torch.rand(200, 1, 4, 4)
    changed = augmented(images, vertical_flip=True)
    turned = [bool(after.equal(before.flip(-2))) for before, after in zip(images, changed, strict=True)]
    kept = [bool(after.equal(before)) for before, after in zip(images, changed, strict=True)]
    assert all(t or k for t, k in zip(turned, kept, strict=True))
    assert 70 < sum(turned) < 130


def test_brightness_multiplies_each_image_by_a_factor_within_its_range():
    images = torch.rand(80, 3, 8, 8) * 0.7 + 0.05
    changed = augmented(images, brightness=0.2)
    factors = (changed / images).flatten(1)
    assert (factors.max(1).values - factors.min(1).values).max() < 1e-4, "one for the whole image"
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2001


def test_noise_is_gaussian_with_a_deviation_of_its_own_for_each_image():
    images = torch.full((100, 1, 40, 40), 0.5)
    noise = (augmented(images, noise=0.1) - images).flatten(1)
    deviations = noise.std(1)
    assert deviations.max() < 0.105
    assert deviations.min() < 0.01
    assert deviations.mean().item() == pytest.approx(0.05, abs=0.012)
    standard = (noise / deviations[:, None]).flatten()
    assert standard.mean().abs() < 0.02
    assert (standard.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.01)


@pytest.mark.parametrize("percentile", [0.5, 5.0, 49.0])
def test_gray_values_are_stretched_between_numpys_percentiles_in_about_half_of_the_images(percentile):
    images = torch.rand(120, 3, 9, 7) * 0.4 + 0.2
    changed = augmented(images, intensity_percentile=percentile)
    stretched = 0
    for before, after in zip(images.double().numpy(), changed.double().numpy(), strict=True):
        if (before == after).all():
            continue
        stretched += 1
        low, high = np.percentile(before, (percentile, 100 - percentile), method="closest_observation")
        exact = np.percentile(before, (percentile, 100 - percentile))
        assert (low, high) == pytest.approx(exact, abs=0.03)
        black, white = before[after == 0].max(), before[after == 1].min()
        assert (black, white) == pytest.approx(exact, abs=0.03)
        between = (before > black) & (before < white)
        expected = (before - black) / (white - black)
        np.testing.assert_allclose(after[between], expected[between], atol=1e-5)
    assert 40 < stretched < 80


def test_of_large_images_percentiles_are_those_of_all_values_nearly():
    images = torch.rand(4, 3, 150, 160) ** 3
    changed = augmented(images, intensity_percentile=10.0)
    stretched = [number for number in range(4) if not changed[number].equal(images[number])]
    assert stretched
    for number in stretched:
        assert (changed[number] == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
        assert (changed[number] == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_an_image_of_one_gray_value_cannot_be_stretched():
    images = torch.full((20, 1, 4, 4), 0.3)
    assert augmented(images, intensity_percentile=10.0).equal(images)


def test_masks_follow_what_moves_pixels_and_nothing_else():
    masks = torch.zeros(40, 16, 16, dtype=torch.uint8)
    masks[:, 2:9, 3:7] = 1
    images = masks[:, None] * 0.4 + 0.3
    moved, moved_masks = _together(images, masks, vertical_flip=True)
    assert moved[:, 0].gt(0.5).equal(moved_masks.bool())
    assert not moved_masks.equal(masks)
    changed, kept = _together(images, masks, brightness=0.2, noise=0.05, intensity_percentile=5.0)
    assert kept.equal(masks)
    assert not changed.equal(images)


def _together(images: torch.Tensor, masks: torch.Tensor, **config) -> tuple[torch.Tensor, torch.Tensor]:
    augment = augmentation(small_config(**config))
    assert augment is not None
    torch.manual_seed(0)
    return augment.together(images, masks)


def test_every_augmentation_of_the_configuration_does_something():
    given = {"flip": True, "vertical_flip": True, "rotation_deg": 20.0}
    for name in AUGMENTATIONS:
        images = torch.rand(8, 1, 16, 16) * 0.5 + 0.2
        assert not augmented(images, **{name: given.get(name, 0.3 if name != "intensity_percentile" else 5.0)}).equal(
            images
        )
    everything = {name: given.get(name, 0.3) for name in AUGMENTATIONS}
    changed = augmented(torch.rand(8, 3, 16, 16), **everything)
    assert changed.min() >= 0
    assert changed.max() <= 1
