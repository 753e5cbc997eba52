"""What `best/` of a results folder tells a report: where the network looks, the test split, the refit.

    best/seen.json                  attention, border, cases and warnings, of the trial that was the best then
    best/pictures/*.jpg             of the cases, with and without saliency
    best/test_predictions.parquet   of the fold ensemble on the test split
    refit/test_predictions.parquet  of the network that was trained on all development images

The folder may be someone else's: what is read here is data, and no picture outside of `best/pictures` is touched.
"""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from analysis.estimate import interval
from analysis.results import Results, Unavailable
from analysis.scoring import Scoring

PICTURE = re.compile(r"pictures/[\w.-]+\.jpg")
LARGEST_BYTES = 500_000
"""Of a picture that a page carries."""
LARGEST = 1e12
"""Number that is shown."""
NUMBER = (int, float)
SCORE = {"mean": (*NUMBER, None), "std": (*NUMBER, None)}
EXCHANGED = {"same": SCORE, "other": SCORE}
SHAPE: dict[str, Any] = {
    "trial": int,
    "layer": (str, None),
    "cases": [{"image_id": str, "kind": str, "picture": (str, None), "saliency": (str, None)}],
    "attention": (
        {
            "central": str,
            "uniform": NUMBER,
            "by_class": [
                {"class": str, "images": int, **dict.fromkeys(("outside_share", "low", "high"), (*NUMBER, None))}
            ],
        },
        None,
    ),
    "border": (
        {
            "metric": str,
            "chance": NUMBER,
            "images": int,
            **dict.fromkeys(("score", "masked_border", "only_border", "only_corners"), SCORE),
            **dict.fromkeys(("border_exchanged", "corners_exchanged"), EXCHANGED),
            "each_corner": [{"corner": str, "only": SCORE}],
        },
        None,
    ),
    "warnings": [str],
    "notes": [str],
}
"""Of seen.json: a tuple has alternatives, a list the shape of what is in it; there may be more than this."""
OF_CLASSES = {"truth": str, "predicted": str, "probability": NUMBER}
OF_MASKS = {"dice": NUMBER}
"""What a case of classes has besides, and one of masks."""


def seen(results: Results, number: int) -> dict[str, Any]:
    """best/seen.json, which `python -m search.explain` writes; `Unavailable` where it is missing, damaged or of another
    trial than `number`."""
    name = results.experiment["name"]
    again = f"python -m search.explain {name} makes it"
    try:
        told = json.loads((results.folder / "best/seen.json").read_bytes())
        json.dumps(told, allow_nan=False)  # as it is written again
    except FileNotFoundError:
        raise Unavailable(f"Not looked at yet: {again}.") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"best/seen.json cannot be read ({error}): {again} again.") from None
    wrong = "" if isinstance(told, dict) else "the whole"
    for key, shape in SHAPE.items():
        wrong = wrong or ("" if _fits(told.get(key), shape) else key)
    if wrong or not all(_fits(case, OF_MASKS if results.has_masks else OF_CLASSES) for case in told["cases"]):
        raise Unavailable(f"best/seen.json is damaged ({wrong or 'cases'}): {again} again.")
    if told["trial"] != number:
        raise Unavailable(f"best/ holds trial {told['trial']}, and trial {number} is the best now: {again} again.")
    return told


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(_fits(value, one) for one in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value.get(key), one) for key, one in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(one, shape[0]) for one in value)
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        return False
    return value is None if shape is None else isinstance(value, shape)


def pictures(results: Results, told: dict[str, Any]) -> dict[str, str]:
    """The JPEG files that the cases name, as data URIs; what is missing or no JPEG is left out."""
    found = {}
    for case in told.get("cases", ()):
        for name in (case.get("picture"), case.get("saliency")):
            if not isinstance(name, str) or not PICTURE.fullmatch(name):
                continue
            content = _picture(results.folder.resolve() / "best" / name)
            if content.startswith(b"\xff\xd8\xff"):
                found[name] = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    return found


def test_split(results: Results, number: int | None) -> dict[str, Any] | None:
    """The metric of the search on the test split, which no trial has seen: `images`, `level`, `before` (trials that had
    been scored on it earlier) and `scores`, of the fold ensemble and of the refit, each with `of` and its interval.
    None where there is no test split, or where it has not been scored with trial `number`."""
    found = []
    before: list[int] = []
    for name, file in (("fold ensemble", "best/seen.json"), ("refit", "refit/test.json")):
        try:
            told = json.loads((results.folder / file).read_bytes())
            if told["trial"] != number:
                continue
            found.append({"of": name} | _scored(results, (results.folder / file).parent))
            before += [trial for trial in told.get("tested_before", []) if isinstance(trial, int)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pl.exceptions.PolarsError):
            continue  # not there, of another data set, or damaged: then there is nothing to tell
    if not found:
        return None
    first = found[0]
    return {"images": first["images"], "level": first["level"], "before": sorted(set(before)), "scores": found}


def _scored(results: Results, folder: Path) -> dict[str, Any]:
    table = pl.read_parquet(folder / "test_predictions.parquet", glob=False).with_columns(fold=pl.lit(0))
    scoring = Scoring.of(replace(results, folds=table))
    return interval(
        scoring.targets_NT,
        table.select(scoring.columns).to_numpy(),
        table["group"],
        scoring.metric,
        classes=scoring.classes,
        studies=table["study"] if scoring.study_N is not None else None,
    )


def _picture(file: Path) -> bytes:
    """Empty where it is missing, too large, or a link to somewhere else."""
    try:
        inside = file.resolve() == file and file.stat().st_size <= LARGEST_BYTES
        return file.read_bytes() if inside else b""
    except OSError:
        return b""
