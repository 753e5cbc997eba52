"""Augmentation of seed 001's report (svendsen2025), drawn anew for every image of a batch, on the batch's device."""

import kornia.augmentation as K
import torch
from torch import nn

from trainables.config import TrialConfig


def augmentation(config: TrialConfig) -> "Augmentation | None":
    """What the configuration asks for; None where nothing is to be done.

    Rotation and zoom are one resampling, bilinear, with the border continued outwards so that no black wedges appear
    that a network could read.
    """
    steps: list[nn.Module] = []
    if config.flip:
        steps.append(K.RandomHorizontalFlip(p=0.5))
    if config.rotation_deg or config.zoom:
        steps.append(
            K.RandomAffine(
                degrees=config.rotation_deg,
                scale=(1 - config.zoom, 1 + config.zoom),
                padding_mode="border",
                p=1.0,
            )
        )
    if config.contrast:
        steps.append(K.ColorJitter(contrast=config.contrast, p=1.0))
    return Augmentation(steps) if steps else None


class Augmentation(nn.Module):
    """Maps float images (B, C, H, W) in [0, 1] to the same shape and range; random numbers are of torch's global
    generator."""

    def __init__(self, steps: list[nn.Module]):
        super().__init__()
        self._steps = K.AugmentationSequential(*steps)

    @torch.no_grad()
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        augmented: torch.Tensor = self._steps(images_BCHW, data_keys=["input"])
        return augmented.clamp(0, 1)

    @torch.no_grad()
    def together(self, images_BCHW: torch.Tensor, masks_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and the classes of their pixels, moved alike: masks by the nearest pixel, so that classes stay."""
        images_BCHW, masks_B1HW = self._steps(images_BCHW, masks_BHW[:, None], data_keys=["input", "mask"])
        return images_BCHW.clamp(0, 1), masks_B1HW[:, 0]
