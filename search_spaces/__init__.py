"""One file per task: what is searched, what is held fixed, what was published.

`search_spaces/x.py` has

- `EXPERIMENT`: metric, folds and budget; `DEMO`, optional: the same for `--demo`;
- `search_space(trial) -> dict`: every argument of one `TrialConfig`, asking `trial` for those that are searched;
- `PUBLISHED`: configurations from reports, optional; they are run first, and marked;
- `SEGMENTATION` and `segmentation_space(trial)`, optional: the same where a user's own table has masks.

A file of the user's (`--space FILE.py`) has the same names and stands in the place of the task's; only `search_space`
must be there.
"""

import dataclasses
import hashlib
import importlib
import importlib.machinery
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
from datasets import InputError
from datasets.dataset import Kind
from trainables.protocol import Precision

Space = Callable[[Any], dict[str, Any]]
"""Takes an `optuna.Trial` (or what answers like one) and returns every argument of a `TrialConfig`."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    metric: str
    """A key of `trainables.metrics.METRICS`."""
    folds: int
    trials: int
    max_epochs: int
    precision: Precision = "auto"
    models: tuple[str, ...] = ()
    """Those of the space that are searched, where it has some that take too long for this; (): all."""
    first: tuple[dict[str, Any], ...] = ()
    """Configurations that one would try first, in the parameters of the space; the published ones go before."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A configuration from a report, in the parameters that the task's `search_space` suggests."""

    name: str
    """Author, year and what the report calls it: `svendsen2025-model3`."""
    summary: str
    params: dict[str, Any]
    """A value for every parameter that the search space asks for on the way."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrialConfig` that the space holds fixed, as they were in the report."""
    metric: str
    reported: float | None
    """The figure of its authors, in `metric`; None: they give none."""
    images: int | None
    """On how many images it was reported; None: not stated."""
    split: str
    """Which images these were."""
    epochs: int | None
    """How many it was given; None: not stated."""
    how: str = ""
    """Of which epoch the figure is, and what chose it."""
    note: str = ""
    """What the report leaves open or contradicts, and what stands here in its place."""

    @property
    def unasked(self) -> dict[str, Any]:
        """All fields of `TrialConfig` that the space does not ask for."""
        return {"epochs": self.epochs} | self.fixed


def space_of(task: str) -> ModuleType:
    """The search space module of a task, or an `InputError` with the nearest name."""
    datasets.task(task)
    return importlib.import_module(f"search_spaces.{task}")


def experiment_of(task: str, kind: Kind, demonstration: bool, file: Path | None = None) -> Experiment:
    """What the user's file, or else the task's, says of metric, folds and budget for such data."""
    if file is not None:
        given = space_in(file)
        if hasattr(given, "EXPERIMENT"):
            return _for_demonstration(given, demonstration)
        # The models are those of the task's own space.
        return dataclasses.replace(experiment_of(task, kind, demonstration), models=())
    module = space_of(task)
    return module.SEGMENTATION if _has_masks_beside(module, kind) else _for_demonstration(module, demonstration)


def search_space_of(task: str, kind: Kind, file: Path | None = None) -> Space:
    """That of the user's file, or else the task's own."""
    if file is not None:
        return space_in(file).search_space
    module = space_of(task)
    return module.segmentation_space if _has_masks_beside(module, kind) else module.search_space


def published_of(task: str, kind: Kind | None = None, file: Path | None = None) -> tuple[Published, ...]:
    """The published configurations of the user's file, or else of the task's; kind: of the images, where it matters."""
    module = space_in(file) if file is not None else space_of(task)
    masks_beside = file is None and kind is not None and _has_masks_beside(module, kind)
    return () if masks_beside else tuple(getattr(module, "PUBLISHED", ()))


def space_in(file: Path) -> ModuleType:
    """A user's own search space. Raises `InputError` where the file is none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"--space {file}: cannot be read ({error.strerror}); give a file with search_space") from error
    name = f"search_space_{hashlib.sha256(content).hexdigest()[:16]}"
    module = sys.modules.get(name) or _executed(name, file)
    if not callable(getattr(module, "search_space", None)):
        raise InputError(f"--space {file}: has no function search_space(trial); see search_spaces/covid.py for one")
    return module


def space_digest(file: Path) -> str:
    """Of the file's content; sixteen hexadecimal digits."""
    return space_in(file).__name__.rpartition("_")[2]


def tasks() -> tuple[str, ...]:
    """Every task that can be searched."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name in datasets.tasks()))


def _executed(name: str, file: Path) -> ModuleType:
    """The file as a module of that name, found again by it when Ray pickles the space."""
    loader = importlib.machinery.SourceFileLoader(name, str(file.absolute()))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == loader.path]
        at = f", line {lines[-1]}" if lines else ""
        raise InputError(f"--space {file}{at}: {type(error).__name__}: {error}") from error
    return module


def _for_demonstration(module: ModuleType, demonstration: bool) -> Experiment:
    return getattr(module, "DEMO", module.EXPERIMENT) if demonstration else module.EXPERIMENT


def _has_masks_beside(module: ModuleType, kind: Kind) -> bool:
    return kind == "segmentation" and hasattr(module, "SEGMENTATION")
