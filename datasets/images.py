"""Anybody's own images: a folder with one folder of images per class, or a table of labels.

    python -m search images --data DIR
    python -m search images --data DIR --table labels.csv     columns: `datasets/labels.py`

The order of the classes is that of `sorted`, as in Keras and torchvision; of two classes the second is the positive
one. Images are read as RGB. Folders `train` and `val` above those of the classes are searched together, no trial sees
`test`; where the only folder of `test` is no class (`test/unknown`), its images have no labels and are left out.
Without a column `group` no patient is known, and byte-identical files are the only groups: where a patient has several
films, a score is too good.
"""

from pathlib import Path

import polars as pl

from datasets.dataset import ImageDataset
from datasets.decoding import FileDecoder
from datasets.errors import InputError
from datasets.folders import class_folders, file_digests, groups
from datasets.labels import from_table

TITLE = "your own images: one folder per class, or a table"
IMAGES: int | None = None
CLASSES: tuple[str, ...] | None = None
CHANNELS = 3
OBTAIN = """\
Put the images of every class into a folder of its own and pass the folder above them with --data DIR:

    DIR/
      benign/       the folders' names are the names of the classes
      malignant/    png, jpg, bmp, tif, gif or webp; of two classes the second is the positive one

DIR/train/benign, DIR/val/… and DIR/test/… will do as well: train and val are searched, no trial sees test.
Or pass a table with --table labels.csv (or .parquet): columns image and label; for several labels label_<name>; for
masks mask; optionally group (the patient), split and source."""


def read(root: Path | None, table: Path | None = None) -> ImageDataset:
    """Below `root`, or below the table's folder."""
    if table is not None:
        return from_table("images", table, root)
    if root is None:
        raise InputError(f"--data DIR is missing\n{OBTAIN}")
    return from_class_folders("images", root)


def from_class_folders(name: str, root: Path, classes: tuple[str, ...] | None = None) -> ImageDataset:
    """The images of a folder with one folder per class; `classes` names them by target, None takes all."""
    folders = class_folders(root, None if classes is None else {label: target for target, label in enumerate(classes)})
    image_ids = [path.relative_to(folders.root).as_posix() for path in folders.paths]
    content = file_digests(folders.paths)
    table = pl.DataFrame(
        {
            "image_id": image_ids,
            "path": [str(path.absolute()) for path in folders.paths],
            "target": folders.targets,
            "group": groups(image_ids, content),
            "content": content,
        }
    )
    return ImageDataset(
        name=name,
        table=table if folders.splits is None else table.with_columns(split=pl.Series(folders.splits)),
        classes=folders.classes,
        decoder=FileDecoder("RGB"),
        channels=3,
        origin=str(root),
        skipped=folders.skipped,
    )
