"""Is the headline of the report true? Many searches on phantoms, each held against fresh draws.

    python -m benchmarks.honesty --record     200 searches, adds its rows to honesty.md; --quick: 30 searches

A search draws some images of clothes out of many (28 px phantoms), tries configurations of a head on the features of a
frozen network by cross-validation, stops the worse ones at the rungs as a scheduler does, and chooses the best. Its
score, and the corrected one with its interval, are then held against the truth: the mean score of the winner's fold
networks on all the images that the search has not had. Half of the searches have labels at random, where the truth is
chance and all that is above it is selection.

No Ray: `trainables.lockstep` in this process. Features are computed once, for all searches.
"""

import argparse
import dataclasses
import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import torch

import datasets
from analysis.estimate import corrected_score
from analysis.scoring import Scoring, numbered
from analysis.selection import Curves
from benchmarks.measurement import record
from benchmarks.pretrain import WEIGHTS
from datasets import ImageDataset
from datasets.dataset import Decoder
from datasets.folds import Folds, make_folds
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep
from trainables.metrics import METRICS
from trainables.protocol import Protocol

POOL = 12_000
"""Phantoms to draw searches and truths from."""
PAIR = ("T-shirt/top", "Shirt")
"""The classes of searches with two of them: the two that are most alike."""
EPOCHS = 9
KEPT = 3
"""Of the trials that reach a rung, one in so many goes on."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of search."""

    metric: str
    classes: int
    images: int
    trials: int
    folds: int = 3
    repeats: int = 1
    signal: bool = True
    """Whether labels have to do with the images."""


SETTINGS = [
    Setting(metric=metric, classes=classes, images=images, trials=trials, repeats=repeats, signal=signal)
    for signal in (True, False)
    for metric, classes, images, trials, repeats in (
        ("auroc", 2, 60, 40, 1),
        ("auroc", 2, 240, 40, 1),
        ("balanced_accuracy", 2, 120, 40, 2),
        ("accuracy", 10, 120, 40, 1),
        ("accuracy", 10, 360, 20, 1),
    )
]


@dataclass(frozen=True)
class Found:
    """What a search says, and what is true."""

    naive: float
    corrected: float
    low: float
    high: float
    truth: float
    seconds: float


@dataclass(frozen=True)
class Some(Folds):
    """Folds of some rows of a larger data set; the others are neither trained on nor validated."""

    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((self.rows[trained], self.rows[validated]) for trained, validated in super().__iter__())


@dataclass(frozen=True)
class Coloured:
    """A decoder of gray images, for a network that wants three channels."""

    gray: Decoder

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        return np.repeat(self.gray(row), 3, axis=2)


@cache
def pool(classes: int) -> ImageDataset:
    phantoms = datasets.load_all("fashion_mnist", datasets.Request(demonstration=True, seed=0, images=POOL))
    phantoms = dataclasses.replace(phantoms, channels=3, decoder=Coloured(phantoms.decoder))
    if classes == len(phantoms.classes):
        return phantoms
    pair = [phantoms.classes.index(name) for name in PAIR]
    rows = phantoms.rows(np.isin(phantoms.targets, pair))
    renumbered = rows.table["target"].replace_strict(pair, [0, 1], return_dtype=pl.Int64)
    return dataclasses.replace(rows, table=rows.table.with_columns(target=renumbered), classes=PAIR)


def configurations(rng: np.random.Generator, count: int) -> Iterator[TrialConfig]:
    """At random, as a search begins."""
    for _ in range(count):
        yield TrialConfig(
            model="test_resnet",
            image_size_px=32,
            unfrozen_layers=0,
            learning_rate=float(10 ** rng.uniform(-4, -1)),
            batch_size=int(rng.choice([16, 32])),
            dense_widths=((), (16,), (64,))[rng.integers(3)],
            dense_batch_norm=bool(rng.random() < 0.5),
            dropout=float(rng.uniform(0, 0.7)),
            optimizer=str(rng.choice(["adam", "sgd"])),  # type: ignore[arg-type]
        )


def sample(targets_N: np.ndarray, setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Rows of a search's images, ascending: of every class as many, as there are among those that the truth is from. If
    classes differed by chance, stratified folds would have the same surplus in what they train on and in what they
    validate, and fresh draws would not."""
    each = setting.images // setting.classes
    of_class = [np.flatnonzero(targets_N == one) for one in range(setting.classes)]
    return np.sort(np.concatenate([rng.permutation(rows)[:each] for rows in of_class]))


def searched(setting: Setting, seed: int) -> Found:
    torch.set_num_threads(1)
    began = time.perf_counter()
    rng, everything = np.random.default_rng(seed), pool(setting.classes)
    if not setting.signal:
        shuffled = everything.table.with_columns(target=pl.Series(rng.permutation(everything.targets)))
        everything = dataclasses.replace(everything, table=shuffled)
    rows = sample(everything.targets, setting, rng)
    drawn = everything.rows(rows)
    split = make_folds(drawn, setting.folds, seed, setting.repeats)
    folds = Some(split.validated_in, rows)
    protocol = Protocol(
        metric=setting.metric,
        max_epochs=EPOCHS,
        seed=seed,
        weights=str((WEIGHTS / "test_resnet.safetensors").absolute()),
        precision="float32",
    )
    trials = [Lockstep(config, everything, folds, protocol) for config in configurations(rng, setting.trials)]
    going = list(range(len(trials)))
    for rung in protocol.rungs:
        for number in going:
            while not trials[number].finished and trials[number].epoch < rung:
                trials[number].advance()
        going = sorted(going, key=lambda number: -trials[number].report()[setting.metric])
        going = going[: max(1, len(going) // KEPT)]
    scores = [trial.report()[setting.metric] for trial in trials]
    order = sorted(range(len(trials)), key=lambda number: (-scores[number], number))
    validated_N = np.concatenate([fold_N + i * setting.folds for i, fold_N in enumerate(split.validated_in)])
    targets_N = np.tile(drawn.targets, setting.repeats)
    scoring = Scoring(
        setting.metric, drawn.classes, targets_N[:, None], (setting.classes,), validated_N, repeats=setting.repeats
    )
    taken = np.concatenate([rows + repeat * len(everything) for repeat in range(setting.repeats)])
    offered = ((number, scores[number], trials[number]._best_predictions[taken]) for number in order)

    def curves(number: int) -> Curves:
        curve = trials[number].curve
        scores_EF, losses_EF = (
            np.array([point[name] for point in curve]).reshape(-1, len(folds)) for name in (setting.metric, "log_loss")
        )
        return scores_EF, scores_EF, losses_EF

    found = corrected_score(scoring, METRICS[setting.metric], numbered(np.tile(rows, setting.repeats)), offered, curves)
    bounds = found["low"], found["high"]
    true = truth(trials[order[0]], setting, rows)
    return Found(found["naive"], found["corrected"], *bounds, true, time.perf_counter() - began)


def truth(winner: Lockstep, setting: Setting, rows: np.ndarray) -> float:
    """Mean over the winner's networks of their score on all images that the search has not had."""
    rest = np.setdiff1d(np.arange(len(winner._dataset)), rows)
    scores = []
    for fold, weights in zip(winner._group.folds, winner._group.best(), strict=True):
        fold.network.load_state_dict(weights)
        fold.validation_rows = torch.from_numpy(rest)
        scores.append(winner._objective.scores(rest, fold.predict(winner._group.fetch))[setting.metric])
    return float(np.mean(scores))


def row(setting: Setting | None, found: list[Found]) -> dict[str, Any]:
    """A row of the table: means in points, with their standard errors."""
    truths = np.array([one.truth for one in found])
    covered = np.mean([one.low <= one.truth <= one.high for one in found])

    def bias(values: list[float]) -> str:
        off = 100 * (np.array(values) - truths)
        return f"{off.mean():+.2f} ± {off.std(ddof=1) / math.sqrt(len(off)):.2f}"

    return {
        "labels": "all" if setting is None else "true" if setting.signal else "random",
        "metric": "all" if setting is None else f"{setting.metric}, {setting.classes} classes",
        "images": "" if setting is None else setting.images,
        "trials": "" if setting is None else setting.trials,
        "validation": "" if setting is None else f"{setting.repeats} x {setting.folds} folds",
        "searches": len(found),
        "truth": f"{truths.mean():.3f}",
        "naive_bias": bias([one.naive for one in found]),
        "corrected_bias": bias([one.corrected for one in found]),
        "width": f"{100 * np.mean([one.high - one.low for one in found]):.1f}",
        "coverage": f"{100 * covered:.1f} %",
        "seconds": round(sum(one.seconds for one in found)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200, help="in all (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="30 searches")
    parser.add_argument("--seed", type=int, default=0, help="of the first search")
    parser.add_argument("--processes", type=int, default=1, help="searches at the same time")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    each = max(2, (30 if options.quick else options.searches) // len(SETTINGS))
    wanted = [
        (setting, (options.seed + search) * len(SETTINGS) + index)
        for index, setting in enumerate(SETTINGS)
        for search in range(each)
    ]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as processes:
        rows, everything = [], []
        for setting, one in zip(
            [first for first, _ in wanted], processes.map(searched, *zip(*wanted, strict=True)), strict=True
        ):
            everything.append(one)
            if len(everything) % each == 0:
                rows.append(row(setting, everything[-each:]))
                print(*(f"{value!s:<24}" for value in rows[-1].values()), flush=True)
    rows.append(row(None, everything))
    print(*(f"{value!s:<24}" for value in rows[-1].values()), flush=True)
    if options.record:
        for each_row in rows:
            record("honesty", each_row)


if __name__ == "__main__":
    main()
