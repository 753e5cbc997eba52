"""Did the search help? The winner against every published configuration and against the second best trial.

All trials have the same folds and images, so differences are paired. Two intervals are given, which answer different
questions:

- of groups: are these networks better on new images? Paired bootstrap of the images, networks as they are.
- of folds: would the configuration be better if it were trained again on other images? The corrected resampled t
  (Nadeau and Bengio 2003, "Inference for the generalization error", section 4), which knows that folds share most of
  their training images; from three folds it says little, and is not what `distinguishable` is decided by.

The winner was chosen for its score, so its lead over a published configuration, which nobody chose by these images, is
too large by what choosing among trials adds (`analysis.estimate`): that is taken off both. What the choice of the epoch
adds, both have. The second best is as good as it is for the same reason as the winner: nothing is taken off, for the
lead only says how close the two are.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from analysis.estimate import bootstrap_samples, estimate, standard_error
from analysis.results import Results, Unavailable
from analysis.scoring import Scoring, numbered
from analysis.selection import over_folds
from analysis.shares import LEVEL, Z
from analysis.trials import ranked
from trainables.metrics import STUDY

SMALL = 0.05
"""A standard error of the difference from which on a hold-out is called small: five points are then nothing."""
APART = 0.05
"""By how much the Dice of an image must differ for it to count as segmented differently."""


def comparisons(results: Results, table: pl.DataFrame, estimated: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One per published configuration that has a score, in the order of the trials, then one for the second best.

    estimated: what `estimate` gave, if it is known already. Each has: number, published, second (whether it is the
    second best), score, score_std, naive_difference (winner minus this), difference (with the winner's optimism taken
    off), low, high, level (of groups), folds_low, folds_high (of folds; None with one fold), positive difference being
    better for the winner whatever the mode; distinguishable, differ, winner_right, other_right, images, small, words.
    Where its predictions are damaged: number, published, second and `unavailable`, the reason.
    """
    scored = ranked(table, results.experiment["mode"])
    if scored.height < 2:
        raise Unavailable("There are not two trials with a score, so there is nothing to compare.")
    estimated = estimated or estimate(results, table)
    winner, second = scored.row(0, named=True), scored.row(1, named=True)
    others = [row for row in scored.sort("number").iter_rows(named=True) if row["published"]]
    others = [row for row in others if row["number"] != winner["number"]]
    if second["number"] not in [row["number"] for row in others]:
        others.append(second)
    paired = _Paired(results, winner, estimated["optimism_of_trials"])
    found = []
    for row in others:
        is_second = row["number"] == second["number"]
        told = {"number": row["number"], "published": row["published"], "second": is_second}
        try:
            found.append(told | paired.compared(row, corrected=row["published"] is not None))
        except Unavailable as reason:
            found.append(told | {"unavailable": str(reason)})
    return found


class _Paired:
    """The winner, to be compared with others in the same samples."""

    def __init__(self, results: Results, winner: dict[str, Any], optimism: float):
        self._results, self._winner, self._optimism = results, winner, optimism
        self._sign = 1 if results.experiment["mode"] == "max" else -1
        self._scoring = Scoring.of(results)
        self._weights_NB = bootstrap_samples(self._scoring, numbered(results.folds["group"]))
        self._predictions_NP = self._predictions(winner["number"])
        self._score_B = self._scored(self._predictions_NP)
        self._images = numbered(results.folds["image_id"])

    def compared(self, row: dict[str, Any], corrected: bool) -> dict[str, Any]:
        """corrected: whether the winner's optimism is taken off."""
        predictions_NP = self._predictions(row["number"])
        naive = self._sign * (self._winner["score"] - row["score"])
        difference = naive - (self._optimism if corrected else 0.0)
        spread = standard_error(self._score_B - self._scored(predictions_NP))
        low, high = difference - Z * spread, difference + Z * spread
        folds_low, folds_high = self._of_folds(row["fold_scores"], difference)
        found: dict[str, Any] = {
            "score": row["score"],
            "score_std": row["score_std"],
            "naive_difference": naive,
            "difference": difference,
            "low": low,
            "high": high,
            "level": LEVEL,
            "folds_low": folds_low,
            "folds_high": folds_high,
            "distinguishable": not low <= 0 <= high,
            "images": int(self._images.max()) + 1,
            "small": spread > SMALL and self._scoring.metric.removeprefix(STUDY) != "log_loss",
            **self._decisions(predictions_NP),
        }
        better = "right" if self._scoring.classes else "the better one"
        return found | {"words": _in_words(self._winner["number"], row, found, better)}

    def _predictions(self, number: int) -> np.ndarray:
        return self._results.predictions(number, list(self._scoring.columns))

    def _scored(self, predictions_NP: np.ndarray) -> np.ndarray:
        return over_folds(self._scoring.of_folds(predictions_NP, self._weights_NB))

    def _of_folds(self, fold_scores: list[float | None] | None, difference: float) -> tuple[float | None, float | None]:
        """Of folds and repeats, all of one size, variance (1 / J + n_test / n_train) s^2 with J - 1 degrees of freedom
        (Nadeau and Bengio 2003, eq. 9)."""
        own, others = self._winner["fold_scores"] or [], fold_scores or []
        count = len(own)
        if count < 2 or len(others) != count or None in own or None in others:
            return None, None
        from scipy.special import stdtrit  # a quarter of a second, which not every report needs

        per_repeat = count / self._results.experiment["data"]["repeats"]
        differences_J = np.array(own, float) - np.array(others, float)
        variance = (1 / count + 1 / (per_repeat - 1)) * differences_J.var(ddof=1)
        half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * math.sqrt(variance)
        return difference - half, difference + half

    def _decisions(self, predictions_NP: np.ndarray) -> dict[str, int]:
        """On how many images the two decide differently, and who is right there; of several targets, on any of those
        that are scored and who is right on more. An image's probabilities are the mean over repeats. Masks: whose
        Dice or IoU is higher by more than `APART`."""
        own, other = self._right(self._predictions_NP), self._right(predictions_NP)
        if not self._scoring.classes:
            apart = self._sign * (own - other)
            counts = (np.abs(apart) > APART, apart > APART, apart < -APART)
        else:
            decided = [self._decided(each) for each in (self._predictions_NP, predictions_NP)]
            counts = ((decided[0] != decided[1]).any(1), own > other, other > own)
        names = ("differ", "winner_right", "other_right")
        return {name: int(count.sum()) for name, count in zip(names, counts, strict=True)}

    def _mean_of_images(self, values_NK: np.ndarray) -> np.ndarray:
        sums = np.zeros((self._images.max() + 1, values_NK.shape[1]))
        np.add.at(sums, self._images, values_NK)
        return sums / np.bincount(self._images)[:, None]

    def _decided(self, predictions_NP: np.ndarray) -> np.ndarray:
        """The most probable class of every image and target."""
        ends = np.cumsum((0, *self._scoring.classes))
        means = self._mean_of_images(predictions_NP)
        return np.stack([means[:, a:b].argmax(1) for a, b in pairwise(ends)], axis=1)

    def _right(self, predictions_NP: np.ndarray) -> np.ndarray:
        """On how many targets an image's class is right; of masks, their score."""
        if not self._scoring.classes:
            return self._mean_of_images(predictions_NP)[:, 0]
        targets = self._mean_of_images(self._scoring.targets_NT.astype(float)).round()
        return (self._decided(predictions_NP) == targets).sum(1)


def _in_words(winner: int, row: dict[str, Any], found: dict[str, Any], better: str) -> str:
    """For somebody who has patients and no statistics."""
    other, early = row["published"] or f"trial {row['number']}", ""
    if row["state"] == "stopped":
        early = f" The scheduler stopped {other} at epoch {row['epochs']}: what it would have become is not known."
    images, differ = found["images"], found["differ"]
    if differ:
        right = f"trial {winner} is {better} on {found['winner_right']}, {other} on {found['other_right']}"
        text = f"Trial {winner} and {other} decide differently on {differ} of {images:,} images; of these {right}"
    else:
        text = f"Trial {winner} and {other} decide alike on all {images:,} images"
    if not found["distinguishable"]:
        text += ": not distinguishable"
        if found["small"]:
            text += f", and {images} images are too few to tell such configurations apart"
        return f"{text}.{early}"
    ahead = f"trial {winner}" if found["difference"] > 0 else other
    text += f": on new images of this kind {ahead} is better"
    sure = found["folds_low"] is not None and not found["folds_low"] <= 0 <= found["folds_high"]
    if not sure:
        text += "; whether it would be if both were trained anew, so few folds do not say"
    return f"{text}.{early}"
