"""Folders to lists of image files, with the class that each file's folder stands for.

People's folders hold more than images: what archivers, network disks and file managers leave behind, links in circles,
names that are no text. All of it is left out with its reason. Nothing is decoded: whether the files are what their
names say is a question for `datasets.facts`.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.dataset import Skipped, Split
from datasets.errors import InputError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
JUNK = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
"""Folders of archivers, network disks and file managers; they may hold thumbnails that end like images."""
NOT_READ = "beside what is read"
LEFT_BEHIND = "hidden, or left behind by a file manager"
PARTS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "dev", "development"), "development"),
    **dict.fromkeys(("test", "testing", "holdout", "hold-out", "hold_out"), "test"),
}
"""What parts of a data set are called, in lower case, and the split that they belong to."""
_AROUND_PARTS = re.compile(
    r"^(set|images?|imgs?|data|split|folder|files)+|(set|images?|imgs?|data|split|folder|files)+$"
)
"""What names of parts are lengthened by, in lower case: `train_set`, `TestData`, `images-val`."""


def file_digests(paths: Iterable[Path]) -> list[str]:
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


class Folder(NamedTuple):
    """What lies right in a folder, in the order of the names and without junk."""

    path: Path
    folders: list[Path]
    files: list[Path]


def folder_at(path: Path) -> Folder:
    """One that cannot be read is empty."""
    found = Folder(path, [], [])
    for entry in entries(path):
        if not is_junk(entry.name):
            (found.folders if entry.is_dir() else found.files).append(path / entry.name)
    return found


def below(root: Path, depth: int, enter: Callable[[Path], bool] = lambda folder: True) -> Iterator[Folder]:
    """A folder and those in it, `depth` levels down, the upper ones first; of those below only what `enter` accepts.
    None comes twice, whatever links lead to it."""
    level, seen = [root], set[tuple[int, int]]()
    for _ in range(depth + 1):
        found = []
        for path in level:
            with contextlib.suppress(OSError):
                stat = path.stat()
                if (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    found.append(folder_at(path))
        yield from found
        level = [path for folder in found for path in folder.folders if enter(path)]


def beside(given: Path, used: Iterable[Path], reason: str = NOT_READ) -> list[Skipped]:
    """What lies in the folders from `given` down to what is used and is not used: paths below `given`."""
    of_use = set(used)
    ways = {folder for path in of_use for folder in path.parents if folder.is_relative_to(given)}
    return [
        Skipped(printable(path.relative_to(given).as_posix()), LEFT_BEHIND if is_junk(path.name) else reason)
        for folder in sorted(ways)
        for path in (folder / entry.name for entry in entries(folder))
        if path not in of_use and path not in ways
    ]


def entries(folder: str | Path) -> "list[os.DirEntry[str]]":
    """Of a folder, in the order of their names; none where it cannot be read."""
    try:
        with os.scandir(folder) as inside:
            return sorted(inside, key=lambda entry: entry.name)
    except OSError:
        return []


def is_junk(name: str) -> bool:
    return name.startswith(".") or name.casefold() in JUNK


def printable(path: str) -> str:
    """A name that is no text as one."""
    return os.fsencode(path).decode(errors="replace")


def find_images(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Files below `root` that end like images, and all else that lies there with the reason why it is left out.

    Both in the order of their path below `root`, which is the same on every machine. A junk folder is one entry.
    Links to folders are followed, but no folder is read twice: where it lies itself goes before what links to it.
    """
    found: list[tuple[str, str]] = []
    skipped: list[Skipped] = []
    read: dict[tuple[int, int], str] = {}
    waiting, links = [(str(root), "")], list[tuple[str, str]]()
    while waiting or links:
        if not waiting:
            links.sort(key=lambda link: link[1], reverse=True)
            waiting.append(links.pop())
        folder, prefix = waiting.pop()
        try:
            stat = Path(folder).stat()
            first = read.setdefault((stat.st_dev, stat.st_ino), prefix)
            if first != prefix:
                skipped.append(Skipped(printable(prefix[:-1]), f"the same folder as {printable(first[:-1]) or '.'}"))
                continue
            with os.scandir(folder) as inside:
                listed = list(inside)
        except OSError as error:
            reason = f"a folder that cannot be read: {error.strerror}"
            skipped.append(Skipped(printable(prefix[:-1]) or ".", reason))
            continue
        for entry in listed:
            path, why = prefix + entry.name, None
            try:
                if is_junk(entry.name):
                    why = LEFT_BEHIND
                elif not _is_text(entry.name):
                    why = "its name is not valid UTF-8: rename it"
                elif entry.is_dir():
                    (links if entry.is_symlink() else waiting).append((entry.path, f"{path}/"))
                elif not entry.name.lower().endswith(ENDINGS):
                    why = "not an image"
                elif not entry.is_file():
                    why = "a link to nothing"
                else:
                    found.append((path, entry.path))
            except OSError as error:
                why = "a link in a circle" if error.errno == errno.ELOOP else str(error.strerror)
            if why:
                skipped.append(Skipped(printable(path), why))
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
    Two or more `parts` (names in lower case) may lie above the class folders: `train/benign`, `Test/benign`; or one,
    with something else beside it. Folders that look like parts and are not called so are refused, and so are classes of
    the test part alone; but where it has a single folder, and that is no class, its images have no labels.
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
    inner, split_of = _way_to_classes(root, below, wanted, parts)
    tops = [(*inner, name) for name in split_of] or [inner]
    unlabelled = _unlabelled(root.joinpath(*inner), inner, split_of, below) if wanted is None else None
    names = sorted({name for top in tops for name in _folders_in(top, below) if name != unlabelled})
    target_of = _targets(root, names, wanted, parts, expected)
    of_class: list[tuple[Path, int, Split]] = []
    for path, names_of_path in zip(found, below, strict=True):
        top = next((top for top in tops if _lies_in_folder(names_of_path, top)), None)
        if top is None or names_of_path[len(top)] not in target_of:
            reason = f"not in a class folder ({', '.join(classes or target_of)})"
            if top is not None and names_of_path[len(top)] == unlabelled:
                reason = f"a test image without a label: {unlabelled} is no class of the other parts"
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
    root: Path, below: list[tuple[str, ...]], wanted: Mapping[str, int] | None, parts: Mapping[str, Split]
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """The folders to go down before the class folders come, as long as there is just one with images to go into; and
    the parts that lie there, by the names of their folders.

    Stops where every class is (without `wanted`: where two folders are), else where one is (`COVID/COVID` alone).
    """
    inner: tuple[str, ...] = ()
    partial: tuple[str, ...] | None = None
    while True:
        names = _folders_in(inner, below)
        here = {name: split for name in names if (split := _split_of(name, parts))}
        in_parts = {name for part in here for name in _folders_in((*inner, part), below)}
        if len(here) > 1 and in_parts and (wanted is None or any(name.casefold() in wanted for name in in_parts)):
            return inner, here
        if wanted is None:
            if len(names) > 1 and len(here) == 1 and len(in_parts) > 1:
                _check_lone_part(root.joinpath(*inner), next(iter(here)), names, below, inner)
                inner += tuple(here)
                continue
            if len(names) > 1:
                _check_classes(root.joinpath(*inner), names, below, inner)
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


def _split_of(name: str, parts: Mapping[str, Split]) -> Split | None:
    """The split that a folder of that name stands for: `train`, and also `train_set`, `TestData`, `images-val`."""
    plain = name.casefold()
    words = re.sub(r"[\s_.-]+", "", plain)
    return parts.get(plain) or parts.get(words) or parts.get(_AROUND_PARTS.sub("", words))


def _check_lone_part(
    folder: Path, part: str, names: list[str], below: list[tuple[str, ...]], inner: tuple[str, ...]
) -> None:
    """Raises where what lies beside a part holds folders, too, and may be another part."""
    like = next((name for name in names if name != part and len(_folders_in((*inner, name), below)) > 1), None)
    if like:
        raise InputError(
            f"{folder}: {part} and {like} hold folders: if both are parts of the data set, rename {like} to train, val "
            f"or test; if {part} is all of it, pass {folder / part}"
        )


def _check_classes(folder: Path, names: list[str], below: list[tuple[str, ...]], inner: tuple[str, ...]) -> None:
    """Raises where folders are no classes, as they hold the same ones."""
    holds: dict[str, list[str]] = {}
    for name in names:
        for inside in _folders_in((*inner, name), below):
            holds.setdefault(inside, []).append(name)
    alike: dict[tuple[str, str], list[str]] = {}
    for inside, above in holds.items():
        if len(above) > 1:
            alike.setdefault((above[0], above[1]), []).append(inside)
    for (first, second), both in alike.items():
        if len(both) > 1:
            further = len([name for name in names if name in holds[both[0]]]) - 2
            raise InputError(
                f"{folder}: {first} and {second}{f' and {further} more' if further else ''} hold the same folders "
                f"{', '.join(sorted(both)[:4])}: are they parts? rename them train and test; if they are classes, pass "
                f"a table of labels"
            )


def _unlabelled(
    folder: Path, inner: tuple[str, ...], split_of: Mapping[str, Split], below: list[tuple[str, ...]]
) -> str | None:
    """The only folder of the test parts, where it is no class of the others: Kaggle's `test/unknown`.

    Raises where there are several and some are no classes: nothing could learn these.
    """
    of_split: dict[Split, set[str]] = {"development": set(), "test": set()}
    for part, split in split_of.items():
        of_split[split] |= set(_folders_in((*inner, part), below))
    train, test = sorted(of_split["development"]), sorted(of_split["test"])
    alone = [name for name in test if name not in train]
    if not train or not alone:
        return None
    if len(test) == 1:
        return test[0]
    parts = " and ".join(part for part, split in sorted(split_of.items()) if split == "test")
    raise InputError(
        f"{folder}: {parts} holds {', '.join(alone[:4])}{', …' if len(alone) > 4 else ''}, but the images to learn "
        f"from are of {', '.join(train[:4])}{', …' if len(train) > 4 else ''}: give the folders the same names, or "
        f"take those out"
    )


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
    if all(_split_of(name, parts) for name in names):
        raise InputError(f"{root}: {', '.join(names)} are parts of a data set and hold no folders of classes")
    return {name: target for target, name in enumerate(names)}
