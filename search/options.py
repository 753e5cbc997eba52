"""What a user may ask of a search: the options of the command line and the keywords of `search.run`."""

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import search_spaces
from datasets import InputError, Request
from datasets.dataset import Kind
from datasets.fetching import Root, root_of
from datasets.folds import MOST_FOLDS
from datasets.remote import RemoteFolder, is_url
from search_spaces import Experiment
from trainables.metrics import METRICS
from trainables.protocol import Precision

Searcher = Literal["tpe", "gp", "random", "grid"]
Scheduler = Literal["asha", "none"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """None where the task's own `EXPERIMENT` (or `DEMO`) decides."""

    task: str
    demo: bool = False
    data: Root | None = None
    """A folder or an archive, of this machine or by its URL."""
    table: Path | None = None
    """Where DATA is a URL, a path below it will do."""
    images: int | None = None
    """Phantoms to draw; None: as many as the real data set has."""
    plant: tuple[str, ...] = ()
    """Pitfalls to plant among the phantoms."""
    drop: tuple[str, ...] | None = None
    """Which images with a problem are left out; None: `datasets.remedies.DEFAULT_DROP`."""
    like: tuple[str, ...] = ()
    """Images (image_id or row number) that do not belong here: they and everything similar are left out."""
    pool: bool = False
    """Whether the test split joins the development images."""
    trials: int | None = None
    folds: int | None = None
    repeats: int = 1
    """Of the whole cross-validation, each with other folds."""
    leave_source_out: bool = False
    """One fold per source (site, scanner, archive) in place of random ones."""
    max_epochs: int | None = None
    metric: str | None = None
    searcher: Searcher = "tpe"
    scheduler: Scheduler = "asha"
    models: tuple[str, ...] | None = None
    """The models of the search space that are searched; None: all, or those of the task's `DEMO`."""
    space: Path | None = None
    """A Python file with a search space, in the place of the task's own."""
    published_only: bool = False
    """Whether the published configurations are all that is trained, each to its end."""
    only: tuple[str, ...] = ()
    """Names of those that are; (): all of them."""
    weights: str | None = None
    """Of timm backbones; `imagenet` with real data and `none` with phantoms unless given."""
    precision: Precision | None = None
    seed: int = 0
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Parameters of the search space that are not searched, or other fields of `TrialConfig`, and their values."""
    name: str | None = None
    results: Path = Path("results")
    storage: str | None = None
    """URL of a folder, such as a bucket's, where the experiments are; `results` then has a working copy of this one."""
    resume: bool = False
    study: str | None = None
    """Address of a database in which several searches share a study; None: study.db, for this search alone."""
    address: str | None = None
    """Of a running Ray cluster; None starts Ray on this machine, for this search, on loopback."""
    concurrent: int | None = None
    """Trials at a time; None: as many as fit on what Ray has when the search begins."""
    cpus_per_trial: int | None = None
    compile: bool = False
    """Whether networks go through `torch.compile`: for long trials of large ones."""
    explain: bool = True
    """Whether the search ends with what the best trial's networks look at, and keeps them in `best/`."""
    gpus_per_trial: float | str | None = None
    """A number, which may be a fraction, or `auto`: as many trials share a GPU as it has room for."""
    spread_folds: bool = False
    """Whether each fold of a trial has a process of its own: CPUs and GPUs per trial are then those of each fold."""

    def __post_init__(self) -> None:
        if self.data is not None:
            object.__setattr__(self, "data", root_of(self.data))
        for name in ("plant", "drop", "like", "models", "only"):
            words = getattr(self, name)
            if isinstance(words, str):
                raise InputError(f"--{name} {words}: from Python give a tuple of words, ({words!r},)")
            object.__setattr__(self, name, None if words is None else tuple(map(str, words)))
        if self.only or self.published_only:
            object.__setattr__(self, "published_only", True)
            object.__setattr__(self, "scheduler", "none")
        for name, whole in (
            ("--trials", self.trials),
            ("--folds", self.folds),
            ("--repeats", self.repeats),
            ("--max-epochs", self.max_epochs),
            ("--images", self.images),
        ):
            if whole is not None and (not isinstance(whole, int) or isinstance(whole, bool)):
                raise InputError(f"{name} {whole!r}: must be a whole number")
        for name, value, known in (
            ("--searcher", self.searcher, get_args(Searcher)),
            ("--scheduler", self.scheduler, get_args(Scheduler)),
            ("--precision", self.precision, get_args(Precision)),
            ("--metric", self.metric, tuple(METRICS)),
        ):
            if value is not None and value not in known:
                raise InputError(f"{name} {value}: choose one of {', '.join(known)}")
        if isinstance(self.gpus_per_trial, str) and self.gpus_per_trial != "auto":
            try:
                object.__setattr__(self, "gpus_per_trial", float(self.gpus_per_trial))
            except ValueError:
                raise InputError(f"--gpus-per-trial {self.gpus_per_trial}: give a number, or auto") from None
        if self.spread_folds and self.gpus_per_trial == "auto":
            raise InputError(
                "--gpus-per-trial auto: measures whole trials; with --spread-folds give a number, for each fold"
            )
        for name, number, least in (
            ("--trials", self.trials, 1),
            ("--max-epochs", self.max_epochs, 1),
            ("--concurrent", self.concurrent, 1),
            ("--cpus-per-trial", self.cpus_per_trial, 1),
            ("--seed", self.seed, 0),
            ("--repeats", self.repeats, 1),
            ("--images", self.images, 1),
            ("--gpus-per-trial", None if self.gpus_per_trial == "auto" else self.gpus_per_trial, 0),
        ):
            if number is not None and not (isinstance(number, int | float) and least <= number < math.inf):
                raise InputError(f"{name} {number}: must be at least {least}")
        if self.seed >= 2**31:
            raise InputError(f"--seed {self.seed}: must be below {2**31:,}")
        if self.folds is not None and not 2 <= self.folds <= MOST_FOLDS:
            raise InputError(f"--folds {self.folds}: choose from 2 to {MOST_FOLDS}")
        if self.table is not None and is_url(given := str(self.table).replace(":/", "://", 1)):
            raise InputError(
                f"--table {RemoteFolder(given)}: give the URL of the folder with --data, and here the path below it"
            )
        if self.leave_source_out and (self.folds is not None or self.repeats > 1):
            raise InputError("--leave-source-out has one fold per source, once; leave out --folds and --repeats")
        if self.published_only and self.searcher == "grid":
            raise InputError("--searcher grid: it has points of its own; leave out --published-only and --only")
        if self.published_only and self.trials is not None:
            raise InputError(f"--trials {self.trials}: there is one for each published configuration; leave it out")
        if self.storage is not None and not is_url(self.storage):
            raise InputError(
                f"--storage {self.storage}: give a URL, such as s3://bucket/folder; a folder that all nodes see is for "
                f"--results"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.experiment_name):
            raise InputError(f"--name {self.name!r}: use letters, digits, dots, dashes and underscores only")

        if set("?#%") & set(str(self.folder)):
            raise InputError(f"--results {self.results}: the study's address cannot have ?, # or % in it")

    @property
    def experiment_name(self) -> str:
        """The given name or the task's; that of demonstration data always says so."""
        name = self.task if self.name is None else str(self.name)
        return f"{name}-demo" if self.demo and not name.endswith("-demo") else name

    @property
    def folder(self) -> Path:
        return (self.results / self.experiment_name).absolute()

    @property
    def remote(self) -> RemoteFolder | None:
        """Where the experiment is, if it is not in `folder`."""
        return None if self.storage is None else RemoteFolder(self.storage).below(self.experiment_name)

    @property
    def request(self) -> Request:
        return Request(
            root=self.data,
            table=self.table,
            demonstration=self.demo,
            seed=self.seed,
            images=self.images,
            plant=self.plant,
            pool=self.pool,
        )

    def experiment(self, kind: Kind) -> Experiment:
        """The task's own experiment with what was asked for in its place."""
        chosen = search_spaces.experiment_of(self.task, kind, self.demo, self.space)
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Experiment)
            if getattr(self, field.name, None) is not None
        }
        return dataclasses.replace(chosen, **given)
