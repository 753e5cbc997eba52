"""How a search ends when it is asked to: no new trial begins, those that are running save at once, then all ends."""

import os
import signal
import time
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from search.ending import Ending
from search.ray_session import Share, nodes_now

LONGEST_S = 20.0
"""That running trials are given to save: Slurm, systemd and Kubernetes kill after 30 or more."""
ROOM_EVERY_S = 5.0


class Farewell(tune.Callback, tune.Stopper):
    """Ray asks it after every step of the search whether to stop."""

    def __init__(self, ending: Ending, console: Console):
        self._ending, self._console = ending, console
        self._waited_for: set[int] | None = None
        """Trials that have been told to save and have not; None until the search is asked to end."""
        self._until, self._ends = 0.0, False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks; a console has locks."""
        return {**self.__dict__, "_console": None}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no trial by itself

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        why = self._ending.why
        if why is None or self._waited_for is not None:
            return
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        self._waited_for = {trial.config["number"] for trial in running}
        self._until = time.monotonic() + LONGEST_S
        tell_to_save(running)
        who = "1 running trial saves, then " if len(running) == 1 else f"{len(running)} running trials save, then "
        again = "once more" if self._ending.signal else "Ctrl-C"
        self._console.print(
            f"{why[0].upper()}{why[1:]}: {who if running else ''}the search ends; {again} ends it at once",
            highlight=False,
            soft_wrap=True,
        )

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._waited_for is not None and (not self._waited_for or time.monotonic() > self._until):
            # What has been saved goes on meanwhile; Ray would wait for it.
            tell_to_save([trial for trial in trials if trial.status == Trial.RUNNING])
            self._ends = True

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._is_through(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._is_through(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._is_through(trial)  # its process is gone, and what it had saved is there

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._is_through(trial)

    def _is_through(self, trial: Trial) -> None:
        if self._waited_for is not None:
            self._waited_for.discard(trial.config["number"])

    def stop_all(self) -> bool:
        return self._ends


class Room(ConcurrencyLimiter):
    """As many trials at a time as there is room for: a node that comes is used, and nothing is proposed for one that
    has gone. None any more once the search is to end."""

    def __init__(self, searcher: Searcher, share: Share, ending: Ending, *, follows: bool):
        """follows: whether the number is that of what Ray has now; else `share.side_by_side` all the time."""
        self._share, self._ending, self._follows = share, ending, follows
        self._looked_at = time.monotonic()
        super().__init__(searcher, max_concurrent=share.side_by_side)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._ending.asked:
            return str(Searcher.FINISHED)
        if self._follows and time.monotonic() - self._looked_at > ROOM_EVERY_S:
            self._looked_at = time.monotonic()
            self.max_concurrent = self._share.room(nodes_now())
        suggestion: dict[str, Any] | str | None = super().suggest(trial_id)
        return suggestion


def tell_to_save(trials: list[Trial]) -> None:
    """SIGTERM to the process of each, on whichever node it is; and none to one that is just being replaced."""
    from ray._private.state import actors  # of Ray's interfaces the only one that tells a process and its node

    by_node: dict[str, list[int]] = {}
    for trial in trials:
        actor = trial.temporary_state.ray_actor
        known = actors(actor._actor_id.hex()) if actor is not None else {}
        if known.get("State") == "ALIVE" and known["Pid"]:
            by_node.setdefault(known["Address"]["NodeID"], []).append(known["Pid"])
    here = ray.get_runtime_context().get_node_id()
    for node, processes in by_node.items():
        if node == here:
            _terminate(processes)
        else:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(_terminate).options(num_cpus=0, scheduling_strategy=there).remote(processes)


def _terminate(processes: list[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            continue
