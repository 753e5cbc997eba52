"""What a search will do, settled before anything is written or started."""

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import search_spaces
from datasets import ImageDataset, InputError, check_searchable
from datasets.audit import quick_findings
from datasets.dataset import Split
from datasets.findings import Finding
from datasets.folds import Folds, leave_one_source_out, make_folds
from datasets.remedies import DEFAULT_DROP, Embed, remedied
from search.options import Options
from search.spaces import agreeing, fixed_space, grid, image_sizes, models
from search_spaces import Experiment, Published, Space
from trainables.metrics import check_metric, check_scorable
from trainables.protocol import Protocol

Progress = Callable[[int, int], None]
"""Called with the images that were decoded and all that there are."""


@dataclass(frozen=True)
class Plan:
    options: Options
    title: str
    experiment: Experiment
    dataset: ImageDataset
    """The development images: all that a search ever sees."""
    splits: dict[Split, int]
    """Images of each part, after remedies."""
    folds: Folds
    space: Space
    published: list[Published]
    """Run first, in this order."""
    drop: tuple[str, ...]
    findings: tuple[Finding, ...]
    """What can be said of the images at once; `python -m datasets` says more."""
    points: list[dict[str, Any]]
    """Of a grid, in random order; empty for other searchers."""
    weights: str

    def protocol(self, device: str) -> Protocol:
        return Protocol(
            metric=self.experiment.metric,
            max_epochs=self.experiment.max_epochs,
            seed=self.options.seed,
            weights=self.weights,
            precision=self.experiment.precision,
            device="cuda" if device == "cuda" else "cpu",
        )


def make_plan(options: Options, progress: Progress | None = None) -> Plan:
    """Load the images, split them, narrow the space. Raises `InputError` for everything that a user can put right."""
    found = datasets.load_all(options.task, options.request)
    experiment = options.experiment(found.kind)
    check_metric(experiment.metric, found.kind)
    space = fixed_space(search_spaces.search_space_of(options.task, found.kind), options.fixed)
    published = agreeing(getattr(search_spaces.space_of(options.task), "PUBLISHED", ()), options.fixed)
    points: list[dict[str, Any]] = []
    if options.searcher == "grid":
        points, published = grid(space), []
        random.Random(options.seed).shuffle(points)  # so that some of them, if not all are wanted, are a fair sample
        experiment = dataclasses.replace(experiment, trials=min(options.trials or len(points), len(points)))
    drop = DEFAULT_DROP if options.drop is None else options.drop
    # The smallest: a larger one, if there is any, may be decoded again.
    size_px = image_sizes(space)[0]
    dataset = remedied(found, drop, options.like, _embedding(options, found), progress, size_px)
    development = dataset.part("development")
    check_searchable(development)
    if options.leave_source_out:
        folds = leave_one_source_out(development)
        experiment = dataclasses.replace(experiment, folds=folds.k)
    else:
        folds = make_folds(development, experiment.folds, options.seed, options.repeats)
    check_scorable(experiment.metric, development, folds)
    weights = _weights(options, space, dataset)
    return Plan(
        options=options,
        title=datasets.task(options.task).TITLE,
        experiment=experiment,
        dataset=development,
        splits=dataset.splits,
        folds=folds,
        space=space,
        published=published,
        drop=tuple(drop),
        findings=quick_findings(found),
        points=points,
        weights=weights,
    )


def _embedding(options: Options, dataset: ImageDataset) -> Embed | None:
    """What finds images that resemble the named ones, where ImageNet's weights can be had; copies are found without."""
    if not options.like or dataset.channels == 2 or options.weights not in (None, "imagenet") or dataset.demonstration:
        return None
    from trainables.embedding import embedding  # imports torch and timm, which takes seconds

    return embedding("imagenet")


def _weights(options: Options, space: Space, dataset: ImageDataset) -> str:
    """What backbones start from: `imagenet`, `none` or a file, found to be there and to fit."""
    if options.weights is None and dataset.demonstration:
        return "none"
    from trainables.models import is_own  # imports torch, which takes seconds

    if all(map(is_own, models(space))):
        if options.weights not in (None, "none"):
            raise InputError(
                f"--weights {options.weights}: no network searched here has pretrained weights; leave it out"
            )
        return "none"
    weights = options.weights or "imagenet"
    if weights not in ("none", "imagenet"):
        weights = str(Path(weights).absolute())  # workers have working folders of their own
    if weights != "none":
        _check_weights(space, dataset, weights)
    return weights


def _check_weights(space: Space, dataset: ImageDataset, weights: str) -> None:
    """Fetch the weights of every backbone, or find them missing, before anything starts."""
    from trainables.models import build_body, is_own  # imports torch and timm, which takes seconds

    backbones = [model for model in models(space) if not is_own(model)]
    for model in backbones:
        try:
            build_body(model, dataset.channels, 224, "avg", weights)
        except InputError as error:
            if weights == "imagenet" or len(backbones) == 1:
                raise
            others = f"{', '.join(backbones)} are searched and a file fits one: add --set model=NAME"
            raise InputError(f"{error}\n{others}") from None
