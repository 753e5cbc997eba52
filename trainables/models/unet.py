"""U-Net for masks (Ronneberger et al. 2015, arXiv 1505.04597), with padding, so that sides come back as they went in.

Every level is two 3 x 3 convolutions; the way down halves sides and doubles channels, the way up does the reverse with
2 x 2 transposed convolutions and puts the map of the way down beside it. With the paper's 64 to 1,024 channels it has
31,030,593 parameters, of gray images and with one logit.
"""

import torch
from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int, *, batch_norm: bool = False, width: int = 64, depth: int = 4) -> Body:
    """width: channels of the first level. depth: how often the sides are halved."""
    check_size("unet", image_size_px, multiple_of=2**depth)
    return Body(UNet(channels, batch_norm, width, depth), features=width, dense=True)


class UNet(nn.Module):
    """Images (B, channels, H, W) to a map of features (B, width, H, W); H and W are multiples of 2^depth."""

    def __init__(self, channels: int, batch_norm: bool, width: int, depth: int):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _convolutions(before, after, batch_norm) for before, after in zip((channels, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1])
        self.up = nn.ModuleList(_convolutions(2 * width, width, batch_norm) for width in widths[:-1])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        passed = []
        x_BCHW = images_BCHW
        for level, convolutions in enumerate(self.down):
            x_BCHW = convolutions(self.pool(x_BCHW) if level else x_BCHW)
            passed.append(x_BCHW)
        for level in reversed(range(len(self.up))):
            x_BCHW = self.up[level](torch.cat((passed[level], self.enlarge[level](x_BCHW)), dim=1))
        return x_BCHW


def _convolutions(before: int, after: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers.append(nn.Conv2d(channels, after, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
