"""Glands in colon tissue: 85 + 60 pictures with masks, as prepared for a course (Uppsala), or the originals (GlaS).

    python -m search warwick --data DIR     the course's WARWICK, or Warwick_QU_Dataset
    python -m search warwick --demo         procedural tissue (`phantoms/gland.py`), best possible mean Dice 0.951

Scored by the Dice of a picture, averaged over pictures. Published on Uppsala's 60 test pictures (tsouderos2024): a
small encoder and decoder with 0.66, and 0.88 with batch norm, batches of 16 and a falling rate, chosen on these 60.

WARWICK has 128 x 128 pixels: the stains, unmixed, in red and green, while blue is always zero; no patients are named.
GlaS (Sirinukunwattana et al. 2017; research only) has RGB, mostly 775 x 522, and a Grade.csv: the group is the patient,
folds are stratified by its grade. Neither official split keeps patients apart: 59 of the 60 images of GlaS testA and
all 20 of testB are of patients who also stand in train. The 85 training images are of 15 patients.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, Skipped, Split
from datasets.decoding import FileDecoder, MaskDecoder, decode_file
from datasets.errors import InputError
from datasets.folders import PARTS, file_digests, find_images, groups
from datasets.phantoms import phantom_dataset
from datasets.phantoms.gland import BEST_DICE, VERSION, gland_tissue, two_stains
from datasets.tables import read_table

TITLE = "glands in colon tissue (WARWICK, GlaS)"
IMAGES = 145
CLASSES = ("background", "gland")
CHANNELS = 2
"""Of WARWICK and of the phantoms; GlaS has three."""
OBTAIN = """\
WARWICK comes with a course (Uppsala, 1MD120, assignment 3); its parent GlaS from the Warwick TIA centre or
glas.grand-challenge.org (research only). Pass the folder of either, or the one above it, with --data DIR:

    DIR/Train/  image_01.png  label_01.png  …      DIR/Test/  image_01.png  label_01.png  …
    DIR/Grade.csv  DIR/train_1.bmp  DIR/train_1_anno.bmp  …  DIR/testA_1.bmp  …  DIR/testB_1.bmp  …"""

SIZE_PX = 128
GRADES = ("benign", "malignant")
OFFICIAL: dict[str, tuple[str, Split]] = {
    "train": ("train", "development"),
    "testa": ("testA", "test"),
    "testb": ("testB", "test"),
}
_UPPSALA = re.compile(r"(image|label)_(\d+)\.\w+", re.IGNORECASE)
_GLAS = re.compile(r"(train|testA|testB)_(\d+)(_anno)?\.\w+", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    image: Path
    mask: Path
    split: Split | None


def read(root: Path) -> ImageDataset:
    """WARWICK or GlaS, whichever lies below `root`. Raises `InputError` where neither does, or both do."""
    if not root.is_dir():
        raise InputError(f"{root}: {'a file' if root.exists() else 'no such folder'}; expected WARWICK or GlaS")
    found, skipped = find_images(root)
    glas = [path for path in found if _GLAS.fullmatch(path.name)]
    uppsala = [path for path in found if _UPPSALA.fullmatch(path.name)]
    if glas and uppsala:
        raise InputError(
            f"{root}: holds GlaS ({glas[0].name}) and WARWICK ({uppsala[0].name}), which share images: pass one"
        )
    if not glas and not uppsala:
        raise InputError(f"{root}: neither image_01.png and label_01.png, nor train_1.bmp and train_1_anno.bmp in it")
    other = [path for path in found if path not in set(glas or uppsala)]
    skipped += [Skipped(path.relative_to(root).as_posix(), "neither an image of this set nor a mask") for path in other]
    return _read_glas(root, glas, skipped) if glas else _read_uppsala(root, uppsala, skipped)


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural tissue in two stains, as many benign and malignant fields as GlaS has in train and testA."""
    return phantom_dataset(
        "warwick",
        CLASSES,
        _draw,
        (37, 48),
        (33, 27),
        seed=seed,
        images=images,
        plant=plant,
        version=VERSION,
        channels=2,
        mask=_draw_mask,
        looks=GRADES,
        best_dice=BEST_DICE,
    )


def decode_two_stains(row: dict[str, Any]) -> np.ndarray:
    """The decoder of WARWICK: red and green."""
    return decode_file(Path(row["path"]), "RGB", row.get("at_least_px"))[:, :, :2]


def _draw(row: dict[str, Any]) -> np.ndarray:
    picture_HWC, _ = gland_tissue(np.random.default_rng(row["draw"]), SIZE_PX, malignant=row["appearance"] == 1)
    return two_stains(picture_HWC)


def _draw_mask(row: dict[str, Any]) -> np.ndarray:
    _, mask_HW = gland_tissue(np.random.default_rng(row["draw"]), SIZE_PX, malignant=row["appearance"] == 1)
    return mask_HW[:, :, None]


def _read_uppsala(root: Path, found: list[Path], skipped: list[Skipped]) -> ImageDataset:
    """Pairs by number in each folder; the folder says the part."""
    pairs = []
    for image, mask in _paired(root, found, skipped):
        above = [parent.name.casefold() for parent in image.relative_to(root).parents]
        pairs.append(_Pair(image, mask, next((PARTS[name] for name in above if name in PARTS), None)))
    if any(pair.split for pair in pairs):
        outside = [pair.image for pair in pairs if not pair.split]
        skipped += [Skipped(path.relative_to(root).as_posix(), "neither in Train nor in Test") for path in outside]
        pairs = [pair for pair in pairs if pair.split]
        table = _table(root, pairs).with_columns(split=pl.Series([pair.split for pair in pairs]))
    else:
        table = _table(root, pairs)
    return _dataset(root, table, skipped, channels=2)


def _read_glas(root: Path, found: list[Path], skipped: list[Skipped]) -> ImageDataset:
    """Patients and grades from Grade.csv, which stands beside the images."""
    file = next((path for path in sorted(root.rglob("*")) if path.name.casefold() == "grade.csv"), None)
    if file is None:
        raise InputError(f"{root}: Grade.csv is missing, which says whose images these are")
    grades = read_table(file)
    expected = ("name", "patient id", "grade (glas)")
    if not set(expected) <= set(grades.columns):
        raise InputError(f"{file}: has the columns {', '.join(grades.columns)}; expected {', '.join(expected)}")
    by_name = {_key(row["name"]): row for row in grades.rows}
    pairs, rows = [], []
    for image, mask in _paired(root, found, skipped):
        row = by_name.pop(_key(image.stem), None)
        if row is None:
            skipped.append(Skipped(image.relative_to(root).as_posix(), "not in Grade.csv: its patient is not known"))
        elif row["grade (glas)"].casefold() not in GRADES or not row["patient id"]:
            raise InputError(
                f"{file}: {row['name']}: patient {row['patient id']!r}, grade {row['grade (glas)']!r}; expected the "
                f"number of a patient, and {' or '.join(GRADES)}"
            )
        else:
            pairs.append(_Pair(image, mask, None))
            rows.append(row)
    skipped += [Skipped(row["name"], "in Grade.csv, but not in the folder") for row in by_name.values()]
    skipped = [entry for entry in skipped if entry.path != file.relative_to(root).as_posix()]
    official = [OFFICIAL[_part(pair.image)] for pair in pairs]
    table = _table(root, pairs).with_columns(
        group=pl.Series([f"patient {row['patient id']}" for row in rows], dtype=pl.String),
        grade=pl.Series([row["grade (glas)"].casefold() for row in rows], dtype=pl.String),
        stratum=pl.Series([GRADES.index(row["grade (glas)"].casefold()) for row in rows], dtype=pl.Int64),
        official_split=pl.Series([name for name, _ in official], dtype=pl.String),
        split=pl.Series([split for _, split in official], dtype=pl.String),
    )
    return _dataset(root, table, skipped, channels=3)


def _paired(root: Path, found: list[Path], skipped: list[Skipped]) -> list[tuple[Path, Path]]:
    """Images with their masks; who has no partner, and who comes second, goes to `skipped`."""
    images: dict[tuple[Path, str, int], Path] = {}
    masks: dict[tuple[Path, str, int], Path] = {}
    for path in found:
        glas, uppsala = _GLAS.fullmatch(path.name), _UPPSALA.fullmatch(path.name)
        if glas:
            key, is_mask = (path.parent, glas[1].casefold(), int(glas[2])), bool(glas[3])
        else:
            assert uppsala
            key, is_mask = (path.parent, "", int(uppsala[2])), uppsala[1].casefold() == "label"
        of_kind = masks if is_mask else images
        if key in of_kind:
            reason = f"has the number of {of_kind[key].name}"
            skipped.append(Skipped(path.relative_to(root).as_posix(), reason))
        of_kind.setdefault(key, path)
    for alone, kind in ((images.keys() - masks.keys(), "mask"), (masks.keys() - images.keys(), "image")):
        for key in alone:
            path = images.get(key) or masks[key]
            skipped.append(Skipped(path.relative_to(root).as_posix(), f"no {kind} beside it"))
    pairs = [(images[key], masks[key]) for key in images if key in masks]
    if not pairs:
        raise InputError(f"{root}: no image has its mask beside it (image_01.png and label_01.png, or _anno.bmp)")
    return pairs


def _key(name: str) -> str:
    return name.casefold().removesuffix(".bmp")


def _part(image: Path) -> str:
    return image.stem.casefold().partition("_")[0]


def _table(root: Path, pairs: list[_Pair]) -> pl.DataFrame:
    image_ids = [pair.image.relative_to(root).as_posix() for pair in pairs]
    of_images, of_masks = file_digests(pair.image for pair in pairs), file_digests(pair.mask for pair in pairs)
    return pl.DataFrame(
        {
            "image_id": image_ids,
            "target": [0] * len(pairs),
            "group": groups(image_ids, of_images),
            "content": [f"{image} {mask}" for image, mask in zip(of_images, of_masks, strict=True)],
            "path": [str(pair.image.absolute()) for pair in pairs],
            "mask_path": [str(pair.mask.absolute()) for pair in pairs],
        },
        schema_overrides={"target": pl.Int64},
    )


def _dataset(root: Path, table: pl.DataFrame, skipped: list[Skipped], channels: int) -> ImageDataset:
    return ImageDataset(
        name="warwick",
        table=table,
        classes=CLASSES,
        decoder=decode_two_stains if channels == 2 else FileDecoder("RGB"),
        channels=2 if channels == 2 else 3,
        origin=str(root),
        target_name="mask",
        mask_decoder=MaskDecoder(),
        skipped=tuple(sorted(skipped, key=lambda entry: entry.path)),
    )
