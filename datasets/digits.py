"""scikit-learn's handwritten digits: 1,797 real gray images of 8 x 8 pixels, 10 classes, no download.

From the UCI "Optical Recognition of Handwritten Digits" test set. A small CNN reaches a mean accuracy of 0.993
over 5 folds (images of the same unnamed writers on both sides of each split).

    python -m search digits
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datasets.arrays import row_digests
from datasets.dataset import ImageDataset

TITLE = "handwritten digits of scikit-learn, real images, no download"
IMAGES = 1797
CLASSES = tuple("0123456789")
CHANNELS = 1
OBTAIN = None


def read(root: Path | None = None) -> ImageDataset:
    images_NHW, targets = _digits()
    return ImageDataset(
        name="digits",
        table=pl.DataFrame({"row": range(len(targets)), "target": targets}).with_columns(
            image_id=pl.format("digit-{}", pl.col("row").cast(pl.String).str.zfill(4)),
            group=pl.col("row").cast(pl.String),  # the writers are not named
            content=pl.Series(row_digests(images_NHW)),
        ),
        classes=CLASSES,
        decoder=_decode,
        channels=1,
        origin="sklearn.datasets.load_digits",
    )


def _decode(row: dict[str, Any]) -> np.ndarray:
    return _digits()[0][row["row"], :, :, None]


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (images, 8, 8) stretched from 0..16 to 0..255, and targets."""
    from sklearn.datasets import load_digits  # a second that a list of the tasks does not need

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target
