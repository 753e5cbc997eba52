"""A U-Net whose last map is averaged: a sketch of the classifier of kamaneh2024 for blood cells, which its report does
not specify further. 31,032,200 parameters with colour images and eight outputs; the report's accuracy is 0.9783.
"""

from torch import nn

from trainables.models import Body, check_size
from trainables.models.unet import UNet


def body(channels: int, image_size_px: int, *, batch_norm: bool = False, width: int = 64, depth: int = 4) -> Body:
    """width: channels of the first level. depth: how often the sides are halved."""
    check_size("unet_classifier", image_size_px, multiple_of=2**depth)
    module = nn.Sequential(UNet(channels, batch_norm, width, depth), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Body(module, features=width)
