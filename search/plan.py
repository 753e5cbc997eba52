"""What a search will do, settled before anything is written or started."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import search_spaces
from datasets import ImageDataset, InputError, check_searchable, nearest
from datasets.audit import quick_findings
from datasets.dataset import Kind, Split
from datasets.findings import Finding
from datasets.folds import Folds, leave_one_source_out, make_folds
from datasets.pixels import Interpolation
from datasets.remedies import DEFAULT_DROP, Embed, check_known, remedied
from search.options import Options
from search.spaces import (
    FixedSpace,
    agreeing,
    check_space,
    fixed_space,
    grid,
    image_sizes,
    models,
    one_of_each_model,
    possible_points,
    published_config,
)
from search_spaces import Experiment, Published, Space
from trainables.metrics import check_metric, check_scorable
from trainables.models import OF_BODY, is_own
from trainables.protocol import Protocol
from trainables.weights import shipped

Progress = Callable[[int, int], None]
"""Called with the images that were fetched, then decoded, and all that there are."""


@dataclass(frozen=True)
class Plan:
    options: Options
    title: str
    experiment: Experiment
    dataset: ImageDataset
    """The development images: all that a search ever sees."""
    test: ImageDataset
    """The test split, for the winner alone; of length 0 where there is none."""
    splits: dict[Split, int]
    """Images of each part, after remedies."""
    folds: Folds
    space: FixedSpace
    published: list[Published]
    """Run first, in this order."""
    drop: tuple[str, ...]
    findings: tuple[Finding, ...]
    """What can be said of the images at once; `python -m datasets` says more."""
    points: list[dict[str, Any]]
    """Of a grid, in random order; for other searchers what one would try first, after the published ones."""
    weights: str
    interpolation: Interpolation
    """How images are resized, but for backbones that were trained on others."""

    def protocol(self, device: str) -> Protocol:
        return Protocol(
            metric=self.experiment.metric,
            max_epochs=self.experiment.max_epochs,
            seed=self.options.seed,
            weights=self.weights,
            interpolation=self.interpolation,
            precision=self.experiment.precision,
            device="cuda" if device == "cuda" else "cpu",
            compile=self.options.compile,
        )


def make_plan(options: Options, progress: Progress | None = None) -> Plan:
    """Load the images, split them, narrow the space. Raises `InputError` for everything that a user can put right."""
    found = datasets.load_all(options.task, options.request, progress)
    experiment = options.experiment(found.kind)
    check_metric(experiment.metric, found.kind)
    experiment, space, published = _narrowed(options, experiment, found.kind)
    points = [] if options.published_only else possible_points(experiment.first, space)
    if options.searcher == "grid":
        points, published = grid(space), []
        random.Random(options.seed).shuffle(points)  # so that some of them, if not all are wanted, are a fair sample
        experiment = dataclasses.replace(experiment, trials=min(options.trials or len(points), len(points)))
    drop = DEFAULT_DROP if options.drop is None else options.drop
    check_known(drop)
    check_searchable(found.part("development"))  # before anything is fetched or decoded
    if space.overriding or options.space is not None:  # else all values are the task's own, which tests have built
        _check_possible(space, found, bodies=options.space is not None or not set(OF_BODY).isdisjoint(space.overriding))
    weights = _weights(options, space, found)
    interpolation = _interpolation(space, weights)
    # The smallest: a larger one, if there is any, may be decoded again.
    size_px = image_sizes(space)[0]
    dataset = remedied(found, drop, options.like, _embedding(options, found), progress, size_px, interpolation)
    development = dataset.part("development")
    check_searchable(development)
    if options.leave_source_out:
        folds = leave_one_source_out(development)
        experiment = dataclasses.replace(experiment, folds=folds.k)
    else:
        folds = make_folds(development, experiment.folds, options.seed, options.repeats)
    check_scorable(experiment.metric, development, folds)
    if weights not in ("none", "phantoms"):
        _check_weights(space, dataset, weights)
    return Plan(
        options=options,
        title=datasets.task(options.task).TITLE,
        experiment=experiment,
        dataset=development,
        test=dataset.part("test"),
        splits=dataset.splits,
        folds=folds,
        space=space,
        published=published,
        drop=tuple(drop),
        findings=quick_findings(found),
        points=points,
        weights=weights,
        interpolation=interpolation,
    )


def _narrowed(options: Options, experiment: Experiment, kind: Kind) -> tuple[Experiment, FixedSpace, list[Published]]:
    """The experiment, its space with what was fixed and chosen, and the published configurations to run first."""
    whole = search_spaces.search_space_of(options.task, kind, options.space)
    # The task's own choice of models is one for speed: who names a model, or what was published, wants that.
    if options.models is None and (options.published_only or "model" in options.fixed):
        experiment = dataclasses.replace(experiment, models=())
    if options.space is not None:
        check_space(whole, options.space)
    space = fixed_space(whole, options.fixed, experiment.models)
    known = search_spaces.published_of(options.task, kind, options.space)
    published = agreeing(known, whole, space)
    if options.published_only:
        published = _chosen(options, known, published)
        # Nothing else is built, and no other weights are fetched.
        space = fixed_space(whole, options.fixed, sorted({published_config(space, entry).model for entry in published}))
        epochs = max((entry.epochs or 0 for entry in published), default=0)
        if epochs and options.max_epochs is None and not options.demo:
            experiment = dataclasses.replace(experiment, max_epochs=epochs)
        return dataclasses.replace(experiment, trials=len(published)), space, published
    return experiment, space, published[: max(1, experiment.trials // 2)]


def _check_possible(space: Space, dataset: ImageDataset, bodies: bool) -> None:
    """Raises `InputError` where what the user has set cannot be for a model of the space: a loss that its kind of task
    has not, and among `bodies`, which takes seconds, an option that it has not or a size that it does not take."""
    from trainables.network import frozen_body  # imports torch, which takes seconds
    from trainables.objectives import check_meaning

    for config in one_of_each_model(space):
        check_meaning(config, dataset.kind)
        if bodies:
            frozen_body(config, dataset.channels, weights="none", seed=0)


def _chosen(options: Options, known: Sequence[Published], agreeing_ones: list[Published]) -> list[Published]:
    """Those that `--only` names, in its order, or all."""
    names = [entry.name for entry in known]
    for name in options.only:
        if name not in names:
            there = f"There are: {', '.join(names) or 'none'}"
            raise InputError(f"--only {name}: no such published configuration{nearest(name, names)} {there}")
    if not known:
        where = f"{options.space} has no PUBLISHED" if options.space else f"nothing was published for {options.task}"
        raise InputError(f"--published-only: {where}; leave it out")
    by_name = {entry.name: entry for entry in agreeing_ones}
    for name in options.only:
        if name not in by_name:
            raise InputError(f"--only {name}: --set or --models contradict it; leave them out")
    if not by_name:
        raise InputError("--published-only: --set or --models contradict every published configuration; leave them out")
    return [by_name[name] for name in dict.fromkeys(options.only)] or agreeing_ones


def _embedding(options: Options, dataset: ImageDataset) -> Embed | None:
    """What finds images that resemble the named ones, where ImageNet's weights can be had; copies are found without."""
    if not options.like or dataset.channels == 2 or options.weights not in (None, "imagenet") or dataset.demonstration:
        return None
    from trainables.embedding import embedding  # imports torch and timm, which takes seconds

    return embedding("imagenet")


def _weights(options: Options, space: Space, dataset: ImageDataset) -> str:
    """What backbones start from: `imagenet`, `none`, `phantoms` or a file."""
    if options.weights is None and dataset.demonstration:
        return "phantoms" if any(map(shipped, models(space))) else "none"
    backbones = [model for model in models(space) if not is_own(model)]
    if not backbones:
        if options.weights not in (None, "none"):
            raise InputError(
                f"--weights {options.weights}: no network searched here has pretrained weights; leave it out"
            )
        return "none"
    weights = options.weights or "imagenet"
    if weights == "phantoms" and not any(map(shipped, backbones)):
        raise InputError(f"--weights phantoms: there are none of {', '.join(backbones)}; add --set model=test_resnet")
    if weights in ("imagenet", "none", "phantoms"):
        return weights
    if not Path(weights).is_file():
        raise InputError(f"--weights {weights}: no such file; or use `imagenet` or `none`")
    return str(Path(weights).absolute())  # workers have working folders of their own


def _interpolation(space: Space, weights: str) -> Interpolation:
    """How images were resized for the weights of most backbones, and so are for networks that begin from nothing."""
    if weights in ("none", "phantoms"):
        return "bilinear"
    from trainables.backbones import published_interpolation  # imports timm, which takes seconds

    resized = Counter(published_interpolation(model) for model in models(space) if not is_own(model))
    return resized.most_common(1)[0][0]


def _check_weights(space: Space, dataset: ImageDataset, weights: str) -> None:
    """Fetch the weights of every backbone, or find them missing, before anything starts."""
    from trainables.models import build_body  # imports torch and timm when called, which takes seconds

    backbones = [model for model in models(space) if not is_own(model)]
    for model in backbones:
        try:
            build_body(model, dataset.channels, 224, "avg", weights)
        except InputError as error:
            if weights == "imagenet" or len(backbones) == 1:
                raise
            others = f"{', '.join(backbones)} are searched and a file fits one: add --set model=NAME"
            raise InputError(f"{error}\n{others}") from None
