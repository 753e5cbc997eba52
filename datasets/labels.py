"""A table of labels and a folder of images: anybody's own data set, of classes, of several labels, or of masks.

    image          path below the folder, or the end of it, with or without its ending (`1.png`, `films/1`)
    label          word or whole number; `label_<name>` for every further one, all of them scored; `nan`, `n/a`, `null`,
                   `none` and the like are none
    mask           path of a mask: then its pixels are what is to be predicted, and `label`, if there, only stratifies
    mask_classes   what the numbers 0, 1, … in the masks mean: `background;nucleus;membrane`. Without it a mask says
                   where the object is: whatever is not black, be it 1, 255 or the number of an instance
    group          patient, or what else must not stand on both sides of a split
    split          train, val, development; test, hold-out. Without it all is development
    source         site, scanner, archive

The order of classes is that of `sorted`, of whole numbers by size; of two the second is the positive one.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datasets.dataset import ImageDataset, Skipped, Target
from datasets.decoding import FileDecoder, MaskDecoder
from datasets.errors import InputError
from datasets.folders import ENDINGS, PARTS, file_digests, find_images, groups
from datasets.tables import Table, read_table

KNOWN = ("image", "label", "mask", "mask_classes", "group", "split", "source")
MOST_MASK_CLASSES = 256
NO_IMAGE, NO_PATH, AMBIGUOUS = NOT_FOUND = ("no such image", "no path is given", "names several images")
"""Why a row names no image: so its reason begins, up to a colon or a semicolon."""
NO_MASK = "no such mask"
AT_LINE = re.compile(r"; line \d+ of (?P<table>.+)", re.DOTALL)
"""How the reason of a row ends."""
COLUMNS_TOLD = 200
"""Characters of the names of columns in a message: what is no table may have any number of them."""
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_FRACTION = re.compile(r"[+-]?(\d*\.\d*(e[+-]?\d+)?|\d+e[+-]?\d+)", re.IGNORECASE)
_NO_LABEL = {"", "nan", "na", "n/a", "null", "none", "<na>"}
"""What programs write, in upper or lower case, where a table has no value."""


@dataclass(frozen=True)
class _Row:
    line: int
    image_id: str
    path: Path
    mask_path: Path | None
    values: dict[str, str]


def from_table(name: str, file: Path, root: Path | None) -> ImageDataset:
    """The images that a table names, below `root` or below the folder of the table.

    Raises `InputError` where a column is missing or contradicts itself, or where none of the images is there. Images
    that are not there, rows without a label and files that the table does not name are `skipped`, with the reason.
    """
    if root is not None and not file.exists():
        file = root / file
    table = read_table(file)
    named = [column for column in table.columns if column.startswith("label_") and column != "label_"]
    labels = [*(["label"] if "label" in table.columns else []), *named]
    segmentation = "mask" in table.columns
    if "image" not in table.columns or not (labels or segmentation):
        has = ", ".join(table.columns)
        has = has if len(has) <= COLUMNS_TOLD else f"{has[:COLUMNS_TOLD]} …"
        raise InputError(
            f"{file}: has the columns {has}; expected image and label (or label_<name>, or mask), "
            f"and optionally group, split and source"
        )
    tree = _Tree(file.parent if root is None else root, file)
    skipped = [*tree.skipped, *_unknown_columns(table, labels)]
    rows = _rows(table, tree, labels, segmentation, skipped)
    targets = {} if segmentation else {label: _classes(table, label, rows) for label in labels}
    for label, classes in targets.items():
        if len(classes) < 2 and len(targets) > 1:
            raise InputError(f"{table.path}: {label} is {classes[0]} everywhere: leave that column out")

    image_ids = [row.image_id for row in rows]
    content = file_digests(row.path for row in rows)
    columns = {
        "image_id": image_ids,
        "path": [str(row.path.absolute()) for row in rows],
        "content": content,
        "group": [
            row.values.get("group") or group for row, group in zip(rows, groups(image_ids, content), strict=True)
        ],
    }
    if segmentation:
        masks = [row.mask_path for row in rows if row.mask_path]
        columns["mask_path"] = [str(path.absolute()) for path in masks]
        columns["content"] = [f"{image} {mask}" for image, mask in zip(content, file_digests(masks), strict=True)]
        numbers = {"target": [0] * len(rows)}
        if labels:
            said = [row.values[labels[0]] for row in rows]
            said = ["" if label.casefold() in _NO_LABEL else label for label in said]
            strata = sorted(set(said))
            numbers["stratum"] = [strata.index(label) for label in said]
        target_name, classes, further = "mask", _mask_classes(table, rows), []
    else:
        numbers = {
            "target" if label == labels[0] else f"target_{_named(label)}": [
                of_label.index(_plain(row.values[label])) for row in rows
            ]
            for label, of_label in targets.items()
        }
        target_name, classes, further = _named(labels[0]), targets[labels[0]], labels[1:]
    if "split" in table.columns:
        columns["split"] = [_split(table, row) for row in rows]
    if "source" in table.columns:
        columns["source"] = [row.values["source"] or "unknown" for row in rows]
    return ImageDataset(
        name=name,
        table=pl.DataFrame(columns | numbers).sort("image_id"),
        classes=classes,
        decoder=FileDecoder("RGB"),
        channels=3,
        origin=f"{file}" if root is None else f"{file}, {root}",
        target_name=target_name,
        further=tuple(Target(_named(label), targets[label]) for label in further),
        mask_decoder=MaskDecoder(len(classes) if "mask_classes" in table.columns else None) if segmentation else None,
        skipped=tuple(sorted(skipped, key=lambda entry: entry.path)),
    )


def _rows(table: Table, tree: "_Tree", labels: list[str], masks: bool, skipped: list[Skipped]) -> list[_Row]:
    """The rows with an image and all that is to be predicted; the others go to `skipped`."""
    rows: dict[str, _Row] = {}
    lost: Skipped | None = None
    named: set[Path | str | None] = set()
    for line, values in zip(table.lines, table.rows, strict=True):
        image = values["image"]
        found = tree.find(image)
        mask = tree.find(values["mask"]) if masks else None
        missing = [label for label in labels if values[label].casefold() in _NO_LABEL and not masks]
        at = f"line {line} of {table.path.name}"
        named |= {found, mask}
        if isinstance(found, str):
            lost = lost or Skipped(image, f"{found}; {at}")
            skipped.append(Skipped(image, f"{found}; {at}"))
        elif isinstance(mask, str):
            why = f"{NO_MASK}: {values['mask']}" if mask == NO_IMAGE else f"{NO_MASK}: {values['mask']} {mask}"
            skipped.append(Skipped(image, f"{why if values['mask'] else 'no mask'}; {at}"))
        elif missing:
            said = f" ({values[missing[0]]})" if values[missing[0]] else ""
            skipped.append(Skipped(image, f"no {missing[0]}{said}; {at}"))
        else:
            row = _Row(line, tree.image_id(found, image), found, mask, values)
            earlier = rows.setdefault(row.image_id, row)
            same = {**earlier.values, "image": ""} == {**values, "image": ""}
            if earlier is not row and not same:
                raise InputError(
                    f"{table.path}: lines {earlier.line} and {line} say different things of {row.image_id}"
                )
            if earlier is not row:
                skipped.append(Skipped(row.image_id, f"named again; {at}"))
    if not rows and lost:
        raise InputError(
            f"{table.path}: none of its {len(table.rows):,} images was found below {tree.root}; the first one: "
            f"{lost.path!r}: {lost.reason}"
        )
    if not rows:
        reason = "it has no rows" if not table.rows else f"no row has a {'mask' if masks else 'label'}"
        raise InputError(f"{table.path}: {reason}")
    skipped += [Skipped(below, f"not in {table.path.name}") for below, path in tree.files.items() if path not in named]
    return list(rows.values())


class _Tree:
    """The images below a folder, found by their path or the end of it."""

    def __init__(self, root: Path, table: Path) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: {'a file' if root.exists() else 'no such folder'}; expected a folder of images")
        self.root, self.beside = root, table.parent
        self._roots = [(real, real(root)) for real in (os.path.abspath, os.path.realpath)]
        found, skipped = find_images(root)
        self.files = {path.relative_to(root).as_posix(): path for path in found}
        self.skipped = [entry for entry in skipped if (root / entry.path).absolute() != table.absolute()]
        self._ending: dict[str, list[str]] = {}
        for below in self.files:
            for key in _ends(_key(below)):
                self._ending.setdefault(key, []).append(below)

    def find(self, given: str) -> Path | str:
        """The file that is meant, or why there is none."""
        if not given:
            return NO_PATH
        name = given.replace("\\", "/").removeprefix("./")
        if name in self.files:
            return self.files[name]
        for outside in (self.root / name, self.beside / name):  # also an absolute path
            if outside.suffix.lower() in ENDINGS and outside.is_file():
                return self._below(outside) or outside
        for key in (_key(name), _key(name).removeprefix(f"{_key(self.root.absolute().name)}/")):
            candidates = self._ending.get(key, [])
            if len(candidates) > 1:  # the whole path goes before the end of one
                candidates = [below for below in candidates if key in _whole(_key(below))] or candidates
            if len(candidates) == 1:
                return self.files[candidates[0]]
            if candidates:
                return f"{AMBIGUOUS}: {candidates[0]} or {candidates[1]}"
        return NO_IMAGE

    def _below(self, path: Path) -> Path | None:
        """The same file as it was found below the root, if it lies there: a way may lead out and in again."""
        for real, root in self._roots:
            file = self.files.get(os.path.relpath(real(path), root).replace(os.sep, "/"))
            if file is not None and file.samefile(path):
                return file
        return None

    def image_id(self, path: Path, given: str) -> str:
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return given.replace("\\", "/")


def _key(name: str) -> str:
    """macOS takes letters and accents apart, tables do not."""
    return unicodedata.normalize("NFC", name).casefold()


def _whole(key: str) -> tuple[str, str]:
    """A path with and without its ending."""
    return key, key.rpartition(".")[0]


def _ends(key: str) -> Iterable[str]:
    parts = key.split("/")
    return {way for i in range(len(parts)) for way in _whole("/".join(parts[i:]))}


def _unknown_columns(table: Table, labels: list[str]) -> list[Skipped]:
    known = ", ".join((*KNOWN[:2], "label_<name>", *KNOWN[2:]))
    unknown = [column for column in table.columns if column not in KNOWN and column not in labels]
    return [Skipped(f"{table.path.name}, column {column}", f"none of {known}") for column in unknown]


def _named(label: str) -> str:
    return label.removeprefix("label_")


def _plain(label: str) -> str:
    """Whole numbers as such: a column with holes comes from pandas as 1.0."""
    return str(int(float(label))) if _WHOLE.fullmatch(label) else label


def _classes(table: Table, column: str, rows: list[_Row]) -> tuple[str, ...]:
    classes = {_plain(row.values[column]) for row in rows}
    fractions = sorted(label for label in classes if _FRACTION.fullmatch(label))
    if fractions:
        raise InputError(f"{table.path}: {column} {fractions[0]}: expected a word or a whole number for every class")
    by_case: dict[str, str] = {}
    for label in sorted(classes):
        other = by_case.setdefault(label.casefold(), label)
        if other != label:
            raise InputError(f"{table.path}: {column} is {other!r} and {label!r}: write the same class the same way")
    if all(_WHOLE.fullmatch(label) for label in classes):
        return tuple(sorted(classes, key=int))
    return tuple(sorted(classes))


def _mask_classes(table: Table, rows: list[_Row]) -> tuple[str, ...]:
    if "mask_classes" not in table.columns:
        return ("background", "object")
    said = {row.values["mask_classes"] for row in rows} - {""}
    names = tuple(name.strip() for name in re.split(r"[;,|]", next(iter(said), "")))
    if len(said) != 1 or not 2 <= len(set(names)) == len(names) <= MOST_MASK_CLASSES or "" in names:
        found = " and ".join(map(repr, sorted(said))) or "is empty"
        raise InputError(
            f"{table.path}: mask_classes {found}: expected the same two or more names in every row, such as "
            f"background;nucleus;membrane"
        )
    return names


def _split(table: Table, row: _Row) -> str:
    said = row.values["split"]
    if said.casefold() not in PARTS:
        raise InputError(
            f"{table.path}: line {row.line}: split {said!r}; expected train, val, development, test or hold-out"
        )
    return PARTS[said.casefold()]
