"""Data sets whose images lie in arrays, one per part: a table with labels and identities, its pixels mapped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from datasets.arrays import contents, decode_row, header, mapped, members
from datasets.dataset import ImageDataset, Split
from datasets.errors import InputError
from datasets.folders import groups


@dataclass(frozen=True)
class Part:
    """The images of one part: rows of an array in a file, and a label for each."""

    name: str
    """First half of every `image_id`."""
    split: Split
    file: Path
    member: str | None
    labels: np.ndarray
    """int64, shape (images,)."""


def part_of(
    name: str,
    split: Split,
    images: tuple[Path, str | None],
    labels: tuple[Path, str | None],
    shape: tuple[int, ...],
    classes: int,
) -> Part:
    """The part whose images, uint8 of `shape` each, and labels lie there; of labels (N, 1) is as good as (N,).

    Raises `InputError` where shapes, types or counts do not fit each other.
    """
    found = header(*images)
    if found.dtype != np.uint8 or found.shape[1:] != shape:
        raise InputError(
            f"{_named(*images)}: holds {found.dtype} of shape {found.shape}; expected uint8 of shape "
            f"(images, {', '.join(map(str, shape))})"
        )
    values = np.asarray(mapped(*labels))
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(
            f"{_named(*labels)}: holds {values.dtype} of shape {values.shape}; expected one label per image"
        )
    if len(values) != found.shape[0]:
        raise InputError(
            f"{_named(*labels)}: {len(values):,} labels for the {found.shape[0]:,} images of {images[0].name}"
        )
    if len(values) and not 0 <= values.min() <= values.max() < classes:
        raise InputError(
            f"{_named(*labels)}: labels from {values.min()} to {values.max()}; expected 0 to {classes - 1}"
        )
    return Part(name, split, *images, values.astype(np.int64))


def keras_parts(file: Path, shape: tuple[int, ...], classes: int) -> list[Part]:
    """The two parts of an `.npz` as Keras makes them: x_train, y_train, x_test, y_test."""
    held = members(file)
    if "x_train" not in held or "y_train" not in held:
        raise InputError(f"{file}: holds {', '.join(held) or 'nothing'}; expected x_train, y_train, x_test and y_test")
    splits: list[tuple[str, Split]] = [("train", "development"), ("test", "test")]
    return [
        part_of(name, split, (file, f"x_{name}"), (file, f"y_{name}"), shape, classes)
        for name, split in splits
        if f"x_{name}" in held
    ]


def from_arrays(
    name: str, parts: Sequence[Part], classes: tuple[str, ...], channels: Literal[1, 2, 3], origin: str
) -> ImageDataset:
    """The data set of these parts. No patient or writer is known: images of the same bytes share a group."""
    tables = [
        pl.DataFrame(
            {
                "image_id": [f"{part.name}/{row:05d}" for row in range(len(part.labels))],
                "target": part.labels,
                "content": contents(mapped(part.file, part.member)),
                "array_file": [str(part.file.absolute())] * len(part.labels),
                "array_member": [part.member or ""] * len(part.labels),
                "array_row": range(len(part.labels)),
                "split": [part.split] * len(part.labels),
            },
            schema_overrides={"array_row": pl.Int64, "split": pl.String},
        )
        for part in parts
    ]
    table = pl.concat(tables)
    return ImageDataset(
        name=name,
        table=table.with_columns(group=pl.Series(groups(table["image_id"], table["content"]), dtype=pl.String)),
        classes=classes,
        decoder=decode_row,
        channels=channels,
        origin=origin,
    )


def _named(file: Path, member: str | None) -> str:
    return f"{file}, {member}" if member else str(file)
