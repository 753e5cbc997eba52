"""What a network is to say about an image, how wrong it was, and how it is scored: all in which kinds of task differ.

Shapes: N images of the data set, B of a batch, V validated, T targets, P columns of predictions.
"""

from typing import Protocol

import numpy as np
import torch

from datasets import ImageDataset, InputError
from datasets.dataset import Kind
from trainables.config import TrialConfig
from trainables.objectives.classification import Classification
from trainables.objectives.segmentation import segmentation


class Objective(Protocol):
    @property
    def outputs(self) -> int:
        """Of the network, per image or, where `dense`, per pixel."""

    @property
    def dense(self) -> bool:
        """Whether every pixel has an answer of its own."""

    @property
    def targets(self) -> np.ndarray:
        """The truth: classes, int64 (N, T), or of every pixel, uint8 (N, H, W). Batches of it are `targets` below."""

    @property
    def labels(self) -> np.ndarray:
        """What images may be balanced by: their classes, int64 (N, T); of masks (N, 1), one class for all."""

    @property
    def shares(self) -> tuple[float, ...]:
        """What each target's loss counts in the loss, (T,)."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of predictions are called, (P,)."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `scores` gives: `log_loss`, `trainables.metrics.metrics_of` the kind (those of studies where the images
        say theirs), and more of the targets."""

    def losses(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """The loss of every image and target, (B, T); `smoothing` is the share of the truth that is spread evenly over
        the classes."""

    def predictions(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What is kept of a validated batch, float (B, P)."""

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """All `metrics` of the predictions (V, P) of the images of these rows."""


def objective(dataset: ImageDataset, config: TrialConfig) -> Objective:
    """That of the data set's kind. Raises `InputError` where the configuration has no meaning for it."""
    check_meaning(config, dataset.kind)
    if dataset.kind == "segmentation":
        return segmentation(dataset, config.image_size_px)
    return Classification.of(dataset, config.auxiliary_weight)


def check_meaning(config: TrialConfig, kind: Kind) -> None:
    """Raises `InputError` where a configuration has no meaning for a task of that kind."""
    if kind != "segmentation":
        return
    if config.balance != "none":
        raise InputError(
            f"balance={config.balance!r}: images with masks have no classes to balance; it must be 'none' for "
            f"segmentation, whose loss counts small areas by its Dice part"
        )
    if config.label_smoothing:
        raise InputError(
            f"label_smoothing={config.label_smoothing}: it must be 0 for segmentation, whose loss measures an overlap "
            f"with masks that are certain"
        )
    for name in ("mixup", "cutmix"):
        if getattr(config, name):
            raise InputError(
                f"{name}={getattr(config, name)}: it must be 0 for segmentation; only the labels of whole images can "
                f"be mixed in the shares of their images"
            )
