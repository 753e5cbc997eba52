"""What the terminal shows of a search before its first trial and after its last."""

import functools
import json
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

import analysis
from analysis.words import metric_words
from datasets.remote import RemoteFolder, without_secrets
from search.options import Options
from search.plan import Plan


def introduce(plan: Plan, record: dict[str, Any], console: Console) -> None:
    """The images, what was left out of them, and what is going to be searched."""
    if plan.dataset.demonstration:
        console.print(Panel("DEMONSTRATION DATA: drawn by this program, no real images", style="bold", expand=False))
    data, experiment = record["data"], plan.experiment
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    kind = (
        "masks" if data["kind"] == "segmentation" else ", ".join(f"{n:,} {name}" for name, n in data["counts"].items())
    )
    say(f"{plan.title}: {data['images']:,} images ({kind}), {data['origin']}")
    if data["skipped"]:
        first = data["skipped"][0]
        count = f"{len(data['skipped']):,} file{'s' * (len(data['skipped']) > 1)} skipped"
        say(f"{count}, see the report; the first: {first['path']}: {first['reason']}")
    if data["dropped"]:
        reasons = Counter(dropped["reason"].partition(":")[0] for dropped in data["dropped"])
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        say(
            f"{len(data['dropped']):,} images dropped ({why}), see the report; "
            f"python -m datasets {_same_images(plan.options)} shows them"
        )
    if data["splits"]["test"]:
        say(f"{data['splits']['test']:,} further images are the test split, which no trial sees")
    how = f"grid of {len(plan.points)} points" if plan.options.searcher == "grid" else plan.options.searcher
    published_first = min(len(plan.published), record["trials"])
    published = f", first {published_first} published" if published_first else ""
    if plan.options.published_only:
        how, published = "the published configurations, none stopped", ""
    validation = f"{plan.folds.k}-fold cross-validation"
    if plan.folds.repeats > 1:
        validation += f", {plan.folds.repeats} times"
    if plan.options.leave_source_out:
        validation = f"leaving out one of {plan.folds.k} sources at a time"
    trials, epochs = (
        f"{n} {what}{'s' * (n > 1)}" for n, what in ((record["trials"], "trial"), (experiment.max_epochs, "epoch"))
    )
    say(
        f"{trials} ({how}{published}), each by {validation}, at most {epochs}; score: {metric_words(experiment.metric)}"
    )


def _same_images(options: Options) -> str:
    """The arguments by which the audit finds the images of this search."""
    said = [options.task, *(["--demo"] if options.demo else [])]
    for name in ("data", "table", "images"):
        value = getattr(options, name)
        shown = without_secrets(value.url) if isinstance(value, RemoteFolder) else str(value)
        said += [f"--{name}", shown] if value is not None else []
    said += ["--plant", ",".join(options.plant)] if options.plant else []
    said += ["--seed", str(options.seed)] if options.demo and options.seed else []
    return shlex.join(said)


def conclude(folder: Path, page: Path, console: Console) -> None:
    """The best trials, the headline, and where everything is. page: of the report."""
    results = analysis.Results.open(folder)
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    console.print(analysis.best_trials_table(analysis.trials(folder), results.experiment))
    if (published := analysis.published_table(told)) is not None:
        console.print(published)
    console.print(analysis.headline(told))
    shown = _short(folder)
    shared = results.experiment.get("study")
    study = shared["address"] if shared else f"sqlite:///{shown}/study.db"
    for line in (
        f"Report:     {_short(page)}",
        f"Study:      {_program('optuna-dashboard')} {shlex.quote(study)}",
        f"Curves:     {_program('tensorboard')} --logdir {shlex.quote(str(shown))}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if results.experiment["demonstration"]:
        console.print("DEMONSTRATION DATA: these figures say nothing about real images.", style="bold")


def _short(path: Path) -> Path:
    """Relative to where we are, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _program(name: str) -> str:
    """How to call a program of our environment from where we are."""
    return name if shutil.which(name) else str(_short(Path(sys.executable).with_name(name)))
