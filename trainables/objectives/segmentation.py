"""Segmentation: the class of every pixel. Predictions are not masks but what they are worth: a row of scores per image.

The first class is the background, the others are foreground. Of two classes there is one logit per pixel, that of the
foreground.

All is computed on squares of the size that the network sees (`image_size_px`), to which images and masks are squeezed:
neither in the proportions nor at the resolution of the originals, so a Dice here is not quite one of whole images.

Shapes: as in `trainables.objectives`; K logits, H height, W width, F foreground classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from datasets import ImageDataset
from datasets.pixels import masks
from trainables.metrics import OF_MASKS
from trainables.network import outputs_for

SMOOTH_PX = 1.0
"""Added above and below in the soft Dice, so that an empty mask has a gradient and no division by zero."""


def segmentation(dataset: ImageDataset, image_size_px: int) -> "Segmentation":
    return Segmentation(masks(dataset, image_size_px), classes=len(dataset.classes))


@dataclass(frozen=True)
class Segmentation:
    targets: np.ndarray
    classes: int
    """Of a pixel, with the background."""
    dense: bool = True
    shares: tuple[float, ...] = (1.0,)
    columns: tuple[str, ...] = (*OF_MASKS, "area")
    metrics: tuple[str, ...] = OF_MASKS

    @property
    def labels(self) -> np.ndarray:
        """One class for all images: there is nothing to balance."""
        return np.zeros((len(self.targets), 1), np.int64)

    @property
    def outputs(self) -> int:
        return outputs_for(self.classes)

    def losses(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Mean cross-entropy of an image's pixels, plus one minus the soft Dice of its foreground (Milletari et al.
        2016, eq. 1, without squares below and with `SMOOTH_PX`)."""
        assert smoothing == 0, "refused by `objective`: overlap with a truth that is nowhere certain is no Dice"
        foreground_BFHW = logits.sigmoid() if self.classes == 2 else logits.softmax(1)[:, 1:]
        truth_BFHW = self._foreground(targets)
        overlap_BF = (foreground_BFHW * truth_BFHW).sum((2, 3))
        sizes_BF = foreground_BFHW.sum((2, 3)) + truth_BFHW.sum((2, 3))
        soft_dice_BF = (2 * overlap_BF + SMOOTH_PX) / (sizes_BF + SMOOTH_PX)
        return (_log_loss(logits, targets) + 1 - soft_dice_BF.mean(1))[:, None]

    def predictions(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`dice` and `iou` of each image, means over its foreground classes, `log_loss`, the mean over its pixels, and
        `area`, the share of them that is foreground in truth.

        A class that is neither in the mask nor predicted does not count; where that is so of all, both scores are 1.
        """
        predicted = (logits[:, 0] > 0).to(targets.dtype) if self.classes == 2 else logits.argmax(1)
        found_BFHW, truth_BFHW = self._foreground(predicted), self._foreground(targets)
        overlap_BF = (found_BFHW * truth_BFHW).sum((2, 3))
        sizes_BF = found_BFHW.sum((2, 3)) + truth_BFHW.sum((2, 3))
        there_BF = sizes_BF > 0
        of_images = []
        for of_classes_BF in (2 * overlap_BF / sizes_BF, overlap_BF / (sizes_BF - overlap_BF)):
            mean_B = of_classes_BF.where(there_BF, 0).sum(1) / there_BF.sum(1)
            of_images.append(mean_B.where(there_BF.any(1), 1))
        return torch.stack([*of_images, _log_loss(logits, targets), truth_BFHW.sum(1).mean((1, 2))], dim=1)

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Means over images."""
        means = predictions[:, : len(self.metrics)].mean(0, dtype=np.float64)
        return dict(zip(self.metrics, means.tolist(), strict=True))

    def _foreground(self, classes_BHW: torch.Tensor) -> torch.Tensor:
        """1.0 where a pixel is of a foreground class, (B, F, H, W)."""
        return torch.stack([classes_BHW == index for index in range(1, self.classes)], dim=1).float()


def _log_loss(logits_BKHW: torch.Tensor, classes_BHW: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each image's pixels, (B,)."""
    if logits_BKHW.shape[1] == 1:
        of_pixels = functional.binary_cross_entropy_with_logits(
            logits_BKHW[:, 0], classes_BHW.float(), reduction="none"
        )
    else:
        of_pixels = functional.cross_entropy(logits_BKHW, classes_BHW.long(), reduction="none")
    return of_pixels.mean((1, 2))
