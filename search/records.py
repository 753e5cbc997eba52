"""What a search writes to `results/<name>/` besides its trials, and reads again when it goes on.

experiment.json            what was asked for, on what data, with which versions
folds.parquet              one row per image, in the order of all predictions
study.db                   the Optuna study
trials/0007/               one folder per trial, see `search.callbacks`
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from analysis import Results
from analysis.results import reports, trial_folder
from datasets import InputError, Request
from datasets.fetching import recorded
from datasets.findings import Finding
from search.plan import Plan
from search.ray_session import ROOT
from search.study_address import OF_ITS_OWN, new_owner, public, without_password
from search_spaces import Published, space_digest
from trainables.metrics import METRICS

SAME_ON_RESUME = (
    "task",
    "demonstration",
    "seed",
    "metric",
    "folds",
    "max_epochs",
    "searcher",
    "scheduler",
    "weights",
    "precision",
    "fixed",
    "models",
    "space_digest",
    "only",
)
"""What must not change when a search goes on: its trials could not be compared."""
SAME_DATA_ON_RESUME = ("drop", "like", "pool", "plant", "repeats", "leave_source_out")

PACKAGES = ("ray", "torch", "torchvision", "timm", "optuna", "polars", "scikit-learn", "kornia")


def has_reported_end(folder: Path, number: int) -> bool:
    """Whether a trial has. The study may know of an end whose report was lost, with a machine or its power."""
    newest = reports(trial_folder(folder, number) / "reports.jsonl", newest=1, curves=False)
    return bool(newest and newest[0].get("done"))


def request_record(request: Request) -> dict[str, Any]:
    """By what the same images are found again, from any folder: see `search.reopened`."""
    told = dataclasses.asdict(request)
    if request.root is not None:
        told["root"] = recorded(request.root)
    if request.table is not None:  # relative to the images where it lies among them
        told["table"] = str(request.table.absolute() if request.table.exists() else request.table)
    return told | {"plant": list(request.plant)}


def write_json(file: Path, content: Any) -> None:
    """Under a temporary name, then renamed: the old file or the new one, never half of it."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(file)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else searches in this folder meanwhile. The lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--results {folder.parent}: cannot be written ({error.strerror})") from error
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise InputError(
            f"another search is running in {folder}; wait for it or choose another --name{OF_ITS_OWN}"
        ) from error


def make_record(plan: Plan) -> dict[str, Any]:
    """What `experiment.json` is to say. Raises `InputError` where a search that is to go on is another one."""
    folder = plan.options.folder
    record = _record(plan)
    if not plan.options.resume:
        return record
    before: dict[str, Any] = dict(Results.open(folder).experiment)
    _check_study(before.get("study"), plan.options.study)
    if before.get("study") is None and (folder / "trials").exists() and not (folder / "study.db").exists():
        raise InputError(f"--resume: {folder / 'study.db'} is missing, without which it cannot go on")
    for key in SAME_ON_RESUME:
        if before.get(key) != record[key]:
            raise InputError(_changed(key, before.get(key), record[key]))
    for key in SAME_DATA_ON_RESUME:
        if before["data"].get(key) != record["data"][key]:
            raise InputError(_changed(key, before["data"].get(key), record["data"][key]))
    if before["data"]["digest"] != record["data"]["digest"]:
        raise InputError(
            "--resume: the images, or what is said of them, have changed since: mend --data or --table, or choose "
            "another --name"
        )
    if before["folds_digest"] != record["folds_digest"]:
        raise InputError("--resume: this version of the program deals other folds; choose another --name")
    trials = max(record["trials"], before["trials"])
    published = max(record["published"], before.get("published", []), key=len)
    return before | {
        "trials": trials,
        "published": published,
        "sessions": before["sessions"] + record["sessions"],
        "request": record["request"],  # the images may have moved
    }


def _check_study(before: dict[str, Any] | None, given: str | None) -> None:
    """A shared study may have moved to another address; what it holds says whether it is the same."""
    if before is not None and given is None:
        raise InputError(f"--resume: it shares its study; give --study {before['address']} again")
    if before is None and given is not None:
        raise InputError("--resume: its study is its own, in study.db; leave out --study, or choose another --name")


def _changed(key: str, before: Any, now: Any) -> str:
    if key == "space_digest":
        how = "has changed since" if before and now else "was given before" if before else "was not given before"
        return f"--resume: the file of --space {how}; give the same as before, or choose another --name"
    return (
        f"--resume: {key} was {before!r} and is {now!r} now; give the same options as before, or choose another --name"
    )


def write_record(plan: Plan, record: dict[str, Any]) -> None:
    """`folds.parquet`, then `experiment.json`: where that stands, there is an experiment."""
    folder = plan.options.folder
    check_name(folder, plan.options.resume, plan.options.study is not None)  # again, now that nobody else can make it
    if not plan.options.resume:
        plan.folds.table(plan.dataset).write_parquet(folder / "folds.parquet")
    write_json(folder / "experiment.json", record)


def check_name(folder: Path, resume: bool, shares: bool = False) -> None:
    """Raises `InputError` where an experiment exists and is not to go on, or is to go on and does not exist, and where
    nothing can be written. shares: whether its study is one that several searches share."""
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "no permission" if above.is_dir() else f"{above} is a file"
        raise InputError(f"--results {folder.parent}: cannot be written ({why})")
    exists = (folder / "experiment.json").exists()
    if exists and not resume:
        raise InputError(
            f"experiment {folder.name!r} exists in {folder.parent}: go on with --resume, or choose another --name"
            f"{OF_ITS_OWN if shares else ''}"
        )
    if resume and not exists:
        raise InputError(f"--resume: there is no experiment {folder.name!r} in {folder.parent}")


def _record(plan: Plan) -> dict[str, Any]:
    options, dataset, experiment = plan.options, plan.dataset, plan.experiment
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    protocol = plan.protocol("cpu")
    return {
        "name": options.experiment_name,
        "task": options.task,
        "title": plan.title,
        "demonstration": dataset.demonstration,
        "command": _command(),
        "started": now,
        "sessions": [{"started": now, "command": _command()}],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "commit": _commit(),
        "seed": options.seed,
        "metric": experiment.metric,
        "mode": METRICS[experiment.metric],
        "folds": plan.folds.k,
        "folds_digest": plan.folds.digest,
        "max_epochs": experiment.max_epochs,
        "rungs": list(protocol.rungs),
        "trials": experiment.trials,
        "searcher": options.searcher,
        "scheduler": options.scheduler,
        "weights": plan.weights,
        "precision": experiment.precision,
        "fixed": options.fixed,
        "models": list(experiment.models) or None,
        "space": None if options.space is None else str(options.space.absolute()),
        "space_digest": None if options.space is None else space_digest(options.space),
        "only": [entry.name for entry in plan.published] if options.published_only else None,
        "published": [published_record(entry) for entry in plan.published],
        "study": None if options.study is None else {"address": without_password(options.study), "owner": new_owner()},
        "request": {**request_record(options.request), "interpolation": plan.interpolation},
        "data": {
            "images": len(dataset),
            "classes": list(dataset.classes),
            "counts": dataset.counts,
            "kind": dataset.kind,
            "digest": dataset.digest,
            "origin": dataset.origin,
            "best_accuracy": dataset.best_accuracy,
            "target_name": dataset.target_name,
            "further": [dataclasses.asdict(target) for target in dataset.further],
            "splits": plan.splits,
            "table": None if options.table is None else str(options.table),
            "drop": list(plan.drop),
            "like": list(options.like),
            "pool": options.pool,
            "plant": sorted(options.plant),
            "repeats": plan.folds.repeats,
            "leave_source_out": options.leave_source_out,
            "skipped": [dataclasses.asdict(skipped) for skipped in dataset.skipped],
            "dropped": [dataclasses.asdict(dropped) for dropped in dataset.dropped],
            "findings": [_told(finding) for finding in plan.findings],
        },
        "machine": {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform(terse=True)},
    }


def published_record(entry: Published) -> dict[str, Any]:
    """What is said of a published configuration beside its parameters, ready for JSON."""
    told = dataclasses.asdict(entry)
    return {name: told[name] for name in told if name not in ("params", "fixed")}


def _told(finding: Finding) -> dict[str, Any]:
    told = dataclasses.asdict(finding)
    return {name: told[name] for name in ("check", "severity", "title", "remedy", "images")}


def _command() -> str:
    """As it was typed, less `--resume`; empty for a notebook, where how it was called is not known."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        arguments = [public(argument) for argument in sys.argv[1:] if argument != "--resume"]
        return shlex.join(["python", "-m", program.parent.name, *arguments])
    return ""


def _commit() -> str | None:
    """Of this program's code, with a mark where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
