"""MNIST and Fashion-MNIST in every form that they come in; both have the same file names, sizes and types.

- idx files, plain or behind gzip, where torchvision or Keras puts them, or wherever they were unpacked to;
- `mnist.npz` of Keras;
- PNG files: Train and Test, in either case, with folders 0 to 9 (Uppsala's course).

They are told apart by the MD5 of the files behind gzip, by how many images a class has (6,000 each in Fashion-MNIST,
5,421 to 6,742 in MNIST), and by the names of the folders and of the `.npz`.
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
_FASHION = re.compile(r"fashion[\W_]*mnist|mnist[\W_]*fashion|(?<![a-z])f-?mnist")
"""The name of Fashion-MNIST, in lower case, which has that of MNIST in it."""
_WORDS = {"mnist": re.compile(r"(?<![a-z])mnist"), "fashion_mnist": re.compile(r"(?<![a-z])fashion")}
"""What else a set is called, in lower case: `mnist_png`, `MNIST-small`; but not KMNIST or EMNIST."""
_PARTS: dict[str, tuple[str, Split]] = {"train": ("train", "development"), "t10k": ("test", "test")}


@dataclass(frozen=True)
class Fingerprint:
    """How one of the two sets is known."""

    title: str
    md5: frozenset[str]
    """Of the four files behind gzip."""
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]

    def has(self, counts: tuple[int, ...]) -> bool:
        """Whether only this set has so many images of every class, in train, in test or in both together."""
        whole = tuple(map(sum, zip(self.train_counts, self.test_counts, strict=True)))
        # As many images of every class in a test part may as well be drawn from the other set.
        return counts in (self.train_counts, whole) or (counts == self.test_counts and len(set(counts)) > 1)


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
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
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
        (1000,) * 10,
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
    named = {file: _named(file.stem) for file in folder_at(root).files if file.suffix.lower() == ".npz"}
    own = [file for file, set_name in named.items() if set_name == name]
    if len(own) > 1:
        raise InputError(f"{root}: has {' and '.join(file.name for file in own[:2])}; pass one of them")
    if own:
        return _from_npz(name, own[0], classes, root)
    try:
        dataset = from_class_folders(name, root, tuple("0123456789"))
    except InputError as error:
        for file, set_name in named.items():
            _refuse(name, file, set_name, "the name of the file")
        raise InputError(
            f"{error}; nor are there idx files (train-images-idx3-ubyte, …), or the .npz of Keras"
        ) from None
    counts = [tuple(dataset.part(split).counts.values()) for split in ("development", "test")]
    if not _sure(name, root, counts, "how many images each class has"):
        for folder in sorted({Path(path).parent for path in dataset.table["path"]}):
            _refuse(name, folder, _called(root.absolute(), folder), "the name of its folder")
    return replace(dataset, classes=classes, decoder=FileDecoder("L"), channels=1)


def _from_npz(name: str, file: Path, classes: tuple[str, ...], root: Path) -> ImageDataset:
    parts = keras_parts(file, (SIZE_PX, SIZE_PX), len(classes))
    return _from_parts(name, parts, classes, root, file, [file], _named(file.stem))


def _from_parts(
    name: str,
    parts: list[Part],
    classes: tuple[str, ...],
    root: Path,
    where: Path,
    files: Iterable[Path],
    called: str | None = None,
) -> ImageDataset:
    counts = [tuple(np.bincount(part.labels, minlength=len(classes)).tolist()) for part in parts]
    if not _sure(name, where, counts, "its labels"):
        _refuse(name, where, called, "the name of the file")
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
    """Which of the sets the nearest folder with such a name stands for, up to `root` and with it."""
    for above in (folder, *folder.parents):
        if above == root:
            return _named(above.resolve().name if above.name in ("", "..") else above.name)
        if set_name := _named(above.name):
            return set_name
    return None


def _named(name: str) -> str | None:
    """Which of the sets a file or folder of that name holds; None where it says neither, or both."""
    rest, fashion = _FASHION.subn(" ", name.lower())
    said = {set_name for set_name, words in _WORDS.items() if words.search(rest)}
    said |= {"fashion_mnist"} if fashion else set()
    return said.pop() if len(said) == 1 else None


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


def _sure(name: str, where: Path, of_parts: list[tuple[int, ...]], by: str) -> bool:
    """Whether the numbers of images per class say that it is this set, whatever it is called; raises where they say
    that it is the other one."""
    known = {set_name for set_name, of in FINGERPRINTS.items() if any(map(of.has, of_parts))}
    _refuse(name, where, next(iter(known - {name}), None), by)
    return name in known


def _refuse(name: str, where: Path, really: str | None, by: str) -> None:
    """Raises where the files are really those of the other set."""
    if really not in (None, name):
        raise InputError(f"{where}: this is {FINGERPRINTS[str(really)].title}, by {by}; try the task {really}")
