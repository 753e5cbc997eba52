"""Files on disk in; checked images, labels, groups and folds out.

A task is one module here, found by its name: `datasets/x.py` has

- `TITLE`: what the images are, for `python -m search --list`;
- `IMAGES`, `CLASSES`: how many and which, `None` where only the user knows; `CHANNELS`: 1 for gray, 3 for colour;
- `OBTAIN`: what to get and where to put it, `None` where the images come with a dependency;
- `read(root) -> ImageDataset`: lists and hashes, decodes nothing;
- `phantoms(seed, images, plant) -> ImageDataset`, optional: what `--demo` draws.
"""

import datasets.interruption  # noqa: F401, I001 -- before all that takes long

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from datasets.dataset import ImageDataset, Skipped, Target, check_searchable, content_digest
from datasets.errors import InputError
from datasets.remote import RemoteFolder

__all__ = [
    "ImageDataset",
    "InputError",
    "Request",
    "Skipped",
    "Target",
    "check_searchable",
    "content_digest",
    "load",
    "load_all",
    "nearest",
    "task",
    "tasks",
]


_SETS_TITLE = re.compile(r"^TITLE\b", re.MULTILINE)


@cache
def tasks() -> tuple[str, ...]:
    """The names of all tasks: every module of this package that sets a `TITLE`. It is read, not imported: to import
    all of them takes seconds."""
    files = [Path(folder, f"{module.name}.py") for folder in __path__ for module in pkgutil.iter_modules([folder])]
    return tuple(sorted(file.stem for file in files if file.exists() and _SETS_TITLE.search(file.read_text())))


def task(name: str) -> ModuleType:
    """The module of a task, or an `InputError` with the nearest name."""
    if name not in tasks():
        raise InputError(f"unknown task {name!r}{nearest(name, tasks())} The tasks are: {', '.join(tasks())}")
    return importlib.import_module(f"datasets.{name}")


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """The second half of a sentence that begins with an unknown name: `; did you mean 'covid'?` or a full stop."""
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which images of a task are wanted: those of a folder, of an archive, of a table, or drawn."""

    root: Path | RemoteFolder | None = None
    """A folder or an archive (zip, tar), of this machine or by its URL."""
    table: Path | None = None
    """Labels in a file, for the task `images`."""
    demonstration: bool = False
    seed: int = 0
    """Of phantoms."""
    images: int | None = None
    """Phantoms to draw; None: as many as the real data set has."""
    plant: tuple[str, ...] = ()
    """Pitfalls to plant among the phantoms."""
    pool: bool = False
    """Whether the test split joins the development images."""


def load_all(name: str, request: Request, progress: Callable[[int, int], None] | None = None) -> ImageDataset:
    """The images of a task as they are found: both splits, nothing decoded, nothing remedied.

    progress: called with the files that have been fetched and all there are, where they lie elsewhere. Raises
    `InputError` where there is nothing to load, with what to get and where to put it.
    """
    dataset = _found(task(name), name, request, progress)
    if request.pool:
        if not dataset.splits["test"]:
            raise InputError(f"--pool: {dataset.origin} has no test split to put into the folds; leave it out")
        return dataclasses.replace(dataset, table=dataset.table.drop("split", strict=False))
    return dataset


def load(
    name: str,
    root: Path | None = None,
    demonstration: bool = False,
    seed: int = 0,
    *,
    request: Request | None = None,
    drop: Collection[str] | None = None,
) -> ImageDataset:
    """The images of a task, decoded once to see whether they are any, and remedied: both splits.

    `request` says all; `root`, `demonstration` and `seed` are short for the usual. `drop`: see `datasets.remedies`.
    """
    from datasets.remedies import DEFAULT_DROP, remedied  # looks at pixels, which a list of the tasks does not need

    request = request or Request(root=root, demonstration=demonstration, seed=seed)
    dataset = remedied(load_all(name, request), DEFAULT_DROP if drop is None else drop)
    check_searchable(dataset.part("development"))
    return dataset


def _found(
    module: ModuleType, name: str, request: Request, progress: Callable[[int, int], None] | None
) -> ImageDataset:
    given = request.root or request.table
    if request.demonstration:
        if given is not None:
            option = "--data" if request.root else "--table"
            raise InputError(f"--demo draws its own images; leave out --demo or {option} {given}")
        if not hasattr(module, "phantoms"):
            without = "it needs no data set" if module.OBTAIN is None else f"use --data DIR.\n{module.OBTAIN}"
            raise InputError(f"task {name!r} has no demonstration data; {without}")
        return module.phantoms(seed=request.seed, images=request.images, plant=request.plant)
    for option, value in (("--images", request.images), ("--plant", request.plant or None)):
        if value is not None:
            raise InputError(f"{option} is about demonstration data; add --demo or leave it out")
    if given is not None and module.OBTAIN is None:
        raise InputError(f"task {name!r} brings its own images; leave out --data {given}")
    if given is None and module.OBTAIN is not None:
        demo = f"\nWithout the data set: python -m search {name} --demo" if hasattr(module, "phantoms") else ""
        raise InputError(f"task {name!r} needs its images: --data DIR\n{module.OBTAIN}{demo}")
    arguments: dict[str, Path] = {}
    if request.table is not None:
        if "table" not in inspect.signature(module.read).parameters:
            raise InputError(f"--table is for the task 'images'; task {name!r} reads its labels from its own files")
        arguments["table"] = request.table
    if request.root is None:
        return module.read(None, **arguments)
    from datasets.fetching import source_of

    source = source_of(request.root, progress)
    if source is None:
        return module.read(request.root, **arguments)
    try:
        dataset: ImageDataset = module.read(source.folder, **arguments)
    except InputError as error:  # names what the user gave, and not where in the store that lies
        raise type(error)(str(error).replace(str(source.folder), str(request.root))) from None
    return dataclasses.replace(dataset, origin=str(request.root), source=source)
