"""Melanomas and naevi: 1,200 colour photographs of skin of the KTH course CM2003, laboratory 1 or 2.

    python -m search skin --data DIR      DL_course_data, one of its laboratories, or a folder with train in it
    python -m search skin --demo          procedural lesions

Course material, not public; the origin is probably the ISIC archive (unverified). The class sizes are not published:
the 200 held-out images are 100 and 100, as networks that say one class only score 0.5 on them. Published on these 200,
on which all was chosen: an AlexNet has 0.785 to 0.83 (cm2003lab3) and 0.775 to 0.85 (two other groups), VGG16 features
0.87. The standard error at 0.83 is 0.027; the same settings differ by up to 0.055 from group to group.

The reports read the images as gray, 128 x 128, in the first laboratory and as RGB in the later ones; here they are in
colour, which a melanoma shows. Melanoma is class 1, the positive one; in the course it is class 0.

No patient is known. Byte-identical files share a group, two photographs of one person do not.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import ImageDataset
from datasets.kth import course_images
from datasets.phantoms import mixed_up, phantom_dataset
from datasets.phantoms.lesion import VERSION, skin_lesion

TITLE = "melanomas and naevi (KTH course CM2003)"
IMAGES = 1200
CLASSES = ("Nevi", "Mel")
CHANNELS = 3
OBTAIN = """\
The images are given to students of the KTH course CM2003. Pass DL_course_data, one of its laboratories, or the folder
that holds train, with --data DIR; where both laboratories are there, one of them:

    DIR/Lab1/Skin/train/      1,000 files whose names hold Mel or Nev    DIR/Lab1/Skin/test/         200
    DIR/Lab2/Skin/train/      1,000 in the folders Mel and Nevi          DIR/Lab2/Skin/validation/   200"""

SIZE_PX = 128
"""Of a phantom, as the reports load the images."""
DEVELOPMENT, TEST = (500, 500), (100, 100)
"""Of phantoms; that the real 1,000 are halves too is a guess."""
MIXED_UP = 0.1
"""Of phantoms that look like the other class."""


def read(root: Path) -> ImageDataset:
    return course_images("skin", root, CLASSES, {"Mel": 1, "Nev": 0}, gray=False)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    return phantom_dataset(
        "skin",
        CLASSES,
        _draw,
        DEVELOPMENT,
        TEST,
        seed=seed,
        images=images,
        plant=plant,
        same_patient=True,
        confusion=mixed_up(2, MIXED_UP),
        version=VERSION,
        target_name="diagnosis",
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    return skin_lesion(np.random.default_rng(row["draw"]), SIZE_PX, melanoma=row["appearance"] == 1)
