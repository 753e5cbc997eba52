"""The CNN of tsouderos2024 for MNIST: 21,578 parameters with ten outputs, 21,690 with batch norm.

Three 3 x 3 convolutions of 8, 16 and 32 channels; the first two are pooled. Reported test accuracies: 0.9878 (sgd),
0.9857 pooled before the activation, 0.8517 so with sigmoid, 0.992 with adam, batch norm and a falling rate.
"""

from torch import nn

from trainables.models import Body, check_size

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}


def body(
    channels: int,
    image_size_px: int,
    *,
    batch_norm: bool = False,
    activation: str = "relu",
    pool_first: bool = False,
) -> Body:
    check_size("tsouderos_cnn", image_size_px, smallest_px=4)
    layers: list[nn.Module] = []
    before = channels
    for width, pooled in ((8, True), (16, True), (32, False)):
        layers.append(nn.Conv2d(before, width, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        last: list[nn.Module] = [ACTIVATIONS[activation](), *([nn.MaxPool2d(2)] if pooled else [])]
        layers += reversed(last) if pool_first else last
        before = width
    side = image_size_px // 4
    return Body(nn.Sequential(*layers, nn.Flatten()), features=before * side * side)
