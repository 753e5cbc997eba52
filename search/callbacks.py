"""What the driver does when Ray brings news of a trial: write it down, and say it.

    trials/0007/reports.jsonl          one line per report, appended
    trials/0007/fold0/, fold1/, …      the curves for TensorBoard
    trials/0007/checkpoint_000009/     see `trainables.lockstep.Lockstep.save`

Ray's order is: a report is written, then its checkpoint, and only then is the study told that a trial has finished.
"""

import json
import math
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.result import AUTO_RESULT_KEYS, SHOULD_CHECKPOINT
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from analysis.results import last_checkpoint, trial_folder
from analysis.words import configuration_words, metric_words, score_words, time_words
from search.records import write_json
from search.unanswered import is_unanswered

if TYPE_CHECKING:
    from search.mirror import Mirror

RAYS_OWN = frozenset({*AUTO_RESULT_KEYS, SHOULD_CHECKPOINT, "trial_id"})
"""What Ray adds to a report."""


def trial_dirname(trial: Trial) -> str:
    """For Ray, which makes the folders and writes the checkpoints."""
    return trial_folder(Path(), trial.config["number"]).name


def kept_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint of a trial that is to go on; the others go."""
    last = last_checkpoint(folder)
    for other in folder.glob("checkpoint_*"):
        if last is not None and other != last:
            shutil.rmtree(other)
    return last


def set_aside(experiment: Path, begun: set[int]) -> None:
    """Rename the folders of trials that the study does not know to have begun: a power cut took that from it, and they
    begin anew, or their numbers will be given to others."""
    for folder in (experiment / "trials").glob("[0-9]*"):
        if folder.name.isdecimal() and int(folder.name) not in begun:
            shutil.rmtree(aside := folder.with_name(f"lost-{folder.name}"), ignore_errors=True)
            folder.rename(aside)


def prune(folder: Path) -> None:
    """Keep one checkpoint of a finished trial: best networks, predictions and curves, no optimizer."""
    last = last_checkpoint(folder)
    if last is None:
        return
    for other in folder.glob("checkpoint_*"):
        if other != last:
            shutil.rmtree(other)
    if not (last / "state.pt").exists():
        return
    note = json.loads((last / "checkpoint.json").read_text())
    note["files"].pop("state.pt", None)
    write_json(last / "checkpoint.json", note)
    (last / "state.pt").unlink()


class Recorder(tune.Callback):
    """Appends every report to its trial's folder, adds to the curves with every checkpoint, and drops what only a
    running trial needs."""

    def __init__(self, experiment: Path, elsewhere: bool = False):
        """elsewhere: whether checkpoints are at a URL, whose mirror drops those that are no longer needed."""
        self._experiment, self._elsewhere = experiment, elsewhere
        self._curves: dict[int, list[dict[str, float]]] = {}
        """By trial, of the epochs since its checkpoint: where a process dies, they come again."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = result["number"]
        if "curve" in result and not result["curve"] and not result["done"]:
            return  # told to save in the middle of an epoch: all of it has been reported before
        _append(
            trial_folder(self._experiment, number), {key: value for key, value in result.items() if key not in RAYS_OWN}
        )
        self._curves.setdefault(number, []).extend(result.get("curve", []))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Keep the new one and the one before: after a power cut the new one may turn out not to be whole."""
        number = trial.config["number"]
        curve, folder = self._curves.pop(number, []), trial_folder(self._experiment, number)
        for fold in sorted({entry["fold"] for entry in curve}):
            _write_events(folder / f"fold{fold}", [entry for entry in curve if entry["fold"] == fold])
        if self._elsewhere:
            return
        newest, before = Path(checkpoint.path), trial.checkpoint
        for other in newest.parent.glob("checkpoint_*") if before is not None else ():
            if other not in (newest, Path(before.path)):
                shutil.rmtree(other)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process died: the trial goes on from its last checkpoint."""
        self._curves.pop(trial.config["number"], None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process died, and died again each time that Ray started the trial once more."""
        self._curves.pop(trial.config["number"], None)
        if is_unanswered(trial):
            return
        known = {key: trial.config[key] for key in ("number", "published", "params")}
        last = str(trial.get_error() or "its process died").strip().splitlines()[-1]
        _append(trial_folder(self._experiment, known["number"]), known | {"error": last, "epoch": 0, "done": True})

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._elsewhere:
            prune(trial_folder(self._experiment, trial.config["number"]))


class Mirroring(tune.Callback):
    """Tells a mirror what has changed. Comes after those who write it."""

    def __init__(self, mirror: "Mirror"):
        self._mirror = mirror

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks; a mirror has threads, and a URL that may have secrets."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._mirror.reported(result["number"])

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        self._mirror.saved(trial.config["number"], Path(checkpoint.path).name)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not is_unanswered(trial):
            self._mirror.reported(trial.config["number"])
            self._mirror.ended(trial.config["number"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._mirror.ended(trial.config["number"])


class Release(tune.Callback):
    """Forgets what Ray keeps of every trial that has ended: its last report, and statistics of each number in it. Comes
    after all others, which read that."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        trial.run_metadata.last_result = {"done": True}  # without any, Ray would ask the process
        trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps = {}, {}


class Progress(tune.Callback):
    """A line for every finished trial, and a live line where there is a terminal."""

    def __init__(self, console: Console, metric: str, trials: int, finished: int):
        """trials: how many there are to be in all; finished: how many of them were before this began."""
        self._console, self._metric, self._trials, self._finished = console, metric, trials, finished
        self._epochs: dict[int, int] = {}
        self._told: set[str] = set()
        self._began = time.monotonic()
        self._status: Status | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks; a console has locks."""
        return {**self.__dict__, "_console": None, "_status": None}

    def setup(self, *args: Any, **info: Any) -> None:
        if self._console.is_terminal:
            self._status = self._console.status(self._summary())
            self._status.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._show(trial, epoch=0)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._show(trial, epoch=result["epoch"])
        for note in result.get("notes", ()):
            if note not in self._told:
                self._told.add(note)
                self._console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        report = trial.last_result
        if "error" in report:
            self._finish(trial, f"[red]failed[/red]: {escape(report['error'].splitlines()[0])}")
            return
        name = trial.config["published"] or configuration_words(report["params"], TOLD)
        score = score_words(report[self._metric], report[f"{self._metric}_std"])
        stopped = "" if report["finished"] else "stopped, "
        seconds = time_words(report["seconds"])
        self._finish(
            trial, f"{metric_words(self._metric)} {score}  {stopped}epoch {report['epoch']}, {seconds}: {name}"
        )

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        said = f"trial {trial.config['number']} lost its process, and goes on from its last checkpoint"
        self._console.print(said, highlight=False, soft_wrap=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not is_unanswered(trial):
            self._finish(trial, "[red]failed[/red]: its process died")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        if self._status is not None:
            self._status.stop()

    def _finish(self, trial: Trial, line: str) -> None:
        self._finished += 1
        self._epochs.pop(trial.config["number"], None)
        width = len(str(self._trials))
        count = f"{self._finished:>{width}}/{self._trials}"
        self._console.print(
            f"{count}  trial {trial.config['number']:>{width}}  {line}", highlight=False, soft_wrap=True
        )
        self._update()

    def _show(self, trial: Trial, epoch: int) -> None:
        self._epochs[trial.config["number"]] = epoch
        self._update()

    def _update(self) -> None:
        if self._status is not None:
            self._status.update(self._summary())

    def _summary(self) -> str:
        running = ", ".join(f"trial {number} at epoch {epoch}" for number, epoch in sorted(self._epochs.items()))
        seconds = time.monotonic() - self._began
        return f"{self._finished} of {self._trials} trials, {seconds:.0f} s; {running or 'starting'}"


TOLD = ("model", "learning_rate", "batch_size", "dense_widths", "dropout", "unfrozen_layers", "rotation_deg")
"""Parameters that a progress line has room for."""


def _append(folder: Path, report: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "reports.jsonl").open("a") as file:
        file.write(json.dumps(_finite(report)) + "\n")


def _write_events(folder: Path, curve: list[dict[str, float]]) -> None:
    """For TensorBoard: a file of its own, so that half of one, after a crash, hides nothing else."""
    folder.mkdir(exist_ok=True)
    now = time.time()
    last = int(curve[-1]["epoch"])
    name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{last:05d}"
    file = RecordWriter((folder / name).open("wb"))
    file.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for entry in curve:
        values = [
            Summary.Value(
                tag=f"{'training' if name in ('train_loss', 'learning_rate') else 'validation'}/{name}",
                simple_value=entry[name],
            )
            for name in entry.keys() - {"epoch", "fold"}
            if math.isfinite(entry[name])
        ]
        file.write(Event(wall_time=now, step=int(entry["epoch"]), summary=Summary(value=values)).SerializeToString())
    file.close()


def _finite(value: Any) -> Any:
    """NaN is not JSON: null in its place."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
