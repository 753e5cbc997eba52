"""Atypical and normal femoral fractures: 1,208 radiographs of the KTH course CM2003, laboratory 2 (1,212 in 1).

    python -m search bone --data DIR      DL_course_data, one of its laboratories, or a folder with train in it
    python -m search bone --demo          procedural films

Course material, not public; probably of the patients of Zdolsek et al. (Acta Orthopaedica 2021), who had two to three
films each. The names of the files say nothing of patients, so a score over images is too good by an unknown amount;
only byte-identical files share a group. Worse, words burnt into the corners give the class away: cm2003lab3 saw the
activation maps light up there and not on the fracture, and VGG16 features reach 1.0 on the 96 held-out films of
laboratory 2. Read such a score as a warning.

The held-out films are 48 and 48 (laboratory 2) and most probably 71 and 69 (laboratory 1); in training the larger class
has about 0.59 (all inferred from networks that say one class only). The films are large and read as gray. An atypical
fracture (AFF) is class 1, the positive one; in the course it is class 0.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import ImageDataset
from datasets.kth import course_images
from datasets.phantoms import phantom_dataset, sign_missing
from datasets.phantoms.femur import VERSION, femur_film

TITLE = "atypical and normal femoral fractures (KTH course CM2003)"
IMAGES = 1208
CLASSES = ("NFF", "AFF")
CHANNELS = 1
OBTAIN = """\
The films are given to students of the KTH course CM2003. Pass DL_course_data, one of its laboratories, or the folder
that holds train, with --data DIR; where both laboratories are there, one of them:

    DIR/Lab2/Bone/train/      1,112 in the folders AFF and NFF           DIR/Lab2/Bone/validation/    96
    DIR/Lab1/Bone/train/      1,072 files whose names hold AFF or NFF    DIR/Lab1/Bone/test/         140"""

SIZE_PX = 128
"""Of a phantom, as the reports load the films."""
DEVELOPMENT, TEST = (656, 456), (48, 48)
"""Of phantoms: 0.59 of the larger class; that it is the normal fractures is a guess."""
SIGN_MISSING = 0.1
"""Of atypical phantoms that look like normal ones."""


def read(root: Path) -> ImageDataset:
    return course_images("bone", root, CLASSES, {"AFF": 1, "NFF": 0}, gray=True)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    return phantom_dataset(
        "bone",
        CLASSES,
        _draw,
        DEVELOPMENT,
        TEST,
        seed=seed,
        images=images,
        plant=plant,
        confusion=sign_missing(SIGN_MISSING),
        version=VERSION,
        channels=1,
        target_name="diagnosis",
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    rng, patient = np.random.default_rng(row["draw"]), np.random.default_rng([row["patient_draw"], 1])
    return femur_film(rng, SIZE_PX, row["appearance"] == 1, patient)[:, :, None]
