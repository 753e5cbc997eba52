"""The AlexNet of the laboratory course CM2003 at KTH: 286,193 parameters with one channel of 128 px, width 8, dense
layers of 64 and 64 and one output; 286,401 with batch norm.

Five 3 x 3 convolutions of 1, 2, 4, 4 and 2 times the width, pooled after the first, second and fifth. In cm2003lab3 it
has widths of 8, 32 and 64 and reaches validation accuracies of 0.785 to 0.83 on skin.
"""

from torch import nn

from trainables.models import Body, check_size


def body(
    channels: int, image_size_px: int, *, batch_norm: bool = False, width: int = 8, body_dropout: float = 0.0
) -> Body:
    """body_dropout: of whole channels, after the ReLU of every block (0.1 in the report)."""
    check_size("kth_alexnet", image_size_px, smallest_px=8)
    layers: list[nn.Module] = []
    before = channels
    for times, pooled in ((1, True), (2, True), (4, False), (4, False), (2, True)):
        after = times * width
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(after))
        layers += [nn.ReLU(), nn.Dropout2d(body_dropout)]
        if pooled:
            layers.append(nn.MaxPool2d(2))
        before = after
    side = image_size_px // 8
    return Body(nn.Sequential(*layers, nn.Flatten()), features=before * side * side)
