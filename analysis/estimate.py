"""What the best of many trials is worth: its score, corrected for having been chosen, with an interval.

The best of T trials has a score that is too good, for it is chosen by that score. BBC-CV (Tsamardinos, Greasidou and
Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", algorithm
2) repeats the choice: in a bootstrap sample of the images the trial with the best out-of-fold score is chosen, and
scored on the images that are not in the sample. Nothing is trained for that.

What is estimated: the score that the winner's fold networks have on new images of the same kind, mean over networks.

Where this departs from the paper, and why:

- Groups (patients, sets of copies) are drawn, not images, and within classes: how many images of a class there are was
  chosen by who collected them. Not within folds: a fold's number of images then varies a little, which makes up for the
  bootstrap's variance, too small by 1 / n.
- Scores are means over folds of the metric, as in the search, not of all predictions together.
- The correction is the mean difference, on the images left out, between the chosen trial and the winner. For the
  accuracy and its like the expected value is that of the paper; but a sample in which the winner is chosen adds no
  noise, and metrics that are biased on few images (average precision, the calibration error) are so on both sides.
- A trial's predictions are those of its best epoch, which is chosen on the same images: a further choice, which the
  samples cannot repeat, for predictions of other epochs are not kept. What it adds is the mean, over folds, of a fold's
  score at the best epoch of all folds less that at the best epoch of the others, of the trials that those others would
  choose. In the benchmark it is a point or two on a hundred images.
- The interval is not that of the percentiles over samples, which are of 37 % of the images and too wide. It is Wilson's
  (1927) for the number of images at which a share has the standard error that the winner's score has in the samples:
  it needs no symmetry near 0 and 1, and does not shrink to a point where nothing is wrong. Conditional on the networks
  that is the error of a cross-validated score (Bayle, Bayle, Janson and Mackey 2020). `benchmarks/honesty.md` shows
  how often it holds the truth.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from analysis.results import Mode, Results, Unavailable
from analysis.scoring import Scoring, numbered, samples
from analysis.selection import FIRST_COMPARED, Curves, choice, epochs_optimism
from analysis.shares import LEVEL, Z, wilson
from analysis.trials import ranked
from trainables.metrics import METRICS, OF_MASKS, STUDY

BOUNDS = {"cohen_kappa": (-1.0, 1.0), "log_loss": (0.0, math.inf)}
"""Between what a metric lies, if not between 0 and 1."""
BY_IMAGE = ("accuracy", "calibration_error", "log_loss", *OF_MASKS)
"""Metrics in which every image counts alike; in the others every class does."""
SAMPLES = (200, 1000)
"""Bootstrap samples at least and at most; between them, as many as `SAMPLED` allows."""
SAMPLED = 1_000_000
"""Images in all samples together."""
READ = 20_000_000
"""Rows of predictions that are read at most, of the trials that come first: ten thousand trials of 2,000 images, or 333
of 60,000, whose scores chance moves by a fifth as much."""
AT_ONCE = 8
"""Trials whose predictions are read while others are scored."""


def estimate(results: Results, table: pl.DataFrame, searched_by: str | None = None) -> dict[str, Any]:
    """Of the best trial of `table` (`analysis.trials.trials`), for JSON; raises `Unavailable` where there is none.

    searched_by: the metric that the epochs were chosen by, where it is not that of `results`.
    Beside what `corrected_score` gives: number (the winner), metric, mode, trials (that have a score), stopped (of
    these, by the scheduler), unreadable (whose predictions are damaged: they cannot be chosen), images, groups and how,
    a sentence.
    """
    mode, metric = results.experiment["mode"], results.experiment["metric"]
    scored = ranked(table, mode)
    if not scored.height:
        raise Unavailable("No trial has a score yet, so there is nothing to estimate.")
    scoring = Scoring.of(results)
    unreadable: list[int] = []
    results.predictions(scored["number"][0], list(scoring.columns))  # raises where the winner's own are not known
    offered = _offered(results, scored, list(scoring.columns), unreadable)
    curves = partial(_curves, results, metric, searched_by or metric, len(scoring.folds))
    found = corrected_score(scoring, mode, numbered(results.folds["group"]), offered, curves)
    stopped = int((scored["state"] == "stopped").sum())
    return {
        "number": int(scored["number"][0]),
        "metric": metric,
        "mode": mode,
        **found,
        "trials": scored.height,
        "stopped": stopped,
        "unreadable": len(unreadable),
        "images": results.folds["image_id"].n_unique(),
        "how": _in_words(found, scored.height, stopped, len(unreadable), _most_read(results)),
    }


def corrected_score(
    scoring: Scoring,
    mode: Mode,
    group_N: np.ndarray,
    trials: Iterable[tuple[int, float, np.ndarray]],
    curves: Callable[[int], Curves | None] = lambda _: None,
    seed: int = 0,
) -> dict[str, Any]:
    """naive (the score of the first trial), corrected, low, high, level, standard_error, optimism (what the correction
    takes off, never negative), of which optimism_of_trials and optimism_of_epochs, candidates (trials that were
    compared), chosen (in what share of the samples the winner was), groups and bootstraps.

    trials: number, score and predictions (N, P), best first. group_N: int64, which rows are of one group, 0, 1, …
    curves: of a trial by its number; None where they are not known.
    """
    several = iter(trials)
    first = next(several)
    weights_NB = bootstrap_samples(scoring, group_N, seed)
    bootstraps = weights_NB.shape[1]
    found = choice(scoring, mode, weights_NB, chain([first], several))
    number, naive, _ = first
    groups = int(group_N.max()) + 1
    of_epochs = epochs_optimism(mode, scoring.repeats, found.chosen_without, curves)
    optimism = found.optimism + of_epochs
    corrected, spread = naive - (1 if mode == "max" else -1) * optimism, standard_error(found.winner_B)
    images, worth = len(group_N) // scoring.repeats, _worth(scoring, group_N)
    low, high = _around(scoring.metric, corrected, spread, naive, images, worth)
    return {
        "naive": naive,
        "corrected": corrected,
        "low": low,
        "high": high,
        "level": LEVEL,
        "standard_error": spread,
        "optimism": optimism,
        "optimism_of_trials": found.optimism,
        "optimism_of_epochs": of_epochs,
        "candidates": found.candidates,
        "chosen": found.chosen.get(number, 0) / bootstraps,
        "groups": groups,
        "bootstraps": bootstraps,
    }


def interval(
    targets: np.ndarray,
    predictions: np.ndarray,
    groups: Sequence[str] | np.ndarray | pl.Series,
    metric: str,
    classes: Sequence[int] | None = None,
    studies: Sequence[str] | np.ndarray | pl.Series | None = None,
) -> dict[str, Any]:
    """The score of one set of predictions that nothing was chosen by, as on the test split: score, low, high, level,
    images, groups.

    targets: int64 (images,), or of several targets (images, targets); of masks not looked at. predictions:
    probabilities (images, classes), of several targets side by side; of masks the metric itself, (images,). classes:
    how many each target has; None: one target, all columns. studies: for metrics of studies, which image is of which.
    """
    predictions_NP = np.asarray(predictions, np.float64).reshape(len(predictions), -1)
    masks = metric in ("dice", "iou") or predictions_NP.shape[1] == 1
    targets_NT = np.zeros((len(predictions_NP), 0), np.int64) if masks else np.asarray(targets, np.int64)
    targets_NT = targets_NT.reshape(len(predictions_NP), -1)
    scoring = Scoring(
        metric=metric,
        columns=(),
        targets_NT=targets_NT,
        classes=() if masks else tuple(classes or (predictions_NP.shape[1],)),
        fold_N=np.zeros(len(predictions_NP), np.int64),
        study_N=None if studies is None else numbered(studies),
    )
    group_N = numbered(groups)
    score = float(scoring.of_folds(predictions_NP, np.ones((len(group_N), 1), np.float32))[0, 0])
    if not math.isfinite(score):
        raise Unavailable(f"{metric} has no value on these {len(group_N)} images: a class is missing.")
    found = corrected_score(scoring, METRICS[metric], group_N, [(0, score, predictions_NP)])
    told = {name: found[name] for name in ("low", "high", "level", "groups")}
    return {"score": score, **told, "images": len(group_N)}


def bootstrap_samples(scoring: Scoring, group_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each row of predictions is in each sample, float32 (N, B). Of several targets the first one's classes
    are kept as they are."""
    rows = len(group_N)
    stratum_N = scoring.targets_NT[:, 0] if scoring.classes else np.zeros(rows, np.int64)
    return samples(group_N, stratum_N, min(max(SAMPLED // rows, SAMPLES[0]), SAMPLES[1]), seed)


def _offered(
    results: Results, scored: pl.DataFrame, columns: list[str], unreadable: list[int]
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Best first; a few are read ahead, and none for whom there is no need. Numbers of those whose predictions are
    damaged are added to `unreadable`."""

    def read(number: int) -> np.ndarray | None:
        try:
            return results.predictions(number, columns)
        except Unavailable:
            return None

    rows = list(scored.select("number", "score").head(_most_read(results)).iter_rows())
    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            for (number, score), predictions_NP in zip(part, threads.map(read, [row[0] for row in part]), strict=True):
                if predictions_NP is None:
                    unreadable.append(number)
                else:
                    yield number, score, predictions_NP


def _most_read(results: Results) -> int:
    """Trials whose predictions are read at most."""
    return max(FIRST_COMPARED + 1, READ // results.folds.height)


def _curves(results: Results, metric: str, searched_by: str, folds: int, number: int) -> Curves | None:
    curves = results.curves(number)
    if not curves.height or curves.height % folds or not {metric, searched_by, "log_loss"} <= set(curves.columns):
        return None
    scores_EF, chosen_by_EF, losses_EF = (
        curves[name].fill_null(math.nan).to_numpy().reshape(-1, folds) for name in (metric, searched_by, "log_loss")
    )
    return scores_EF, (1 if METRICS[searched_by] == "max" else -1) * chosen_by_EF, losses_EF


def _in_words(found: dict[str, Any], trials: int, stopped: int, unreadable: int, most: int) -> str:
    """How the estimate came about."""
    drawn = f"{found['bootstraps']} bootstrap samples of {found['groups']} groups of images"
    epochs = (
        "What the choice of the best epoch adds was measured on folds that had no part in it, and taken off as well."
    )
    if trials == 1:
        return f"One trial alone: no choice of a trial to correct; the interval is from {drawn}. {epochs}"
    early = "stopped early: each counts as it stood then, by the predictions of its best epoch"
    of_stopped = f" ({stopped} of them {early})" if stopped else ""
    damaged = (
        f" The predictions of {unreadable} trials cannot be read: these could not be chosen." if unreadable else ""
    )
    enough = "were near enough to the best to be compared"
    if found["candidates"] + unreadable >= most:
        enough = "were compared, the best: with more it would take too long"
    return (
        f"The choice of the best of {trials} trials{of_stopped} was repeated in {drawn}, and what was chosen was "
        f"scored on the images left out. {epochs} {found['candidates']} trials {enough}."
        f"{damaged}"
    )


def standard_error(score_B: np.ndarray) -> float:
    """Of a score, from its values in bootstrap samples."""
    return float(np.nanstd(score_B, ddof=1))


def _worth(scoring: Scoring, group_N: np.ndarray) -> float:
    """How many groups stand behind a score. Where classes count alike it is as many as would tell as much if there were
    equally many of each: ten positive images among a thousand are not worth a thousand."""
    groups = float(group_N.max()) + 1
    if not scoring.classes or scoring.metric.removeprefix(STUDY) in BY_IMAGE:
        return groups
    found = [groups]
    for targets_N in scoring.targets_NT.T:
        _, first = np.unique(np.column_stack([targets_N, group_N]), axis=0, return_index=True)
        of_class_C = np.unique(targets_N[first], return_counts=True)[1]
        found.append(len(of_class_C) ** 2 / float((1 / of_class_C).sum()))
    return min(found)


def _around(metric: str, score: float, spread: float, at: float, images: int, worth: float) -> tuple[float, float]:
    """The interval of `LEVEL` around a score.

    spread: the standard error, of the score `at`. As many images stand behind a score at most as there are; where
    nothing is wrong, or all is, as many as it is worth.
    """
    low, high = BOUNDS.get(metric.removeprefix(STUDY), (0.0, 1.0))
    if math.isinf(high):  # normal
        return max(low, score - Z * spread), score + Z * spread
    share, at_share, spread = ((value - low) / (high - low) for value in (score, at, low + spread))
    share, at_share = min(max(share, 0.0), 1.0), min(max(at_share, 0.0), 1.0)
    count = worth
    if spread > 0 and 0 < at_share < 1:
        count = at_share * (1 - at_share) / spread**2
    if metric not in OF_MASKS and metric != "calibration_error":
        count = min(count, float(images))
    from_low, to_high = wilson(share, count)
    return low + (high - low) * from_low, low + (high - low) * to_high
