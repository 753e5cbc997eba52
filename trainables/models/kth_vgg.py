"""The VGG of the laboratory course CM2003 at KTH: 304,409 parameters with one channel of 128 px, width 8, three dense
layers of 64 and one output; 1,060,017 of width 16, 15,246,273 of width 64.

Thirteen 3 x 3 convolutions of 1, 2, 4, 8 and 8 times the width, pooled after the second, fourth, seventh, tenth and
thirteenth. In cm2003lab3 it has dropout of 0.2 after each dense layer; validation accuracies: 0.3333 on skin (width
16; no multiple of 1/200, so of a few steps per epoch), 0.75 on bone (width 64).
"""

from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int, *, batch_norm: bool = False, width: int = 8) -> Body:
    check_size("kth_vgg", image_size_px, smallest_px=32)
    layers: list[nn.Module] = []
    before = channels
    for times, convolutions in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
        for _ in range(convolutions):
            after = times * width
            layers.append(nn.Conv2d(before, after, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.ReLU())
            before = after
        layers.append(nn.MaxPool2d(2))
    side = image_size_px // 32
    return Body(nn.Sequential(*layers, nn.Flatten()), features=before * side * side)
