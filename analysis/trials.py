"""All trials of an experiment as one table: one row per trial, sorted by number.

Every frame has the columns of `SCHEMA`, `METRICS` (mean and standard deviation over folds) and `PARAMETERS` with the
same types, so that frames of several experiments stack with `pl.concat(frames, how="diagonal")`. A metric or parameter
that is not listed here becomes a further column: of numbers, truth values or text; anything else as JSON text. Where
there are several targets, each has its own metrics, `accuracy:side` and `accuracy_std:side`; where there are studies,
they have theirs, `study_accuracy` and `study_accuracy_std`.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from analysis.experiment import Mode
from analysis.results import Results, finite, reports
from trainables.metrics import OF_CLASSES, OF_MASKS

SCHEMA: dict[str, pl.DataType] = {
    "number": pl.Int64(),
    "experiment": pl.String(),
    "state": pl.String(),  # finished | stopped (by the scheduler) | failed (error, diverged) | running (or interrupted)
    "published": pl.String(),  # the published configuration that this trial repeats, e.g. svendsen2025-model2
    "metric": pl.String(),  # what `score` is
    "score": pl.Float64(),  # mean over folds at `best_epoch`; null where there is none, and for failed trials
    "score_std": pl.Float64(),  # standard deviation over folds, like all here that of a sample (k - 1)
    "fold_scores": pl.List(pl.Float64()),
    "epochs": pl.Int64(),  # trained
    "best_epoch": pl.Int64(),  # of the mean over folds
    "seconds": pl.Float64(),  # spent on the trial, all sessions together
    "report_epochs": pl.List(pl.Int64()),  # epochs at which it reported: rungs, or earlier where a step takes long
    "report_seconds": pl.List(pl.Float64()),  # spent on it until then
    "energy_joules": pl.Float64(),  # of its GPU, meanwhile; null: not recorded
    "parts": pl.Int64(),  # in which its batches were trained, where memory did not suffice for whole ones
    "notes": pl.List(pl.String()),  # what its training fell back to
    "trainable_parameters": pl.Int64(),
    "total_parameters": pl.Int64(),
    "error": pl.String(),
}
METRICS = tuple(dict.fromkeys((*OF_CLASSES, *OF_MASKS)))
PARAMETERS: dict[str, pl.DataType] = {
    "model": pl.String(),
    "image_size_px": pl.Int64(),
    "learning_rate": pl.Float64(),
    "batch_size": pl.Int64(),
    "accumulate": pl.Int64(),
    "optimizer": pl.String(),
    "momentum": pl.Float64(),
    "weight_decay": pl.Float64(),
    "schedule": pl.String(),
    "gamma": pl.Float64(),
    "decay_epochs": pl.Int64(),
    "warmup_epochs": pl.Float64(),
    "epochs": pl.Int64(),
    "patience": pl.Int64(),
    "head_epochs": pl.Int64(),
    "head_learning_rate": pl.Float64(),  # null: as later
    "head_batch_size": pl.Int64(),  # null: as later
    "body_rate": pl.Float64(),
    "label_smoothing": pl.Float64(),
    "mixup": pl.Float64(),
    "cutmix": pl.Float64(),
    "ema": pl.Float64(),
    "dense_widths": pl.List(pl.Int64()),
    "dense_batch_norm": pl.Boolean(),
    "dropout": pl.Float64(),
    "last_dropout": pl.Float64(),  # null: as the others
    "pooling": pl.String(),
    "unfrozen_layers": pl.Int64(),  # null: the whole network
    "batch_norm": pl.Boolean(),
    "width": pl.Int64(),  # null: the model's own
    "depth": pl.Int64(),  # null: the model's own
    "body_dropout": pl.Float64(),
    "activation": pl.String(),
    "pool_first": pl.Boolean(),
    "defaults": pl.String(),
    "flip": pl.Boolean(),
    "vertical_flip": pl.Boolean(),
    "rotation_deg": pl.Float64(),
    "zoom": pl.Float64(),
    "brightness": pl.Float64(),
    "contrast": pl.Float64(),
    "noise": pl.Float64(),
    "intensity_percentile": pl.Float64(),
    "views": pl.Int64(),  # augmented; 0: anew in every batch
    "balance": pl.String(),
    "oversample_to": pl.Int64(),  # null: as many as the largest class of the fold, or not oversampled
    "auxiliary_weight": pl.Float64(),
}
DIVERGED = "no finite score: the training diverged"


def trials(folder: Path) -> pl.DataFrame:
    """The table of one results folder; an `InputError` where there is no experiment."""
    experiment = Results.open(folder).experiment
    rows = []
    for trial in (path for path in (folder / "trials").glob("[0-9]*") if path.name.isdecimal()):
        lines = reports(trial / "reports.jsonl", curves=False)
        rows.append(_row(int(trial.name), lines, experiment["metric"]) | {"experiment": experiment["name"]})
    rows.sort(key=lambda row: row["number"])
    metrics = dict.fromkeys((*METRICS, *(name for row in rows for name in row["metrics"])))
    params = dict.fromkeys((*PARAMETERS, *(name for row in rows for name in row["params"])))
    columns = [pl.Series(name, [row.get(name) for row in rows], dtype, strict=False) for name, dtype in SCHEMA.items()]
    for name in metrics:
        means_stds = [row["metrics"].get(name, (None, None)) for row in rows]
        columns.append(pl.Series(name, [mean for mean, _ in means_stds], pl.Float64))
        columns.append(pl.Series(std_of(name), [std for _, std in means_stds], pl.Float64))
    for name in params:
        values = [row["params"].get(name) for row in rows]
        columns.append(_parameter(f"param.{name}", values, PARAMETERS.get(name)))
    return pl.DataFrame(columns)


def ranked(trials: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """The trials that have a score, best first; of equal scores the older trial."""
    scored = trials.filter(pl.col("score").is_not_null())
    return scored.sort("score", "number", descending=[mode == "max", False])


def best(trials: pl.DataFrame, mode: Mode) -> dict[str, Any] | None:
    """The row of the best trial, or None where no trial has a score."""
    return next(ranked(trials, mode).head(1).iter_rows(named=True), None)


def std_of(metric: str) -> str:
    """The column of its standard deviation: `accuracy_std`, `accuracy_std:side`."""
    name, colon, target = metric.partition(":")
    return f"{name}_std{colon}{target}"


def mean_std(values: Iterable[Any]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over folds; None where a fold has no finite value."""
    numbers = [finite(value) for value in values]
    whole = [number for number in numbers if number is not None]
    if not whole or len(whole) < len(numbers):
        return None, None
    mean = math.fsum(whole) / len(whole)
    # Not `statistics.stdev`, whose fractions take two thirds of the time in which large tables are read.
    squares = math.fsum((number - mean) ** 2 for number in whole)
    return mean, math.sqrt(squares / (len(whole) - 1)) if len(whole) > 1 else None


def _row(number: int, lines: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The last report says all, unless it is only an error: then the one before says how far the trial came."""
    last: dict[str, Any] = lines[-1] if lines else {}
    progress = [line for line in lines if "error" not in line]
    newest: dict[str, Any] = progress[-1] if progress else {}
    over_folds = newest.get("folds") or {}
    score = finite(newest.get(metric))
    error = last.get("error")
    if error is None and score is None and (newest.get("finished") or newest.get("done")):
        error = DIVERGED if newest.get("diverged") else "no finite score"
    if error is not None:
        state = "failed"
    elif newest.get("finished"):
        state = "finished"
    else:
        state = "stopped" if newest.get("done") else "running"
    row = {name: newest.get(name) for name in ("best_epoch", "trainable_parameters", "total_parameters", "parts")}
    # A trial that resumed from an older checkpoint has not yet seen what it once reported beyond it.
    seconds: dict[int, float | None] = {}
    for line in progress:
        seconds = {epoch: spent for epoch, spent in seconds.items() if epoch < line["epoch"]}
        seconds[line["epoch"]] = finite(line.get("seconds"))
    row |= {
        "number": number,
        "state": state,
        "published": last.get("published"),
        "metric": metric,
        "epochs": newest.get("epoch"),
        "seconds": finite(newest.get("seconds")),
        "report_epochs": list(seconds),
        "report_seconds": list(seconds.values()),
        "energy_joules": finite(newest.get("energy_joules")),
        "notes": newest.get("notes") or [],
        "params": last.get("params") or {},
        "error": error,
        "metrics": {},
    }
    if state != "failed":
        row |= {
            "score": score,
            "score_std": finite(newest.get(f"{metric}_std")),
            "fold_scores": [finite(value) for value in over_folds.get(metric, [])],
            "metrics": {name: mean_std(values) for name, values in over_folds.items()},
        }
    return row


def _parameter(name: str, values: list[Any], dtype: pl.DataType | None) -> pl.Series:
    if dtype is None:
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {bool}:
            dtype = pl.Boolean()
        elif kinds <= {int, float}:
            dtype = pl.Float64()
        else:
            dtype = pl.String()
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pl.Series(name, values, dtype, strict=False)
