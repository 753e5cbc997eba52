"""COVID-19 vs normal chest films, 324 images: 162 + 162.

    python -m search covid --data DIR     the films themselves
    python -m search covid --demo         procedural films (`phantoms/chest.py`): best possible accuracy 0.97

From Kaggle; who made it, from which archives and under which licence is not known. Published on it (svendsen2025): four
models with 66, 75, 77 and 72 of 81 validation films right, accuracies 0.815 to 0.951, stopped and compared on the same
81 films. The standard error at 0.95 is 0.024: the best two, two films apart, cannot be told from each other.

Two warnings. COVID films and normal films of public collections often come from different archives, so that a network
may learn the archive and not the disease (DeGrave et al., Nature Machine Intelligence 2021). And no patient is
known: byte-identical files share a group, two films of one patient do not.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import ImageDataset
from datasets.images import from_class_folders
from datasets.phantoms import phantom_dataset, sign_missing
from datasets.phantoms.chest import NO_OPACITY, VERSION, chest_film

TITLE = "COVID-19 vs normal chest films"
IMAGES = 324
CLASSES = ("NORMAL", "COVID")
"""COVID is 1, the positive class; the opposite of Keras' alphabetical order, where the network gives P(normal)."""
CHANNELS = 3
OBTAIN = """\
Download from Kaggle the data set whose address ends in covid-19-vs-normal-chest-x-rays (a free account is needed),
unpack it and pass the folder with --data DIR:

    DIR/
      COVID/COVID/      162 films
      NORMAL/NORMAL/    162 films"""

SIZE_PX = 224
"""Of a phantom: the size at which svendsen2025 loads the films."""


def read(root: Path) -> ImageDataset:
    return from_class_folders("covid", root, CLASSES)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural films, the classes in turn. Film i depends on (seed, i, plant) alone: more can always be drawn."""
    return phantom_dataset(
        "covid",
        CLASSES,
        _draw,
        development=(162, 162),
        seed=seed,
        images=images,
        plant=plant,
        same_patient=True,
        confusion=sign_missing(NO_OPACITY),
        version=VERSION,
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    film_HW = chest_film(np.random.default_rng(row["draw"]), SIZE_PX, opacities=row["appearance"] == 1)
    return np.repeat(film_HW[:, :, None], 3, axis=2)
