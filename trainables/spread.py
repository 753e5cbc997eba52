"""A trial whose folds have a process each, with CPUs and a GPU, or a share of one, of their own: `--spread-folds`.

Ray reserves a bundle of resources for the trial's process, which decides (`lockstep.py`), and one for each fold. The
processes of the folds stay from trial to trial, as the trial's does, and end with it. The numbers are those of one
process that trains the folds in turn.
"""

import contextlib
import dataclasses
import gc
import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from datasets import ImageDataset
from datasets.fetching import on_this_node
from datasets.folds import Folds
from trainables.config import TrialConfig
from trainables.protocol import Protocol

if TYPE_CHECKING:  # import torch, which takes seconds: the driver only ships this
    from trainables.fold_group import Built, FoldGroup, GroupEpoch, Weights
    from trainables.objectives import Objective
    from trainables.optimisation import Phase

LOOKED_AFTER_S = 0.2
"""So often a trial that waits for its folds looks whether it is to halt."""
ANSWER_S = 60.0
"""The longest that a process takes to note that it is to halt, whatever it computes."""


def fold_processes(dataset: ImageDataset, folds: Folds, protocol: Protocol) -> list[Any]:
    """One for each fold, on the bundles of the placement group that this process is the first of; [] where it has no
    others: then folds are trained in this one. They begin to start, which is not waited for."""
    group = get_current_placement_group()
    bundles = group.bundle_specs[1:] if group is not None else []
    if not bundles:
        return []
    assert len(bundles) == len(folds), "a bundle for each fold"
    given = [ray.put(each) for each in (dataset, folds, protocol)]
    of_ray = ray.remote(concurrency_groups={"halting": 1})(FoldProcess)
    return [
        of_ray.options(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place),
        ).remote(*given, place - 1)
        for place, bundle in enumerate(bundles, 1)
    ]


class FoldProcess:
    """What the process of a fold is asked: a `FoldGroup` of this one, for one trial after another."""

    def __init__(self, dataset: ImageDataset, folds: Folds, protocol: Protocol, fold: int):
        self._dataset, self._folds, self._protocol, self._fold = dataset, folds, protocol, fold
        self._group: FoldGroup | None = None
        self._told = False
        """Since the last answer: this process, or its node, is about to end."""
        self._listen()

    def _listen(self) -> None:
        """For SIGTERM. Python would call a handler in the main thread, in which Ray waits here and no Python goes on;
        but it writes down at once that a signal has come."""
        heard, written = os.pipe()
        os.set_blocking(written, False)
        signal.signal(signal.SIGTERM, lambda *_: None)  # Ray's own would end the process
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, args=(heard,), daemon=True).start()

    def _hear(self, heard: int) -> None:
        while number := os.read(heard, 1):
            if number[0] == signal.SIGTERM:
                self._told = True
                self.halt()

    def build(self, config: TrialConfig, phases: "Sequence[Phase]") -> "Built":
        import torch

        from trainables.fold_group import FoldGroup
        from trainables.objectives import objective

        self._group = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        dataset = self._dataset = on_this_node(self._dataset)
        self._group = FoldGroup(
            config, dataset, self._folds, self._protocol, objective(dataset, config), phases, some={self._fold}
        )
        return self._group.built

    def advance(self, epoch: int, phase: "Phase", decays: int) -> "GroupEpoch":
        self.group.halting = False  # of the epoch before, which was through when it was asked for
        if self._told:
            self.halt()
        done = self.group.advance(epoch, phase, decays)
        told, self._told = self._told, False
        done = dataclasses.replace(done, told=told)
        if done.joules is None:
            return done
        share = min(1.0, ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0))  # of what others use too
        return dataclasses.replace(done, joules=done.joules * share)

    @ray.method(concurrency_group="halting")  # answered while the others compute
    def halt(self) -> None:
        if self._group is not None:
            self._group.halting = True

    def keep(self) -> None:
        self.group.keep()

    def best(self) -> "list[Weights]":
        return self.group.best()

    def states(self) -> list[dict[str, Any]]:
        return [_on_the_cpu(state) for state in self.group.states()]

    def load(self, *given: Any) -> None:
        self.group.load(*given)

    @property
    def group(self) -> "FoldGroup":
        assert self._group is not None, "build comes first"
        return self._group


class SpreadFolds:
    """A `Group` of folds that have a process each.

    What fails in one of these, a configuration that cannot be built or memory that does not suffice, is raised here as
    what it is. One that has died raises a `ray.exceptions.RayError`: the trial cannot go on without it.
    """

    def __init__(
        self,
        processes: Sequence[Any],
        config: TrialConfig,
        dataset: ImageDataset,
        folds: Folds,
        protocol: Protocol,
        objective: "Objective",
        phases: "Sequence[Phase]",
        told: Callable[[], None] = lambda: None,
    ):
        """processes: see `fold_processes`, which have the data and the folds. told: called when one of them has heard
        that it is about to end; all of them halt then. The others: see `FoldGroup`."""
        self._processes, self._told = processes, told
        self.halting = False
        of_each = self._asked("build", config, phases)
        notes = list(dict.fromkeys(note for built in of_each for note in built.notes))
        self.built: Built = dataclasses.replace(of_each[0], notes=notes)

    def advance(self, epoch: int, phase: "Phase", decays: int) -> "GroupEpoch":
        asked = [process.advance.remote(epoch, phase, decays) for process in self._processes]
        of_each: list[GroupEpoch] = self._answers(asked, self._heard)
        folds = [fold for done in of_each for fold in done.folds or ()]
        used = [done.joules for done in of_each if done.joules is not None]
        return dataclasses.replace(
            of_each[0],
            folds=folds if len(folds) == len(of_each) else None,
            joules=math.fsum(used) if len(used) == len(of_each) else None,
            parts=max(done.parts for done in of_each),
        )

    def _heard(self, done: "GroupEpoch") -> None:
        if done.told:
            self.halting = True
            self._told()

    def keep(self) -> None:
        self._asked("keep")

    def best(self) -> "list[Weights]":
        return [weights for (weights,) in self._asked("best")]

    def states(self) -> list[dict[str, Any]]:
        return [state for (state,) in self._asked("states")]

    def load(self, phase: "Phase", states: Sequence[dict[str, Any]], best: "Sequence[Weights]", in_epoch: bool) -> None:
        of_each = zip(self._processes, states, best, strict=True)
        self._answers([process.load.remote(phase, [state], [weights], in_epoch) for process, state, weights in of_each])

    def _asked(self, what: str, *given: Any) -> list[Any]:
        """The answers of all processes, in the order of the folds."""
        return self._answers([getattr(process, what).remote(*given) for process in self._processes])

    def _answers(self, asked: Sequence[Any], heard: Callable[[Any], None] = lambda answer: None) -> list[Any]:
        """heard: called with each answer as it comes."""
        answers: dict[Any, Any] = {}
        waiting = list(asked)
        try:
            while waiting:
                done, waiting = ray.wait(waiting, timeout=LOOKED_AFTER_S)
                for reference in done:
                    heard(answer := ray.get(reference))
                    answers[reference] = answer
                if self.halting and waiting:
                    self._halt()  # again each time: what came before the epoch had begun was not for it
        except RayTaskError as error:
            with contextlib.suppress(RayError):  # nobody waits for the others any more
                self._halt()
            raise error.cause from error
        return [answers[reference] for reference in asked]

    def _halt(self) -> None:
        ray.get([process.halt.remote() for process in self._processes], timeout=ANSWER_S)


def _on_the_cpu(value: Any) -> Any:
    """As it is, but for tensors: the process that asks may have no GPU."""
    import torch

    if isinstance(value, dict):
        return {key: _on_the_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_the_cpu(item) for item in value]
    return value.cpu() if torch.is_tensor(value) else value
