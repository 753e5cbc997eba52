"""The k folds of one trial, trained side by side: every fold finishes an epoch before any begins the next.

So a trial is scored by a whole cross-validation however early it is stopped, and the best epoch is that of the mean
curve, which is also how long to train on all images. This decides; what computes is a `Group` of folds.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file

from datasets import ImageDataset
from datasets.folds import Folds
from trainables.config import TrialConfig
from trainables.fold_group import FoldEpoch, FoldGroup, Group
from trainables.fold_tensors import by_fold
from trainables.metrics import METRICS, check_metric, check_scorable
from trainables.objectives import objective
from trainables.optimisation import Phase, phases, plateau_decays
from trainables.protocol import Protocol

Curve = list[dict[str, float]]
"""One entry per epoch and fold: epoch, fold, train_loss, learning_rate and every metric on the validation images."""


class Lockstep:
    """`advance` until `finished`; `report`, `save` and `load` in between.

    `halt` makes `advance` return in the middle of an epoch, which does not count until it is through: what is reported
    is the last whole one. `save` keeps how far it has come, and the next `advance` goes on from there.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: ImageDataset,
        folds: Folds,
        protocol: Protocol,
        group: Callable[..., Group] = FoldGroup,
    ):
        """group: what computes, of the arguments of `FoldGroup`."""
        check_metric(protocol.metric, dataset.kind)
        check_scorable(protocol.metric, dataset, folds)
        self._config, self._dataset, self._protocol = config, dataset, protocol
        self._objective = objective(dataset, config)
        self._folds_per_repeat = folds.k
        self._validation_rows = [rows for _, rows in folds]
        self._last_epoch = min(config.epochs or protocol.max_epochs, protocol.max_epochs)
        self._phases = phases(config, self._last_epoch)
        self._phase = self._phases[0]
        self._group = group(config, dataset, folds, protocol, self._objective, self._phases)
        self.trainable_parameters = self._group.built.trainable_parameters
        self.total_parameters = self._group.built.total_parameters
        self.cut = self._group.built.cut
        """Where a checkpoint's networks begin, see `Built`."""
        self.epoch = 0
        self.halted = False
        """Whether `halt` was called before the last `advance` returned."""
        self._in_epoch = False
        """Whether an epoch has been begun and is not through."""
        self._parts = config.accumulate
        self.seconds = 0.0
        """Of training and validation, over all processes that have worked on this trial."""
        self.joules: float | None = None
        """That its GPU used meanwhile, whoever else computed on it; None where none tells."""
        self.curve: Curve = []
        self.best_epoch = 0
        self._best_rank = (-math.inf, -math.inf)
        shape = (folds.repeats * len(dataset), len(self._objective.columns))
        self._best_predictions = np.full(shape, np.nan, np.float32)
        """Out of fold, repeat by repeat: row repeat x images + image, as in folds.parquet."""

    @property
    def notes(self) -> list[str]:
        """What its user should know of how it is computed."""
        notes, parts = self._group.built.notes, self._parts
        if parts == self._config.accumulate:
            return notes
        short = f"memory did not suffice: {self._config.model} is trained in {parts} parts of a batch"
        return [*notes, f"{short}, and batch norm knows one at a time"]

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch was not finite: nothing good comes after that."""
        last = [entry for entry in self.curve if entry["epoch"] == self.epoch]
        return any(not math.isfinite(entry["train_loss"] + entry["log_loss"]) for entry in last)

    @property
    def finished(self) -> bool:
        if self.epoch >= self._last_epoch or self.diverged:
            return True
        ranks = self._ranks()[self._phase.after :]
        waited = len(ranks) - 1 - ranks.index(max(ranks)) if ranks else 0
        return not self._phase.head_only and waited >= self._config.patience

    def halt(self) -> None:
        """Let `advance` return after the batch that it is in, or after the next one where it is not being called. For a
        signal's handler too. Heads that are trained as one finish their epoch, which takes no longer than a batch."""
        self._group.halting = True

    def advance(self) -> None:
        """Train and validate every fold for one epoch, or for what is left of one that was halted."""
        began = time.perf_counter()
        self.epoch += 1
        self._phase = self._phase_of(self.epoch)
        losses = self._mean_curve("log_loss")[self._phase.after :]
        decays = plateau_decays(losses, self._config.decay_epochs) if self._config.schedule == "plateau" else 0
        done = self._group.advance(self.epoch, self._phase, decays)
        self._parts = done.parts
        if done.joules is not None:
            self.joules = (self.joules or 0.0) + done.joules
        self._in_epoch = done.folds is None
        if done.folds is None:
            self.epoch -= 1
        else:
            self._score(done.folds)
        self.seconds += time.perf_counter() - began
        self.halted, self._group.halting = self._group.halting, False

    def _phase_of(self, epoch: int) -> Phase:
        return next(phase for phase in reversed(self._phases) if phase.after < max(epoch, 1))

    def _score(self, folds: list[FoldEpoch]) -> None:
        """What an epoch has come to."""
        predictions = np.full_like(self._best_predictions, np.nan)
        for index, (fold, rows) in enumerate(zip(folds, self._validation_rows, strict=True)):
            predictions[rows + index // self._folds_per_repeat * len(self._dataset)] = fold.predictions
            told = {"train_loss": fold.train_loss, "learning_rate": fold.learning_rate}
            scores = self._objective.scores(rows, fold.predictions)
            self.curve.append({"epoch": self.epoch, "fold": index} | told | scores)
        rank = self._ranks()[-1]
        if not self.diverged and rank > self._best_rank:
            self._best_rank, self.best_epoch, self._best_predictions = rank, self.epoch, predictions
            self._group.keep()

    def report(self) -> dict[str, Any]:
        """The cross-validation at its best epoch so far; NaN where there was none."""
        at_best = [entry for entry in self.curve if entry["epoch"] == self.best_epoch]
        by_metric = {name: [entry[name] for entry in at_best] for name in self._objective.metrics}
        metric = self._protocol.metric
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            metric: float(np.mean(by_metric[metric])) if at_best else math.nan,
            f"{metric}_std": float(np.std(by_metric[metric], ddof=1)) if at_best else math.nan,
            "folds": by_metric,
            "seconds": self.seconds,
            "energy_joules": self.joules,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "cut_after": self.cut and self.cut["after"],
            "parts": self._parts,
            "notes": self.notes,
            "precision": self._group.built.precision,
            "diverged": self.diverged,
            "finished": self.finished,
        }

    def save(self, folder: Path) -> None:
        """Everything to go on from here, unless it has finished (`state.pt`), the k networks of the best epoch
        (`model.safetensors`, names prefixed by `fold<i>.`) and their out-of-fold predictions, whose rows are those of
        folds.parquet; `checkpoint.json` names the files and sizes, last."""
        if not self.finished:
            torch.save(self._state(), folder / "state.pt")
        save_file(
            {f"fold{i}.{name}": tensor for i, best in enumerate(self._group.best()) for name, tensor in best.items()},
            folder / "model.safetensors",
        )
        pl.DataFrame(self._best_predictions, schema=list(self._objective.columns)).write_parquet(
            folder / "predictions.parquet"
        )
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        note = {"epoch": self.epoch, "best_epoch": self.best_epoch, "cut": self.cut, "files": files}
        (folder / "checkpoint.json").write_text(json.dumps(note))

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "joules": self.joules,
            "curve": json.dumps(self.curve),  # torch looks at every number of a list
            "best_epoch": self.best_epoch,
            "best_rank": self._best_rank,
            "parts": self._parts,
            "in_epoch": self._in_epoch,
            "folds": self._group.states(),
        }

    def load(self, folder: Path) -> None:
        """Of a trial that had not finished."""
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        self.epoch, self.seconds, self.curve = state["epoch"], state["seconds"], json.loads(state["curve"])
        self.joules, self._parts, self._in_epoch = state["joules"], state["parts"], state["in_epoch"]
        self.best_epoch, self._best_rank = state["best_epoch"], tuple(state["best_rank"])
        self._phase = self._phase_of(self.epoch + self._in_epoch)
        best = by_fold(load_file(folder / "model.safetensors"), len(self._validation_rows))
        self._group.load(self._phase, state["folds"], best, self._in_epoch)
        self._best_predictions = (
            pl.read_parquet(folder / "predictions.parquet", glob=False).to_numpy().astype(np.float32)
        )

    def _ranks(self) -> list[tuple[float, float]]:
        """How good each epoch was: the higher, the better. Of epochs with equal scores, as happens with few images, the
        one with the lower loss is the better."""
        sign = 1 if METRICS[self._protocol.metric] == "max" else -1
        scores, losses = self._mean_curve(self._protocol.metric), self._mean_curve("log_loss")
        return [(sign * score, -loss) for score, loss in zip(scores, losses, strict=True)]

    def _mean_curve(self, name: str) -> list[float]:
        """Mean over folds, one value per epoch."""
        return np.array([entry[name] for entry in self.curve]).reshape(-1, len(self._validation_rows)).mean(1).tolist()
