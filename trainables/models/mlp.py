"""No body at all: the pixels are the features, and the dense layers of the head are the multilayer perceptron.

asproudis2025 on Fashion-MNIST: dense layers of 256 and 128, 235,146 parameters, reported test accuracy 0.887.
tsouderos2024 on MNIST, exercise 1.1: a dense layer of 100, 79,510 parameters; it overfits, no figure is given.
"""

from torch import nn

from trainables.models import Body


def body(channels: int, image_size_px: int) -> Body:
    return Body(nn.Flatten(), features=channels * image_size_px * image_size_px)
