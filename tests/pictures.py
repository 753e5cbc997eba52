"""Data sets of given arrays, and pictures that differ as photographs do."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from datasets import ImageDataset, InputError

BROKEN = np.zeros((1, 1, 1), np.uint8)
"""Stands for a file that does not decode."""


@dataclass(frozen=True)
class Arrays:
    """A decoder that counts."""

    arrays: tuple[np.ndarray, ...]
    calls: list[int]

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        self.calls.append(row["at"])
        if self.arrays[row["at"]] is BROKEN:
            raise InputError(f"{row['image_id']}: broken image: image file is truncated")
        return self.arrays[row["at"]]


@dataclass(frozen=True)
class Masks:
    arrays: tuple[np.ndarray, ...]

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        return self.arrays[row["at"]]


def dataset_of(
    images: Sequence[np.ndarray],
    targets: Sequence[int] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    classes: tuple[str, ...] = ("benign", "malignant"),
    further: tuple[Any, ...] = (),
    **columns: Any,
) -> ImageDataset:
    """Images `a0`, `a1`, …, classes in turn unless given; equal arrays have equal content."""
    arrays = tuple(image if image.ndim == 3 else image[:, :, None] for image in images)
    numbers = range(len(arrays))
    content = [
        f"broken {i}" if array is BROKEN else hashlib.sha256(array.tobytes() + str(array.shape).encode()).hexdigest()
        for i, array in enumerate(arrays)
    ]
    if masks is not None:
        content = [
            f"{one} {hashlib.sha256(mask.tobytes()).hexdigest()}" for one, mask in zip(content, masks, strict=True)
        ]
    table = {
        "image_id": [f"a{i}" for i in numbers],
        "target": [i % len(classes) for i in numbers] if targets is None else list(targets),
        "group": [f"a{i}" for i in numbers],
        "content": content,
        "at": list(numbers),
        **columns,
    }
    channels = next((array.shape[2] for array in arrays if array is not BROKEN), 1)
    return ImageDataset(
        name="pictures",
        table=pl.DataFrame(table, schema_overrides={"image_id": pl.String, "group": pl.String, "content": pl.String}),
        classes=classes,
        decoder=Arrays(arrays, []),
        channels=channels,  # type: ignore[arg-type]
        origin="drawn by the tests",
        further=further,
        mask_decoder=None if masks is None else Masks(tuple(mask[:, :, None] for mask in masks)),
    )


def photographs(count: int, seed: int = 0, size_px: int = 64) -> list[np.ndarray]:
    """uint8 (size, size): clouds at several scales, no two alike."""
    rng = np.random.default_rng(seed)
    return [cloud(rng, size_px) for _ in range(count)]


def cloud(rng: np.random.Generator, size_px: int = 64) -> np.ndarray:
    summed = np.zeros((size_px, size_px), np.float32)
    for cells, weight in ((3, 1.0), (7, 0.7), (15, 0.5)):
        coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        summed += weight * np.asarray(coarse.resize((size_px, size_px), Image.Resampling.BICUBIC))
    return np.clip(128 + 40 * summed + rng.normal(0, 4, summed.shape), 0, 255).astype(np.uint8)


def lettered(images: list[np.ndarray]) -> list[np.ndarray]:
    """A bar in a corner, upright in one class and flat in the other."""
    marked = [image.copy() for image in images]
    rng = np.random.default_rng(0)
    for i, image in enumerate(marked):
        y, x = rng.integers(2, 5, 2)
        image[y : y + (7 if i % 2 else 2), x : x + (2 if i % 2 else 7)] = 255
        image[y + 2 : y + 4, x + 3 : x + 5] = 255
    return marked


def class_folders(root: Path) -> Path:
    """Twelve photographs of class `a` as bmp, twelve of class `b` as png."""
    for i, image in enumerate(photographs(24)):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "ab"[i % 2] / (f"{i}.png" if i % 2 else f"{i}.bmp"))
    return root
