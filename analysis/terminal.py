"""The tables of the best trials and of the published configurations, for both command lines."""

import textwrap
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from analysis.results import Experiment
from analysis.trials import ranked
from analysis.words import (
    configuration_words,
    folds_words,
    interval_words,
    metric_words,
    params_of,
    published_words,
    reported_words,
    same,
    score_words,
    telling,
    time_words,
)

SAID = 3
"""Comparisons that the headline says in words."""


def headline(summary: dict[str, Any]) -> Text:
    """The corrected estimate with its interval, the score that it was chosen by, and what the comparisons say."""
    best, estimate = summary["best"], summary["estimate"]
    if best is None:
        return Text("No trial has a score yet.")
    metric = metric_words(summary["metric"])
    scored = (
        f"{score_words(best['score'], best['score_std'])} as scored by the images that chose trial {best['number']}"
    )
    if "note" in estimate:
        return Text.assemble((metric, "bold"), f" {scored}. No corrected estimate: {estimate['note']}")
    interval = f"{estimate['level']:.0%} interval {estimate['low']:.3f} to {estimate['high']:.3f}"
    lines = [
        Text.assemble(
            (f"{metric} {estimate['corrected']:.3f}", "bold"),
            f" ({interval}) to be expected on new images; {scored}",
        )
    ]
    if summary["test"]:
        scores = ", ".join(
            f"{row['of']} {interval_words(row['score'], row['low'], row['high'])}" for row in summary["test"]["scores"]
        )
        lines.append(Text(f"On the {summary['test']['images']:,} images of the test split: {scores}"))
    lines += [Text(f"Warning: {warning}", style="yellow") for warning in summary["seen"]["warnings"]]
    if isinstance(summary["comparisons"], list):
        lines += [Text(row["words"]) for row in summary["comparisons"] if "words" in row][:SAID]
    return Text("\n").join(lines)


def comparison_tables(compared: dict[str, Any]) -> list[Table | Text]:
    """Several experiments, of `analysis.compare`: readable from 80 columns on."""
    metric = metric_words(compared["metric"])
    table = _table(f"{len(compared['experiments'])} experiments by {metric}")
    table.add_column("experiment", overflow="fold", min_width=14)
    for name in ("corrected", "interval", "as scored", "images", "trials", "time"):
        table.add_column(name, justify="right", no_wrap=name not in ("interval",))
    best = _table("Best configurations")
    best.add_column("experiment", overflow="fold", min_width=14)
    best.add_column("trial", justify="right", no_wrap=True)
    best.add_column("configuration", overflow="fold", ratio=1)
    for row in compared["experiments"]:
        estimate, winner = row["estimate"], row["best"]
        known = "note" not in estimate
        table.add_row(
            Text(row["name"]),
            f"{estimate['corrected']:.3f}" if known else "–",
            f"{estimate['low']:.3f} to {estimate['high']:.3f}" if known else "–",
            score_words(winner["score"], winner["score_std"]) if winner else "no score",
            f"{row['images']:,}",
            str(row["trials"]["total"]),
            time_words(row["seconds"]),
        )
        if winner:
            best.add_row(Text(row["name"]), str(winner["number"]), Text(winner["configuration"]))
    said = [f"{pair['first']}, {pair['second']}: {pair.get('note') or pair['words']}" for pair in compared["paired"]]
    demonstrations = [row["name"] for row in compared["experiments"] if row["demonstration"]]
    if demonstrations:
        said.insert(0, f"DEMONSTRATION DATA, which says nothing about patients: {', '.join(demonstrations)}")
    return [table, best, Text("\n".join([*said, *compared["cautions"]]))]


def best_trials_table(trials: pl.DataFrame, experiment: Experiment, top: int = 10) -> Table:
    """The `top` best trials, best first; readable from 80 columns on."""
    order = ranked(trials, experiment["mode"])
    failed = (trials["state"] == "failed").sum()
    count = f"{trials.height} trial{'s' * (trials.height != 1)}"
    table = _table(
        title=f"{experiment['name']}: the best of {count}" + (f", {failed} failed" if failed else ""),
        caption=_caption(trials, experiment) if order.height else "No trial has a score yet.",
    )
    table.add_column("trial", justify="right", no_wrap=True)
    # As narrow as the scores below it: what is wider would push the last column out of 80.
    score = textwrap.fill(metric_words(experiment["metric"]), width=len("0.000 ± 0.000"), break_long_words=False)
    table.add_column(score, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold", ratio=1, min_width=30)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    names = telling(trials)
    for rank, row in enumerate(order.head(top).iter_rows(named=True)):
        words = Text(configuration_words(params_of(row), names))
        if row["published"]:
            words = Text(f"published: {published_words(row['published'], width=19)}\n", style="yellow") + words
        table.add_row(
            str(row["number"]),
            score_words(row["score"], row["score_std"]),
            words,
            "–" if row["epochs"] is None else str(row["epochs"]),
            time_words(row["seconds"]),
            row["state"],
            style="bold" if rank == 0 else None,
        )
    return table


def published_table(summary: dict[str, Any]) -> Table | None:
    """What was reported of every published configuration, what it scored here, and the best trial: readable from 80
    columns on. None where no configuration has a figure of its authors. `summary`: that of `analysis.summary`."""
    rows = [row for row in summary["published"] if row["reported"]]
    if not rows:
        return None
    table = _table(
        title="Against the published configurations",
        caption=f"reproduced, best found (the best trial by {metric_words(summary['metric'])}): mean ± standard "
        "deviation over the folds of this search; on other images and often for fewer epochs than reported.",
    )
    table.add_column("configuration", overflow="fold", ratio=1, min_width=16)
    table.add_column("score", overflow="fold")
    table.add_column("reported", justify="right")
    table.add_column("reproduced", justify="right", no_wrap=True)
    table.add_column("best found", justify="right", no_wrap=True)
    for row in rows:
        reported = row["reported"]
        reproduced = row["state"] if reported["reproduced"] is None else _mean_std_words(reported["reproduced"])
        table.add_row(
            Text(published_words(row["published"], width=19)),
            metric_words(reported["metric"]),
            reported_words(reported["reported"], reported["images"]),
            reproduced,
            _mean_std_words(reported["best_found"]),
        )
    return table


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=Text(title),  # names are no markup
        caption=None if caption is None else Text(caption),
        box=None,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
        header_style="bold",
    )


def _mean_std_words(values: dict[str, float | None] | None) -> str:
    return "–" if values is None else score_words(values["mean"], values["std"])


def _caption(trials: pl.DataFrame, experiment: Experiment) -> str:
    metric, better = metric_words(experiment["metric"]), "higher" if experiment["mode"] == "max" else "lower"
    equal = same(trials)
    return f"{metric}: mean ± standard deviation over {folds_words(experiment)}; {better} is better." + (
        f" The same in all trials: {configuration_words(equal, list(equal))}." if equal else ""
    )
