"""One file per task: what is searched, what is held fixed, what was published.

`search_spaces/x.py` has

- `EXPERIMENT`: metric, folds and budget; `DEMO`, optional: the same for `--demo`;
- `search_space(trial) -> dict`: every argument of one `TrialConfig`, asking `trial` for those that are searched;
- `PUBLISHED`: configurations from reports, optional; they are run first, and marked;
- `SEGMENTATION` and `segmentation_space(trial)`, optional: the same where a user's own table has masks.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import datasets
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


@dataclass(frozen=True, kw_only=True)
class Published:
    """A configuration from a report, in the parameters that the task's `search_space` suggests."""

    name: str
    """Author, year and what the report calls it: `svendsen2025-model3`."""
    summary: str
    params: dict[str, Any]
    """A value for every parameter that the search space asks for on the way."""
    metric: str
    reported: float
    """The figure of its authors, in `metric`."""
    images: int
    """On how many images it was reported."""
    split: str
    """Which images these were."""
    epochs: int
    note: str = ""


def space_of(task: str) -> ModuleType:
    """The search space module of a task, or an `InputError` with the nearest name."""
    datasets.task(task)
    return importlib.import_module(f"search_spaces.{task}")


def experiment_of(task: str, kind: Kind, demonstration: bool) -> Experiment:
    """What the task's file says of metric, folds and budget for such data."""
    module = space_of(task)
    if _has_masks_beside(module, kind):
        return module.SEGMENTATION
    return getattr(module, "DEMO", module.EXPERIMENT) if demonstration else module.EXPERIMENT


def search_space_of(task: str, kind: Kind) -> Space:
    module = space_of(task)
    return module.segmentation_space if _has_masks_beside(module, kind) else module.search_space


def _has_masks_beside(module: ModuleType, kind: Kind) -> bool:
    return kind == "segmentation" and hasattr(module, "SEGMENTATION")


def tasks() -> tuple[str, ...]:
    """Every task that can be searched."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name in datasets.tasks()))
