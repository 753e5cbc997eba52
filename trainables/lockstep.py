"""The k folds of one trial, trained side by side: every fold finishes an epoch before any begins the next.

So a trial is scored by a whole cross-validation however early it is stopped, and the best epoch is that of the mean
curve, which is also how long to train on all images.
"""

import copy
import importlib.metadata
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
from trainables.augmentation import augmentation
from trainables.config import TrialConfig
from trainables.fold import Fold, autocast, compute_dtype, epoch_seed
from trainables.images import Fetch, feature_fetch, frozen_features, pixel_fetch
from trainables.metrics import METRICS, check_metric, check_scorable
from trainables.models import OPTIONS
from trainables.network import Network, build_head, cut, frozen_body, parameter_counts, weights_digest
from trainables.objectives import objective
from trainables.optimisation import Phase, layer_shares, phases, plateau_decays
from trainables.protocol import Protocol

Curve = list[dict[str, float]]
"""One entry per epoch and fold: epoch, fold, train_loss, learning_rate and every metric on the validation images."""


@dataclass(frozen=True)
class _Tail:
    """The part of a body that runs in every epoch."""

    module: nn.Module
    fetch: Callable[[], Fetch]
    """Of what it is given: images, or features, which are computed when this is first called."""
    cut: dict[str, str] | None = None


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
        self._build(folds)
        self.epoch = 0
        self._begin_phase()
        self.seconds = 0.0
        """Of training and validation, over all processes that have worked on this trial."""
        self.curve: Curve = []
        self.best_epoch = 0
        self._best_rank = (-math.inf, -math.inf)
        shape = (folds.repeats * len(dataset), len(self._objective.columns))
        self._best_predictions = np.full(shape, np.nan, np.float32)
        """Out of fold, repeat by repeat: row repeat x images + image, as in folds.parquet."""
        self._best_weights: list[dict[str, torch.Tensor]] = [fold.weights() for fold in self._folds]

    def _build(self, folds: Folds) -> None:
        config, dataset, protocol = self._config, self._dataset, self._protocol
        body = frozen_body(config, dataset.channels, protocol.weights, protocol.seed)
        if body.dense != self._objective.dense:
            answers = ("image", "pixel") if self._objective.dense else ("pixel", "image")
            raise InputError(
                f"model={config.model!r} gives an answer per {answers[0]}, and a {dataset.kind} task needs one per "
                f"{answers[1]}: choose {'encoder_decoder' if self._objective.dense else 'another model'}"
            )
        head = partial(build_head, config, body.features, self._objective.outputs, dense=body.dense)
        self.trainable_parameters, self.total_parameters = parameter_counts(Network(body.module, head(seed=0)))

        augment = augmentation(config)
        self._interpolation = body.interpolation or protocol.interpolation
        stored = pixels(dataset, config.image_size_px, self._interpolation)
        self._pixel_fetch = pixel_fetch(
            stored, self._objective.targets, body, protocol.device, augment, masks=self._objective.dense
        )
        self._same_images = augment is None and not config.mixup and not config.cutmix
        """In every epoch."""
        whole = body.module.to(protocol.device).to(memory_format=torch.channels_last)
        self._tails: dict[Phase, _Tail] = {}
        """Of the phases that have not begun; what is behind needs no memory."""
        if self._phases[0].head_only:
            self._tails[self._phases[0]] = self._after_store(copy.deepcopy(whole).requires_grad_(False))
        tail = self._after_store(whole)
        self._tails.setdefault(self._phases[-1], tail)
        self.cut = tail.cut
        """Where a checkpoint's networks begin: after this step of a prefix of these weights. None: they are whole."""
        self._folds = [
            Fold(
                index,
                Network(copy.deepcopy(tail.module), head(epoch_seed(protocol.seed, index, epoch=0))).to(
                    protocol.device
                ),
                train_rows,
                validation_rows,
                self._objective,
                config,
                protocol,
            )
            for index, (train_rows, validation_rows) in enumerate(folds)
        ]

    def _after_store(self, body: nn.Module) -> "_Tail":
        """What remains of a body after its frozen prefix, whose features are stored; the whole where that cannot be."""
        config, dataset, protocol = self._config, self._dataset, self._protocol
        image_shape = (dataset.channels, config.image_size_px, config.image_size_px)
        if not self._same_images or (parts := cut(body, image_shape)) is None:
            return _Tail(body, lambda: self._pixel_fetch)
        prefix, after, place = parts
        prefix_weights = weights_digest(prefix)
        key = [pixels_key(dataset, config.image_size_px, self._interpolation), config.model, prefix_weights, place]
        key += [f"{name}={getattr(config, name)}" for name in ("pooling", "defaults", *OPTIONS)]
        computed_by = [protocol.device, str(compute_dtype(protocol))]  # a GPU's float32 convolutions round to TF32
        key += [*computed_by, torch.__version__, importlib.metadata.version("timm")]
        features = frozen_features(prefix, key, self._pixel_fetch, len(dataset), lambda: autocast(protocol))
        if features is None:
            return _Tail(body, lambda: self._pixel_fetch)
        return _Tail(
            after,
            lambda: feature_fetch(features(), self._objective.targets, protocol.device),
            {"after": place, "prefix_weights": prefix_weights},
        )

    def _begin_phase(self) -> None:
        """That of this epoch, unless it has begun."""
        self._phase = next(phase for phase in reversed(self._phases) if phase.after < max(self.epoch, 1))
        if self._phase not in self._tails:
            return
        tail = self._tails.pop(self._phase)
        self._fetch = tail.fetch()
        shares = layer_shares(tail.module, self._fetch(torch.arange(1))[0], self._config.body_rate)
        for fold in self._folds:
            fold.begin(self._phase, tail.module if self._phase.head_only else None, shares)

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
        began = time.perf_counter()
        self.epoch += 1
        self._begin_phase()
        losses = self._mean_curve("log_loss")[self._phase.after :]
        decays = plateau_decays(losses, self._config.decay_epochs) if self._config.schedule == "plateau" else 0
        predictions = np.full_like(self._best_predictions, np.nan)
        for index, fold in enumerate(self._folds):
            train_loss = fold.train(self.epoch, self._fetch, decays)
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
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "cut_after": self.cut and self.cut["after"],
            "precision": str(compute_dtype(self._protocol)).removeprefix("torch."),
            "diverged": self.diverged,
            "finished": self.finished,
        }

    def save(self, folder: Path) -> None:
        """Everything to go on from here (`state.pt`), the k networks of the best epoch (`model.safetensors`, names
        prefixed by `fold<i>.`) and their out-of-fold predictions, whose rows are those of folds.parquet;
        `checkpoint.json` names the files and sizes, last."""
        torch.save(
            {
                "epoch": self.epoch,
                "seconds": self.seconds,
                "curve": self.curve,
                "best_epoch": self.best_epoch,
                "best_rank": self._best_rank,
                "folds": [fold.state_dict() for fold in self._folds],
            },
            folder / "state.pt",
        )
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

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", map_location=self._protocol.device, weights_only=True)
        self.epoch, self.seconds, self.curve = state["epoch"], state["seconds"], state["curve"]
        self.best_epoch, self._best_rank = state["best_epoch"], tuple(state["best_rank"])
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
