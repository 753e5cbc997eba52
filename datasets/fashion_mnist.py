"""Fashion-MNIST: 60,000 + 10,000 articles of clothing, gray images of 28 x 28 pixels, ten classes of equal size.

    python -m search fashion_mnist --data DIR     idx files, or PNG folders
    python -m search fashion_mnist --demo         procedural garments (`phantoms/garment.py`)

From Zalando, MIT licence. The 60,000 are searched, no trial sees the 10,000. Published test accuracies: a
multi-layer perceptron 0.887 (asproudis2025), two convolutions 0.925 and people 0.835 (Zalando's table); the standard
error at 0.9 is 0.003. There are near-duplicates between train and test (arXiv 1906.08255).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import ImageDataset
from datasets.mnist_files import read_mnist
from datasets.phantoms import mixed_up, phantom_dataset
from datasets.phantoms.garment import VERSION, garment

TITLE = "articles of clothing (Fashion-MNIST)"
IMAGES = 70000
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CHANNELS = 1
OBTAIN = """\
Put the four files of Fashion-MNIST into a folder and pass it, or one above it, with --data DIR; torchvision
(`torchvision.datasets.FashionMNIST("DIR", download=True)`) and Keras fetch them:

    DIR/FashionMNIST/raw/  train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-idx3-ubyte  …

Files that end in .gz, and PNG files in Train/0 … Train/9 and Test/0 … Test/9 will do as well. MNIST has the same file
names and is refused."""

UNUSUAL = 0.08
"""Of the phantoms: how many look like another class. Shirts, pullovers and coats do, and hold good networks at 0.95."""


def read(root: Path) -> ImageDataset:
    return read_mnist("fashion_mnist", root, CLASSES)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural garments, as many of each as Fashion-MNIST has."""
    return phantom_dataset(
        "fashion_mnist",
        CLASSES,
        _draw,
        (6000,) * 10,
        (1000,) * 10,
        seed=seed,
        images=images,
        plant=plant,
        same_patient=True,
        confusion=mixed_up(len(CLASSES), UNUSUAL),
        version=VERSION,
        channels=1,
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    return garment(np.random.default_rng(row["draw"]), row["appearance"])[:, :, None]
