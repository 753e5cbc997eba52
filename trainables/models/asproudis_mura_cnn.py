"""The CNN of asproudis2025 for MURA: 12,940,041 parameters with colour images of 224 px, a dense layer of 128 and one
output for the finding and eight for the part of the body.

Convolution, ReLU, pooling, batch norm: of 32, 64 and 128 channels; then dropout (0.4 in the report). Its validation
accuracy is 0.649.
"""

from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int, *, body_dropout: float = 0.0) -> Body:
    """body_dropout: of single values, on the features."""
    check_size("asproudis_mura_cnn", image_size_px, smallest_px=8)
    layers: list[nn.Module] = []
    before = channels
    for width in (32, 64, 128):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(width)]
        before = width
    side = image_size_px // 8
    return Body(
        nn.Sequential(*layers, nn.Flatten(), nn.Dropout(body_dropout)),
        features=before * side * side,
    )
