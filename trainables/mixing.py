"""Mixup and CutMix: every image of a batch gets a part of another one, and is counted as both.

The other image is the one at the same place from the end of the batch, whose order is random; the share that an image
keeps, and for CutMix the rectangle, are the same for the whole batch. The loss is the mean of those with the labels of
both, weighted by these shares, which for a cross-entropy is the one with mixed labels. All as timm does it
(`timm.data.mixup`, mode `batch`), but drawn by torch's generator, which is seeded for every epoch.

Shapes: B images of a batch, C channels, H height, W width.
"""

import torch

from trainables.config import TrialConfig


def mixed(config: TrialConfig, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The images, mixed as the configuration asks, and the share that each has kept of itself; 1 where nothing is."""
    if not config.mixed:
        return images_BCHW, 1.0
    cuts = bool(config.cutmix) and (not config.mixup or bool(torch.rand(()) < 0.5))
    concentration = torch.tensor(float(config.cutmix if cuts else config.mixup))  # which may be given as a whole number
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    others_BCHW = images_BCHW.flip(0)
    if not cuts:
        return images_BCHW * share + others_BCHW * (1 - share), share
    height, width = images_BCHW.shape[2:]
    centre = (int(torch.randint(height, ())), int(torch.randint(width, ())))
    rows, columns = rectangle(height, width, share, centre)
    images_BCHW = images_BCHW.clone(memory_format=torch.preserve_format)
    images_BCHW[:, :, rows, columns] = others_BCHW[:, :, rows, columns]
    return images_BCHW, 1 - len(range(height)[rows]) * len(range(width)[columns]) / (height * width)


def rectangle(height: int, width: int, share: float, centre: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a rectangle with the image's proportions and 1 - share of its area, rounded down to whole
    pixels (Yun et al. 2019, eq. 2); the part of it that lies in the image."""

    def interval(size: int, middle: int) -> slice:
        length = int(size * (1 - share) ** 0.5)
        return slice(max(middle - length // 2, 0), min(middle + (length + 1) // 2, size))

    return interval(height, centre[0]), interval(width, centre[1])
