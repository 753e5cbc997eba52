"""`summary`: every figure of a report, ready for JSON; the report itself prints nothing else."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from analysis import seen
from analysis.budget import budget
from analysis.comparison import comparisons
from analysis.effects import effects
from analysis.estimate import estimate
from analysis.experiment import Shared
from analysis.failures import failures
from analysis.happenings import happenings
from analysis.importance import importances
from analysis.results import Finding, Reported, Results, Skipped, Unavailable
from analysis.trials import METRICS, ranked, std_of, trials
from analysis.words import configuration_words, params_of, same, telling
from trainables.metrics import STUDY

TOP = 10
NAMED = 3
"""Images of a finding that are named, of those that it counts."""
TRIAL = (
    "rank", "number", "published", "state", "score", "score_std", "fold_scores", "epochs", "best_epoch", "seconds",
    "trainable_parameters", "total_parameters", "error",
)  # fmt: skip


def summary(folder: Path) -> dict[str, Any]:
    """What a report says, for machines; an `InputError` where there is no experiment."""
    return summary_of(Results.open(folder), trials(folder))


def summary_of(results: Results, table: pl.DataFrame) -> dict[str, Any]:
    experiment = results.experiment
    order = ranked(table, experiment["mode"]).with_row_index("rank", offset=1)
    unscored = table.filter(pl.col("score").is_null()).with_columns(rank=pl.lit(None, order["rank"].dtype))
    names = telling(table)
    top = [_trial(row, names) for row in order.head(TOP).iter_rows(named=True)]
    best = top[0] if top else None
    number = best["number"] if best else None
    estimated = _told(lambda: estimate(results, table))
    compared = _told(lambda: comparisons(results, table, None if "note" in estimated else estimated))
    published = pl.concat([order, unscored], how="diagonal").filter(pl.col("published").is_not_null())
    tried = [_trial(row, names) for row in published.iter_rows(named=True)]
    return {
        "name": experiment["name"],
        "task": experiment["task"],
        "title": experiment["title"],
        "demonstration": experiment["demonstration"],
        "metric": experiment["metric"],
        "mode": experiment["mode"],
        "folds": experiment["folds"],
        "repeats": experiment["data"]["repeats"],
        "scored": order.height,
        "best": best,
        "top": top,
        "published": [
            row | {"difference": _compared(compared, row["number"]), "reported": reported}
            for row, reported in _beside_reported(tried, experiment.get("published", []), best)
        ],
        "same_in_all_trials": same(table),
        "history": table.select("number", "published", "state", "score", "score_std", "epochs", "seconds").to_dicts(),
        "curve": results.curves(best["number"]).to_dicts() if best else [],
        "targets": _targets(results, best),
        "studies": _studies(best),
        "sources": _sources(results, best),
        "importances": _told(lambda: asdict(importances(results, table))),
        "effects": _told(lambda: effects(results, table)),
        "estimate": estimated,
        "comparisons": compared,
        "failures": _told(lambda: failures(results, _scored(number))),
        "seen": {"cases": [], "warnings": []} | _told(lambda: seen.seen(results, _scored(number))),
        "test": seen.test_split(results, number),
        "notes": _notes(table),
        "budget": budget(results, table),
        "happened": happenings(results.folder),
        "data": experiment["data"]
        | {
            "groups": results.folds["group"].n_unique(),
            "dropped_for": _counted(experiment["data"]["dropped"]),
            "findings": [_found(finding) for finding in experiment["data"]["findings"]],
        },
        "elsewhere": _elsewhere(experiment.get("study")),
        "errors": table.filter(pl.col("error").is_not_null()).select("number", "error").head(TOP).to_dicts(),
        "record": {
            name: experiment[name]
            for name in (
                "command", "started", "sessions", "searcher", "scheduler", "trials", "max_epochs", "rungs", "seed",
                "folds_digest", "weights", "precision", "fixed", "versions", "commit", "machine",
            )
        },
    }  # fmt: skip


def _trial(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    metrics = [name for name in row if std_of(name) in row and name != "score" and row[name] is not None]
    params = params_of(row)
    return {
        **{name: row[name] for name in TRIAL},
        "metrics": {name: {"mean": row[name], "std": row[std_of(name)]} for name in metrics},
        "configuration": configuration_words(params, names),
        "params": params,
    }


def _elsewhere(shared: Shared | None) -> dict[str, int] | None:
    """Trials of a shared study that other searches have finished or begun; None where it is this search's alone."""
    if shared is None:
        return None
    return {"finished": shared.get("finished", 0), "unfinished": shared.get("unfinished", 0)}


def _compared(compared: list[dict[str, Any]] | dict[str, Any], number: int | None) -> dict[str, Any] | None:
    """By how much the best trial is better than another, with its interval: positive is better in either mode."""
    rows = [] if isinstance(compared, dict) else [row for row in compared if row["number"] == number]
    return next(({key: row[key] for key in ("difference", "low", "high")} for row in rows if "difference" in row), None)


def _beside_reported(
    tried: list[dict[str, Any]], recorded: list[Reported], best: dict[str, Any] | None
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each published configuration with what its authors say of it, and that score as it was reproduced here and of the
    best trial: both at the best epoch of the metric that was searched by. Those that no trial has tried come last.

    None where the record says nothing of it, as those of older searches.
    """
    says = {entry["name"]: entry for entry in recorded}
    nothing: dict[str, Any] = dict.fromkeys(TRIAL) | {"metrics": {}, "configuration": "", "params": {}}
    untried = [name for name in says if name not in {row["published"] for row in tried}]
    rows = [*tried, *(nothing | {"published": name, "state": "not tried"} for name in untried)]
    return [
        (
            row,
            None
            if (said := says.get(row["published"])) is None
            else {
                **said,
                "reproduced": row["metrics"].get(said["metric"]),
                "best_found": best["metrics"].get(said["metric"]) if best else None,
            },
        )
        for row in rows
    ]


def _targets(results: Results, best: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Each target's own metrics in the best trial, the same of all; empty where there is only one target."""
    data = results.experiment["data"]
    if best is None or not data["further"]:
        return []
    first = {"name": data["target_name"], "classes": data["classes"], "scored": True}
    targets = [first, *data["further"]]
    # A target whose AUROC is not known, as a fold lacks one of its classes, keeps its place in the table for it.
    told = [name for name in METRICS if any(f"{name}:{target['name']}" in best["metrics"] for target in targets)]
    unknown = {"mean": None, "std": None}
    return [
        {**target, "metrics": {name: best["metrics"].get(f"{name}:{target['name']}", unknown) for name in told}}
        for target in targets
    ]


def _studies(best: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Each metric of the best trial over images and over studies; empty where no studies are known."""
    of = best["metrics"] if best else {}
    names = [name.removeprefix(STUDY) for name in of if name.startswith(STUDY)]
    unknown = {"mean": None, "std": None}
    return [{"metric": name, "images": of.get(name, unknown), "studies": of[f"{STUDY}{name}"]} for name in names]


def _sources(results: Results, best: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Images of each source and the best trial's score on them; empty where folds are not sources."""
    if best is None or not results.experiment["data"]["leave_source_out"]:
        return []
    images = results.folds["fold"].value_counts().sort("fold")["count"]
    columns = (results.fold_names, images, best["fold_scores"] or [])
    return [{"source": name, "images": count, "score": score} for name, count, score in zip(*columns, strict=False)]


def _found(finding: Finding) -> dict[str, Any]:
    """A finding of the audit with the number of its images, the first of which are named: it may concern all."""
    images = finding["images"]
    count, named = (images, []) if isinstance(images, int) else (len(images), images[:NAMED])
    told = {name: finding.get(name) for name in ("check", "severity", "title", "remedy")}
    return told | {"images": count, "named": named}


def _counted(dropped: list[Skipped]) -> dict[str, int]:
    """Images per reason, without what a reason says of the single image behind its colon; most first."""
    return dict(Counter(image["reason"].partition(":")[0] for image in dropped).most_common())


def _notes(table: pl.DataFrame) -> list[dict[str, Any]]:
    """What training fell back to, and in which trials."""
    noted = table.select("number", note="notes").explode("note").drop_nulls()
    return noted.group_by("note", maintain_order=True).agg(trials="number").to_dicts()


def _scored(number: int | None) -> int:
    if number is None:
        raise Unavailable("No trial has a score yet.")
    return number


def _told(figures: Callable[[], Any]) -> Any:
    """What the trials tell, or the reason why they do not."""
    try:
        return figures()
    except Unavailable as reason:
        return {"note": str(reason)}
