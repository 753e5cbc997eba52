"""Blood cells in eight classes: the homework set of AN2DL 2024, BloodMNIST, and PBC, of which both are made.

    python -m search blood --data FILE    training_set.npz or bloodmnist_64.npz
    python -m search blood --data DIR     the folder of such a file, or PBC_dataset_normal_DIB
    python -m search blood --demo         procedural cells

PBC (Acevedo et al., Data in Brief 2020): 17,092 pictures of about 360 x 363 pixels. BloodMNIST (Yang et al., Scientific
Data 2023): their central 200 x 200 pixels at 28, 64, 128 or 224, split 7:1:2 by image; train and val are searched here,
test is not. Published on its test part: accuracy 0.966 (Google AutoML), 0.972 (public code, ResNet-18 from ImageNet).

AN2DL (Politecnico di Milano): 13,759 pictures of 96 x 96 pixels, of which 1,800 are two jokes: one 200 times under
every label, the other 200 times as a monocyte. The other 11,959 have exactly the class counts of BloodMNIST's training
part, so they are most probably its images: never use that part as additional data for it. kamaneh2024: 0.971 locally
with a fine-tuned MobileNet; 0.978 locally with a U-Net-like classifier, and not above 0.30 on the hidden test, whose
images are strongly transformed. A local score says little about that test.

No patient and no slide is known, so that byte-identical images are the only groups: scores are too good by as much
as cells of one slide resemble each other.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datasets.array_sets import check_part, from_arrays, part_of
from datasets.arrays import NAMES_TOLD, names
from datasets.dataset import ImageDataset, Skipped, Split
from datasets.decoding import FileDecoder
from datasets.errors import InputError
from datasets.folders import below, beside, class_folders, file_digests, groups
from datasets.phantoms import mixed_up, phantom_dataset
from datasets.phantoms.cell import VERSION, blood_cell
from datasets.phantoms.pitfalls import known_pitfalls

TITLE = "blood cells in eight classes (AN2DL, BloodMNIST, PBC)"
IMAGES = 11959
"""Of AN2DL without its jokes; PBC and the three parts of BloodMNIST have 17,092."""
CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
CHANNELS = 3
OBTAIN = """\
One of these, with --data FILE, or --data DIR with the folder that it lies in:

    bloodmnist.npz, bloodmnist_64.npz, bloodmnist_128.npz, bloodmnist_224.npz    from zenodo.org/records/10519652
    PBC_dataset_normal_DIB/basophil, …, ig, …, platelet    from data.mendeley.com/datasets/snkd93bnjr, unpacked
    training_set.npz    of the course AN2DL 2024, for its students"""

FOLDERS = {name.replace("immature granulocyte", "ig"): target for target, name in enumerate(CLASSES)}
"""What the folders of PBC are called."""
COUNTS = (852, 2181, 1085, 2026, 849, 993, 2330, 1643)
"""Per class, of AN2DL without its jokes and of BloodMNIST's training part alike."""
OFFICIAL: dict[str, Split] = {"train": "development", "val": "development", "test": "test"}
"""The parts of BloodMNIST; `val` is what its own recipe chooses the epoch by."""
SHAPE = (None, None, CHANNELS)
"""Of the images in arrays: of any size."""
SIZE_PX = 96
"""Of a phantom, as of AN2DL."""
MIXED_UP = 0.03
"""Of phantoms that look like another class."""
JOKES_PER_CLASS = 200
DEEPEST = 2
"""Levels of folders above the data that are looked into."""


def read(root: Path) -> ImageDataset:
    """Whichever of the three forms `root` is or holds; an `InputError` where it holds several of them, or none."""
    found, others = _found(root)
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise InputError(f"{root}: holds blood cells in several forms, which have images in common; pass one: {names}")
    if not found:
        why = f"; {others[0].path}: {others[0].reason}" if others else ""
        raise InputError(f"{root}: no blood cells found{why}.\n{OBTAIN}")
    return _from_folders(root, found[0]) if found[0].is_dir() else _from_arrays(root, found[0], others)


def _found(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Files of arrays and folders of class folders in `root`; and files of other arrays, which are left out."""
    if not root.exists():
        raise InputError(f"{root}: no such file or folder.\n{OBTAIN}")
    if root.is_file():
        _form(root)
        return [root], []
    found: list[Path] = []
    others: list[Skipped] = []
    for folder in below(root, DEEPEST):
        if not any(parent in found for parent in folder.path.parents):
            for file in (entry for entry in folder.files if entry.suffix.lower() == ".npz"):
                try:
                    _form(file)
                    found.append(file)
                except InputError as error:
                    others.append(Skipped(file.relative_to(root).as_posix(), str(error).removeprefix(f"{file}: ")))
            if any(entry.name.casefold() in FOLDERS for entry in folder.folders):
                found.append(folder.path)
    return found, others


def _form(file: Path) -> dict[str, str]:
    """The parts of a file of arrays, each with what its arrays' names begin with; from their headers alone.

    Raises `InputError` where it is neither of the two, or its arrays have another type or shape.
    """
    held = names(file)
    if {"images", "labels"} <= set(held):
        parts = {"image": ""}
    elif {f"{part}_{what}" for part in OFFICIAL for what in ("images", "labels")} <= set(held):
        if "mnist" in file.stem.lower() and not file.stem.lower().startswith("bloodmnist"):
            raise InputError(
                f"{file}: another data set of MedMNIST; expected bloodmnist.npz, or with its size behind _"
            )
        parts = {part: f"{part}_" for part in OFFICIAL}
    else:
        raise InputError(
            f"{file}: holds {', '.join(sorted(held)[:NAMES_TOLD]) or 'no arrays'}; expected images and labels (AN2DL), "
            f"or train_images, train_labels, val_… and test_… (BloodMNIST)"
        )
    for begin in parts.values():
        check_part((file, f"{begin}images"), (file, f"{begin}labels"), SHAPE)
    return parts


def _from_arrays(root: Path, file: Path, others: list[Skipped]) -> ImageDataset:
    parts = [
        part_of(
            *(part, OFFICIAL.get(part, "development")),
            *((file, f"{begin}images"), (file, f"{begin}labels")),
            *(SHAPE, len(CLASSES)),
        )
        for part, begin in _form(file).items()
    ]
    left_out = {entry.path: entry for entry in (*beside(root, [file]), *others)}
    cells = from_arrays("blood", parts, CLASSES, 3, str(root), left_out.values())
    table = cells.table
    if len(parts) > 1:
        table = table.with_columns(official_split=pl.col("image_id").str.split("/").list.first())
    return dataclasses.replace(cells, table=table, target_name="cell")


def _from_folders(root: Path, folder: Path) -> ImageDataset:
    cells = class_folders(folder, FOLDERS, parts={})
    image_ids = [path.relative_to(cells.root).as_posix() for path in cells.paths]
    content = file_digests(cells.paths)
    inner = folder.relative_to(root)
    return ImageDataset(
        name="blood",
        table=pl.DataFrame(
            {
                "image_id": image_ids,
                "target": cells.targets,
                "group": groups(image_ids, content),
                "content": content,
                "path": [str(path.absolute()) for path in cells.paths],
                # What the file's name says beyond the folder: metamyelocytes (MMY), band neutrophils (BNE), …
                "prefix": [path.name.rpartition("_")[0].upper() for path in cells.paths],
            }
        ),
        classes=CLASSES,
        decoder=FileDecoder("RGB"),
        channels=3,
        origin=str(root),
        target_name="cell",
        skipped=(
            *beside(root, [folder]),
            *(Skipped((inner / file.path).as_posix(), file.reason) for file in cells.skipped),
        ),
    )


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural cells with the class counts of AN2DL. Where `contaminants` are planted and `images` is None, they are
    AN2DL's own: behind the cells 1,600 of one joke, 200 under each label, and 200 of another, as monocytes."""
    plant = known_pitfalls(plant)
    as_an2dl = "contaminants" in plant and images is None
    cells = phantom_dataset(
        "blood",
        CLASSES,
        _draw_cell,
        COUNTS,
        seed=seed,
        images=images,
        plant=plant - {"contaminants"} if as_an2dl else plant,
        same_patient=True,
        confusion=mixed_up(len(CLASSES), MIXED_UP),
        version=VERSION,
        target_name="cell",
    )
    return _with_jokes(cells, f"phantoms, seed {seed}, planted: {', '.join(sorted(plant))}") if as_an2dl else cells


def _with_jokes(cells: ImageDataset, origin: str) -> ImageDataset:
    """With the two blocks that close the file of AN2DL; the image of a joke is the same wherever it stands."""
    labels = [*np.tile(range(len(CLASSES)), JOKES_PER_CLASS), *[CLASSES.index("monocyte")] * JOKES_PER_CLASS]
    number = cells.splits["development"] + np.arange(len(labels))
    split = {"split": "development"} if "split" in cells.table.columns else {}
    jokes = pl.DataFrame({"image_id": [f"phantom-{i:05d}" for i in number], "target": labels, "number": number})
    jokes = jokes.select(
        "image_id",
        "target",
        group="image_id",
        appearance="target",
        draw=pl.col("number").cast(pl.UInt64),
        patient_draw=pl.col("number").cast(pl.UInt64),
        joke=1 + (pl.col("number") >= number[-JOKES_PER_CLASS]).cast(pl.Int64),
        copy_of=pl.lit(""),
        planted=pl.lit("contaminants"),
        **{name: pl.lit(value) for name, value in split.items()},
    ).with_columns(content=pl.format(f"blood:{VERSION}:joke:{{}}", "joke"))
    return dataclasses.replace(cells, table=pl.concat([cells.table, jokes], how="diagonal_relaxed"), origin=origin)


def _draw_cell(row: dict[str, Any]) -> np.ndarray:
    return blood_cell(np.random.default_rng(row["draw"]), SIZE_PX, CLASSES[row["appearance"]])
