"""`write_report`: finished trials in; trials.parquet, report.html and report.md out.

report.html is one file that opens offline and fetches nothing: plotly's script is inside it, once.
"""

import json
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from analysis.results import Results, Unavailable
from analysis.summary import STATES, summary, summary_of
from analysis.trials import best, trials
from analysis.words import (
    configuration_words,
    folds_words,
    metric_words,
    reported_words,
    score_words,
    source_words,
    time_words,
)
from datasets import InputError
from trainables.metrics import STUDY

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["summary", "write_report"]

OF_TARGETS = ("auroc", "accuracy", "balanced_accuracy", "f1", "log_loss")
"""Beside the metric that is searched by, what a page has room for of every target; all are in the summary."""


def write_report(folder: Path) -> Path:
    """Writes trials.parquet, report.html and report.md into a results folder and returns the path of report.html."""
    import plotly.offline  # which a search needs at its end only

    from analysis import figures, prediction_figures

    results, table = Results.open(folder), trials(folder)
    context = {
        "s": summary_of(results, table),
        "states": STATES,
        "folds": folds_words(results.experiment),
        "of_targets": tuple(dict.fromkeys((results.experiment["metric"].removeprefix(STUDY), *OF_TARGETS))),
    }
    winner = best(table, results.experiment["mode"])
    number, best_epoch = (winner["number"], winner["best_epoch"]) if winner else (-1, -1)
    of_predictions: tuple[Callable[[Results, int], go.Figure], ...] = (
        (prediction_figures.dice_distribution,)
        if results.has_masks
        else (prediction_figures.confusion_matrix, prediction_figures.roc)
    )
    drawn = {
        "learning_curves": _drawn(lambda: figures.learning_curves(results, number, best_epoch), winner),
        **{figure.__name__: _drawn(partial(figure, results, number), winner) for figure in of_predictions},
        "optimization_history": _drawn(lambda: figures.optimization_history(results, table)),
        "parameter_importances": _drawn(lambda: figures.parameter_importances(results, table)),
    }
    html = _environment.get_template("report.html.j2").render(
        **context, figures=drawn, plotly_js=plotly.offline.get_plotlyjs()
    )
    markdown = _environment.get_template("report.md.j2").render(**context)
    _write(folder / "trials.parquet", table.write_parquet)
    _write(folder / "report.md", lambda file: file.write_text(markdown, encoding="utf-8"))
    _write(folder / "report.html", lambda file: file.write_text(html, encoding="utf-8"))
    return folder / "report.html"


def _drawn(figure: Callable[[], "go.Figure"], winner: object = True) -> dict[str, Any]:
    """A figure as plain JSON, or the reason why there is none."""
    try:
        if winner is None:
            raise Unavailable("No trial has a score yet.")
        drawn = json.loads(figure().to_json())
    except Unavailable as reason:
        return {"note": str(reason)}
    return {"data": drawn["data"], "layout": drawn["layout"]}


def _write(file: Path, write: Callable[[Path], object]) -> None:
    """A reader sees the old file or the new one, never half of one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(file)
    except PermissionError:
        raise InputError(f"{file} cannot be written: no permission; --json reads only") from None
    finally:
        partial.unlink(missing_ok=True)


def _date(iso: str) -> str:
    date = datetime.fromisoformat(iso)
    return f"{date.day} {date:%B %Y, %H:%M %Z}".strip()


def _cell(text: object) -> str:
    """Text that cannot break out of a cell of a Markdown table, nor into HTML."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return " ".join(escaped.split())


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
FILTERS: dict[str, Callable[..., str]] = {
    "cell": _cell,
    "configuration": lambda params: configuration_words(params, list(params)),
    "date": _date,
    "metric": metric_words,
    "reported": lambda reported: reported_words(reported["reported"], reported["images"]),
    "score": lambda row: score_words(row["mean"], row["std"]),
    "signed": lambda row: score_words(row["mean"], row["std"], sign=True),
    "source": source_words,
    "time": time_words,
}
_environment.filters |= FILTERS
