"""The Ray Tune trainable: one configuration in, k trained folds and their scores out.

Only this file and `spread.py` know Ray. What is trained, and how, is in `lockstep.py`; this maps it to Tune's words:

    setup, reset_config   a configuration         {"number", "published", "continue_from", "params"}
    step                  train to the next rung  -> a report
    save_, load_checkpoint
"""

import contextlib
import gc
import math
import re
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.result import SHOULD_CHECKPOINT

from datasets import ImageDataset
from datasets.fetching import on_this_node
from datasets.folds import Folds
from datasets.passing import passing_folder
from datasets.remote import NoAnswerError, RemoteFolder, patiently
from trainables.config import TrialConfig
from trainables.protocol import Protocol
from trainables.spread import SpreadFolds, fold_processes

if TYPE_CHECKING:  # imports torch, which takes seconds: the driver names this class only, and trains nothing
    from trainables.lockstep import Lockstep

SAVED_AFTER_S, SAVING_SHARE = 1.0, 0.05
"""A trial that goes on is saved at a rung where so much of it would be lost otherwise, and where saving takes no more
than this share of its time: it may take longer than to train a small trial. Every trial is saved at its end."""
SAVED_BYTES_PER_S = 2e8
"""At least, with an optimizer's 16 bytes for each parameter that is trained."""
LONGEST_STEP_S = 60.0
"""A step ends after the epoch in which this time is over, even between rungs: so that much may be lost at most when a
process dies. Schedulers decide at rungs only."""

IN_BETWEEN = re.compile(r"checkpoint_(\d{6})_(\d{6})_")


class CrossValidation(tune.Trainable):
    """One trial at a time, all k folds in lockstep. Reused from trial to trial, so that a process starts once."""

    def setup(
        self,
        config: dict[str, Any],
        dataset: ImageDataset,
        folds: Folds,
        protocol: Protocol,
        remote: RemoteFolder | None = None,
    ) -> None:
        """All but `config` is the same for all trials (`tune.with_parameters`).

        remote: where the folders of trials are; None: in a folder of results that all nodes see.
        """
        self._dataset, self._folds, self._protocol, self._remote = dataset, folds, protocol, remote
        self._lockstep: Lockstep | None = None
        self._fold_processes = fold_processes(dataset, folds, protocol) if self.is_actor() else []
        self._is_first = True
        self._told_to_save = False
        """Since the last report: this process, or its node, is about to end."""
        self._in_between = False
        """Whether the last report came for that; its epoch may have a checkpoint already, which must stay whole."""
        if self.is_actor():  # and the process is its own
            signal.signal(signal.SIGTERM, self._save_soon)  # Ray's own would end the process
        self._begin()

    def _save_soon(self, *_: int | FrameType | None) -> None:
        """The step ends after the present batch, and a checkpoint follows. Training goes on until the process is ended:
        not everybody who warns does it."""
        self._told_to_save = True
        if self._lockstep is not None:
            self._lockstep.halt()

    def _begin(self) -> None:
        self._saved_in_between = (0, 0)
        """The epoch after which there have been checkpoints in between, and how many."""
        self._saved_at, self._saving_took = time.monotonic(), 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        import torch

        self._lockstep = None
        self._begin()
        gc.collect()
        if self._is_first:
            # All modules are imported now and stay. To look through them again takes longer than a small trial.
            gc.freeze()
            self._is_first = False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        """An error of the trial itself (a configuration that cannot be built, memory that does not suffice) would come
        again: it is reported and ends the trial. Only the death of a process is left to Ray, which tries twice more."""
        try:
            report = self._train_to_next_rung()
        except (ray.exceptions.RayError, NoAnswerError):  # a fold's process has died, and this one ends with it
            raise
        except Exception as error:
            import torch

            from trainables.memory import is_out_of_memory

            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                raise  # the process can do no more on its GPU
            self._lockstep = None  # its memory, and a state in the middle of an epoch
            message = f"{type(error).__name__}: {error}"
            report = {
                "error": message,
                "traceback": traceback.format_exc(),
                "epoch": 0,
                self._protocol.metric: math.nan,
                "done": True,
            }
        told_to_save, self._told_to_save = self._told_to_save, False
        self._in_between = told_to_save
        unsaved = time.monotonic() - self._saved_at
        took = self._saving_took or 16 * report.get("trainable_parameters", 0) * len(self._folds) / SAVED_BYTES_PER_S
        return {
            **report,
            SHOULD_CHECKPOINT: told_to_save or unsaved >= max(SAVED_AFTER_S, took / SAVING_SHARE),
            **({"told_to_save": True} if told_to_save else {}),
            "number": self.config["number"],
            "published": self.config["published"],
            "params": self.config["params"],
            "node": ray.get_runtime_context().get_node_id() if self.is_actor() else "",
        }

    def save(self, checkpoint_dir: str | None = None) -> _TrainingResult:
        """Straight into the trial's folder of results, where Ray would write to a temporary one and copy; what is half
        written does not count (`checkpoint.json`). The result holds no report: Ray keeps it, and has that already."""
        if checkpoint_dir is not None or self._storage is None:
            return super().save(checkpoint_dir)
        folder = Path(self._storage.trial_fs_path) / self._checkpoint_name()
        if self._remote is not None:
            self._send(self._remote, _place(folder))
        else:
            self._storage._check_validation_file()  # says what to do where this node does not see the results
            shutil.rmtree(folder, ignore_errors=True)  # of a process that died before Ray knew of it
            folder.mkdir(parents=True)
            self.save_checkpoint(str(folder))
        checkpoint = tune.Checkpoint(str(folder), self._storage.storage_filesystem)
        return _TrainingResult(checkpoint, {"training_iteration": self.iteration})

    def _checkpoint_name(self) -> str:
        """By epoch, so that a trial that goes on in another session writes over nothing that counts; in between also by
        how many there have been before in this epoch, as clocks of nodes differ, and by time, as one may have been lost
        with its process. So the last by name is the last."""
        epoch = self._lockstep.epoch if self._lockstep is not None else 0
        if not self._in_between:
            return f"checkpoint_{epoch:06d}"
        of_epoch, before = self._saved_in_between
        self._saved_in_between = (epoch, before + 1 if of_epoch == epoch else 1)
        return f"checkpoint_{epoch:06d}_{self._saved_in_between[1]:06d}_{time.time_ns()}"

    def _send(self, remote: RemoteFolder, place: str) -> None:
        """`checkpoint.json` last: without it the others do not count."""
        with passing_folder() as passing:
            folder = passing / place
            folder.mkdir(parents=True)
            self.save_checkpoint(str(folder))
            names = [f"{place}/{file.name}" for file in folder.iterdir()]
            note = [name for name in names if name.endswith("/checkpoint.json")]
            patiently(lambda: remote.remove(note))
            patiently(lambda: remote.send([name for name in names if name not in note], passing))
            patiently(lambda: remote.send(note, passing))
        self._saving_took = time.monotonic() - self._saved_at + self._saving_took
        self._saved_at = time.monotonic()

    def restore(self, checkpoint_path: Any) -> None:
        """After the death of a process, from the last checkpoint that Ray knows of."""
        if self._remote is None:
            super().restore(checkpoint_path)
            return
        with self._fetched(checkpoint_path.checkpoint.path) as folder:
            super().restore(_TrainingResult(tune.Checkpoint(str(folder)), checkpoint_path.metrics))

    @contextlib.contextmanager
    def _fetched(self, checkpoint: str) -> Iterator[Path]:
        """A checkpoint as a folder that this node sees, by its path in the results of the driver."""
        if self._remote is None:
            yield Path(checkpoint)
            return
        remote, place = self._remote, _place(Path(checkpoint))
        with passing_folder() as passing:
            patiently(lambda: remote.fetch(remote.listed(place), passing))
            yield passing / place

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        began = time.monotonic()
        if self._lockstep is not None:  # None after an error
            self._lockstep.save(Path(checkpoint_dir))
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - began

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        assert isinstance(checkpoint, str)
        self._lockstep = self._begun()
        self._go_on_from(self._lockstep, Path(checkpoint))

    def _go_on_from(self, lockstep: "Lockstep", folder: Path) -> None:
        lockstep.load(folder)
        in_between = IN_BETWEEN.match(folder.name)
        self._saved_in_between = (int(in_between[1]), int(in_between[2])) if in_between else (0, 0)

    def _train_to_next_rung(self) -> dict[str, Any]:
        if self._lockstep is None:
            self._lockstep = self._begun()
            before = self.config["continue_from"]
            if before:
                with self._fetched(before) as folder:
                    if (folder / "state.pt").exists():  # not of a trial that has finished, but is not known to
                        self._go_on_from(self._lockstep, folder)
        lockstep, began, reported = self._lockstep, time.monotonic(), len(self._lockstep.curve)
        while not lockstep.finished and not self._told_to_save:
            whole = lockstep.epoch
            lockstep.advance()
            if lockstep.epoch == whole:  # halted: at the end of a step, or by a notice that the step before has heeded
                continue
            if lockstep.epoch in self._protocol.rungs or time.monotonic() - began > LONGEST_STEP_S:
                break
        report = lockstep.report()
        if report["energy_joules"] is not None:  # of a GPU that it may share
            report["energy_joules"] *= min(1.0, ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0))
        return {**report, "curve": lockstep.curve[reported:], "done": report["finished"]}

    def _begun(self) -> "Lockstep":
        from trainables.lockstep import Lockstep

        self._dataset = on_this_node(self._dataset)
        given = (TrialConfig.of(self.config["params"]), self._dataset, self._folds, self._protocol)
        if self._fold_processes:
            return Lockstep(*given, partial(SpreadFolds, self._fold_processes, told=self._save_soon))
        return Lockstep(*given)

    def cleanup(self) -> None:
        for process in self._fold_processes:
            ray.kill(process)


def _place(checkpoint: Path) -> str:
    """Of a checkpoint below the folder of trials."""
    return f"{checkpoint.parent.name}/{checkpoint.name}"
