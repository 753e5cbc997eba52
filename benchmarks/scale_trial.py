"""The trainable of `benchmarks.scale`: a trial as the driver sees it, which waits for a known time and does not train.

It imports no torch, so that a machine has memory for more of its processes. What it reports and saves has the form, and
but for networks and predictions the size, of what a trial of three folds reports and saves.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.scale import WAITED_S
from trainables.cross_validation import CrossValidation

FOLDS = 3
METRICS = ("auroc", "accuracy", "balanced_accuracy", "log_loss", "f1", "sensitivity", "specificity")


class Waiting:
    """As `Lockstep`, for a trial of `seconds` in all, divided among its epochs."""

    def __init__(self, number: int, epochs: int, seconds: float):
        self._random, self._epochs, self._seconds = random.Random(number), epochs, seconds
        self._quality = self._random.random()
        self.epoch, self.seconds, self.curve = 0, 0.0, cast(list[dict[str, float]], [])

    @property
    def finished(self) -> bool:
        return self.epoch >= self._epochs

    def halt(self) -> None:
        """An epoch of waiting is over soon enough."""

    def advance(self) -> None:
        time.sleep(self._seconds / self._epochs)
        self.seconds += self._seconds / self._epochs
        self.epoch += 1
        for fold in range(FOLDS):
            scores = {name: self._quality + self._random.gauss(0, 0.01) for name in METRICS}
            self.curve.append({"epoch": self.epoch, "fold": fold, "train_loss": 0.5, "learning_rate": 1e-3, **scores})

    def report(self) -> dict[str, Any]:
        last = [entry for entry in self.curve if entry["epoch"] == self.epoch]
        return {
            "epoch": self.epoch,
            "best_epoch": self.epoch,
            "auroc": self._quality,
            "auroc_std": 0.01,
            "folds": {name: [entry[name] for entry in last] for name in METRICS},
            "seconds": self.seconds,
            "energy_joules": None,
            "trainable_parameters": 0,
            "total_parameters": 0,
            "cut_after": None,
            "parts": 1,
            "notes": [],
            "precision": "float32",
            "diverged": False,
            "finished": self.finished,
            "ended": time.time(),
        }

    def save(self, folder: Path) -> None:
        (folder / "checkpoint.json").write_text(
            json.dumps({"epoch": self.epoch, "best_epoch": self.epoch, "cut": None, "files": {}})
        )


class WaitingTrial(CrossValidation):
    """Waits for as long as the environment says."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._lockstep = None
        self._begin()
        return True

    def _begun(self) -> Any:
        return Waiting(self.config["number"], self._protocol.max_epochs, float(os.environ[WAITED_S]))
