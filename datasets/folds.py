"""Folds: the same splits for every trial of an experiment, so that their scores are paired.

scikit-learn's `StratifiedGroupKFold` deals out groups greedily and may leave a fold several images off its share where
another order, or an exchange of two groups, would not; it warns of rare strata, which here are only a wish. So the
dealing is ours: large groups first, each where it does the least harm, then exchanges while they help.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, content_digest
from datasets.errors import InputError

MOST_FOLDS = 20
MOST_REPEATS = 100
ATTEMPTS = 20
"""Deals tried per repeat, until every fold has images of every class and no repeat is like another."""
EXCHANGES = 1000
"""Moves and swaps of groups at most, after the deal."""
MOST_SWAPPED = 300
"""Groups up to which every swap of two is looked at; with more, moves are enough."""


@dataclass(frozen=True)
class Folds:
    """Splits in which every image is validated exactly once per repeat."""

    validated_in: np.ndarray
    """int64, shape (repeats, images): the fold of that repeat, 0 to k - 1, in which each image is validated."""

    @property
    def k(self) -> int:
        """Folds per repeat."""
        return int(self.validated_in.max()) + 1

    @property
    def repeats(self) -> int:
        return self.validated_in.shape[0]

    def __len__(self) -> int:
        return self.repeats * self.k

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Per fold, repeat by repeat, the row numbers to train on and to validate on, ascending."""
        for validated_in in self.validated_in:
            for fold in range(self.k):
                validated = validated_in == fold
                yield np.flatnonzero(~validated), np.flatnonzero(validated)

    @cached_property
    def digest(self) -> str:
        return content_digest([repr(self.validated_in.shape), self.validated_in.astype("<i8").tobytes()])

    def table(self, dataset: ImageDataset) -> pl.DataFrame:
        """One row per repeat and image, in the order of all predictions: image_id, every target, group, source and
        study where they are known, repeat, and fold, which counts on from repeat to repeat."""
        known = ("source", "study")
        told = [column for column in dataset.table.columns if column.startswith("target_") or column in known]
        images = dataset.table.select("image_id", "target", "group", *told)
        return pl.concat(
            images.with_columns(repeat=pl.lit(repeat, pl.Int64), fold=pl.Series(validated_in + repeat * self.k))
            for repeat, validated_in in enumerate(self.validated_in)
        )


def make_folds(dataset: ImageDataset, k: int, seed: int, repeats: int = 1) -> Folds:
    """Stratified folds that keep groups together; the same on every machine for the same table, k and seed.

    Every fold validates, and trains on, images of every class; no two repeats are the same split. Raises `InputError`
    where k is out of range, a class has too few images or groups for that, or there are not so many splits.
    """
    if not 2 <= k <= MOST_FOLDS:
        raise InputError(f"{k} folds: choose from 2 to {MOST_FOLDS}")
    if not 1 <= repeats <= MOST_REPEATS:
        raise InputError(f"{repeats} repeats: choose from 1 to {MOST_REPEATS}")
    group_of = _numbered(dataset.table["group"])
    classes_NT = np.zeros((len(dataset), 1), np.int64) if dataset.kind == "segmentation" else dataset.scored_targets
    _check_enough(dataset, classes_NT[:, 0], group_of, k)
    strata = np.unique(dataset.strata, return_inverse=True)[1]
    found: dict[bytes, np.ndarray] = {}
    for repeat in range(repeats):
        possible: dict[bytes, np.ndarray] = {}
        for attempt in range(ATTEMPTS):
            dealt = _dealt(strata, classes_NT[:, 0], group_of, k, np.random.default_rng([seed, repeat, attempt]))
            split = _numbered(pl.Series(dealt)).tobytes()  # the same for the same folds in another order
            complete = [_has_every_class(classes, dealt, k) for classes in classes_NT.T]
            if split not in found and complete[0]:
                possible[split] = dealt
                if all(complete):
                    break
        if possible:  # the last, which has every class of every target, if any has; else the classes of the first
            split, dealt = possible.popitem()
            found[split] = dealt
    if not found:
        raise InputError(
            f"no {k} folds found that keep groups together and have images of every class on both sides of each: "
            f"choose fewer --folds"
        )
    if len(found) < repeats:
        raise InputError(
            f"--repeats {repeats}: only {len(found)} different way{'s were' * (len(found) > 1) or ' was'} found to "
            f"deal these groups into {k} folds; choose fewer --repeats or --folds"
        )
    return Folds(np.stack(list(found.values())))


def leave_one_source_out(dataset: ImageDataset) -> Folds:
    """One fold per source (site, scanner, archive): trained on the others, validated on it; in alphabetical order.

    Raises `InputError` where there are no sources to leave out, where one lacks a class, so that it cannot be scored,
    or where a group stands in two of them.
    """
    if "source" not in dataset.table.columns or dataset.table["source"].n_unique() < 2:
        raise InputError("--leave-source-out: these images name no sources, or one only; --folds splits them at random")
    if dataset.table["source"].null_count():
        raise InputError(f"--leave-source-out: {dataset.table['source'].null_count()} images name no source")
    names = sorted(dataset.table["source"].unique())
    if len(names) > MOST_FOLDS:
        raise InputError(f"--leave-source-out: {len(names)} sources, and {MOST_FOLDS} folds are the most")
    validated_in = np.searchsorted(np.array(names), dataset.table["source"].to_numpy().astype(str)).astype(np.int64)
    spread = dataset.table.group_by("group").agg(pl.col("source").n_unique()).filter(pl.col("source") > 1)
    if spread.height:
        raise InputError(
            f"--leave-source-out: {spread.height} groups (patients or sets of duplicates) stand in several sources, "
            f"{spread['group'].sort()[0]} for one; --folds keeps them together"
        )
    if dataset.kind != "segmentation":
        for fold, name in enumerate(names):
            for inside, said in ((validated_in == fold, "source"), (validated_in != fold, "all sources but")):
                missing = [dataset.classes[i] for i in np.setdiff1d(dataset.targets, dataset.targets[inside])]
                if missing:
                    raise InputError(
                        f"--leave-source-out: {said} {name} has no image of class {', '.join(missing)}: the class goes "
                        f"with the source, and no score could tell them apart"
                    )
    return Folds(validated_in[None])


def _check_enough(dataset: ImageDataset, classes: np.ndarray, group_of: np.ndarray, k: int) -> None:
    names = ["images"] if dataset.kind == "segmentation" else [f"class {name}" for name in dataset.classes]
    for index, name in enumerate(names):
        count = int((classes == index).sum())
        if count < k:
            raise InputError(
                f"{name} has {count} image{'s' * (count > 1)}, fewer than {k} folds: "
                f"add images{f' or choose --folds {count}' if count > 1 else ''}"
            )
        in_class = len(np.unique(group_of[classes == index]))
        if in_class < k:
            raise InputError(
                f"{name} has {count} images but only {in_class} group{'s' * (in_class > 1)} (patients or sets "
                f"of duplicates), fewer than {k} folds: "
                f"{f'choose --folds {in_class}' if in_class > 1 else 'add images'}"
            )


def _numbered(groups: pl.Series) -> np.ndarray:
    """int64 (images,): 0, 1, … in the order of first appearance."""
    first = groups.unique(maintain_order=True)
    return groups.replace_strict(first, np.arange(len(first)), return_dtype=pl.Int64).to_numpy()


def _dealt(
    strata: np.ndarray, classes: np.ndarray, group_of: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """int64 (images,): folds whose shares of every stratum are as equal as the groups allow.

    G groups, S strata, C classes; `held` counts the images of a group, `shares` those of a fold. All in whole numbers
    (k times what is meant, where shares would be fractions), so that every machine deals alike.
    """
    held_GS, held_GC = _counts(group_of, strata), _counts(group_of, classes) > 0
    fold_of_G = np.full(len(held_GS), -1, np.int64)
    shares_KS = np.zeros((k, held_GS.shape[1]), np.int64)
    total_S = held_GS.sum(0)
    sizes_G = held_GS.sum(1)
    left_C, lacking_KC = held_GC.sum(0), np.ones((k, held_GC.shape[1]), bool)

    several = np.flatnonzero(sizes_G > 1)
    for group in sorted(rng.permutation(several), key=lambda group: -int((held_GS[group] ** 2).sum())):
        # Folds that lack a class of which no more groups are left than folds lack it, before all; then what the squared
        # distance from the ideal shares grows by; then the fold with the fewest images.
        urgent_C = held_GC[group] & (left_C <= lacking_KC.sum(0))
        harm_K = (held_GS[group] * (2 * (k * shares_KS - total_S) + k * held_GS[group])).sum(1)
        wanting_K = (lacking_KC & urgent_C).sum(1)
        fold = np.lexsort((rng.permutation(k), shares_KS.sum(1), harm_K, -wanting_K))[0]
        fold_of_G[group] = fold
        shares_KS[fold] += held_GS[group]
        left_C = left_C - held_GC[group]
        lacking_KC[fold] &= ~held_GC[group]
    for stratum in range(held_GS.shape[1]):
        single = np.flatnonzero((sizes_G == 1) & (held_GS[:, stratum] == 1))
        folds = _filled_up(shares_KS, stratum, len(single), rng)
        fold_of_G[single] = rng.permutation(folds)
        shares_KS[:, stratum] += np.bincount(folds, minlength=k)
    if len(several):
        exchanged = fold_of_G.copy()
        _exchange(exchanged, held_GS, k)
        if not _has_every_class(classes, fold_of_G[group_of], k) or _has_every_class(classes, exchanged[group_of], k):
            fold_of_G = exchanged
    return fold_of_G[group_of]


def _counts(group_of: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 (groups, labels): how many images of a group have a label."""
    counts = np.zeros((group_of.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    return counts


def _filled_up(shares_KS: np.ndarray, stratum: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (images,): folds for images one by one, each to the fold with the fewest of the stratum; of equal ones to
    that with the fewest images of all."""
    k = len(shares_KS)
    shares, sizes, order = shares_KS[:, stratum].copy(), shares_KS.sum(1), rng.permutation(k)
    level = (shares.sum() + images) // k  # folds below it are filled up to it, or near it
    missing = np.maximum(level - shares, 0)
    while missing.sum() > images:
        level -= 1
        missing = np.maximum(level - shares, 0)
    folds = np.repeat(np.arange(k), missing)
    shares, sizes = shares + missing, sizes + missing
    for _ in range(images - len(folds)):
        fold = np.lexsort((order, sizes, shares))[0]
        folds = np.append(folds, fold)
        shares[fold] += 1
        sizes[fold] += 1
    return folds


def _exchange(fold_of_G: np.ndarray, held_GS: np.ndarray, k: int) -> None:
    """Move a group to another fold, or swap two, as long as that brings the shares nearer to equal. In place."""
    square_G = k * (held_GS**2).sum(1)
    for _ in range(EXCHANGES):
        off_KS = np.tile(-held_GS.sum(0), (k, 1))  # k times the distance of a fold from its ideal shares
        np.add.at(off_KS, fold_of_G, k * held_GS)
        if np.abs(off_KS).max() < k:
            return
        # Moving g from fold a to b changes the squared distance by 2 h·(off_b - off_a) + 2 h·h.
        along_GK = held_GS @ off_KS.T
        here_G = along_GK[np.arange(len(held_GS)), fold_of_G]
        gain_GK = 2 * (along_GK - here_G[:, None] + square_G[:, None])
        gain_GK[np.arange(len(held_GS)), fold_of_G] = 0
        group, fold = np.unravel_index(gain_GK.argmin(), gain_GK.shape)
        best = gain_GK[group, fold]
        swap = None
        if len(held_GS) <= MOST_SWAPPED:
            # Swapping g of fold a with h of fold b moves their difference d = h_g - h_h from a to b.
            moved_GG = along_GK[:, fold_of_G] - here_G[:, None]  # g's own part: h_g·(off_b - off_a)
            inner_GG = square_G[:, None] + square_G[None] - 2 * k * (held_GS @ held_GS.T)
            gain_GG = 2 * (moved_GG + moved_GG.T + inner_GG)
            gain_GG[fold_of_G[:, None] == fold_of_G[None]] = 0
            if gain_GG.min() < best:
                swap = np.unravel_index(gain_GG.argmin(), gain_GG.shape)
                best = gain_GG[swap]
        if best >= 0:
            return
        if swap is not None:
            fold_of_G[list(swap)] = fold_of_G[list(swap[::-1])]
        else:
            fold_of_G[group] = fold


def _has_every_class(classes: np.ndarray, validated_in: np.ndarray, k: int) -> bool:
    """Whether every fold validates, and trains on, images of every class. Keeping groups together may prevent it."""
    per_fold_class = np.zeros((k, classes.max() + 1), int)
    np.add.at(per_fold_class, (validated_in, classes), 1)
    return bool(((per_fold_class > 0) & (per_fold_class < per_fold_class.sum(0))).all())
