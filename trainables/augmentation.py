"""Augmentation of seed 001's report (svendsen2025), drawn anew for every image of a batch, on the batch's device."""

import kornia.augmentation as K
import torch
from torch import nn

from trainables.config import TrialConfig


def augmentation(config: TrialConfig) -> nn.Module | None:
    """Maps float images (B, C, H, W) in [0, 1] to the same shape and range; None where nothing is to be done.

    Random numbers come from torch's global generator. Rotation and zoom are one resampling, bilinear, with the border
    continued outwards so that no black wedges appear that a network could read.
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
    return _Augmentation(steps) if steps else None


class _Augmentation(nn.Sequential):
    def __init__(self, steps: list[nn.Module]):
        super().__init__(*steps)

    @torch.no_grad()
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return super().forward(images_BCHW).clamp(0, 1)
