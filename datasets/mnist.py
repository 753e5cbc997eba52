"""MNIST: 60,000 + 10,000 handwritten digits, white on black, gray images of 28 x 28 pixels, ten classes.

    python -m search mnist --data DIR     idx files, Keras' mnist.npz, or PNG folders
    python -m search mnist --demo         procedural digits (`phantoms/digit.py`)

The 60,000 are searched, no trial sees the 10,000. Published (tsouderos2024): a CNN of 21,578 parameters with
a test accuracy of 0.9878 (SGD), 0.992 with Adam, batch norm and a falling rate, chosen on the test images; the standard
error of either is 0.001. The writers are not given. 15 of the test labels are wrong (Northcutt et al. 2021).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import ImageDataset
from datasets.mnist_files import read_mnist
from datasets.phantoms import mixed_up, phantom_dataset
from datasets.phantoms.digit import VERSION, handwritten_digit

TITLE = "handwritten digits (MNIST)"
IMAGES = 70000
CLASSES = tuple("0123456789")
CHANNELS = 1
OBTAIN = """\
Put the four files of MNIST into a folder and pass it, or one above it, with --data DIR; torchvision
(`torchvision.datasets.MNIST("DIR", download=True)`) and Keras (mnist.npz) fetch them:

    DIR/MNIST/raw/  train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-idx3-ubyte  t10k-labels-idx1-ubyte

Files that end in .gz, mnist.npz, and PNG files in Train/0 … Train/9 and Test/0 … Test/9 will do as well."""

TRAIN_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
TEST_COUNTS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
ILLEGIBLE = 0.005
"""Of the phantoms: how many show another digit than they are said to. Good networks reach 0.995 and more on MNIST."""


def read(root: Path) -> ImageDataset:
    return read_mnist("mnist", root, CLASSES)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural digits, as many of each as MNIST has."""
    return phantom_dataset(
        "mnist",
        CLASSES,
        _draw,
        TRAIN_COUNTS,
        TEST_COUNTS,
        seed=seed,
        images=images,
        plant=plant,
        same_patient=True,
        confusion=mixed_up(len(CLASSES), ILLEGIBLE),
        version=VERSION,
        channels=1,
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    return handwritten_digit(np.random.default_rng(row["draw"]), row["appearance"])[:, :, None]
