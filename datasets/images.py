"""Anybody's own images: a folder with one folder of images per class.

    python -m search images --data DIR

The order of the classes is that of `sorted`, as in Keras and torchvision; of two classes the second is the positive
one. Images are read as RGB. No patient is known, so byte-identical files are the only groups: where a patient has
several films, a score is too good.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, content_digest
from datasets.decoding import class_folders, decode_file

TITLE = "your own images, one folder per class"
IMAGES: int | None = None
CLASSES: tuple[str, ...] | None = None
CHANNELS = 3
OBTAIN = """\
Put the images of every class into a folder of its own and pass the folder above them with --data DIR:

    DIR/
      benign/       the folders' names are the names of the classes
      malignant/    png, jpg, bmp, tif, gif or webp; of two classes the second is the positive one"""


def read(root: Path) -> ImageDataset:
    return from_class_folders("images", root)


def from_class_folders(name: str, root: Path, classes: tuple[str, ...] | None = None) -> ImageDataset:
    """The images of a folder with one folder per class; `classes` names them by target, None takes all."""
    folders = class_folders(root, None if classes is None else {label: target for target, label in enumerate(classes)})
    image_ids = [path.relative_to(folders.root).as_posix() for path in folders.paths]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in folders.paths]
    first_with: dict[str, str] = {}
    for image_id, digest in zip(image_ids, hashes, strict=True):
        first_with.setdefault(digest, image_id)
    table = pl.DataFrame(
        {
            "image_id": image_ids,
            "path": [str(path.absolute()) for path in folders.paths],
            "target": folders.targets,
            "group": [first_with[digest] for digest in hashes],
        }
    )
    rows = zip(image_ids, hashes, map(str, folders.targets), table["group"], strict=True)
    return ImageDataset(
        name=name,
        table=table,
        classes=folders.classes,
        decoder=_decode,
        channels=3,
        origin=str(root),
        digest=content_digest(part for row in sorted(rows) for part in row),
        skipped=folders.skipped,
    )


def _decode(row: dict[str, Any]) -> np.ndarray:
    return decode_file(Path(row["path"]), "RGB")
