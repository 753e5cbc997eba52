"""The k folds of one trial, trained side by side: every fold finishes an epoch before any begins the next.

So a trial is scored by a whole cross-validation however early it is stopped, and the best epoch is that of the mean
curve, which is also how long to train on all images.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from datasets import ImageDataset, InputError
from datasets.folds import Folds
from datasets.pixels import pixels, pixels_key
from datasets.stores import no_room_for
from trainables.augmentation import augmentation
from trainables.config import TrialConfig
from trainables.energy import joules
from trainables.features import IN_MEMORY_BYTES, FrozenBody, PrefixFeatures, begun
from trainables.fold import Fold, compute_dtype
from trainables.fused import FusedHeads, can_be_fused
from trainables.images import Fetch, feature_fetch, pixel_fetch
from trainables.memory import MicroBatch
from trainables.metrics import METRICS, check_metric, check_scorable
from trainables.network import Network, build_head, copied, parameter_counts
from trainables.objectives import objective
from trainables.optimisation import Phase, layer_shares, phases, plateau_decays
from trainables.protocol import Protocol
from trainables.seeding import epoch_seed

Curve = list[dict[str, float]]
"""One entry per epoch and fold: epoch, fold, train_loss, learning_rate and every metric on the validation images."""


@dataclass(frozen=True)
class _Tail:
    """The part of a body that runs in every epoch."""

    module: nn.Module
    fetch: Callable[[], Fetch]
    """Of what it is given: images, or features, which are computed when this is first called."""
    cut: dict[str, str] | None = None
    """Where it begins, if not with the images: `after` which place of a prefix of which digest (`prefix`)."""


class Lockstep:
    """`advance` until `finished`; `report`, `save` and `load` at any epoch in between."""

    def __init__(self, config: TrialConfig, dataset: ImageDataset, folds: Folds, protocol: Protocol):
        check_metric(protocol.metric, dataset.kind)
        check_scorable(protocol.metric, dataset, folds)
        self._config, self._dataset, self._protocol = config, dataset, protocol
        self._objective = objective(dataset, config)
        self._folds_per_repeat = folds.k
        self._last_epoch = min(config.epochs or protocol.max_epochs, protocol.max_epochs)
        self._phases = phases(config, self._last_epoch)
        self._micro_batch = MicroBatch(config.accumulate)
        self._build(folds)
        self.epoch = 0
        self._begin_phase()
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
        self._best_weights: list[dict[str, torch.Tensor]] = [fold.weights() for fold in self._folds]

    def _build(self, folds: Folds) -> None:
        config, dataset, protocol = self._config, self._dataset, self._protocol
        frozen = begun(config, dataset.channels, protocol, head_only=False)
        body = frozen.body
        if body.dense != self._objective.dense:
            answers = ("image", "pixel") if self._objective.dense else ("pixel", "image")
            raise InputError(
                f"model={config.model!r} gives an answer per {answers[0]}, and a {dataset.kind} task needs one per "
                f"{answers[1]}: choose {'encoder_decoder' if self._objective.dense else 'another model'}"
            )
        head = partial(build_head, config, body.features, self._objective.outputs, dense=body.dense)
        self.trainable_parameters, self.total_parameters = parameter_counts(Network(body.module, head(seed=0)))

        interpolation = body.interpolation or protocol.interpolation
        self._pixels_key = pixels_key(dataset, config.image_size_px, interpolation)
        self._pixel_fetch = pixel_fetch(
            pixels(dataset, config.image_size_px, interpolation),
            self._objective.targets,
            body,
            protocol.device,
            augmentation(config),
            masks=self._objective.dense,
        )
        self._notes: list[str] = []
        self._tails: dict[Phase, _Tail] = {}
        """Of the phases that have not begun; what is behind needs no memory."""
        if self._phases[0].head_only:
            alone = begun(config, dataset.channels, protocol, head_only=True)
            self._tails[self._phases[0]] = self._after_store(alone)
        tail = self._after_store(frozen)
        self._tails.setdefault(self._phases[-1], tail)
        self.cut = tail.cut
        """Where a checkpoint's networks begin: after this place of a prefix of that digest. None: they are whole."""
        self._folds = [
            Fold(
                index,
                Network(_copied(tail.module), head(epoch_seed(protocol.seed, index, epoch=0))).to(protocol.device),
                train_rows,
                validation_rows,
                self._objective,
                config,
                protocol,
                self._micro_batch,
            )
            for index, (train_rows, validation_rows) in enumerate(folds)
        ]

    def _after_store(self, frozen: FrozenBody) -> _Tail:
        """What remains of a body after its frozen prefix, whose features are stored; the whole where that cannot be."""
        config = self._config
        drawn = config.augmented and (not config.views or self._objective.dense)  # masks would move with their images
        whole = _Tail(frozen.body.module, lambda: self._pixel_fetch)
        if config.mixed or drawn:  # of pixels, in every batch anew
            return whole
        if not frozen.places:
            if frozen.is_partly_frozen:
                self._notes.append(f"{config.model} cannot be cut where its frozen layers end: trained whole")
            return whole
        features = PrefixFeatures(
            frozen, config, self._protocol, self._pixel_fetch, self._pixels_key, len(self._dataset)
        )
        if reason := no_room_for(features.size_bytes):
            cannot = f"{config.model}: features of {features.size_bytes / 1e9:.3g} GB cannot be stored ({reason}): "
            if features.size_bytes > IN_MEMORY_BYTES:
                self._notes.append(f"{cannot}trained whole")
                return whole
            self._notes.append(f"{cannot}computed again by every trial")
        place = frozen.places[-1]
        return _Tail(
            frozen.tail,
            lambda: feature_fetch(features, self._objective.targets, self._protocol.device),
            {"after": place.name, "prefix": frozen.digest(place)},
        )

    def _begin_phase(self) -> None:
        """That of this epoch, unless it has begun."""
        self._phase = next(phase for phase in reversed(self._phases) if phase.after < max(self.epoch, 1))
        if self._phase not in self._tails:
            return
        tail = self._tails.pop(self._phase)
        self._fetch = tail.fetch()
        frozen = _copied(tail.module).to(self._protocol.device) if self._phase.head_only else None
        body = self._folds[0].network.body if frozen is None else frozen
        shares = layer_shares(body, self._fetch(torch.arange(1))[0].float(), self._config.body_rate)
        for fold in self._folds:
            fold.begin(self._phase, frozen, shares)
        drawn = self._config.augmented or self._config.mixed
        self._fused = None
        if (tail.cut or not drawn) and can_be_fused(self._folds, self._config):
            self._fused = FusedHeads(self._folds, self._config)

    @property
    def notes(self) -> list[str]:
        """What its user should know of how it is computed."""
        parts = self._micro_batch.parts
        if parts == self._config.accumulate:
            return self._notes
        short = f"memory did not suffice: {self._config.model} is trained in {parts} parts of a batch"
        return [*self._notes, f"{short}, and batch norm knows one at a time"]

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

    def advance(self) -> None:
        """Train and validate every fold for one epoch."""
        began, used_before = time.perf_counter(), joules(self._protocol.device)
        self.epoch += 1
        self._begin_phase()
        losses = self._mean_curve("log_loss")[self._phase.after :]
        decays = plateau_decays(losses, self._config.decay_epochs) if self._config.schedule == "plateau" else 0
        predictions = np.full_like(self._best_predictions, np.nan)
        train = self._fused.train if self._fused else self._train_in_turn
        train_losses = train(self.epoch, self._fetch, decays)
        for index, (fold, train_loss) in enumerate(zip(self._folds, train_losses, strict=True)):
            rows, validated = fold.validation_rows.numpy(), fold.predict(self._fetch)
            predictions[rows + index // self._folds_per_repeat * len(self._dataset)] = validated
            self.curve.append(
                {"epoch": self.epoch, "fold": index, "train_loss": train_loss, "learning_rate": fold.learning_rate}
                | self._objective.scores(rows, validated)
            )
        rank = self._ranks()[-1]
        if not self.diverged and rank > self._best_rank:
            self._best_rank, self.best_epoch, self._best_predictions = rank, self.epoch, predictions
            self._best_weights = [fold.weights() for fold in self._folds]
        self.seconds += time.perf_counter() - began
        used = joules(self._protocol.device)
        if used is not None and used_before is not None:
            self.joules = (self.joules or 0.0) + used - used_before

    def _train_in_turn(self, epoch: int, fetch: Fetch, decays: int) -> list[float]:
        return [fold.train(epoch, fetch, decays) for fold in self._folds]

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
            "parts": self._micro_batch.parts,
            "notes": self.notes,
            "precision": str(compute_dtype(self._protocol)).removeprefix("torch."),
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
            {f"fold{i}.{name}": tensor for i, best in enumerate(self._best_weights) for name, tensor in best.items()},
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
            "parts": self._micro_batch.parts,
            "folds": [fold.state_dict() for fold in self._folds],
        }

    def load(self, folder: Path) -> None:
        """Of a trial that had not finished."""
        state = torch.load(folder / "state.pt", map_location=self._protocol.device, weights_only=True)
        self.epoch, self.seconds, self.curve = state["epoch"], state["seconds"], json.loads(state["curve"])
        self.joules = state["joules"]
        self.best_epoch, self._best_rank = state["best_epoch"], tuple(state["best_rank"])
        self._micro_batch.parts = state["parts"]
        self._begin_phase()
        for fold, saved in zip(self._folds, state["folds"], strict=True):
            fold.load_state_dict(saved)
        best = load_file(folder / "model.safetensors")
        self._best_weights = [
            {name.removeprefix(f"fold{i}."): tensor for name, tensor in best.items() if name.startswith(f"fold{i}.")}
            for i in range(len(self._folds))
        ]
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
        return np.array([entry[name] for entry in self.curve]).reshape(-1, len(self._folds)).mean(1).tolist()


def _copied(module: nn.Module) -> nn.Module:
    """What has nothing that could change is shared."""
    return copied(module) if module.state_dict() else module
