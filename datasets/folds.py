"""Folds: the same splits for every trial of an experiment, so that their scores are paired."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from datasets.dataset import ImageDataset, content_digest
from datasets.errors import InputError

MOST_FOLDS = 20
ATTEMPTS = 20
"""Seeds tried, where groups are kept together, until every fold has images of every class."""


@dataclass(frozen=True)
class Folds:
    """k splits in which every image is validated exactly once."""

    validated_in: np.ndarray
    """int64, shape (images,): the fold in which each image is validated."""

    @property
    def k(self) -> int:
        return int(self.validated_in.max()) + 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Per fold the row numbers to train on and to validate on, ascending."""
        for fold in range(self.k):
            validated = self.validated_in == fold
            yield np.flatnonzero(~validated), np.flatnonzero(validated)

    @cached_property
    def digest(self) -> str:
        return content_digest([self.validated_in.astype("<i8").tobytes()])

    def table(self, dataset: ImageDataset) -> pl.DataFrame:
        """One row per image, in the order of all predictions: image_id, target, group, fold."""
        return dataset.table.select("image_id", "target", "group").with_columns(fold=pl.Series(self.validated_in))


def make_folds(dataset: ImageDataset, k: int, seed: int) -> Folds:
    """Stratified folds that keep groups together; the same on every machine for the same table, k and seed.

    Every fold validates, and trains on, images of every class. Raises `InputError` where k is out of range or a class
    has too few images, or too few groups, for that.
    """
    if not 2 <= k <= MOST_FOLDS:
        raise InputError(f"{k} folds: choose from 2 to {MOST_FOLDS}")
    groups, targets = dataset.table["group"].to_numpy(), dataset.targets
    for index, (name, count) in enumerate(dataset.counts.items()):
        if count < k:
            raise InputError(
                f"class {name} has {count} image{'s' * (count > 1)}, fewer than {k} folds: "
                f"add images{f' or choose --folds {count}' if count > 1 else ''}"
            )
        in_class = len(np.unique(groups[targets == index]))
        if in_class < k:
            raise InputError(
                f"class {name} has {count} images but only {in_class} group{'s' * (in_class > 1)} (patients or sets "
                f"of duplicates), fewer than {k} folds: "
                f"{f'choose --folds {in_class}' if in_class > 1 else 'add images'}"
            )
    grouped = len(np.unique(groups)) < len(groups)
    for attempt in range(ATTEMPTS if grouped else 1):
        splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
            n_splits=k, shuffle=True, random_state=seed if attempt == 0 else _another(seed, attempt)
        )
        validated_in = np.full(len(dataset), -1, dtype=np.int64)
        splits = splitter.split(np.zeros(len(targets)), targets, groups if grouped else None)
        for fold, (_, validated) in enumerate(splits):
            validated_in[validated] = fold
        assert (validated_in >= 0).all()
        if _has_every_class(targets, validated_in):
            return Folds(validated_in)
    raise InputError(
        f"no {k} folds found that keep groups together and have images of every class on both sides of each: "
        f"choose fewer --folds"
    )


def _has_every_class(targets: np.ndarray, validated_in: np.ndarray) -> bool:
    """Whether every fold validates, and trains on, images of every class. Keeping groups together may prevent it."""
    per_fold_class = np.zeros((validated_in.max() + 1, targets.max() + 1), int)
    np.add.at(per_fold_class, (validated_in, targets), 1)
    return bool(((per_fold_class > 0) & (per_fold_class < per_fold_class.sum(0))).all())


def _another(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
