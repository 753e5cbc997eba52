"""What an ensemble says of images that none of its networks has seen: the mean of its probabilities, and its scores."""

import math

import numpy as np
import polars as pl
import torch

from datasets import ImageDataset
from datasets.pixels import pixels
from trainables.ensemble import Ensemble
from trainables.images import EVALUATION_BATCH, shared
from trainables.objectives import objective

TOLD = ("image_id", "target", "group", "source", "study")


def held_out(ensemble: Ensemble, test: ImageDataset) -> tuple[pl.DataFrame, dict[str, float | None]]:
    """One row per image (image_id, targets, group, where known source and study, and the columns of predictions as in
    predictions.parquet); and every metric, None where it cannot be had, as where a class is absent."""
    config = ensemble.description.config
    asked = objective(test, config)
    squares = pixels(test, config.image_size_px, ensemble.description.interpolation)
    targets = shared(asked.targets)
    parts, start = [], 0
    for probabilities_kB in ensemble.batches(squares, EVALUATION_BATCH):
        mean_B = probabilities_kB.mean(0)
        wanted = targets[start : start + len(mean_B)].to(mean_B.device)
        start += len(mean_B)
        # Of masks each image is scored; the logarithm of probabilities is as good as the logits that they came from.
        parts.append(asked.predictions(_log(mean_B), wanted).cpu() if asked.dense else mean_B.cpu())
    predictions = torch.cat(parts).numpy().astype(np.float32)
    scores = asked.scores(np.arange(len(test)), predictions)
    told = [name for name in test.table.columns if name in TOLD or name.startswith("target_")]
    table = test.table.select(told).with_columns(
        pl.Series(name, predictions[:, column]) for column, name in enumerate(asked.columns)
    )
    return table, {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _log(probabilities_BCHW: torch.Tensor) -> torch.Tensor:
    """Logits (B, K, H, W): of two classes one, of the second against the first."""
    logarithm = probabilities_BCHW.clamp_min(torch.finfo(torch.float32).tiny).log()
    return logarithm[:, 1:] - logarithm[:, :1] if logarithm.shape[1] == 2 else logarithm
