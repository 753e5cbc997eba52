"""Augmentation, drawn anew for every image of a batch, on the batch's device.

Those that move pixels come first, and move masks alike; then gray values are stretched, changed in brightness and
contrast, and noise is added, which masks do not notice.

Shapes: B images, C channels, H height, W width, N = C x H x W values of an image, M some of them.
"""

import kornia.augmentation as K
import torch
from torch import nn

from trainables.config import TrialConfig


def augmentation(config: TrialConfig) -> "Augmentation | None":
    """What the configuration asks for; None where nothing is to be done.

    Rotation and zoom are one resampling, bilinear, with the border continued outwards so that no black wedges appear
    that a network could read.
    """
    moves: list[nn.Module] = []
    if config.flip:
        moves.append(K.RandomHorizontalFlip(p=0.5))
    if config.vertical_flip:
        moves.append(K.RandomVerticalFlip(p=0.5))
    if config.rotation_deg or config.zoom:
        moves.append(
            K.RandomAffine(
                degrees=config.rotation_deg,
                scale=(1 - config.zoom, 1 + config.zoom),
                padding_mode="border",
                p=1.0,
            )
        )
    changes: list[nn.Module] = []
    if config.intensity_percentile:
        changes.append(PercentileStretch(config.intensity_percentile))
    if config.brightness or config.contrast:
        changes.append(K.ColorJitter(brightness=config.brightness, contrast=config.contrast, p=1.0))
    if config.noise:
        changes.append(GaussianNoise(config.noise))
    return Augmentation(moves, changes) if config.augmented else None


class Augmentation(nn.Module):
    """Maps float images (B, C, H, W) in [0, 1] to the same shape and range; random numbers are of torch's global
    generator.

    moves: of kornia, those that masks follow. changes: those that they do not.
    """

    def __init__(self, moves: list[nn.Module], changes: list[nn.Module]):
        super().__init__()
        self._moves = K.AugmentationSequential(*moves) if moves else None
        self._changes = nn.Sequential(*changes)

    @torch.no_grad()
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if self._moves is not None:
            images_BCHW = self._moves(images_BCHW, data_keys=["input"])
        changed: torch.Tensor = self._changes(images_BCHW)
        return changed.clamp(0, 1)

    @torch.no_grad()
    def together(self, images_BCHW: torch.Tensor, masks_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and the classes of their pixels, moved alike: masks by the nearest pixel, so that classes stay."""
        if self._moves is not None:
            images_BCHW, masks_B1HW = self._moves(images_BCHW, masks_BHW[:, None], data_keys=["input", "mask"])
            masks_BHW = masks_B1HW[:, 0]
        changed: torch.Tensor = self._changes(images_BCHW)
        return changed.clamp(0, 1), masks_BHW


class PercentileStretch(nn.Module):
    """With probability one half, the line through an image's values that makes this percentile 0 and 100 minus it 1
    (the value at the nearest rank, of all channels together, so that colours stay; of large images among `ENOUGH`
    values or more, evenly spread). What lies outside is clamped. An image of which the two are equal stays as it is."""

    ENOUGH = 128 * 128

    def __init__(self, percentile: float):
        super().__init__()
        self._share = percentile / 100

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        chosen = (torch.rand(len(images_BCHW)) < 0.5).nonzero()[:, 0].to(images_BCHW.device, non_blocking=True)
        values_BN = images_BCHW[chosen].flatten(1)
        some_BM = values_BN[:, :: max(1, values_BN.shape[1] // self.ENOUGH)]
        rank = round(self._share * (some_BM.shape[1] - 1))
        black_B1 = some_BM.kthvalue(1 + rank, dim=1, keepdim=True).values
        white_B1 = some_BM.kthvalue(some_BM.shape[1] - rank, dim=1, keepdim=True).values
        stretched_BN = (values_BN - black_B1) / (white_B1 - black_B1)
        stretched_BN = torch.where(white_B1 > black_B1, stretched_BN.clamp(0, 1), values_BN)
        return images_BCHW.index_copy(0, chosen, stretched_BN.view(-1, *images_BCHW.shape[1:]))


class GaussianNoise(nn.Module):
    """Adds to every value noise of a standard deviation that is drawn for each image from [0, most]."""

    def __init__(self, most: float):
        super().__init__()
        self._most = most

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        deviations_B111 = torch.rand(len(images_BCHW), 1, 1, 1, device=images_BCHW.device) * self._most
        return images_BCHW + torch.randn_like(images_BCHW) * deviations_B111
