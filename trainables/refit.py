"""A configuration trained on all development images, for as long as its cross-validation found best.

It is the training of a trial (`Lockstep`) with other folds and another end. Nothing is chosen by what is measured
meanwhile: the number of epochs, and where the rate falls, are those of the cross-validation.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from datasets import ImageDataset
from datasets.confounding import sampled
from datasets.folds import Folds
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep
from trainables.protocol import Protocol

WATCHED = 64
"""Training images on which the loss is computed after every epoch: enough to see that it is finite."""


@dataclass(frozen=True)
class AllImages(Folds):
    """No split: every network is trained on all images, and differs from the others by what is random."""

    networks: int = 1
    watched: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    """Row numbers of the images that are predicted after an epoch, int64."""

    @staticmethod
    def of(dataset: ImageDataset, networks: int) -> "AllImages":
        watched = sampled(dataset.targets, np.arange(len(dataset)), WATCHED)
        return AllImages(np.zeros((1, len(dataset)), np.int64), networks, watched)

    @property
    def k(self) -> int:
        return self.networks

    def __len__(self) -> int:
        return self.networks

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((np.arange(self.validated_in.shape[1]), self.watched) for _ in range(self.networks))


class Refit(Lockstep):
    """`advance` until `finished`; what `save` then writes are the networks after the last epoch."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: ImageDataset,
        protocol: Protocol,
        *,
        networks: int,
        epochs: int,
        losses: Sequence[float],
    ):
        """epochs: how many are trained; schedules run as in the cross-validation, as if it went on, unless there are
        more than it had. losses: its mean validation loss after each epoch, which a plateau schedule goes by."""
        last = max(epochs, min(config.epochs or protocol.max_epochs, protocol.max_epochs))
        protocol = dataclasses.replace(protocol, metric="log_loss", max_epochs=last)
        self.epochs, self._losses = epochs, list(losses)
        config = dataclasses.replace(config, epochs=last)
        super().__init__(config, dataset, AllImages.of(dataset, networks), protocol)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs or self.diverged

    def _ranks(self) -> list[tuple[float, float]]:
        """Every epoch is better than the one before: when to stop is known."""
        return [(float(epoch), 0.0) for epoch in range(1, self.epoch + 1)]

    def _mean_curve(self, name: str) -> list[float]:
        assert name == "log_loss", "nothing else is asked for"
        return self._losses[: max(0, self.epoch - 1)]
