"""Files on disk in; checked images, labels, groups and folds out.

A task is one module here, found by its name: `datasets/x.py` has

- `TITLE`: what the images are, for `python -m search --list`;
- `IMAGES`, `CLASSES`: how many and which, `None` where only the user knows; `CHANNELS`: 1 for gray, 3 for colour;
- `OBTAIN`: what to get and where to put it, `None` where the images come with a dependency;
- `read(root) -> ImageDataset`;
- `phantoms(seed) -> ImageDataset`, optional: what `--demo` draws.
"""

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from datasets.dataset import ImageDataset, Skipped, content_digest
from datasets.errors import InputError

__all__ = ["ImageDataset", "InputError", "Skipped", "content_digest", "load", "nearest", "task", "tasks"]


@cache
def tasks() -> tuple[str, ...]:
    """The names of all tasks: every module of this package that has a `TITLE`."""
    stems = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(stem for stem in stems if hasattr(importlib.import_module(f"datasets.{stem}"), "TITLE")))


def task(name: str) -> ModuleType:
    """The module of a task, or an `InputError` with the nearest name."""
    if name not in tasks():
        raise InputError(f"unknown task {name!r}{nearest(name, tasks())} The tasks are: {', '.join(tasks())}")
    return importlib.import_module(f"datasets.{name}")


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """The second half of a sentence that begins with an unknown name: `; did you mean 'covid'?` or a full stop."""
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."


def load(name: str, root: Path | None = None, demonstration: bool = False, seed: int = 0) -> ImageDataset:
    """The development images of a task: from `root`, from a dependency, or drawn as phantoms.

    Raises `InputError` where there is nothing to load, with what to get and where to put it.
    """
    module = task(name)
    if demonstration and root is not None:
        raise InputError("--demo draws its own images; leave out --demo or --data")
    if demonstration:
        if not hasattr(module, "phantoms"):
            without = "it needs no data set" if module.OBTAIN is None else f"use --data DIR.\n{module.OBTAIN}"
            raise InputError(f"task {name!r} has no demonstration data; {without}")
        return module.phantoms(seed=seed)
    if root is None and module.OBTAIN is not None:
        demo = f"\nWithout the data set: python -m search {name} --demo" if hasattr(module, "phantoms") else ""
        raise InputError(f"task {name!r} needs its images: --data DIR\n{module.OBTAIN}{demo}")
    if root is not None and module.OBTAIN is None:
        raise InputError(f"task {name!r} brings its own images; leave out --data {root}")
    return module.read(root)
