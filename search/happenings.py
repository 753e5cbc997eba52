"""What happened to a search beside its trials: `happenings.jsonl`, one line each, appended at once.

    {"at": "2026-02-03T04:05:06+01:00", "what": "node lost", "node": "…", "address": "10.0.0.7", "why": "…"}

`analysis.happenings` reads it, and has the words. A session without an `ended` was lost with its driver.
"""

import datetime
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from search.ending import Ending

NAME = "happenings.jsonl"
NODES_EVERY_S = 2.0


class Happenings(tune.Callback):
    """Sessions, nodes that come and go, trials whose process was lost or told to save, and from where they go on."""

    def __init__(self, experiment: Path, ending: Ending, finished: int, unfinished: Iterable[int]):
        """finished: how many trials were before this session. unfinished: those that go on in it."""
        self._file, self._ending = experiment / NAME, ending
        self._finished, self._unfinished = finished, sorted(unfinished)
        self._to_tell = set(self._unfinished)
        """Trials whose next report tells from where they have gone on."""
        self._nodes: dict[str, dict[str, Any]] = {}
        self._looked_at = 0.0

    def setup(self, *args: Any, **info: Any) -> None:
        if self._file.exists() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a") as file:
                file.write("\n")  # behind half a line of a session that was lost
        self._nodes = _alive(ray.nodes())
        self._looked_at = time.monotonic()
        self._note("began", finished=self._finished, unfinished=self._unfinished, nodes=len(self._nodes))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if time.monotonic() - self._looked_at >= NODES_EVERY_S:
            self._look()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = result["number"]
        if number in self._to_tell and (curve := result.get("curve")):
            self._to_tell.discard(number)
            self._note("went on", trial=number, epoch=int(curve[0]["epoch"]) - 1)
        if result.get("told_to_save") and not self._ending.asked:  # else by the search itself, as its end says
            self._note("told to save", trial=number, epoch=result["epoch"])

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its process is gone, and it begins again from its last checkpoint."""
        self._process_lost(trial)
        self._to_tell.add(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its process was lost once too often."""
        self._process_lost(trial)
        self._finished += 1
        self._note("given up", trial=trial.config["number"])

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial that gets on is not what ends its processes: Ray, which counts how often that was, begins again. So
        spot nodes may be taken away however often."""
        trial.run_metadata.num_failures = 0

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._finished += 1

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._note("ended", finished=self._finished, why=self._ending.why)

    def _process_lost(self, trial: Trial) -> None:
        last = trial.last_result
        self._note("process lost", trial=trial.config["number"], node=last.get("node"), epoch=last.get("epoch", 0))
        self._look()

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        all_nodes = ray.nodes()
        now, reasons = _alive(all_nodes), {node["NodeID"]: node.get("DeathReasonMessage") for node in all_nodes}
        for node in now.keys() - self._nodes.keys():
            self._note("node joined", node=node, **now[node])
        for node in self._nodes.keys() - now.keys():
            why = (reasons.get(node) or "").strip().partition("\n")[0]
            self._note("node lost", node=node, why=why or None, **self._nodes[node])
        self._nodes = now

    def _note(self, what: str, **details: Any) -> None:
        at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": at, "what": what, **details}) + "\n")


def _alive(nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        node["NodeID"]: {
            "address": node["NodeManagerAddress"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in nodes
        if node["Alive"]
    }
