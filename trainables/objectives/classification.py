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
from trainables.metrics import OF_CLASSES, OF_STUDIES, STUDY, scores, study_means
from trainables.network import outputs_for


@dataclass(frozen=True)
class Classification:
    asked: tuple[Target, ...]
    """The targets, the first one first; at least that is scored."""
    targets: np.ndarray
    auxiliary_weight: float = 1.0
    studies: np.ndarray | None = None
    """Which images are views of one study and share their scored targets, int64 (N,); None where that is not known."""
    dense: bool = False

    @staticmethod
    def of(dataset: ImageDataset, auxiliary_weight: float) -> "Classification":
        asked = (Target(dataset.target_name, dataset.classes), *dataset.further)
        further = [dataset.table[target.column].to_numpy().astype(np.int64) for target in dataset.further]
        studies = None
        if "study" in dataset.table.columns:
            studies = dataset.table["study"].rank("dense").to_numpy().astype(np.int64)
            both = np.column_stack([studies, dataset.scored_targets])
            studies = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        return Classification(asked, np.stack([dataset.targets, *further], axis=1), auxiliary_weight, studies)

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
        several = [f"{metric}:{target.name}" for target in self.asked for metric in OF_CLASSES]
        return (
            *OF_CLASSES,
            *(several if len(self.asked) > 1 else ()),
            *(OF_STUDIES if self.studies is not None else ()),
        )

    def losses(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy."""
        return torch.stack(
            [_losses(block_BK, targets[:, t], smoothing) for t, block_BK in enumerate(self._blocks(logits))], dim=1
        )

    def predictions(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes of each target, side by side."""
        return torch.cat([_probabilities(block_BK) for block_BK in self._blocks(logits)], dim=1)

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Of several targets the mean over those that are scored, and each one's own as `metric:target`. Of studies the
        mean alone."""
        of_images = self._of_targets(self.targets[rows], predictions)
        found = self._mean(of_images)
        if len(self.asked) > 1:
            for target, own in zip(self.asked, of_images, strict=True):
                found |= {f"{metric}:{target.name}": value for metric, value in own.items()}
        if self.studies is not None:
            of_studies = self._of_targets(*study_means(self.studies[rows], self.targets[rows], predictions))
            found |= {f"{STUDY}{metric}": value for metric, value in self._mean(of_studies).items()}
        return found

    def _of_targets(self, targets_VT: np.ndarray, predictions_VP: np.ndarray) -> list[dict[str, float]]:
        ends = accumulate((len(target.classes) for target in self.asked), initial=0)
        return [scores(targets_VT[:, t], predictions_VP[:, start:end]) for t, (start, end) in enumerate(pairwise(ends))]

    def _mean(self, of_targets: list[dict[str, float]]) -> dict[str, float]:
        """Over the scored targets."""
        scored = [own for own, target in zip(of_targets, self.asked, strict=True) if target.scored]
        return {metric: float(np.mean([own[metric] for own in scored])) for metric in OF_CLASSES}

    def _blocks(self, logits_BK: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return logits_BK.split([outputs_for(len(target.classes)) for target in self.asked], dim=1)


def _losses(logits_BK: torch.Tensor, targets_B: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross-entropy of each image, (B,), to a truth that gives every one of C classes at least smoothing / C."""
    if logits_BK.shape[1] == 1:
        truth_B = targets_B.float() * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits_BK[:, 0], truth_B, reduction="none")
    return F.cross_entropy(logits_BK, targets_B, reduction="none", label_smoothing=smoothing)


def _probabilities(logits_BK: torch.Tensor) -> torch.Tensor:
    """(B, C); one logit is that of the second of two classes."""
    if logits_BK.shape[1] == 1:
        # Not as one minus the other, which is exactly 0 in float32 from a logit of 17 on, and its logarithm any size.
        return torch.cat([-logits_BK, logits_BK], dim=1).sigmoid()
    return logits_BK.softmax(1)
