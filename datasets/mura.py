"""MURA v1.1: 40,005 radiographs of the upper limb in 14,656 studies, normal or abnormal, of seven parts of the body.

    python -m search mura --data DIR      the films themselves
    python -m search mura --demo          procedural films

From Stanford, under a research-use agreement (Rajpurkar et al. 2017, arXiv 1712.06957). Published: DenseNet-169 with a
Cohen's kappa of 0.705 over studies of the hidden test set, and of 0.63 to 0.66 on `valid` (public code); asproudis2025
an accuracy of 0.649 over the images of `valid`, where the larger class alone has 0.521. `train` is searched; `valid` is
the only labelled hold-out, and no trial sees it.

A decision is about a study (column `study`), its probability the mean over the views. The group is the patient alone:
1,467 of the 11,184 patients of `train` occur under more than one part. The part is trained along, and not scored.

Warnings. Implants, casts and letters burnt into the films give many labels away; degenerative joint disease is often
called normal (Oakden-Rayner 2019). None of the csv files has a header: who expects one loses the first study of each.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, Skipped, Target
from datasets.decoding import FileDecoder
from datasets.errors import InputError
from datasets.folders import beside, file_digests
from datasets.mura_files import ABNORMAL, NOT_PART, PARTS, SPLITS, find_root, listing, missing, tree_below, unlisted
from datasets.phantoms import phantom_dataset, sign_missing
from datasets.phantoms.limb import VERSION, limb_film
from datasets.phantoms.pitfalls import known_pitfalls

TITLE = "normal and abnormal radiographs of the upper limb (MURA v1.1)"
IMAGES = 40005
CLASSES = ("normal", "abnormal")
CHANNELS = 1
"""Public analyses disagree on whether the files are gray or RGB; their content is gray."""
OBTAIN = """\
Register at Stanford AIMI ("MURA - MSK X-rays"), agree to the research-use terms, unpack MURA-v1.1.zip and pass the
folder, or the one above it, with --data DIR:

    DIR/
      train_image_paths.csv   train_labeled_studies.csv   valid_image_paths.csv   valid_labeled_studies.csv
      train/XR_SHOULDER/patient00001/study1_positive/image1.png   and 36,807 more
      valid/XR_WRIST/patient11185/study1_positive/image1.png      and 3,196 more"""

FURTHER = (Target("part", PARTS, scored=False),)
DEVELOPMENT = (
    (2925, 2006),
    (3138, 1968),
    (1164, 661),
    (4059, 1484),
    (673, 599),
    (4211, 4168),
    (5765, 3987),
)
"""Films of `train`: normal and abnormal, by part."""
TEST = ((235, 230), (214, 247), (150, 151), (271, 189), (148, 140), (285, 278), (364, 295))
"""Films of `valid`."""
SIZE_PX = 128
"""Of a phantom."""
SIGN_MISSING = 0.2
"""Of abnormal phantoms that look normal."""
MOST_VIEWS = 4
"""Of a phantom study."""


def read(root: Path) -> ImageDataset:
    """The films below `root`: MURA-v1.1, or one or two folders above it.

    A film counts where the csv files of its split list it; without them, all do. Its label is in the name of its
    study's folder. Parts that are not there are no error, so that one can begin with some of them.
    """
    tree = tree_below(find_root(root))
    inner = tree.root.relative_to(root)
    lists = {split: listing(tree, split) for split in SPLITS}
    reasons = [unlisted(film, lists[film.split]) for film in tree.films]
    below = [*tree.skipped, *(Skipped(film.below, why) for film, why in zip(tree.films, reasons, strict=True) if why)]
    for of_split in lists.values():
        below += [*of_split.illegible, *missing(of_split, tree)]
    skipped = [
        *beside(root, [tree.root], NOT_PART),
        *(Skipped((inner / file.path).as_posix(), file.reason) for file in below),
    ]

    films = [film for film, why in zip(tree.films, reasons, strict=True) if why is None]
    if not films:
        why = f"; the first one is left out: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"{root}: none of its {len(tree.films):,} films counts{why}")
    paths = [tree.root.absolute() / film.below for film in films]
    table = pl.DataFrame(
        {
            "image_id": [film.below for film in films],
            "path": list(map(str, paths)),
            "content": file_digests(paths),
            "study": [film.study for film in films],
        }
    ).with_columns(
        group=_step("study", 2),
        part=_step("study", 1).str.slice(len("xr_")).str.to_uppercase(),
        view=_step("image_id", 4).str.extract(r"(\d+)").cast(pl.Int64),
        target=pl.col("study").str.ends_with(ABNORMAL).cast(pl.Int64),
        split=_step("study", 0).replace_strict({"train": "development", "valid": "test"}),
    )
    part = pl.col("part").replace_strict(PARTS, range(len(PARTS)), return_dtype=pl.Int64)
    return ImageDataset(
        name="mura",
        table=_stratified(table.with_columns(target_part=part)),
        classes=CLASSES,
        decoder=FileDecoder("L"),
        channels=1,
        origin=str(root),
        target_name="abnormality",
        further=FURTHER,
        skipped=tuple(sorted(skipped, key=lambda file: file.path)),
    )


def _step(column: str, number: int) -> pl.Expr:
    """`train/XR_WRIST/patient00006/study1_positive/image1.png`: split, part, patient, study and view."""
    return pl.col(column).str.split("/").list.get(number)


def _stratified(table: pl.DataFrame) -> pl.DataFrame:
    """With what folds are stratified by: they get as many of each part and label as the patients allow."""
    return table.with_columns(stratum=pl.col("target") * len(PARTS) + pl.col("target_part"))


def phantoms(seed: int = 0, images: int | None = None, plant: Collection[str] = ()) -> ImageDataset:
    """Procedural films with MURA's counts: patients of three films on average, in studies of one to four views.

    The films of a patient share a body. One patient in seventeen has normal and abnormal studies (of the real ones, one
    in thirteen), and one in eight has studies of two parts, as the real ones; with and without `patients` planted.
    """
    asked = known_pitfalls(plant)
    films = phantom_dataset(
        "mura",
        CLASSES,
        _draw,
        DEVELOPMENT,
        TEST,
        seed=seed,
        images=images,
        plant=asked | {"patients"},
        confusion=sign_missing(SIGN_MISSING),
        version=VERSION,
        channels=1,
        target_name="abnormality",
        further=FURTHER,
    )
    origin = f"phantoms, seed {seed}" + (f", planted: {', '.join(sorted(asked))}" if asked else "")
    return dataclasses.replace(films, table=_in_studies(films.table, "patients" in asked), origin=origin)


def _in_studies(table: pl.DataFrame, told: bool) -> pl.DataFrame:
    """The films of a patient in studies, and some patients joined to one; `told`: whether `planted` speaks of them.

    Patients of the frame have one part and one label, and are numbered in turn over both: 0 is the first with a normal
    elbow, 1 with an abnormal one, 2 with a normal finger. What joins two depends on these numbers only.
    """
    number = pl.col("group").str.extract(r"(\d+)$").cast(pl.Int64)
    turn, label, part = number // (2 * len(PARTS)) % 8, number % 2, number // 2 % len(PARTS)
    joined = number - pl.when(turn == 0).then(label).when(turn <= 4).then(2 * (part % 2)).otherwise(0)
    rank = pl.int_range(pl.len()).over("group", "split")
    planted = pl.col("planted").str.split(",").list.filter((pl.element() != "patients") | told).list.join(",")
    return _stratified(table).with_columns(
        group=pl.concat_str(pl.col("group").str.replace(r"\d+$", ""), joined.cast(pl.String).str.zfill(5)),
        part=pl.col("target_part").replace_strict(range(len(PARTS)), PARTS, return_dtype=pl.String),
        study=pl.format("{}/{}/study{}", "split", "group", 1 + rank // MOST_VIEWS),
        view=1 + rank % MOST_VIEWS,
        planted=planted,
    )


def _draw(row: dict[str, Any]) -> np.ndarray:
    rng, patient = np.random.default_rng(row["draw"]), np.random.default_rng([row["patient_draw"], 1])
    return limb_film(rng, SIZE_PX, PARTS[row["target_part"]], row["appearance"] == 1, patient)[:, :, None]
