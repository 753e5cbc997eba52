"""Binary, multiclass and multitask: probabilities of the classes of one or several targets.

One logit for two classes, that of the second; else one per class. Several targets share the body and the dense layers,
and each has its block of logits, which is the same as a head of its own on those layers.

Shapes: as in `trainables.objectives`; K logits of all targets, C classes of one.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch.nn import functional as F

from datasets import ImageDataset, Target
from trainables.metrics import OF_CLASSES, scores
from trainables.network import outputs_for


@dataclass(frozen=True)
class Classification:
    asked: tuple[Target, ...]
    """The targets, the first one first; at least that is scored."""
    targets: np.ndarray
    auxiliary_weight: float = 1.0
    dense: bool = False

    @staticmethod
    def of(dataset: ImageDataset, auxiliary_weight: float) -> "Classification":
        asked = (Target(dataset.target_name, dataset.classes), *dataset.further)
        further = [dataset.table[target.column].to_numpy().astype(np.int64) for target in dataset.further]
        return Classification(asked, np.stack([dataset.targets, *further], axis=1), auxiliary_weight)

    @property
    def labels(self) -> np.ndarray:
        return self.targets

    @property
    def outputs(self) -> int:
        return sum(outputs_for(len(target.classes)) for target in self.asked)

    @property
    def shares(self) -> tuple[float, ...]:
        """The mean over scored targets, and `auxiliary_weight` times the mean over the others."""
        scored = sum(target.scored for target in self.asked)
        auxiliary = len(self.asked) - scored
        return tuple(1 / scored if target.scored else self.auxiliary_weight / auxiliary for target in self.asked)

    @property
    def columns(self) -> tuple[str, ...]:
        """The class names; of several targets `target:class`."""
        if len(self.asked) == 1:
            return self.asked[0].classes
        return tuple(f"{target.name}:{name}" for target in self.asked for name in target.classes)

    @property
    def metrics(self) -> tuple[str, ...]:
        if len(self.asked) == 1:
            return OF_CLASSES
        return (*OF_CLASSES, *(f"{metric}:{target.name}" for target in self.asked for metric in OF_CLASSES))

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy."""
        return torch.stack([_losses(block_BK, targets[:, t]) for t, block_BK in enumerate(self._blocks(logits))], dim=1)

    def predictions(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes of each target, side by side."""
        return torch.cat([_probabilities(block_BK) for block_BK in self._blocks(logits)], dim=1)

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Of several targets the mean over those that are scored, and each one's own as `metric:target`."""
        ends = accumulate((len(target.classes) for target in self.asked), initial=0)
        of_targets = [
            scores(self.targets[rows, t], predictions[:, start:end]) for t, (start, end) in enumerate(pairwise(ends))
        ]
        if len(self.asked) == 1:
            return of_targets[0]
        scored = [of_target for of_target, target in zip(of_targets, self.asked, strict=True) if target.scored]
        means = {metric: float(np.mean([of_target[metric] for of_target in scored])) for metric in OF_CLASSES}
        return means | {
            f"{metric}:{target.name}": of_target[metric]
            for of_target, target in zip(of_targets, self.asked, strict=True)
            for metric in OF_CLASSES
        }

    def _blocks(self, logits_BK: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return logits_BK.split([outputs_for(len(target.classes)) for target in self.asked], dim=1)


def _losses(logits_BK: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each image, (B,)."""
    if logits_BK.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits_BK[:, 0], targets_B.float(), reduction="none")
    return F.cross_entropy(logits_BK, targets_B, reduction="none")


def _probabilities(logits_BK: torch.Tensor) -> torch.Tensor:
    """(B, C); one logit is that of the second of two classes."""
    if logits_BK.shape[1] == 1:
        positive = logits_BK[:, 0].sigmoid()
        return torch.stack([1 - positive, positive], dim=1)
    return logits_BK.softmax(1)
