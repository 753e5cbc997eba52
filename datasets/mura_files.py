"""What lies in a folder of MURA v1.1, and what its csv files say lies there.

All names are compared in lower case, as systems differ in whether they keep it. 40,005 films in 26,000 folders: a plain
`os.scandir` per folder, a tuple per film.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.dataset import Skipped
from datasets.errors import InputError
from datasets.folders import LEFT_BEHIND, below, entries, is_junk, printable

PARTS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
SPLITS = ("train", "valid")
LEVELS = (
    ("a part", re.compile(rf"XR_({'|'.join(PARTS)})", re.ASCII | re.IGNORECASE)),
    ("a patient", re.compile(r"patient\d{5}", re.ASCII | re.IGNORECASE)),
    ("a study", re.compile(r"study\d+_(positive|negative)", re.ASCII | re.IGNORECASE)),
    ("a view", re.compile(r"image\d+\.png", re.ASCII | re.IGNORECASE)),
)
"""What the folders and files below the folder of a split stand for, and their names."""
NOT_PART = "not part of MURA v1.1"
ABNORMAL = "_positive"
DEEPEST = 2
"""Levels between the folder that is given and MURA-v1.1: an archive in a folder of its own."""


class Film(NamedTuple):
    below: str
    """Path below the root, as on the disk."""
    study: str
    """Path of its folder below the root, in lower case: `train/xr_wrist/patient00007/study1_negative`."""

    @property
    def abnormal(self) -> bool:
        return self.study.endswith(ABNORMAL)

    @property
    def split(self) -> str:
        return self.study.split("/")[0]


@dataclass(frozen=True)
class Tree:
    """MURA-v1.1 as it lies on the disk."""

    root: Path
    films: list[Film]
    folders: set[str]
    """Every folder of films, down to the studies: paths below the root in lower case."""
    files: dict[str, Path]
    """Files right in the root by name in lower case."""
    skipped: list[Skipped]


@dataclass(frozen=True)
class Listing:
    """What the csv files of one split say; None where there is no such file."""

    images_csv: str
    images: dict[str, str] | None
    """Paths below the root, as written, by the same in lower case."""
    studies_csv: str
    studies: dict[str, str] | None
    illegible: list[Skipped]


def find_root(given: Path) -> Path:
    """MURA-v1.1: the folder that is given, or the one in it, at most `DEEPEST` levels below."""
    if not given.is_dir():
        raise InputError(f"{given}: {'a file' if given.exists() else 'no such folder'}; expected the folder MURA-v1.1")
    for depth in range(DEEPEST + 1):
        found = [folder.path for folder in below(given, depth) if _is_root(folder.path)]
        if len(found) > 1:
            raise InputError(f"{given}: holds MURA several times, pass one: {', '.join(map(str, sorted(found)))}")
        if found:
            return _checked(found[0])
    if any(LEVELS[0][1].fullmatch(entry.name) for entry in entries(given)):
        raise InputError(f"{given}: one split of MURA, or its parts alone; pass the folder above train and valid")
    raise InputError(f"{given}: expected MURA-v1.1, or a folder above it, with train/XR_WRIST/patient00006/…")


def _is_root(folder: Path) -> bool:
    return any(
        LEVELS[0][1].fullmatch(part.name)
        for split in entries(folder)
        if split.name.lower() in SPLITS and split.is_dir()
        for part in entries(split.path)
    )


def _checked(root: Path) -> Path:
    """The same; raises where it is version 1.0, which has other films (40,895 with its test set) and other lists."""
    names = {entry.name.lower() for entry in entries(root)}
    of_v1_0 = sorted(names & {"train.csv", "valid.csv"})
    if "v1.0" in root.name.lower() or (
        of_v1_0 and not any(name.endswith(("_paths.csv", "_studies.csv")) for name in names)
    ):
        why = f" by its {' and '.join(of_v1_0)}" if of_v1_0 else ""
        raise InputError(f"{root}: MURA v1.0{why}; expected v1.1, whose lists are train_image_paths.csv and so on")
    return root


def tree_below(root: Path) -> Tree:
    """Every film below `root`, in the order of its path, and whatever else lies there."""
    films: dict[str, Film] = {}
    folders: set[str] = set()
    files: dict[str, Path] = {}
    skipped: list[Skipped] = []

    def read(folder: str, below: str, key: str) -> None:
        """`below`: the path below the root; `key`: the same in lower case."""
        try:
            with os.scandir(folder) as found:
                inside = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(printable(below), f"a folder that cannot be read: {error.strerror}"))
            return
        folders.add(key)
        kind, pattern = LEVELS[key.count("/")]
        for entry in inside:
            path = f"{below}/{entry.name}"
            is_film = kind == "a view"
            if is_junk(entry.name):
                skipped.append(Skipped(printable(path), LEFT_BEHIND))
            elif not pattern.fullmatch(entry.name):
                skipped.append(Skipped(printable(path), f"not the name of {kind} of MURA"))
            elif not (entry.is_file() if is_film else entry.is_dir()):
                other = "a folder" if entry.is_dir() else "a file" if entry.is_file() else "a link to nothing"
                skipped.append(Skipped(path, f"{other} with the name of {kind}"))
            elif is_film:
                film = films.setdefault(path.lower(), Film(path, key))
                if film.below != path:
                    skipped.append(Skipped(path, f"the same name as {film.below}, but for capital letters"))
            else:
                read(entry.path, path, f"{key}/{entry.name.lower()}")

    for entry in entries(root):
        key = entry.name.lower()
        if key in SPLITS and entry.is_dir():
            read(entry.path, entry.name, key)
        elif is_junk(entry.name):
            skipped.append(Skipped(printable(entry.name), LEFT_BEHIND))
        elif key in {name for split in SPLITS for name in _csv_names(split)} and entry.is_file():
            files[key] = Path(entry.path)
        else:
            skipped.append(Skipped(printable(entry.name), NOT_PART))
    return Tree(root, sorted(films.values()), folders, files, skipped)


def _csv_names(split: str) -> tuple[str, str]:
    return f"{split}_image_paths.csv", f"{split}_labeled_studies.csv"


def listing(tree: Tree, split: str) -> Listing:
    """The csv files of a split. They have no header: every row is an image or a study, the first one too.

    Raises `InputError` where a label is not the one that the study's folder has in its name: both agree throughout the
    published set, so the list and the folders are not of one set then, and no label is sure.
    """
    illegible: list[Skipped] = []
    images_csv, studies_csv = _csv_names(split)
    images = _rows(tree.files.get(images_csv), rf"{split}/{_pattern(4)}", illegible)
    labelled = _rows(tree.files.get(studies_csv), rf"{split}/{_pattern(3)}/?\s*,\s*[01]", illegible)
    pairs = [re.split(r"/?\s*,\s*", row) for row in (labelled or {}).values()]
    studies = {study.lower(): study for study, _ in pairs}
    named = dict.fromkeys((*studies, *(key.rpartition("/")[0] for key in images or {})))
    unnamed = tree.folders - named.keys()
    wrong = [
        (study, f"labelled {label}") for study, label in pairs if (label == "1") != study.lower().endswith(ABNORMAL)
    ]
    wrong += [(study, "listed") for study in named if _renamed(study) in unnamed]
    if wrong:
        raise InputError(
            f"{tree.root}: {wrong[0][0]} is {wrong[0][1]} so in a csv file, and the name of its folder says otherwise"
            + (f"; {len(wrong) - 1} more studies too" if len(wrong) > 1 else "")
            + ". In MURA v1.1 both agree: correct one of them, or remove the csv files to go by the folders alone"
        )
    return Listing(images_csv, images, studies_csv, None if labelled is None else studies, illegible)


def _renamed(study: str) -> str:
    """The study with the other label, in lower case."""
    name, _, _ = study.rpartition("_")
    return f"{name}_negative" if study.endswith(ABNORMAL) else f"{name}{ABNORMAL}"


def _pattern(levels: int) -> str:
    return "/".join(pattern.pattern for _, pattern in LEVELS[:levels])


def _rows(file: Path | None, pattern: str, illegible: list[Skipped]) -> dict[str, str] | None:
    """The rows of a csv file, without the name of the folder above the splits, by themselves in lower case."""
    if file is None:
        return None
    expected = re.compile(rf"(?:.*/)?({pattern})", re.ASCII | re.IGNORECASE)
    rows = {}
    # Any line ends, with or without a byte order mark; the only names that count are ASCII.
    for number, line in enumerate(file.read_bytes().decode("utf-8-sig", errors="replace").splitlines(), 1):
        row = expected.fullmatch(line.strip().replace("\\", "/"))
        if row:
            rows[row[1].lower()] = row[1]
        elif line.strip():
            illegible.append(Skipped(f"{file.name}, line {number}", f"not a row of MURA v1.1: {line.strip()[:80]}"))
    return rows


def unlisted(film: Film, listing: Listing) -> str | None:
    """Why a film on the disk does not count, None if it does."""
    if listing.images is not None and film.below.lower() not in listing.images:
        return f"not listed in {listing.images_csv}"
    if listing.studies is not None and film.study not in listing.studies:
        return f"its study is not listed in {listing.studies_csv}"
    return None


def missing(listing: Listing, tree: Tree) -> Iterator[Skipped]:
    """What is listed and not on the disk: a whole folder in one entry, where it is not there."""
    on_disk = {film.below.lower() for film in tree.films}
    absent = _highest((row for key, row in (listing.images or {}).items() if key not in on_disk), tree.folders)
    for path, images in absent.items():
        of_it = f"{images:,} images of it " if path.lower() not in (listing.images or {}) else ""
        yield Skipped(path, f"not there; {of_it}listed in {listing.images_csv}")
    studies = (row for key, row in (listing.studies or {}).items() if key not in tree.folders)
    for path, number in _highest(studies, tree.folders).items():
        if path not in absent:
            of_it = f"{number:,} studies of it " if path.lower() not in (listing.studies or {}) else ""
            yield Skipped(path, f"not there; {of_it}listed in {listing.studies_csv}")


def _highest(paths: Iterable[str], folders: set[str]) -> Counter[str]:
    """The highest folder on the way to each path that is not among `folders`, or the path itself, and how often."""
    found: Counter[str] = Counter()
    for path in paths:
        parts = path.split("/")
        ways = ("/".join(parts[: i + 1]) for i in range(len(parts)))
        found[next(way for way in ways if way.lower() not in folders)] += 1
    return found
