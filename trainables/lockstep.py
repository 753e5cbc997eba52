"""The k folds of one trial, trained side by side: every fold finishes an epoch before any begins the next.

So a trial is scored by a whole cross-validation however early it is stopped, and the best epoch is that of the mean
curve, which is also how long to train on all images.
"""

import copy
import importlib.metadata
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file

from datasets import ImageDataset, InputError
from datasets.folds import Folds
from datasets.pixels import pixels, pixels_key
from trainables.augmentation import augmentation
from trainables.config import TrialConfig
from trainables.fold import Fold, autocast, compute_dtype, epoch_seed, plateau_halvings
from trainables.images import feature_fetch, frozen_features, pixel_fetch
from trainables.metrics import METRICS, check_metric, check_scorable
from trainables.network import Network, build_head, cut, frozen_body, parameter_counts, weights_digest
from trainables.objectives import objective
from trainables.protocol import Protocol

Curve = list[dict[str, float]]
"""One entry per epoch and fold: epoch, fold, train_loss, learning_rate and every metric on the validation images."""


class Lockstep:
    """`advance` until `finished`; `report`, `save` and `load` at any epoch in between."""

    def __init__(self, config: TrialConfig, dataset: ImageDataset, folds: Folds, protocol: Protocol):
        check_metric(protocol.metric, dataset.kind)
        check_scorable(protocol.metric, dataset, folds)
        self._config, self._dataset, self._protocol = config, dataset, protocol
        self._objective = objective(dataset, config)
        self._folds_per_repeat = folds.k
        self._build(folds)
        self.epoch = 0
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
        device = protocol.device
        body = frozen_body(config, dataset.channels, protocol.weights, protocol.seed)
        if body.dense != self._objective.dense:
            answers = ("image", "pixel") if self._objective.dense else ("pixel", "image")
            raise InputError(
                f"model={config.model!r} gives an answer per {answers[0]}, and a {dataset.kind} task needs one per "
                f"{answers[1]}: choose {'encoder_decoder' if self._objective.dense else 'another model'}"
            )
        head = partial(build_head, config, body.features, self._objective.outputs, dense=body.dense)
        image_shape = (dataset.channels, config.image_size_px, config.image_size_px)
        self.trainable_parameters, self.total_parameters = parameter_counts(Network(body.module, head(seed=0)))

        stored, targets = pixels(dataset, config.image_size_px), self._objective.targets
        augment = augmentation(config)
        self._fetch = pixel_fetch(stored, targets, body, device, augment, masks=self._objective.dense)
        tail = body.module.to(device).to(memory_format=torch.channels_last)
        self.cut: dict[str, str] | None = None
        """Where a checkpoint's networks begin: after this step of a prefix of these weights. None: they are whole."""
        if augment is None and (parts := cut(tail, image_shape)) is not None:
            prefix, after, place = parts
            prefix_weights = weights_digest(prefix)
            key = [pixels_key(dataset, config.image_size_px), config.model, prefix_weights, place, config.pooling]
            key += [str(compute_dtype(protocol)), torch.__version__, importlib.metadata.version("timm")]
            features = frozen_features(prefix, key, self._fetch, len(dataset), lambda: autocast(protocol))
            if features is not None:
                tail = after
                self.cut = {"after": place, "prefix_weights": prefix_weights}
                self._fetch = feature_fetch(features, targets, device)

        self._folds = [
            Fold(
                index,
                Network(copy.deepcopy(tail), head(epoch_seed(protocol.seed, index, epoch=0))).to(device),
                train_rows,
                validation_rows,
                self._objective,
                config,
                protocol,
            )
            for index, (train_rows, validation_rows) in enumerate(folds)
        ]

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch was not finite: nothing good comes after that."""
        last = [entry for entry in self.curve if entry["epoch"] == self.epoch]
        return any(not math.isfinite(entry["train_loss"] + entry["log_loss"]) for entry in last)

    @property
    def finished(self) -> bool:
        waited = self.epoch - self.best_epoch
        return self.epoch >= self._protocol.max_epochs or self.diverged or waited >= self._config.patience

    def advance(self) -> None:
        """Train and validate every fold for one epoch."""
        began = time.perf_counter()
        self.epoch += 1
        halvings = plateau_halvings(self._mean_curve("log_loss")) if self._config.schedule == "plateau" else 0
        predictions = np.full_like(self._best_predictions, np.nan)
        for index, fold in enumerate(self._folds):
            train_loss = fold.train(self.epoch, self._fetch, halvings)
            rows, validated = fold.validation_rows.numpy(), fold.predict(self._fetch)
            predictions[rows + index // self._folds_per_repeat * len(self._dataset)] = validated
            self.curve.append(
                {"epoch": self.epoch, "fold": index, "train_loss": train_loss, "learning_rate": fold.learning_rate}
                | self._objective.scores(rows, validated)
            )
        # Of epochs with equal scores, as happens with few images, the one with the lower loss is the better.
        sign = 1 if METRICS[self._protocol.metric] == "max" else -1
        rank = (sign * self._mean_curve(self._protocol.metric)[-1], -self._mean_curve("log_loss")[-1])
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

    def _mean_curve(self, name: str) -> list[float]:
        """Mean over folds, one value per epoch."""
        k = len(self._folds)
        values = [entry[name] for entry in self.curve]
        return [float(np.mean(values[start : start + k])) for start in range(0, len(values) - k + 1, k)]
