"""One search from what was asked for to its report: `run`, behind the command line and in notebooks."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.panel import Panel

import analysis
from datasets import InputError, nearest
from search.options import Options
from search.plan import Plan, make_plan
from search.ray_session import ray_session, set_environment
from search.records import alone_in, make_record, write_record
from trainables.metrics import METRICS


class Interrupted(Exception):
    """Ctrl-C: everything that was finished is kept. The message says how to go on."""


@dataclass(frozen=True)
class Result:
    """A search that has ended."""

    folder: Path

    @property
    def trials(self) -> pl.DataFrame:
        """One row per trial; the columns are those of `analysis.trials`."""
        return analysis.trials(self.folder)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best trial; None where no trial has a score."""
        return analysis.best(self.trials, METRICS[analysis.Results.open(self.folder).experiment["metric"]])

    def report(self) -> Path:
        """Write the report; returns the path of its page."""
        return analysis.write_report(self.folder)


def run(task: str, *, console: Console | None = None, **options: Any) -> Result:
    """Search and write the report. The keywords are the fields of `Options`.

    Raises `InputError` for what the user can put right, before any trial has started, and `Interrupted` on Ctrl-C.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}{nearest(name, known)}")
    paths = {name: Path(options[name]) for name in ("data", "results") if options.get(name) is not None}
    console = console or Console()
    plan = make_plan(Options(task=task, **options | paths))
    folder = plan.options.folder
    set_environment(plan.options.address)
    from search.tuning import search_trials  # imports Ray, which reads its environment then

    record = make_record(plan)
    _introduce(plan, record, console)
    complete, stay_behind = False, tuple(given.absolute() for given in paths.values())
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            resources = stack.enter_context(ray_session(plan.options.address, stay_behind))
        stack.enter_context(alone_in(folder))
        write_record(plan, record)
        with contextlib.suppress(KeyboardInterrupt):  # the second Ctrl-C; Ray turns the first into an orderly end
            complete = search_trials(plan, record, resources, console)
        page = analysis.write_report(folder)
    if not complete:
        command = record["sessions"][0]["command"].removesuffix(" --resume")
        raise Interrupted(f"Interrupted. Every finished trial is kept; go on with: {command} --resume")
    _conclude(folder, page, console)
    return Result(folder)


def _introduce(plan: Plan, record: dict[str, Any], console: Console) -> None:
    if plan.dataset.demonstration:
        console.print(Panel("DEMONSTRATION DATA: drawn by this program, no real images", style="bold", expand=False))
    data, experiment = record["data"], plan.experiment
    counts = ", ".join(f"{count} {name}" for name, count in data["counts"].items())
    console.print(f"{plan.title}: {data['images']} images ({counts}), {data['origin']}", highlight=False)
    if data["skipped"]:
        first = data["skipped"][0]
        console.print(
            f"{len(data['skipped'])} files skipped, see the report; the first: {first['path']}: {first['reason']}",
            highlight=False,
        )
    grid = f", all {len(plan.points)} points of the grid" if len(plan.points) == record["trials"] else ""
    grid = f", {record['trials']} of the {len(plan.points)} points of the grid" if plan.points and not grid else grid
    published = f", first {len(plan.published)} published ones" if plan.published else ""
    console.print(
        f"{record['trials']} trials ({plan.options.searcher}{grid}{published}), each by {plan.folds.k}-fold "
        f"cross-validation, at most {experiment.max_epochs} epochs; score: {experiment.metric}",
        highlight=False,
    )


def _conclude(folder: Path, page: Path, console: Console) -> None:
    results = analysis.Results.open(folder)
    console.print(analysis.best_trials_table(analysis.trials(folder), results.experiment))
    shown = _short(folder)
    console.print(f"Report:     {_short(page)}", highlight=False, soft_wrap=True)
    console.print(f"Study:      optuna-dashboard sqlite:///{shown / 'study.db'}", highlight=False, soft_wrap=True)
    console.print(f"Curves:     tensorboard --logdir {shown}", highlight=False, soft_wrap=True)
    if results.experiment["demonstration"]:
        console.print("DEMONSTRATION DATA: these figures say nothing about real images.", style="bold")


def _short(path: Path) -> Path:
    """Relative to where we are, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
