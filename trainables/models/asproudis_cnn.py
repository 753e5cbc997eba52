"""The CNN of asproudis2025 for CIFAR-10: 666,986 parameters with a dense layer of 256 and ten outputs.

Blocks of 32-32, 64-64 and 128 channels, each pooled; batch norm stands after the first convolution's ReLU. The report
has dropout of 0.25, 0.25 and 0.4 after the blocks (`body_dropout` 0.4) and 0.5 after the dense layer; its test
accuracy is about 0.71.
"""

from torch import nn

from trainables.models import Body, check_size

EARLY = 0.625
"""Dropout after the first two blocks, as a share of that after the third: 0.25 / 0.4."""


def body(channels: int, image_size_px: int, *, body_dropout: float = 0.0) -> Body:
    """body_dropout: of single values, after the third block; after the first two 0.625 of it."""
    check_size("asproudis_cnn", image_size_px, smallest_px=8)
    layers: list[nn.Module] = []
    before = channels
    for width, convolutions, share in ((32, 2, EARLY), (64, 2, EARLY), (128, 1, 1.0)):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)]
        if convolutions == 2:
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(share * body_dropout)]
        before = width
    side = image_size_px // 8
    return Body(nn.Sequential(*layers, nn.Flatten()), features=before * side * side)
