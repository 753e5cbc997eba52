"""`compare`: several experiments beside each other, by one metric. python -m analysis covid mura-small mura"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from analysis.budget import STATES
from analysis.estimate import bootstrap_samples, estimate, standard_error
from analysis.report import environment, write_text
from analysis.results import Results, Unavailable, finite, reports
from analysis.scoring import Scoring, numbered
from analysis.selection import over_folds
from analysis.shares import LEVEL, Z
from analysis.trials import ranked, std_of, trials
from analysis.words import configuration_words, folds_words, params_of, telling
from datasets import InputError, nearest
from trainables.metrics import METRICS


def compare(folders: list[Path], metric: str | None = None) -> dict[str, Any]:
    """Each experiment's best trial by `metric`, its corrected estimate and its budget, and, where two experiments
    validate the same images in the same folds, the paired difference of their best trials; ready for JSON.

    Without `metric` it is what all of them searched by. An `InputError` where they searched by different ones, or where
    an experiment has no such score.
    """
    opened = [Results.open(folder) for folder in folders]
    tables = [trials(folder) for folder in folders]
    metric = _common(opened, tables, metric)
    read = [_by(metric, results, table) for results, table in zip(opened, tables, strict=True)]
    told = [
        _one(results, table, searched_by=own.experiment["metric"])
        for (results, table), own in zip(read, opened, strict=True)
    ]
    beside = [(results, one["estimate"]) for (results, _), one in zip(read, told, strict=True)]
    return {
        "metric": metric,
        "mode": METRICS[metric],
        "experiments": told,
        "paired": [_pair(*first, *second) for first, second in combinations(beside, 2)],
        "cautions": _cautions(opened),
    }


def write_comparison(compared: dict[str, Any], folder: Path) -> Path:
    """Writes comparison.html into a folder and returns its path."""
    page = folder / "comparison.html"
    write_text(page, environment.get_template("comparison.html.j2").render(c=compared, states=STATES))
    return page


def _common(opened: list[Results], tables: list[pl.DataFrame], metric: str | None) -> str:
    if metric is None:
        searched = {results.experiment["metric"] for results in opened}
        if len(searched) > 1:
            by = ", ".join(f"{results.experiment['name']} by {results.experiment['metric']}" for results in opened)
            raise InputError(f"these experiments searched by different scores ({by}): choose one with --metric")
        return searched.pop()
    if metric not in METRICS:
        raise InputError(f"--metric {metric!r} is no score{nearest(metric, list(METRICS))} Known: {', '.join(METRICS)}")
    for results, table in zip(opened, tables, strict=True):
        if results.experiment["metric"] != metric and (metric not in table.columns or not table[metric].count()):
            raise InputError(f"--metric {metric!r}: no trial of {results.experiment['name']} has that score")
    return metric


def _by(metric: str, results: Results, table: pl.DataFrame) -> tuple[Results, pl.DataFrame]:
    """The same trials, at the same epochs, as if they had been searched by another metric."""
    if results.experiment["metric"] == metric:
        return results, table
    scored = table["score"].is_not_null()
    columns: dict[str, pl.Series] = {
        "metric": pl.repeat(metric, table.height, eager=True),
        "score": table.select(pl.when(scored).then(pl.col(metric))).to_series(),
        "score_std": table.select(pl.when(scored).then(pl.col(std_of(metric)))).to_series(),
        "fold_scores": pl.Series(
            [_of_folds(results, number, metric) for number in table["number"]], dtype=pl.List(pl.Float64)
        ),
    }
    experiment: Any = results.experiment | {"metric": metric, "mode": METRICS[metric]}
    return replace(results, experiment=experiment), table.with_columns(**columns)


def _of_folds(results: Results, number: int, metric: str) -> list[float | None]:
    for report in reversed(reports(results.trial_folder(number) / "reports.jsonl", newest=2)):
        if "error" not in report:
            return [finite(value) for value in (report.get("folds") or {}).get(metric, [])]
    return []


def _one(results: Results, table: pl.DataFrame, searched_by: str) -> dict[str, Any]:
    experiment = results.experiment
    order = ranked(table, experiment["mode"])
    best = next(order.head(1).iter_rows(named=True), None)
    return {
        "name": experiment["name"],
        "title": experiment["title"],
        "demonstration": experiment["demonstration"],
        "searched_by": searched_by,
        "images": experiment["data"]["images"],
        "folds": folds_words(experiment),
        "trials": {"total": table.height, "scored": order.height}
        | {state: int((table["state"] == state).sum()) for state in STATES},
        "seconds": table["seconds"].sum(),
        "best": best
        and {
            **{name: best[name] for name in ("number", "published", "score", "score_std", "epochs", "best_epoch")},
            "configuration": configuration_words(params_of(best), telling(table)),
        },
        "estimate": _estimated(results, table, searched_by),
    }


def _estimated(results: Results, table: pl.DataFrame, searched_by: str) -> dict[str, Any]:
    try:
        return estimate(results, table, searched_by)
    except Unavailable as reason:
        return {"note": str(reason)}


def _pair(first: Results, estimated: dict[str, Any], second: Results, other: dict[str, Any]) -> dict[str, Any]:
    names = {"first": first.experiment["name"], "second": second.experiment["name"]}
    try:
        return names | _difference(first, estimated, second, other)
    except Unavailable as reason:
        return names | {"note": str(reason)}


def _difference(first: Results, estimated: dict[str, Any], second: Results, other: dict[str, Any]) -> dict[str, Any]:
    """Of the corrected scores, positive where the first is better; the interval is that of a paired bootstrap of the
    groups of images, of the networks as they are."""
    if first.experiment["data"]["digest"] != second.experiment["data"]["digest"]:
        raise Unavailable("other images: their scores are not paired.")
    if first.experiment["folds_digest"] != second.experiment["folds_digest"]:
        raise Unavailable("the same images in other folds: their scores are not paired.")
    for one in (estimated, other):
        if "note" in one:
            raise Unavailable(one["note"])
    scoring = Scoring.of(first)
    weights_NB = bootstrap_samples(scoring, numbered(first.folds["group"]))
    score_B, other_B = (
        over_folds(scoring.of_folds(results.predictions(number, list(scoring.columns)), weights_NB))
        for results, number in ((first, estimated["number"]), (second, other["number"]))
    )
    sign = 1 if METRICS[scoring.metric] == "max" else -1
    difference = sign * (estimated["corrected"] - other["corrected"]) + 0.0  # never -0.000
    spread = standard_error(score_B - other_B)
    low, high = difference - Z * spread, difference + Z * spread
    apart = not low <= 0 <= high
    names = (first.experiment["name"], second.experiment["name"])
    better, by = (names[0], (difference, low, high)) if difference >= 0 else (names[1], (-difference, -high, -low))
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "level": LEVEL,
        "distinguishable": apart,
        "words": f"{better} is better by {by[0]:.3f} ({by[1]:+.3f} to {by[2]:+.3f})"
        + ("." if apart else ": not distinguishable."),
    }


def _cautions(opened: list[Results]) -> list[str]:
    """What keeps a reader from taking the figures for a ranking."""
    told = []
    if len({results.experiment["data"]["digest"] for results in opened}) > 1:
        told.append("The experiments have other images: a difference may be one of the images and not of the networks.")
    if len({results.experiment["max_epochs"] for results in opened}) > 1:
        told.append("They had different numbers of epochs at most.")
    return told
