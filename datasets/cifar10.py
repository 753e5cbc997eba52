"""CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 pixels, ten classes of equal size.

    python -m search cifar10 --data DIR     cifar-10-batches-py, cifar-10-python.tar.gz, an .npz, or PNG folders
    python -m search cifar10 --demo         procedural things (`phantoms/thing.py`)

The 50,000 are searched, no trial sees the 10,000. Published (asproudis2025): a CNN of three blocks with a
test accuracy of about 0.71 (0.786 in the author's notebook). 3.3 % of the test images have near-duplicates among the
50,000 (Barz and Denzler 2019).

The batches are pickles, and a pickle may run any program when it is opened: see `datasets/batches.py`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.array_sets import from_arrays, keras_parts
from datasets.batches import read_batches
from datasets.dataset import ImageDataset
from datasets.errors import InputError
from datasets.folders import below, beside, folder_at
from datasets.images import from_class_folders
from datasets.phantoms import mixed_up, phantom_dataset
from datasets.phantoms.thing import VERSION, thing

TITLE = "small photographs of things (CIFAR-10)"
IMAGES = 60000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CHANNELS = 3
OBTAIN = """\
Download cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and pass it with --data FILE, or
unpack it (torchvision and Keras do) and pass the folder, or the one above it:

    DIR/cifar-10-batches-py/  data_batch_1 … data_batch_5  test_batch

PNG files in train/airplane … test/truck, and an .npz with x_train, y_train, x_test, y_test will do as well."""

SIZE_PX = 32
DEEPEST = 2
"""Levels of folders above the batches: an unpacked archive in a folder of its own."""
UNUSUAL = 0.05
"""Of the phantoms: how many look like another class."""


def read(root: Path) -> ImageDataset:
    """Batches in `root` or in a folder of it; else an .npz; else folders of images."""
    if not root.exists():
        raise InputError(f"{root}: no such file or folder")
    if root.is_file():
        return _from_npz(root, root)
    batches = next((folder.path for folder in below(root, DEEPEST) if (folder.path / "data_batch_1").is_file()), None)
    if batches is not None:
        return read_batches("cifar10", batches, CLASSES, root)
    for file in folder_at(root).files:
        if file.suffix.lower() == ".npz" and file.stem.lower().replace("-", "").replace("_", "") == "cifar10":
            return _from_npz(file, root)
    try:
        return from_class_folders("cifar10", root, CLASSES)
    except InputError as error:
        raise InputError(f"{error}; nor is there cifar-10-batches-py with data_batch_1, or cifar10.npz") from None


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural things, as many of each as CIFAR-10 has."""
    return phantom_dataset(
        "cifar10",
        CLASSES,
        _draw,
        (5000,) * 10,
        (1000,) * 10,
        seed=seed,
        images=images,
        plant=plant,
        same_patient=True,
        confusion=mixed_up(len(CLASSES), UNUSUAL),
        version=VERSION,
    )


def _from_npz(file: Path, root: Path) -> ImageDataset:
    parts = keras_parts(file, (SIZE_PX, SIZE_PX, 3), len(CLASSES))
    return from_arrays("cifar10", parts, CLASSES, 3, str(root), beside(root, [file]))


def _draw(row: dict[str, Any]) -> np.ndarray:
    return thing(np.random.default_rng(row["draw"]), row["appearance"])
