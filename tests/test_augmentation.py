"""Augmentation: drawn for each image of a batch, within its ranges."""

import torch

from tests.small import small_config
from trainables.augmentation import augmentation


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


def test_images_stay_in_range():
    changed = augmented(torch.rand(8, 3, 16, 16), flip=True, rotation_deg=36.0, zoom=0.1, contrast=0.5)
    assert changed.min() >= 0
    assert changed.max() <= 1
