"""Folders to lists of image files, with the class that each file's folder stands for.

People's folders hold more than images: what archivers, network disks and file managers leave behind, links in circles,
names that are no text. All of it is left out with its reason. Nothing is decoded: whether the files are what their
names say is a question for `datasets.facts`.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from datasets.dataset import Skipped, Split
from datasets.errors import InputError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
JUNK = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
"""Folders of archivers, network disks and file managers; they may hold thumbnails that end like images."""
PARTS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "dev", "development"), "development"),
    **dict.fromkeys(("test", "testing", "holdout", "hold-out", "hold_out"), "test"),
}
"""What parts of a data set are called, in lower case, and the split that they belong to."""


def contents(paths: Iterable[Path]) -> list[str]:
    """The identity of every file: the SHA-256 of its bytes, hexadecimal; of one that cannot be read, its own."""

    def of_file(path: Path) -> str:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:  # to decode it will fail as well, and says why
            return f"{error.strerror}: {path}"

    def of_some(some: Sequence[Path]) -> list[str]:
        return list(map(of_file, some))

    found = list(paths)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # by hundreds: of small files, a task costs more than a hash
        parts = threads.map(of_some, (found[start : start + 128] for start in range(0, len(found), 128)))
        return [digest for part in parts for digest in part]


def groups(image_ids: Iterable[str], contents: Iterable[str]) -> list[str]:
    """For each image the first with the same bytes: what keeps copies on one side of a split, if nothing else does."""
    first_with: dict[str, str] = {}
    return [first_with.setdefault(content, image_id) for image_id, content in zip(image_ids, contents, strict=True)]


def find_images(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Files below `root` that end like images, and all else that lies there with the reason why it is left out.

    Both in the order of their path below `root`, which is the same on every machine. A junk folder is one entry.
    Links to folders are followed, except up into a folder that is being read.
    """
    found: list[tuple[str, str]] = []
    skipped: list[Skipped] = []
    top = root.stat()
    waiting = [(str(root), "", frozenset({(top.st_dev, top.st_ino)}))]
    while waiting:
        folder, prefix, reading = waiting.pop()
        try:
            with os.scandir(folder) as inside:
                entries = list(inside)
        except OSError as error:
            skipped.append(Skipped(prefix.rstrip("/") or ".", f"a folder that cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            below, reason = prefix + entry.name, None
            if entry.name.startswith(".") or entry.name.casefold() in JUNK:
                reason = "hidden, or left behind by a file manager"
            elif not _is_text(entry.name):
                reason = "its name is not valid UTF-8: rename it"
            else:
                try:
                    stat = entry.stat() if entry.is_dir() else None
                    if stat is None and not entry.name.lower().endswith(ENDINGS):
                        reason = "not an image"
                    elif stat is None and not entry.is_file():
                        reason = "a link to nothing"
                    elif stat is None:
                        found.append((below, entry.path))
                    elif (stat.st_dev, stat.st_ino) in reading:
                        reason = "a link in a circle"
                    else:
                        waiting.append((entry.path, f"{below}/", reading | {(stat.st_dev, stat.st_ino)}))
                except OSError as error:
                    reason = "a link in a circle" if error.errno == errno.ELOOP else str(error.strerror)
            if reason:
                skipped.append(Skipped(os.fsencode(below).decode(errors="replace"), reason))
    return [Path(path) for _, path in sorted(found)], sorted(skipped, key=lambda file: file.path)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that Python could not read
        return False
    return True


@dataclass(frozen=True)
class ClassFolders:
    """A folder with one folder of images per class, or one per part of the data set and in it one per class."""

    root: Path
    """The folder right above those folders: the one asked for, or the only one in it."""
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    """One per path: the class that its folder stands for."""
    splits: tuple[Split, ...] | None
    """One per path, where there are parts."""
    classes: tuple[str, ...]
    """Names of the class folders by target."""
    skipped: tuple[Skipped, ...]
    """Paths below the folder asked for."""


def class_folders(
    root: Path, classes: Mapping[str, int] | None = None, parts: Mapping[str, Split] = PARTS
) -> ClassFolders:
    """The images below `root`, each with the class that its folder stands for.

    The first folder below the root is the class, and folders in it change nothing (`COVID/COVID/x.png`). `classes` maps
    names of folders, in upper or lower case, to targets 0, 1, …; without it every folder is a class, in the order
    of `sorted`, as in Keras and torchvision. A root that is one level too high, an unpacked archive, is understood.
    Two or more `parts` (names in lower case) may lie above the class folders: `train/benign`, `Test/benign`.
    """
    expected = "one folder of images per class" + (f": {', '.join(classes)}" if classes else "")
    if not root.exists():
        raise InputError(f"{root}: no such folder; expected a folder that holds {expected}")
    if not root.is_dir():
        raise InputError(f"{root}: a file; expected a folder that holds {expected}")
    found, skipped = find_images(root)
    if not found:
        raise InputError(f"{root}: no images in it ({', '.join(ENDINGS)}); expected {expected}")

    below = [path.relative_to(root).parts for path in found]
    wanted = None if classes is None else {name.casefold(): target for name, target in classes.items()}
    inner, split_of = _way_to_classes(below, wanted, parts)
    tops = [(*inner, name) for name in split_of] or [inner]
    names = sorted({name for top in tops for name in _folders_in(top, below)})
    target_of = _targets(root, names, wanted, parts, expected)
    of_class: list[tuple[Path, int, Split]] = []
    for path, names_of_path in zip(found, below, strict=True):
        top = next((top for top in tops if _lies_in_folder(names_of_path, top)), None)
        if top is None or names_of_path[len(top)] not in target_of:
            reason = f"not in a class folder ({', '.join(classes or target_of)})"
            skipped.append(Skipped("/".join(names_of_path), reason))
        else:
            split = split_of[top[-1]] if split_of else "development"
            of_class.append((path, target_of[names_of_path[len(top)]], split))
    return ClassFolders(
        root=root.joinpath(*inner),
        paths=tuple(path for path, _, _ in of_class),
        targets=tuple(target for _, target, _ in of_class),
        splits=tuple(split for _, _, split in of_class) if split_of else None,
        classes=tuple(sorted(classes or target_of, key=(classes or target_of).__getitem__)),
        skipped=tuple(sorted(skipped, key=lambda file: file.path)),
    )


def _lies_in_folder(names: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    """Whether a file lies in some folder of the folder `inner`, at any depth."""
    return names[: len(inner)] == inner and len(names) > len(inner) + 1


def _folders_in(inner: tuple[str, ...], below: list[tuple[str, ...]]) -> list[str]:
    return sorted({names[len(inner)] for names in below if _lies_in_folder(names, inner)})


def _way_to_classes(
    below: list[tuple[str, ...]], wanted: Mapping[str, int] | None, parts: Mapping[str, Split]
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """The folders to go down before the class folders come, as long as there is just one with images to go into; and
    the parts that lie there, by the names of their folders.

    Stops where every class is (without `wanted`: where two folders are), else where one is (`COVID/COVID` alone).
    """
    inner: tuple[str, ...] = ()
    partial: tuple[str, ...] | None = None
    while True:
        names = _folders_in(inner, below)
        here = {name: parts[name.casefold()] for name in names if name.casefold() in parts}
        in_parts = {name for part in here for name in _folders_in((*inner, part), below)}
        if len(here) > 1 and in_parts and (wanted is None or any(name.casefold() in wanted for name in in_parts)):
            return inner, here
        if wanted is None:
            complete, some = len(names) > 1, False
        else:
            matched = {wanted[name.casefold()] for name in names if name.casefold() in wanted}
            complete, some = matched == set(wanted.values()), bool(matched)
        if complete:
            return inner, {}
        if some and partial is None:
            partial = inner
        if len(names) != 1:
            return partial or (), {}
        inner += (names[0],)


def _targets(
    root: Path, names: list[str], wanted: Mapping[str, int] | None, parts: Mapping[str, Split], expected: str
) -> dict[str, int]:
    """Target by the name of a class folder as it is on the disk."""
    if wanted is not None:
        target_of = {name: wanted[name.casefold()] for name in names if name.casefold() in wanted}
        if not target_of:
            raise InputError(f"{root}: holds {', '.join(names) or 'images but no folders'}; expected {expected}")
        return target_of
    if len(names) < 2:
        here = f"one folder with images, {names[0]}" if names else "images but no folders"
        raise InputError(f"{root}: holds {here}; expected at least two, {expected}")
    if {name.casefold() for name in names} <= set(parts):
        raise InputError(f"{root}: {', '.join(names)} are parts of a data set and hold no folders of classes")
    return {name: target for target, name in enumerate(names)}
