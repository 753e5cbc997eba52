"""MNIST and Fashion-MNIST in every form that they come in; both have the same file names, sizes and types.

- idx files, plain or behind gzip, where torchvision or Keras puts them, or wherever they were unpacked to;
- `mnist.npz` of Keras;
- PNG files: Train and Test, in either case, with folders 0 to 9 (Uppsala's course).

They are told apart by the MD5 of the files behind gzip, by how many images a class has (6,000 each in Fashion-MNIST,
5,421 to 6,742 in MNIST), and by the names of the folders.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.array_sets import Part, from_arrays, keras_parts, part_of
from datasets.dataset import ImageDataset, Split
from datasets.decoding import FileDecoder
from datasets.errors import InputError
from datasets.folders import below, beside, folder_at
from datasets.images import from_class_folders

SIZE_PX = 28
DEEPEST = 4
"""Folders below the root in which idx files are looked for."""
_NAME = re.compile(r"(train|t10k)-(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?", re.IGNORECASE)
_PARTS: dict[str, tuple[str, Split]] = {"train": ("train", "development"), "t10k": ("test", "test")}


@dataclass(frozen=True)
class Fingerprint:
    """How one of the two sets is known."""

    title: str
    md5: frozenset[str]
    """Of the four files behind gzip."""
    train_counts: tuple[int, ...]
    folders: frozenset[str]
    """What folders of it are called, in lower case."""


FINGERPRINTS = {
    "mnist": Fingerprint(
        "MNIST",
        frozenset(
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            )
        ),
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        frozenset(("mnist",)),
    ),
    "fashion_mnist": Fingerprint(
        "Fashion-MNIST",
        frozenset(
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            )
        ),
        (6000,) * 10,
        frozenset(("fashionmnist", "fashion-mnist", "fashion_mnist")),
    ),
}


def read_mnist(name: str, root: Path, classes: tuple[str, ...]) -> ImageDataset:
    """The set of that name below `root`; train becomes development.

    Raises `InputError` where there is none, where it is the other one, and where a file is not what its name says.
    """
    if not root.exists():
        raise InputError(f"{root}: no such folder")
    if root.is_file():
        if root.suffix.lower() != ".npz":
            raise InputError(f"{root}: a file; pass the folder that holds it, or an .npz file")
        return _from_npz(name, root, classes, root)
    folders = _idx_folders(root)
    chosen = _of_this_set(name, root, folders)
    if chosen:
        files = folders[chosen]
        return _from_parts(name, _idx_parts(name, chosen, files, len(classes)), classes, root, chosen, files.values())
    for file in folder_at(root).files:
        if file.suffix.lower() == ".npz" and file.stem.lower().replace("-", "_") in ("mnist", "fashion_mnist"):
            return _from_npz(name, file, classes, root)
    _refuse(name, root, _called(root, root), "the name of the folder")
    try:
        dataset = from_class_folders(name, root, tuple("0123456789"))
    except InputError as error:
        raise InputError(
            f"{error}; nor are there idx files (train-images-idx3-ubyte, …), or the .npz of Keras"
        ) from None
    return replace(dataset, classes=classes, decoder=FileDecoder("L"), channels=1)


def _from_npz(name: str, file: Path, classes: tuple[str, ...], root: Path) -> ImageDataset:
    return _from_parts(name, keras_parts(file, (SIZE_PX, SIZE_PX), len(classes)), classes, root, file, [file])


def _from_parts(
    name: str, parts: list[Part], classes: tuple[str, ...], root: Path, where: Path, files: Iterable[Path]
) -> ImageDataset:
    for part in parts:
        counts = tuple(np.bincount(part.labels, minlength=len(classes)).tolist())
        really = next((set_name for set_name, known in FINGERPRINTS.items() if known.train_counts == counts), None)
        _refuse(name, where, really, "its labels")
    return from_arrays(name, parts, classes, 1, str(root), beside(root, files))


def _idx_folders(root: Path) -> dict[Path, dict[str, Path]]:
    """The folders below `root` with idx files: {"train-images": path, …}; plain files go before those behind gzip."""
    folders: dict[Path, dict[str, Path]] = {}
    files = (file for folder in below(root, DEEPEST, lambda folder: not folder.name.isdigit()) for file in folder.files)
    for file in files:  # not those of the PNG form, in folders 0 to 9
        match = _NAME.fullmatch(file.name)
        if match:
            key = f"{match[1]}-{match[2][:6]}".lower()
            # Kaggle's archives have a folder of the same name around every file.
            folder = file.parent.parent if _NAME.fullmatch(file.parent.name) else file.parent
            of_folder = folders.setdefault(folder, {})
            if key not in of_folder or not match[3]:
                of_folder[key] = file
    return folders


def _of_this_set(name: str, root: Path, folders: dict[Path, dict[str, Path]]) -> Path | None:
    """The folder that holds the set of that name; of several, the one that is called so."""
    if not folders:
        return None
    own = [folder for folder in folders if _called(root, folder) in (name, None)]
    named = [folder for folder in own if _called(root, folder) == name]
    if not own:
        folder = next(iter(folders))
        _refuse(name, folder, _called(root, folder), "the name of its folder")
    if len(named or own) > 1:
        raise InputError(f"{root}: has idx files in {' and '.join(map(str, (named or own)[:2]))}; pass one of them")
    return (named or own)[0]


def _called(root: Path, folder: Path) -> str | None:
    """Which of the sets the nearest folder with such a name stands for."""
    for above in (folder, *folder.parents):
        for name, fingerprint in FINGERPRINTS.items():
            if above.name.lower() in fingerprint.folders:
                return name
        if above == root:
            break
    return None


def _idx_parts(name: str, folder: Path, files: dict[str, Path], classes: int) -> list[Part]:
    if not {"train-images", "train-labels"} <= set(files):
        raise InputError(f"{folder}: holds {', '.join(sorted(files))}; expected train-images and train-labels")
    if len({"t10k-images", "t10k-labels"} & set(files)) == 1:
        raise InputError(f"{folder}: holds one of t10k-images and t10k-labels, but not the other")
    for file in files.values():
        if file.suffix.lower() == ".gz":
            with file.open("rb") as handle:
                md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            _refuse(name, file, next((of for of, known in FINGERPRINTS.items() if md5 in known.md5), None), "its MD5")
    shape = (SIZE_PX, SIZE_PX)
    return [
        part_of(*_PARTS[part], (files[f"{part}-images"], None), (files[f"{part}-labels"], None), shape, classes)
        for part in _PARTS
        if f"{part}-images" in files
    ]


def _refuse(name: str, where: Path, really: str | None, by: str) -> None:
    """Raises where the files are really those of the other set."""
    if really not in (None, name):
        raise InputError(f"{where}: this is {FINGERPRINTS[str(really)].title}, by {by}; try the task {really}")
