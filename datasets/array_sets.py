"""Data sets whose images lie in arrays, one per part: a table with labels and identities, its pixels mapped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from datasets.arrays import NAMES_TOLD, decode_row, header, mapped, names, row_digests
from datasets.dataset import ImageDataset, Skipped, Split
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


Place = tuple[Path, str | None]
"""A file, and the name of an array in it where it holds several."""


def check_part(images: Place, labels: Place, shape: tuple[int | None, ...]) -> None:
    """Raises `InputError` where these are not images, uint8 of `shape` each (None: any length), and a whole number for
    each; from their headers alone. Labels (N, 1) are as good as (N,)."""
    found, of_labels = header(*images), header(*labels)
    lengths = found.shape[1:]
    fits = len(lengths) == len(shape) and all(
        length and expected in (length, None) for length, expected in zip(lengths, shape, strict=True)
    )
    if found.dtype != np.uint8 or not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(
            f"{_named(*images)}: holds {found.dtype} of shape {found.shape}; expected uint8 of shape "
            f"(images, {expected})"
        )
    if len(of_labels.shape) not in (1, 2) or of_labels.shape[1:] not in ((), (1,)) or of_labels.dtype.kind not in "iu":
        raise InputError(
            f"{_named(*labels)}: holds {of_labels.dtype} of shape {of_labels.shape}; expected one label per image"
        )
    if of_labels.shape[0] != found.shape[0]:
        raise InputError(
            f"{_named(*labels)}: {of_labels.shape[0]:,} labels for the {found.shape[0]:,} images of "
            f"{images[1] or images[0].name}"
        )


def part_of(name: str, split: Split, images: Place, labels: Place, shape: tuple[int | None, ...], classes: int) -> Part:
    """The part whose images and labels lie there. Raises `InputError` as `check_part` does, and where a label is none
    of 0 to `classes` - 1."""
    check_part(images, labels, shape)
    values = np.asarray(mapped(*labels)).reshape(-1)
    if len(values) and not 0 <= values.min() <= values.max() < classes:
        raise InputError(
            f"{_named(*labels)}: labels from {values.min()} to {values.max()}; expected 0 to {classes - 1}"
        )
    return Part(name, split, *images, values.astype(np.int64))


def keras_parts(file: Path, shape: tuple[int, ...], classes: int) -> list[Part]:
    """The two parts of an `.npz` as Keras makes them: x_train, y_train, x_test, y_test."""
    held = names(file)
    if "x_train" not in held or "y_train" not in held:
        raise InputError(
            f"{file}: holds {', '.join(held[:NAMES_TOLD]) or 'nothing'}; expected x_train, y_train, x_test and y_test"
        )
    splits: list[tuple[str, Split]] = [("train", "development"), ("test", "test")]
    return [
        part_of(name, split, (file, f"x_{name}"), (file, f"y_{name}"), shape, classes)
        for name, split in splits
        if f"x_{name}" in held
    ]


def from_arrays(
    name: str,
    parts: Sequence[Part],
    classes: tuple[str, ...],
    channels: Literal[1, 2, 3],
    origin: str,
    skipped: Iterable[Skipped],
) -> ImageDataset:
    """The data set of these parts. No patient or writer is known: images of the same bytes share a group."""
    tables = [
        pl.DataFrame(
            {
                "image_id": [f"{part.name}/{row:05d}" for row in range(len(part.labels))],
                "target": part.labels,
                "content": row_digests(mapped(part.file, part.member)),
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
        skipped=tuple(skipped),
    )


def _named(file: Path, member: str | None) -> str:
    return f"{file}, {member}" if member else str(file)
