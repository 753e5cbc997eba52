"""Small things to test with: images whose class can be learned in an epoch or two, and configurations for them."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, Target
from datasets.folds import Folds, make_folds
from trainables.config import TrialConfig
from trainables.protocol import Protocol


def small_dataset(images: int = 48, classes: int = 2, size_px: int = 16, channels: int = 1) -> ImageDataset:
    """Noise with a bright bar whose height is the class."""
    assert channels in (1, 2, 3)
    return ImageDataset(
        name="small",
        table=pl.DataFrame(
            {
                "image_id": [f"small-{i:03d}" for i in range(images)],
                "target": [i % classes for i in range(images)],
                "group": [str(i) for i in range(images)],
                "content": [f"small {i} {classes} {size_px} {channels}" for i in range(images)],
                "size_px": [size_px] * images,
                "channels": [channels] * images,
                "classes": [classes] * images,
            }
        ),
        classes=tuple("abcdefgh"[:classes]),
        decoder=_draw,
        channels=channels,
        origin="drawn by the tests",
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(int(row["image_id"][-3:]))
    size = row["size_px"]
    image = rng.integers(0, 120, (size, size, row["channels"]))
    top = row["target"] * size // row["classes"]
    image[top : top + max(1, size // row["classes"] // 2)] += 100
    return image.astype(np.uint8)


def small_multitask(images: int = 48) -> ImageDataset:
    """As `small_dataset`, and beside the height of the bar: which half is brighter (scored), and how dark all is
    (trained along)."""
    dataset = small_dataset(images)
    return dataclasses.replace(
        dataset,
        table=dataset.table.with_columns(
            target_side=pl.Series([i // 2 % 2 for i in range(images)]),
            target_shade=pl.Series([i // 4 % 3 for i in range(images)]),
            content="multitask " + pl.col("content"),
        ),
        decoder=_draw_half,
        target_name="height",
        further=(Target("side", ("left", "right")), Target("shade", ("light", "grey", "dark"), scored=False)),
    )


def _draw_half(row: dict[str, Any]) -> np.ndarray:
    image, half = _draw(row).astype(int), row["size_px"] // 2
    image[:, half * row["target_side"] :][:, :half] += 40
    return (image // (1 + row["target_shade"])).astype(np.uint8)


def small_segmentation(images: int = 36, classes: int = 2, size_px: int = 16, channels: int = 2) -> ImageDataset:
    """Noise with a bright square, and of three classes a dark one; every sixth image has none."""
    dataset = small_dataset(images, 2, size_px, channels)
    return dataclasses.replace(
        dataset,
        table=dataset.table.with_columns(
            target=pl.lit(0), classes=classes, content=pl.format("masked {} {}", "content", pl.lit(classes))
        ),
        classes=("background", "bright", "dark")[:classes],
        decoder=_draw_squares,
        mask_decoder=_draw_mask,
    )


def _draw_mask(row: dict[str, Any]) -> np.ndarray:
    number, size = int(row["image_id"][-3:]), row["size_px"]
    rng, mask = np.random.default_rng([1, number]), np.zeros((size, size, 1), np.uint8)
    for pixel_class in range(1, row["classes"]):
        top, left = rng.integers(0, size - size // 2, 2)
        if number % 6:
            mask[top : top + size // 2, left : left + size // 2] = pixel_class
    return mask


def _draw_squares(row: dict[str, Any]) -> np.ndarray:
    mask, rng = _draw_mask(row), np.random.default_rng(int(row["image_id"][-3:]))
    return (np.array([100, 200, 0])[mask] + rng.integers(0, 40, (*mask.shape[:2], row["channels"]))).astype(np.uint8)


def small_folds(dataset: ImageDataset, k: int = 3, repeats: int = 1) -> Folds:
    return make_folds(dataset, k, seed=0, repeats=repeats)


def small_config(**given: Any) -> TrialConfig:
    params = {"model": "digits_cnn", "image_size_px": 16, "learning_rate": 3e-3, "batch_size": 8, "dense_widths": (8,)}
    return TrialConfig.of(params | given)


def small_protocol(**given: Any) -> Protocol:
    return Protocol(**{"metric": "accuracy", "max_epochs": 4, "seed": 0, "precision": "float32"} | given)


MOBILENET = {"model": "mobilenetv2_035", "image_size_px": 32, "dense_widths": (8,)}
"""A small backbone of timm, for three channels."""
