"""What choosing the best of many trials adds to its score, and choosing its best epoch.

Shapes: N rows of predictions, P columns, B bootstrap samples, F folds.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from analysis.results import Mode
from analysis.scoring import Scoring

FIRST_COMPARED, MARGIN = 10, 1.5
"""Trials that are compared in any case; and by how much more than the largest shift among them a trial's distance from
the winner may change in a sample."""
Curves = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of a trial, for every epoch and fold, (epochs, F): the metric, what its best epoch was chosen by (the higher, the
better) and the log loss, which decides between equals."""


@dataclass(frozen=True)
class Choice:
    """Which trials the samples would have chosen."""

    optimism: float
    """By how much the winner is better, on the images left out, than what the samples choose; 0 for one trial alone."""
    winner_B: np.ndarray
    """The winner's score in each sample."""
    candidates: int
    """Trials that were compared; the others are too far from the winner."""
    chosen: dict[int, int]
    """In how many samples each trial is the best one, by number."""
    chosen_without: list[dict[int, int]]
    """The same for every fold by the others of its repeat alone; empty where there are none."""


def choice(
    scoring: Scoring, mode: Mode, weights_NB: np.ndarray, trials: Iterable[tuple[int, float, np.ndarray]]
) -> Choice:
    """trials: number, score and predictions (N, P) of each, best first; no more of them are taken than can be chosen.

    A trial that comes after one that no sample would choose is not compared if it is further from the winner than
    `MARGIN` times the largest shift of such a distance that has been seen in any sample.
    """
    sign = 1 if mode == "max" else -1
    left_out_NB = (weights_NB == 0).astype(np.float32)
    several = iter(trials)
    winner, winner_score, predictions_NP = next(several)
    winner_FB = scoring.of_folds(predictions_NP, weights_NB)
    winner_B = over_folds(winner_FB)
    winner_left_FB = scoring.of_folds(predictions_NP, left_out_NB)
    best_B, number_B = sign * winner_B, np.full(len(winner_B), winner)
    gap_FB, shift, candidates = np.zeros_like(winner_left_FB), 0.0, 1
    best_others_FB = sign * _of_others(winner_FB, scoring.repeats)
    number_FB = np.full(best_others_FB.shape, winner)
    for number, score, predictions_NP in several:
        distance = sign * (winner_score - score)
        if candidates > FIRST_COMPARED and distance > MARGIN * shift:
            break
        candidates += 1
        score_FB = scoring.of_folds(predictions_NP, weights_NB)
        score_B = sign * over_folds(score_FB)
        shift = max(shift, float(np.nanmax(score_B - sign * winner_B + distance)))
        taken_B = np.flatnonzero((score_B > best_B) | ((score_B == best_B) & (number < number_B)))
        if len(taken_B):
            best_B[taken_B], number_B[taken_B] = score_B[taken_B], number
            left_FB = scoring.of_folds(predictions_NP, np.ascontiguousarray(left_out_NB[:, taken_B]))
            gap_FB[:, taken_B] = winner_left_FB[:, taken_B] - left_FB
        others_FB = sign * _of_others(score_FB, scoring.repeats)
        better_FB = (others_FB > best_others_FB) | ((others_FB == best_others_FB) & (number < number_FB))
        best_others_FB[better_FB], number_FB[better_FB] = others_FB[better_FB], number
    gap = sign * float(np.nanmean(over_folds(gap_FB)))
    optimism = max(0.0, gap) if math.isfinite(gap) else 0.0  # by chance alone it could be a gain
    return Choice(optimism, winner_B, candidates, _counts(number_B), [_counts(numbers_B) for numbers_B in number_FB])


def epochs_optimism(
    mode: Mode, repeats: int, chosen_without: list[dict[int, int]], curves: Callable[[int], Curves | None]
) -> float:
    """By how much scores at the best epoch are too good, as the epoch is chosen on the images that are scored.

    For every fold and the trials that the other folds of its repeat would choose: the score at the best epoch of all
    folds, less that at the best epoch of those others, which has not seen the fold. Where trials have no curves: 0.
    """
    sign, count = (1 if mode == "max" else -1), len(chosen_without)
    known: dict[int, Curves | None] = {}
    gaps = []
    for fold, chosen in enumerate(chosen_without):
        per_repeat = count // repeats
        others = [other for other in range(count) if other // per_repeat == fold // per_repeat and other != fold]
        gaps_times = []
        for number, times in chosen.items():
            if number not in known:
                known[number] = curves(number)
            curve = known[number]
            if curve is None:
                continue
            scores_EF, chosen_by_EF, losses_EF = curve
            of_all, of_others = (
                _best_epoch(chosen_by_EF[:, folds], losses_EF[:, folds]) for folds in (slice(None), others)
            )
            gaps_times.append((sign * float(scores_EF[of_all, fold] - scores_EF[of_others, fold]), times))
        finite = [(gap, times) for gap, times in gaps_times if math.isfinite(gap)]
        if finite:
            gaps.append(np.average([gap for gap, _ in finite], weights=[times for _, times in finite]))
    return max(0.0, float(np.mean(gaps))) if gaps else 0.0


def over_folds(scores_FB: np.ndarray) -> np.ndarray:
    """Mean over the folds in which there is a score, (B,); NaN where there is none."""
    there_FB = np.isfinite(scores_FB)
    counted_B = there_FB.sum(0)
    sums_B = np.where(there_FB, scores_FB, 0.0).sum(0)
    return np.divide(sums_B, counted_B, out=np.full(len(counted_B), np.nan), where=counted_B > 0)


def _best_epoch(scores_EF: np.ndarray, losses_EF: np.ndarray) -> int:
    """As in `trainables.lockstep`: of the highest mean, and of equal ones with the lowest loss."""
    scores_E, losses_E = (np.nan_to_num(values, nan=-np.inf) for values in (scores_EF.mean(1), -losses_EF.mean(1)))
    return int(np.lexsort((-losses_E, -scores_E))[0])


def _of_others(scores_FB: np.ndarray, repeats: int) -> np.ndarray:
    """Of every fold the mean over the other folds of its repeat, (F, B), which have no image in common with it; no row
    where there are no others."""
    folds, count = scores_FB.shape
    if folds == repeats:
        return np.empty((0, count))
    scores_RKB = scores_FB.reshape(repeats, -1, count)
    there_RKB = np.isfinite(scores_RKB)
    scores_RKB = np.where(there_RKB, scores_RKB, 0.0)
    sums_RKB = scores_RKB.sum(1, keepdims=True) - scores_RKB
    counts_RKB = there_RKB.sum(1, keepdims=True) - there_RKB
    return np.divide(sums_RKB, counts_RKB, out=np.full_like(sums_RKB, np.nan), where=counts_RKB > 0).reshape(folds, -1)


def _counts(numbers: np.ndarray) -> dict[int, int]:
    return dict(zip(*(each.tolist() for each in np.unique(numbers, return_counts=True)), strict=True))
