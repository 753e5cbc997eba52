"""What a search will do, settled before anything is written or started."""

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import search_spaces
from datasets import ImageDataset, InputError
from datasets.folds import Folds, make_folds
from search.options import Options
from search.spaces import agreeing, fixed_space, grid, models
from search_spaces import Experiment, Published, Space
from trainables.protocol import Protocol


@dataclass(frozen=True)
class Plan:
    options: Options
    title: str
    experiment: Experiment
    dataset: ImageDataset
    folds: Folds
    space: Space
    published: list[Published]
    """Run first, in this order."""
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


def make_plan(options: Options) -> Plan:
    """Load the images, split them, narrow the space. Raises `InputError` for everything that a user can put right."""
    module = search_spaces.space_of(options.task)
    experiment = options.experiment()
    space = fixed_space(module.search_space, options.fixed)
    published = agreeing(getattr(module, "PUBLISHED", ()), options.fixed)
    dataset = datasets.load(options.task, options.data, options.demo, options.seed)
    folds = make_folds(dataset, experiment.folds, options.seed)
    points: list[dict[str, Any]] = []
    if options.searcher == "grid":
        points, published = grid(space), []
        random.Random(options.seed).shuffle(points)  # so that some of them, if not all are wanted, are a fair sample
        experiment = dataclasses.replace(experiment, trials=min(options.trials or len(points), len(points)))
    weights = ("none" if dataset.demonstration else "imagenet") if options.weights is None else options.weights
    if weights not in ("none", "imagenet"):
        weights = str(Path(weights).absolute())  # workers have working folders of their own
    if weights != "none":
        _check_weights(space, dataset, weights)
    return Plan(
        options=options,
        title=datasets.task(options.task).TITLE,
        experiment=experiment,
        dataset=dataset,
        folds=folds,
        space=space,
        published=published,
        points=points,
        weights=weights,
    )


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
