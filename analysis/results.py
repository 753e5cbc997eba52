"""`Results`: a results folder, opened for reading.

    results/<name>/
      experiment.json            what was run, on which data, with which versions
      folds.parquet              one row per repeat and image: image_id, targets, group, repeat, fold
      study.db                   the searcher's study
      trials/0007/reports.jsonl  one line per report, oldest first
      trials/0007/checkpoint_*/  predictions.parquet, whose rows are those of folds.parquet, and checkpoint.json

Columns of predictions are the classes, of several targets `target:class`, and for masks the scores of each image.

Everything here is written while a search runs and may be cut off by a crash: reading takes what is whole.
"""

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.experiment import SINCE, Data, Experiment, Finding, Mode, Reported, Skipped, Target
from datasets import InputError, nearest

__all__ = [
    "SINCE",
    "Data",
    "Experiment",
    "Finding",
    "Mode",
    "Reported",
    "Results",
    "Skipped",
    "Target",
    "Unavailable",
    "experiments",
    "finite",
    "last_checkpoint",
    "reports",
    "trial_folder",
]

CURVE = re.compile(rb'"curve": \[(?:\{[^{}\[\]]*+\}(?:, )?)*+\]')
"""The curve of a report: whole points, in none of which another report begins."""


class Unavailable(ValueError):
    """What these trials cannot tell, and why: a report shows the reason in place of the figure."""


@dataclass(frozen=True)
class Results:
    folder: Path
    experiment: Experiment
    folds: pl.DataFrame
    """One row per repeat and image, in the order of all predictions: image_id, target, group, fold, …"""

    @staticmethod
    def open(folder: Path) -> "Results":
        """Raises `InputError` where there is no experiment, with the experiments that stand beside it."""
        try:
            experiment = json.loads((folder / "experiment.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(_absent(folder)) from None
        except OSError as error:
            raise InputError(f"{folder / 'experiment.json'} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{folder / 'experiment.json'} is damaged: {error}") from None
        is_record = isinstance(experiment, dict) and isinstance(experiment.get("data", {}), dict)
        if not is_record:
            raise InputError(f"{folder / 'experiment.json'} is damaged: it holds no record of a search")
        missing = Experiment.__required_keys__ - set(experiment)
        if missing:
            raise InputError(f"{folder / 'experiment.json'} lacks: {', '.join(sorted(missing))}")
        experiment["data"] = SINCE | experiment["data"]
        try:
            folds = pl.read_parquet(folder / "folds.parquet", glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{folder / 'folds.parquet'} cannot be read: {error}") from None
        return Results(folder, experiment, folds)

    @property
    def classes(self) -> list[str]:
        return self.experiment["data"]["classes"]

    @property
    def has_masks(self) -> bool:
        return self.experiment["data"]["kind"] == "segmentation"

    @property
    def fold_names(self) -> list[str]:
        """In the order of the folds: `fold 0`, or the source that is left out and validated on."""
        numbers = self.folds["fold"].unique().sort()
        if not (self.experiment["data"]["leave_source_out"] and "source" in self.folds.columns):
            return [f"fold {number}" for number in numbers]
        sources = dict(self.folds.select("fold", "source").iter_rows())
        return [str(sources[number]) for number in numbers]

    @property
    def targets(self) -> np.ndarray:
        """Of the first target, int64, shape (repeats * images,)."""
        return self.folds["target"].to_numpy()

    @property
    def validated_in(self) -> np.ndarray:
        """int64, shape (repeats * images,): the fold in which each image is validated; counts on over repeats."""
        return self.folds["fold"].to_numpy()

    def trial_folder(self, number: int) -> Path:
        return trial_folder(self.folder, number)

    def out_of_fold(self, number: int) -> np.ndarray:
        """Probabilities of the first target's classes, shape (repeats * images, classes)."""
        data = self.experiment["data"]
        return self.predictions(
            number, [f"{data['target_name']}:{name}" for name in self.classes] if data["further"] else self.classes
        )

    def predictions(self, number: int, columns: list[str]) -> np.ndarray:
        """Of the trial's best epoch, shape (repeats * images, columns), of its newest whole checkpoint."""
        checkpoint = last_checkpoint(self.trial_folder(number))
        if checkpoint is None:
            raise Unavailable(f"Trial {number} has no whole checkpoint, so its predictions are not known.")
        try:
            predictions = pl.read_parquet(checkpoint / "predictions.parquet", glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise Unavailable(f"The predictions of trial {number} are damaged: {error}") from None
        if predictions.height != self.folds.height or not set(columns) <= set(predictions.columns):
            raise Unavailable(
                f"The predictions of trial {number} do not fit folds.parquet: {predictions.height} rows and columns "
                f"{', '.join(predictions.columns)}, not {self.folds.height} rows and {', '.join(columns)}."
            )
        values = predictions.select(columns).to_numpy().astype(np.float64)
        if not np.isfinite(values).all():
            raise Unavailable(f"The predictions of trial {number} are not finite.")
        return values

    def params(self, number: int) -> dict[str, Any]:
        """The configuration of a trial; empty where it has reported nothing yet."""
        newest = reports(self.trial_folder(number) / "reports.jsonl", newest=1)
        return (newest[0].get("params") or {}) if newest else {}

    def curves(self, number: int) -> pl.DataFrame:
        """One row per epoch and fold: epoch, fold and what was measured (train_loss, log_loss, …), sorted."""
        points: dict[tuple[int, int], dict[str, Any]] = {}
        last = 0
        for report in reports(self.trial_folder(number) / "reports.jsonl"):
            if "error" not in report:
                last = report["epoch"]
                points |= {(point["epoch"], point["fold"]): point for point in report.get("curve", [])}
        # A trial that resumed from an older checkpoint has not yet seen the epochs that it once reported beyond it.
        rows = [point for (epoch, _), point in sorted(points.items()) if epoch <= last]
        schema = {"epoch": pl.Int64(), "fold": pl.Int64()}
        measured = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in schema]
        columns = {name: [row[name] for row in rows] for name in schema}
        columns |= {name: [finite(row.get(name)) for row in rows] for name in measured}
        return pl.DataFrame(columns, schema=schema | dict.fromkeys(measured, pl.Float64()))


def trial_folder(experiment: Path, number: int) -> Path:
    return experiment / "trials" / f"{number:04d}"


def experiments(results: Path) -> list[str]:
    """The names of the experiments below a folder."""
    return sorted(file.parent.name for file in results.glob("*/experiment.json"))


def reports(file: Path, newest: int | None = None, curves: bool = True) -> list[dict[str, Any]]:
    """The whole reports of a reports.jsonl, oldest first; of a long file only the `newest` few are parsed.

    Without `curves`, their `curve` is left empty where that can be done unread: it is most of a file.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for line in reversed(lines):
        if len(found) == newest:
            break
        report = _parsed(line if curves else CURVE.sub(b'"curve": []', line))
        if report is not None:
            found.append(report)
    return found[::-1]


def last_checkpoint(trial_folder: Path) -> Path | None:
    """The checkpoint of the highest epoch, of those that were written to the end."""
    epochs = {checkpoint: _whole_until(checkpoint) for checkpoint in trial_folder.glob("checkpoint_*")}
    whole = [(epoch, checkpoint) for checkpoint, epoch in epochs.items() if epoch is not None]
    return max(whole)[1] if whole else None


def finite(value: Any) -> float | None:
    """A number that can be computed with, or None for what is missing, not a number or infinite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole_until(checkpoint: Path) -> int | None:
    """The epoch of a checkpoint, or None where a file that it lists is missing or cut off."""
    try:
        listed = json.loads((checkpoint / "checkpoint.json").read_text())
        whole = all((checkpoint / name).stat().st_size == size for name, size in listed["files"].items())
        return int(listed["epoch"]) if whole and "predictions.parquet" in listed["files"] else None
    except (OSError, ValueError, KeyError):
        return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The report in a line, or None. After a crash in the middle of a line, a resumed search may have written on behind
    the torn half."""
    for start in chain([0], (match.start() for match in re.finditer(rb'(?<=.)\{"', line))):
        try:
            report = json.loads(line[start:])
        except ValueError:
            continue
        if isinstance(report, dict) and "number" in report:
            return report
    return None


def _absent(folder: Path) -> str:
    there = experiments(folder.parent)
    if not there:
        return f"no experiment {folder.name!r} in {folder.parent}, and no other one: python -m search TASK makes one"
    return (
        f"no experiment {folder.name!r} in {folder.parent}{nearest(folder.name, there)}\n"
        f"Experiments there: {', '.join(there)}"
    )
