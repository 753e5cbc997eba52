"""The CNN from scratch of svendsen2025, model 1: 1,045,441 parameters with one dense layer of 128 and one output.

Four convolutions without padding; a 224 x 224 image leaves as 128 x 7 x 7. The report's validation accuracy on 81
chest films is 0.8148 (learning rate 1e-5, 331 epochs, augmented).
"""

from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int) -> Body:
    check_size("svendsen_cnn", image_size_px, smallest_px=70)  # smaller ones vanish in the last pooling
    side = ((((image_size_px - 4) // 3 - 2) // 2 - 2) // 2 - 2) // 2
    module = nn.Sequential(
        nn.Conv2d(channels, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(128, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return Body(module, features=128 * side * side)
