"""The Ray Tune trainable: one configuration in, k trained folds and their scores out. The one file here that knows Ray.

What is trained, and how, is in `lockstep.py`; this maps it to Tune's words:

    setup, reset_config   a configuration         {"number", "published", "continue_from", "params"}
    step                  train to the next rung  -> a report
    save_, load_checkpoint
"""

import gc
import math
import shutil
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.result import SHOULD_CHECKPOINT

from datasets import ImageDataset
from datasets.folds import Folds
from trainables.config import TrialConfig
from trainables.protocol import Protocol

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


class CrossValidation(tune.Trainable):
    """One trial at a time, all k folds in lockstep. Reused from trial to trial, so that a process starts once."""

    def setup(self, config: dict[str, Any], dataset: ImageDataset, folds: Folds, protocol: Protocol) -> None:
        """`dataset`, `folds` and `protocol` are the same for all trials (`tune.with_parameters`)."""
        self._dataset, self._folds, self._protocol = dataset, folds, protocol
        self._lockstep: Lockstep | None = None
        self._is_first = True
        self._begin()

    def _begin(self) -> None:
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
        unsaved = time.monotonic() - self._saved_at
        took = self._saving_took or 16 * report.get("trainable_parameters", 0) * len(self._folds) / SAVED_BYTES_PER_S
        return {
            **report,
            SHOULD_CHECKPOINT: unsaved >= max(SAVED_AFTER_S, took / SAVING_SHARE),
            "number": self.config["number"],
            "published": self.config["published"],
            "params": self.config["params"],
            "node": ray.get_runtime_context().get_node_id() if self.is_actor() else "",
        }

    def save(self, checkpoint_dir: str | None = None) -> _TrainingResult:
        """Straight into the trial's folder of results, where Ray would write to a temporary one and copy; what is half
        written does not count (`checkpoint.json`). The result holds no report: Ray keeps it, and has that already."""
        if checkpoint_dir is not None or self._storage is None or not _is_local(self._storage):
            return super().save(checkpoint_dir)
        self._storage._check_validation_file()  # says what to do where this node does not see the results
        self._storage._update_checkpoint_index({})
        folder = Path(self._storage.checkpoint_fs_path)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that died before Ray knew of it
        folder.mkdir(parents=True)
        self.save_checkpoint(str(folder))
        checkpoint = tune.Checkpoint(str(folder), self._storage.storage_filesystem)
        return _TrainingResult(checkpoint, {"training_iteration": self.iteration})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        began = time.monotonic()
        if self._lockstep is not None:  # None after an error
            self._lockstep.save(Path(checkpoint_dir))
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - began

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        assert isinstance(checkpoint, str)
        self._lockstep = self._begun()
        self._lockstep.load(Path(checkpoint))

    def _train_to_next_rung(self) -> dict[str, Any]:
        if self._lockstep is None:
            self._lockstep = self._begun()
            before = self.config["continue_from"]
            if before and (Path(before) / "state.pt").exists():  # not of a trial that has finished, but is not known to
                self._lockstep.load(Path(before))
        lockstep, began, reported = self._lockstep, time.monotonic(), len(self._lockstep.curve)
        while not lockstep.finished:
            lockstep.advance()
            if lockstep.epoch in self._protocol.rungs or time.monotonic() - began > LONGEST_STEP_S:
                break
        report = lockstep.report()
        if report["energy_joules"] is not None:  # of a GPU that it may share
            report["energy_joules"] *= min(1.0, ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0))
        return {**report, "curve": lockstep.curve[reported:], "done": report["finished"]}

    def _begun(self) -> "Lockstep":
        from trainables.lockstep import Lockstep

        return Lockstep(TrialConfig.of(self.config["params"]), self._dataset, self._folds, self._protocol)


def _is_local(storage: StorageContext) -> bool:
    """Whether results are files here; a bucket is not."""
    return bool(storage.storage_filesystem.type_name == "local")
