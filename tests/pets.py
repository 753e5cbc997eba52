"""A small data set of phantoms with simple pictures, for the tests of the frame and of the pitfalls."""

from typing import Any

import numpy as np

from datasets.dataset import ImageDataset, Target
from datasets.phantoms import mixed_up, phantom_dataset, planted

CLASSES = ("cat", "dog", "owl")
DEVELOPMENT, TEST = (300, 200, 100), (60, 40, 20)
PARTS = Target("part", ("ARM", "LEG"))
SIDE = 32


def draw(row: dict[str, Any]) -> np.ndarray:
    """Soft blobs of the image's own on the gray of its appearance."""
    coarse_HWC = np.random.default_rng(row["draw"]).integers(40, 90, (4, 4, 1))
    return (np.kron(coarse_HWC[:, :, 0], np.ones((8, 8)))[:, :, None] + 30 * row["appearance"]).astype(np.uint8)


def draw_mask(row: dict[str, Any]) -> np.ndarray:
    return np.random.default_rng(row["draw"]).integers(0, 2, (SIDE, SIDE, 1)).astype(np.uint8)


def phantoms(plant=(), images=None, seed=0, **changes) -> ImageDataset:
    asked = {"confusion": mixed_up(3, 0.1), "channels": 1} | changes
    return phantom_dataset("pets", CLASSES, draw, DEVELOPMENT, TEST, seed=seed, images=images, plant=plant, **asked)


def segmented(plant=()) -> ImageDataset:
    masks = {"mask": draw_mask, "looks": ("benign", "malignant"), "best_dice": 0.9}
    return phantom_dataset("glands", ("background", "gland"), draw, (37, 48), channels=1, plant=plant, **masks)


def copies(dataset: ImageDataset, pitfall: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = dataset.table.filter(planted(dataset, pitfall))
    return [
        (row, dataset.table.filter(dataset.table["image_id"] == row["copy_of"]).row(0, named=True))
        for row in found.iter_rows(named=True)
    ]
