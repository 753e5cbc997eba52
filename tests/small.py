"""Small things to test with: images whose class can be learned in an epoch or two, and configurations for them."""

from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, content_digest
from datasets.folds import Folds, make_folds
from trainables.config import TrialConfig
from trainables.protocol import Protocol


def small_dataset(images: int = 48, classes: int = 2, size_px: int = 16, channels: int = 1) -> ImageDataset:
    """Noise with a bright bar whose height is the class."""
    return ImageDataset(
        name="small",
        table=pl.DataFrame(
            {
                "image_id": [f"small-{i:03d}" for i in range(images)],
                "target": [i % classes for i in range(images)],
                "group": [str(i) for i in range(images)],
                "size_px": [size_px] * images,
                "channels": [channels] * images,
                "classes": [classes] * images,
            }
        ),
        classes=tuple("abcdefgh"[:classes]),
        decoder=_draw,
        channels=1 if channels == 1 else 3,
        origin="drawn by the tests",
        digest=content_digest([f"{images} {classes} {size_px} {channels}"]),
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(int(row["image_id"][-3:]))
    size = row["size_px"]
    image = rng.integers(0, 120, (size, size, row["channels"]))
    top = row["target"] * size // row["classes"]
    image[top : top + max(1, size // row["classes"] // 2)] += 100
    return image.astype(np.uint8)


def small_folds(dataset: ImageDataset, k: int = 3) -> Folds:
    return make_folds(dataset, k, seed=0)


def small_config(**given: Any) -> TrialConfig:
    params = {"model": "digits_cnn", "image_size_px": 16, "learning_rate": 3e-3, "batch_size": 8, "dense_widths": (8,)}
    return TrialConfig.of(params | given)


def small_protocol(**given: Any) -> Protocol:
    return Protocol(**{"metric": "accuracy", "max_epochs": 4, "seed": 0, "precision": "float32"} | given)


MOBILENET = {"model": "mobilenetv2_035", "image_size_px": 32, "dense_widths": (8,)}
"""A small backbone of timm, for three channels."""
