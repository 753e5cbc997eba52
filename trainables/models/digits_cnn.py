"""A small CNN for images of 8 x 8 pixels: three 3 x 3 convolutions with batch norm, one pooling."""

from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int) -> Body:
    check_size("digits_cnn", image_size_px, smallest_px=2)
    widths = (32, 32, 64)
    layers: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    side = image_size_px // 2
    return Body(nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten()), features=widths[-1] * side * side)
