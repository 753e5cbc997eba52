"""`ImageDataset`: what every task's loader returns and everything downstream reads.

One row per image. Pixels are not in it: `decode(i)` fetches them, the pixel store keeps them.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from datasets.errors import InputError
from datasets.remote import RemoteFolder

Kind = Literal["binary", "multiclass", "multitask", "segmentation"]
Split = Literal["development", "test"]
Decoder = Callable[[dict[str, Any]], np.ndarray]
"""A table row in, uint8 pixels of shape (height, width, channels) out. Picklable, for the workers. Raises `InputError`
with the reason where an image does not decode. Where the row has an `at_least_px`, a smaller picture will do, as long
as its shorter side keeps to that."""


@dataclass(frozen=True)
class Skipped:
    """What was found and left out, and why: a file, or an image of a data set."""

    path: str
    reason: str


@dataclass(frozen=True)
class Target:
    """What is to be predicted beside the first target; its column is `target_<name>`."""

    name: str
    classes: tuple[str, ...]
    scored: bool = True
    """Whether it counts for a trial's score, or is only trained along (auxiliary)."""

    @property
    def column(self) -> str:
        return f"target_{self.name}"


@dataclass(frozen=True)
class Source:
    """Where files of a data set came from that lie in the store: see `datasets.fetching`."""

    root: Path | RemoteFolder
    """An archive, or what a URL names."""
    place: str
    """Of its files in the store of every machine; it changes when they do."""
    folder: Path
    """That place on the machine whose paths are in the table."""


@dataclass(frozen=True)
class ImageDataset:
    """The images of one task.

    `table` has one row per image with at least

    - `image_id` (str): unique; for files the path below the root with forward slashes;
    - `target` (int): index into `classes`; of two classes the second, index 1, is the positive one; 0 where masks
      are the target;
    - `group` (str): images of one group (a patient, a set of duplicates) never stand on both sides of a split;
    - `content` (str): the same for two images only if they are the same, byte by byte;

    optionally

    - `split`: `development`, which a search sees, or `test`, which it never does; without it all is development;
    - `source` (str): site, scanner, archive;
    - `stratum` (int): what folds are stratified by in place of the target;
    - `target_<name>` (int) of every further target;

    and whatever else `decoder` needs (a path, a random seed).
    """

    name: str
    """The task, and the stem of its two files."""
    table: pl.DataFrame
    classes: tuple[str, ...]
    """Of the first target; where masks are the target, of a pixel: background first."""
    decoder: Decoder
    channels: Literal[1, 2, 3]
    origin: str
    """Where the images came from, in words for a report: a folder, a package, `phantoms, seed 0`."""
    target_name: str = "label"
    further: tuple[Target, ...] = ()
    mask_decoder: Decoder | None = None
    """A table row in, uint8 (height, width, 1) out: the class of every pixel."""
    demonstration: bool = False
    """True for phantoms: every output then says DEMONSTRATION DATA."""
    best_accuracy: float | None = None
    """The accuracy (of masks: the mean Dice) of a perfect observer, where it is known (phantoms)."""
    skipped: tuple[Skipped, ...] = ()
    """Files that were found and are no images of this data set."""
    dropped: tuple[Skipped, ...] = ()
    """Images that a remedy has left out; see `datasets.remedies`."""
    part_of: str | None = None
    """`contents` of the data set that these images were taken from by `rows`; their numbers there are in the column
    `found_row`. Where its pixels are stored, those of a part need no decoding."""
    source: Source | None = None
    """Where its files came from, if they are in the store: another machine has them elsewhere."""

    def __post_init__(self) -> None:
        for required in ("image_id", "target", "group", "content"):
            assert required in self.table.columns, required
        if self.table["image_id"].n_unique() != len(self):
            twice = self.table.filter(pl.col("image_id").is_duplicated())["image_id"][0]
            raise InputError(f"{self.origin}: the image {twice} stands in several rows")

    def __len__(self) -> int:
        return self.table.height

    @property
    def kind(self) -> Kind:
        if self.mask_decoder is not None:
            return "segmentation"
        if self.further:
            return "multitask"
        return "binary" if len(self.classes) == 2 else "multiclass"

    @cached_property
    def digest(self) -> str:
        """Changes when any pixel, label, group, split or source does; sixteen hexadecimal digits."""
        labels = ["target", *(target.column for target in self.further)]
        told = [name for name in ("split", "source", "stratum") if name in self.table.columns]
        rows = self.table.select("image_id", "content", "group", *told, *labels).sort("image_id")
        return content_digest([repr(self.classes), rows.write_csv()])

    @cached_property
    def contents(self) -> str:
        """Changes when any pixel does, or the order of the images."""
        return content_digest([str(self.channels), decoder_name(self.decoder), *self.table["content"].to_list()])

    @property
    def targets(self) -> np.ndarray:
        """int64, shape (images,)."""
        return self.table["target"].to_numpy().astype(np.int64)

    @property
    def strata(self) -> np.ndarray:
        """int64, shape (images,): what folds are stratified by; where nothing is said, all scored targets together."""
        if "stratum" in self.table.columns:
            return self.table["stratum"].to_numpy().astype(np.int64)
        return np.unique(self.scored_targets, axis=0, return_inverse=True)[1].reshape(-1)

    @property
    def scored_targets(self) -> np.ndarray:
        """int64, shape (images, targets)."""
        columns = ["target", *(target.column for target in self.further if target.scored)]
        return self.table.select(columns).to_numpy().astype(np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Images per class, in the order of `classes`; of masks, that have no class, all images."""
        if self.kind == "segmentation":
            return {"images": len(self)}
        by_class = np.bincount(self.targets, minlength=len(self.classes))
        return dict(zip(self.classes, by_class.tolist(), strict=True))

    @property
    def splits(self) -> dict[Split, int]:
        """Images per split."""
        if "split" not in self.table.columns:
            return {"development": len(self), "test": 0}
        test = int((self.table["split"] == "test").sum())
        return {"development": len(self) - test, "test": test}

    def part(self, split: Split) -> "ImageDataset":
        """The images of one split."""
        if "split" not in self.table.columns:
            return self if split == "development" else self.rows(np.zeros(len(self), bool))
        return self.rows((self.table["split"] == split).to_numpy())

    def rows(self, keep: np.ndarray, **changes: Any) -> "ImageDataset":
        """These images only: row numbers, or a truth value per image. `changes`: other fields that change with it."""
        whole = self.table if self.part_of else self.table.with_row_index("found_row")
        table = whole.filter(keep) if keep.dtype == bool else whole[keep]
        return dataclasses.replace(self, table=table, part_of=self.part_of or self.contents, **changes)

    def decode(self, index: int, at_least_px: int | None = None) -> np.ndarray:
        """Pixels of one image: uint8 of shape (height, width, channels); the whole, or reduced to no less than that."""
        smaller = {} if at_least_px is None else {"at_least_px": at_least_px}
        pixels = self.decoder(self.table.row(index, named=True) | smaller)
        assert (pixels.dtype, *pixels.shape[2:]) == (np.uint8, self.channels), (pixels.dtype, pixels.shape)
        return pixels

    def decode_mask(self, index: int) -> np.ndarray:
        """The class of every pixel of one image: uint8 of shape (height, width, 1)."""
        assert self.mask_decoder is not None
        mask = self.mask_decoder(self.table.row(index, named=True))
        assert (mask.dtype, *mask.shape[2:]) == (np.uint8, 1), (mask.dtype, mask.shape)
        return mask


def check_searchable(dataset: ImageDataset) -> None:
    """Raises `InputError` where a class has no image: there is nothing to search for then."""
    if dataset.kind == "segmentation":
        if not len(dataset):
            raise InputError(f"{dataset.origin}: no images are left")
        return
    present = [name for name, count in dataset.counts.items() if count]
    missing = [name for name, count in dataset.counts.items() if not count]
    if len(present) < 2:
        known = f" of: {', '.join(dataset.classes)}" if len(dataset.classes) > 1 else ""
        raise InputError(
            f"{dataset.origin}: images of one class only ({present[0] if present else 'none'}), "
            f"but a search needs at least two{known}"
        )
    if missing:
        raise InputError(f"{dataset.origin}: no image of class {', '.join(missing)}")


def decoder_name(decoder: Decoder | None) -> str:
    """What a decoder is and is set to, the same in every process: a function by its name, an object by its fields."""
    if dataclasses.is_dataclass(decoder):
        fields = (decoder_name(getattr(decoder, field.name)) for field in dataclasses.fields(decoder))
        return f"{type(decoder).__qualname__}({', '.join(fields)})"
    return getattr(decoder, "__qualname__", repr(decoder))


def content_digest(parts: Iterable[str | bytes]) -> str:
    """A digest of the parts in their order; sixteen hexadecimal digits, enough to tell data sets apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]
