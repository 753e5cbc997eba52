"""experiment.json in types: what was searched, on which data, with which versions; `search/records.py` writes it."""

from typing import Any, Literal, NotRequired, TypedDict

Mode = Literal["max", "min"]


class Skipped(TypedDict):
    path: str
    reason: str


class Target(TypedDict):
    name: str
    classes: list[str]
    scored: bool


class Finding(TypedDict):
    """Of the audit."""

    check: str
    severity: str
    title: str
    images: list[str] | int
    """Which, or only how many."""
    remedy: str


class Data(TypedDict):
    images: int
    classes: list[str]
    counts: dict[str, int]
    kind: Literal["binary", "multiclass", "multitask", "segmentation"]
    digest: str
    origin: str
    best_accuracy: float | None
    skipped: list[Skipped]
    dropped: list[Skipped]
    target_name: str
    further: list[Target]
    splits: dict[str, int]
    repeats: int
    leave_source_out: bool
    findings: list[Finding]


SINCE: dict[str, Any] = {
    "dropped": [],
    "target_name": "label",
    "further": [],
    "splits": {"test": 0},
    "repeats": 1,
    "leave_source_out": False,
    "findings": [],
}
"""Keys of `Data` that came later, with what they were before there were any: old results still open."""


class Reported(TypedDict):
    """What the authors of a published configuration say of it."""

    name: str
    summary: str
    metric: str
    reported: float | None
    """None: they give no figure."""
    images: int | None
    """On how many images; None: not stated."""
    split: str
    """Which images these were."""
    epochs: int | None
    """How many it was given; None: not stated."""
    how: NotRequired[str]
    """Of which epoch the figure is, and what chose it."""
    note: str


class Session(TypedDict):
    started: str
    command: str


class Shared(TypedDict):
    """The study of several searches; an `owner` tells them apart."""

    address: str
    owner: str
    finished: NotRequired[int]
    """Trials that others had finished when this search last ended."""
    unfinished: NotRequired[int]
    """Trials that others had begun by then, and not finished."""


class Experiment(TypedDict):
    """experiment.json."""

    name: str
    task: str
    title: str
    demonstration: bool
    command: str
    started: str
    sessions: list[Session]
    versions: dict[str, str]
    commit: str | None
    seed: int
    metric: str
    mode: Mode
    folds: int
    folds_digest: str
    max_epochs: int
    rungs: list[int]
    trials: int
    searcher: str
    scheduler: str
    weights: str
    precision: str
    fixed: dict[str, Any]
    data: Data
    machine: dict[str, Any]
    published: NotRequired[list[Reported]]
    """Of the configurations that run first; came later than the other keys."""
    study: NotRequired[Shared | None]
    """None where it is study.db, of this search alone."""
