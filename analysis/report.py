"""`write_report`: finished trials in; trials.parquet, summary.json, report.html and report.md out.

report.html is one file that opens offline and fetches nothing: plotly's script and the pictures are inside it.
"""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from analysis import seen
from analysis.all_figures import all_figures
from analysis.budget import STATES
from analysis.results import Results, Unavailable
from analysis.summary import summary, summary_of
from analysis.trials import trials
from analysis.words import (
    configuration_words,
    difference_words,
    energy_words,
    folds_words,
    interval_words,
    metric_words,
    no_markdown,
    reported_words,
    rule_words,
    score_words,
    share_words,
    source_words,
    time_words,
)
from datasets import InputError
from trainables.metrics import STUDY
from trainables.shortcuts import BORDER_TELLS, CORNERS_TELL

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["summary", "write_report"]

REPORT_FILES = ("report.html", "report.md", "summary.json", "trials.parquet")
"""What a report consists of, the page first."""
OF_TARGETS = ("auroc", "accuracy", "balanced_accuracy", "f1", "log_loss")
"""Beside the metric that is searched by, what a page has room for of every target; all are in the summary."""

ENOUGH = 3
"""Trials of which a median is told."""
SLIGHT = 0.005
"""The importance below which a parameter is not told of one by one."""


def write_report(folder: Path) -> Path:
    """Writes the files of the report into a results folder and returns the path of report.html."""
    import plotly.offline  # which a search needs at its end only

    results, table = Results.open(folder), trials(folder)
    told = summary_of(results, table)
    context = {
        "s": told,
        "states": STATES,
        "folds": folds_words(results.experiment),
        "border_tells": BORDER_TELLS,
        "corners_tell": CORNERS_TELL,
        "of_targets": tuple(dict.fromkeys((results.experiment["metric"].removeprefix(STUDY), *OF_TARGETS))),
    }
    html = environment.get_template("report.html.j2").render(
        **context,
        figures={name: drawn(figure) for name, figure in all_figures(results, table).items()},
        pictures=seen.pictures(results, told["seen"]),
        plotly_js=plotly.offline.get_plotlyjs(),
    )
    markdown = environment.get_template("report.md.j2").render(**context)
    write(folder / "trials.parquet", table.write_parquet)
    write_text(folder / "summary.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", html)
    return folder / "report.html"


def drawn(figure: Callable[[], "go.Figure"]) -> dict[str, Any]:
    """A figure as plain JSON, or the reason why there is none."""
    try:
        made = json.loads(figure().to_json())
    except Unavailable as reason:
        return {"note": str(reason)}
    return {"data": made["data"], "layout": made["layout"]}


def write_text(file: Path, text: str) -> None:
    write(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def write(file: Path, write: Callable[[Path], object]) -> None:
    """A reader sees the old file or the new one, never half of one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error}); --json reads only") from None
    finally:
        partial.unlink(missing_ok=True)


def _best_values(effects: dict[str, Any], mode: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Parameters that mattered, each with the value of the best median score, of those with `ENOUGH` trials."""
    found = []
    for parameter in effects["parameters"]:
        values = [value for value in parameter["values"] if value["trials"] >= ENOUGH]
        if values and (parameter["importance"] or 0) >= SLIGHT:
            found.append((parameter, (max if mode == "max" else min)(values, key=lambda value: value["median"])))
    return found


def _date(iso: str) -> str:
    date = datetime.fromisoformat(iso)
    return f"{date.day} {date:%B %Y, %H:%M %Z}".strip()


environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
FILTERS: dict[str, Callable[..., Any]] = {
    "best_values": _best_values,
    "cell": no_markdown,
    "configuration": lambda params: configuration_words(params, list(params)),
    "date": _date,
    "difference": lambda row: difference_words(row["difference"], row["low"], row["high"]),
    "energy": energy_words,
    "interval": lambda score: interval_words(score["score"], score["low"], score["high"]),
    "metric": metric_words,
    "reported": lambda reported: reported_words(reported["reported"], reported["images"]),
    "mean": lambda row: (
        f"{row['value']:.3f}" if row["low"] is None else interval_words(*(row[key] for key in ("value", "low", "high")))
    ),
    "rule": rule_words,
    "share_only": share_words,
    "share": lambda row: share_words(row["value"], row["low"], row["high"]),
    "score": lambda row: score_words(row["mean"], row["std"]),
    "source": source_words,
    "time": time_words,
}
environment.filters |= FILTERS
