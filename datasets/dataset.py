"""`ImageDataset`: what every task's loader returns and everything downstream reads.

One row per image. Pixels are not in it: `decode(i)` fetches them, the pixel store keeps them.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from datasets.errors import InputError

Kind = Literal["binary", "multiclass"]
Decoder = Callable[[dict[str, Any]], np.ndarray]
"""A table row in, uint8 pixels of shape (height, width, channels) out. Importable, so that workers can unpickle it."""


@dataclass(frozen=True)
class Skipped:
    """A file that was found and left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ImageDataset:
    """The development images of one task.

    `table` has one row per image with at least

    - `image_id` (str): unique; for files the path below the root with forward slashes;
    - `target` (int): index into `classes`; of two classes the second, index 1, is the positive one;
    - `group` (str): images of one group (a patient, a set of duplicates) never stand on both sides of a split;

    and whatever else `decoder` needs (a path, a random seed) or a report may show (`source`).
    """

    name: str
    """The task, and the stem of its two files."""
    table: pl.DataFrame
    classes: tuple[str, ...]
    decoder: Decoder
    channels: Literal[1, 3]
    origin: str
    """Where the images came from, in words for a report: a folder, a package, `phantoms, seed 0`."""
    digest: str
    """Changes when any pixel, label or group does; see `content_digest`."""
    demonstration: bool = False
    """True for phantoms: every output then says DEMONSTRATION DATA."""
    best_accuracy: float | None = None
    """The accuracy of a perfect observer, where it is known (phantoms)."""
    skipped: tuple[Skipped, ...] = field(default=())

    def __post_init__(self) -> None:
        counts = self.counts
        present = [name for name, count in counts.items() if count]
        if len(present) < 2:
            raise InputError(
                f"{self.origin}: images of one class only ({present[0] if present else 'none'}), "
                f"but a search needs at least two of: {', '.join(self.classes)}"
            )
        missing = [name for name, count in counts.items() if not count]
        if missing:
            raise InputError(f"{self.origin}: no image of class {', '.join(missing)}")
        if self.table["image_id"].n_unique() != len(self):
            raise InputError(f"{self.origin}: the same image_id stands in several rows")

    def __len__(self) -> int:
        return self.table.height

    @property
    def kind(self) -> Kind:
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def targets(self) -> np.ndarray:
        """int64, shape (images,)."""
        return self.table["target"].to_numpy().astype(np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Images per class, in the order of `classes`."""
        by_class = np.bincount(self.targets, minlength=len(self.classes))
        return dict(zip(self.classes, by_class.tolist(), strict=True))

    def decode(self, index: int) -> np.ndarray:
        """Pixels of one image: uint8 of shape (height, width, channels)."""
        pixels = self.decoder(self.table.row(index, named=True))
        assert (pixels.dtype, *pixels.shape[2:]) == (np.uint8, self.channels), (pixels.dtype, pixels.shape)
        return pixels


def content_digest(parts: Iterable[str | bytes]) -> str:
    """A digest of the parts in their order; sixteen hexadecimal digits, enough to tell data sets apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]
