"""Image files in, a table of what the networks of an ensemble say of them out; what the columns are, `search.predict`
says."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from datasets import InputError, Skipped, Target
from datasets.decoding import decode_file
from datasets.folders import printable
from datasets.pixels import ENOUGH_PX, squeezed

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.description import Description
    from trainables.ensemble import Ensemble

BATCH = 64
"""Images that are decoded and held at once."""
STUDY = "study"
"""How the name of a folder begins that holds the images of one study, as in MURA."""


@dataclass(frozen=True)
class Batch:
    """k networks, B images, C columns of probabilities."""

    files: list[Path]
    pixels: list[np.ndarray]
    """The squares that the networks see, uint8 (size, size, channels)."""
    probabilities_kBC: np.ndarray
    """Of masks (k, B, C, size, size)."""
    done: int
    """Files, with this batch's."""

    def rows(self, description: "Description") -> list[dict[str, Any]]:
        """Of the table."""
        rows: list[dict[str, Any]] = [{"image": printable(str(file))} for file in self.files]
        if description.kind == "segmentation":
            of_masks = (
                _of_mask(probabilities_kCHW) for probabilities_kCHW in np.moveaxis(self.probabilities_kBC, 1, 0)
            )
            return [row | told for row, told in zip(rows, of_masks, strict=True)]
        start = 0
        for target in description.targets:
            end = start + len(target.classes)
            own_BkC = np.moveaxis(self.probabilities_kBC[..., start:end], 1, 0)
            suffix = f"_{target.name}" if len(description.targets) > 1 else ""
            for row, own_kC in zip(rows, own_BkC, strict=True):
                row |= _of_target(own_kC, target, description.threshold(target), suffix)
            start = end
        return rows


def batches(ensemble: "Ensemble", files: list[Path], skipped: list[Skipped]) -> Iterator[Batch]:
    """The images of files, decoded as those of the search were; what does not decode joins `skipped`."""
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in (files[start : start + BATCH] for start in range(0, len(files), BATCH)):
            decoded = list(pool.map(lambda file: _decoded(file, ensemble.description), some))
            done += len(some)
            sound = [(file, got) for file, got in zip(some, decoded, strict=True) if isinstance(got, np.ndarray)]
            skipped += [got for got in decoded if isinstance(got, Skipped)]
            if sound:
                pixels = [got for _, got in sound]
                yield Batch([file for file, _ in sound], pixels, ensemble.predict(pixels), done)


def _decoded(file: Path, description: "Description") -> np.ndarray | Skipped:
    """Squeezed at once, so that no more than a few images are held as large as they are. Of two channels, red and
    green, as `datasets.warwick` reads them."""
    channels, size_px = description.channels, description.config.image_size_px
    try:
        pixels = decode_file(file, "L" if channels == 1 else "RGB", at_least_px=max(size_px, ENOUGH_PX))
    except InputError as error:
        return Skipped(printable(str(file)), str(error).removeprefix(f"{file}: "))
    return squeezed(pixels[:, :, :channels], size_px, description.interpolation)


def decided(probabilities_C: np.ndarray, threshold: float) -> int:
    """The class; of two, the second from the threshold on."""
    if len(probabilities_C) == 2:
        return int(probabilities_C[1] >= threshold)
    return int(probabilities_C.argmax())


def _of_target(own_kC: np.ndarray, target: Target, threshold: float, suffix: str) -> dict[str, Any]:
    mean_C = own_kC.mean(0)
    chosen = decided(mean_C, threshold)
    between = f"{suffix}:" if suffix else "_"
    return {
        f"class{suffix}": target.classes[chosen],
        f"probability{suffix}": float(mean_C[chosen]),
        f"disagreement{suffix}": float(own_kC[:, chosen].std()),
        f"dissenting{suffix}": sum(decided(of_one_C, threshold) != chosen for of_one_C in own_kC),
        **{f"probability{between}{name}": float(mean_C[index]) for index, name in enumerate(target.classes)},
    }


def _of_mask(probabilities_kCHW: np.ndarray) -> dict[str, Any]:
    together_HW = probabilities_kCHW.mean(0).argmax(0) > 0
    dice = [_dice(of_one_CHW.argmax(0) > 0, together_HW) for of_one_CHW in probabilities_kCHW]
    return {"area": float(together_HW.mean()), "disagreement": 1 - float(np.mean(dice))}


def _dice(mask_HW: np.ndarray, other_HW: np.ndarray) -> float:
    """1 where both are empty."""
    both = int(mask_HW.sum() + other_HW.sum())
    return 2 * int((mask_HW & other_HW).sum()) / both if both else 1.0


def with_studies(table: pl.DataFrame, description: "Description") -> pl.DataFrame:
    """Beside every image its study, and what the mean over the study's images says of the first target, as far as
    images lie in folders of studies; the table as it is where none does."""
    folders = [Path(image).parent for image in table["image"]]
    studies = [folder.as_posix() if folder.name.casefold().startswith(STUDY) else None for folder in folders]
    if description.kind == "segmentation" or not any(studies):
        return table
    target = description.targets[0]
    of_classes = [f"probability_{name}" for name in target.classes]
    if len(description.targets) > 1:
        of_classes = [f"probability_{target.name}:{name}" for name in target.classes]
    table = table.with_columns(pl.Series("study", studies, dtype=pl.String))
    means = table.drop_nulls("study").group_by("study", maintain_order=True).agg(pl.len(), pl.col(of_classes).mean())
    chosen = [decided(np.array(row), description.threshold(target)) for row in means.select(of_classes).iter_rows()]
    told = means.select(
        "study",
        study_images=pl.col("len"),
        study_class=pl.Series([target.classes[index] for index in chosen], dtype=pl.String),
        study_probability=pl.Series(
            [row[index] for row, index in zip(means.select(of_classes).iter_rows(), chosen, strict=True)],
            dtype=pl.Float64,
        ),
    )
    return table.join(told, on="study", how="left", maintain_order="left")
