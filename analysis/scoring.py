"""The score of a search, of many bootstrap samples at once: its metric in every fold, the mean over folds.

A sample is a weight per image: how often the image is in it. One matrix product, or one sort and a cumulative sum,
gives a metric of all samples; the tests hold it against `trainables.metrics` of images that are really repeated.

Shapes: N rows of predictions (each image as often as there are repeats), C classes, P columns, B samples, F folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from analysis.results import Results, Unavailable
from trainables.metrics import BINS, OF_CLASSES, OF_MASKS, STUDY, study_means

SAMPLES_AT_ONCE = 128
"""Of a metric that sorts: so many columns of sums stay in the processor's cache."""


@dataclass(frozen=True)
class Scoring:
    """How predictions become a score."""

    metric: str
    columns: tuple[str, ...]
    """Of the predictions: the probabilities of the classes of each scored target, side by side; of masks, the metric
    itself, one value per image."""
    targets_NT: np.ndarray
    """int64, the scored targets; of masks no column."""
    classes: tuple[int, ...]
    """How many each scored target has."""
    fold_N: np.ndarray
    study_N: np.ndarray | None = None
    """Of metrics over studies: which images are of one study."""
    repeats: int = 1
    """Folds of the first repeat come first, then those of the second, and so on; each has as many."""

    @staticmethod
    def of(results: Results) -> "Scoring":
        """That of the search. Raises `Unavailable` where folds.parquet does not say what it needs."""
        data, metric, folds = results.experiment["data"], results.experiment["metric"], results.folds
        if metric.removeprefix(STUDY) not in (*OF_CLASSES, *OF_MASKS):
            raise Unavailable(f"It is not known here how {metric!r} is computed from predictions.")
        if results.has_masks:
            return Scoring(
                metric,
                (metric,),
                np.zeros((folds.height, 0), np.int64),
                (),
                results.validated_in,
                repeats=data["repeats"],
            )
        scored = [("target", data["target_name"], data["classes"])]
        scored += [
            (f"target_{each['name']}", each["name"], each["classes"]) for each in data["further"] if each["scored"]
        ]
        columns = [f"{name}:{one}" if data["further"] else one for _, name, classes in scored for one in classes]
        targets_NT = np.stack([folds[column].to_numpy().astype(np.int64) for column, _, _ in scored], axis=1)
        study_N = None
        if metric.startswith(STUDY):
            if "study" not in folds.columns:
                raise Unavailable(f"folds.parquet does not say which images are of one study, and {metric} needs it.")
            # As in training: a study whose images differ in their targets counts as several.
            numbers = folds["study"].rank("dense").to_numpy().astype(np.int64)
            study_N = np.unique(np.column_stack([numbers, targets_NT]), axis=0, return_inverse=True)[1].reshape(-1)
        counts = tuple(len(classes) for _, _, classes in scored)
        return Scoring(metric, tuple(columns), targets_NT, counts, results.validated_in, study_N, data["repeats"])

    @cached_property
    def folds(self) -> list[np.ndarray]:
        """The rows of each fold."""
        return [np.flatnonzero(self.fold_N == fold) for fold in np.unique(self.fold_N)]

    def of_folds(self, predictions_NP: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
        """float64 (F, B); NaN where the images of a fold that are in a sample do not determine the metric."""
        return np.stack([self._of_fold(rows, predictions_NP[rows], weights_NB) for rows in self.folds])

    def _of_fold(self, rows: np.ndarray, predictions_NP: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
        targets_NT, metric = self.targets_NT[rows], self.metric
        if not self.classes:
            return _mean(predictions_NP[:, 0], weights_NB[rows])
        if self.study_N is not None:
            metric = metric.removeprefix(STUDY)
            _, first = np.unique(self.study_N[rows], return_index=True)  # a study has its group's weight, as a whole
            targets_NT, predictions_NP = study_means(self.study_N[rows], targets_NT, predictions_NP)
            rows = rows[first]
        ends = np.cumsum((0, *self.classes))
        weights_NB = weights_NB[rows]
        found = [
            weighted(metric, targets_NT[:, t], predictions_NP[:, ends[t] : ends[t + 1]], weights_NB)
            for t in range(len(self.classes))
        ]
        return np.mean(found, axis=0)


def weighted(metric: str, targets_N: np.ndarray, probabilities_NC: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """One of `trainables.metrics.OF_CLASSES`, of B samples in which each image is `weights_NB` times, float64 (B,).

    As `trainables.metrics.scores` of the images repeated so often. NaN where a sample is empty too.
    """
    count, classes = probabilities_NC.shape
    positives = [1] if classes == 2 else range(classes)
    if metric in ("auroc", "average_precision"):
        ranked = _auroc if metric == "auroc" else _average_precision
        parts = []
        for start in range(0, weights_NB.shape[1], SAMPLES_AT_ONCE):
            part_NB = weights_NB[:, start : start + SAMPLES_AT_ONCE]
            parts.append(np.mean([ranked(targets_N == c, probabilities_NC[:, c], part_NB) for c in positives], axis=0))
        return np.concatenate(parts)
    if metric == "log_loss":
        of_truth_N = probabilities_NC[np.arange(count), targets_N] / probabilities_NC.sum(1)
        return _mean(-np.log(of_truth_N.clip(np.finfo(np.float64).eps)), weights_NB)
    predicted_N = probabilities_NC.argmax(1)
    right_N = predicted_N == targets_N
    if metric == "accuracy":
        return _mean(right_N, weights_NB)
    total_B = weights_NB.sum(0, dtype=np.float64)
    if metric == "calibration_error":
        confidence_N = probabilities_NC.max(1)
        bin_N = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence_N)
        off_NK = np.eye(BINS)[bin_N] * (right_N - confidence_N)[:, None]
        return _share(np.abs(_sums(off_NK, weights_NB)).sum(1), total_B)
    true_NC, predicted_NC = np.eye(classes)[targets_N], np.eye(classes)[predicted_N]
    hits_BC = _sums(true_NC * right_N[:, None], weights_NB)
    true_BC = _sums(true_NC, weights_NB)
    recall_BC = hits_BC / np.maximum(true_BC, 1)
    if metric == "balanced_accuracy":
        return _share(recall_BC.sum(1), (true_BC > 0).sum(1))
    if metric == "recall":
        return np.where(total_B > 0, recall_BC[:, positives].mean(1), np.nan)
    predicted_BC = _sums(predicted_NC, weights_NB)
    if metric == "precision":
        found = (hits_BC / np.maximum(predicted_BC, 1))[:, positives].mean(1)
        return np.where(total_B > 0, found, np.nan)
    if metric == "f1":
        found = (2 * hits_BC / np.maximum(true_BC + predicted_BC, 1))[:, positives].mean(1)
        return np.where(total_B > 0, found, np.nan)
    assert metric == "cohen_kappa", metric
    accuracy_B = _share(hits_BC.sum(1), total_B)
    chance_B = _share((true_BC * predicted_BC).sum(1), total_B**2)
    return np.where(chance_B < 1, _share(accuracy_B - chance_B, 1 - chance_B), np.nan)


def numbered(groups: pl.Series | Sequence[str] | np.ndarray) -> np.ndarray:
    """int64 (N,): equal groups have equal numbers, 0, 1, …"""
    return (pl.Series(groups).rank("dense") - 1).to_numpy().astype(np.int64)


def samples(group_N: np.ndarray, stratum_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Bootstrap samples of groups, float32 (N, count): how often every row is in each. As many groups of a stratum are
    drawn, with replacement, as it has; a group belongs to the stratum of its first row."""
    rng = np.random.default_rng(seed)
    _, first_G = np.unique(group_N, return_index=True)
    weights_GB = np.zeros((len(first_G), count), np.float32)
    for stratum in np.unique(stratum_N[first_G]):
        members = np.flatnonzero(stratum_N[first_G] == stratum)
        drawn = rng.integers(len(members), size=(count, len(members)))
        for sample in range(count):
            weights_GB[members, sample] = np.bincount(drawn[sample], minlength=len(members))
    return weights_GB[group_N]


def _auroc(positive_N: np.ndarray, score_N: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """Of a positive and a negative image, the probability that the positive one has the higher score; equal scores
    count half (Hanley and McNeil 1982)."""
    below_MB, at_most_MB = (_weight_of_others(positive_N, score_N, weights_NB, side) for side in ("left", "right"))
    hits_MB, misses_B = weights_NB[positive_N], weights_NB[~positive_N].sum(0, dtype=np.float64)
    won_B = 0.5 * np.einsum("mb,mb->b", hits_MB, below_MB + at_most_MB, dtype=np.float64)
    return _share(won_B, hits_MB.sum(0, dtype=np.float64) * misses_B)


def _average_precision(positive_N: np.ndarray, score_N: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """The mean precision at the scores of the positive images; NaN without a negative one, as there."""
    false_MB = _weight_of_others(positive_N, -score_N, weights_NB, "right")
    hits_MB = weights_NB[positive_N]
    own_N = -score_N[positive_N]
    order_M = np.argsort(own_N, kind="stable")
    ends_M = np.searchsorted(own_N[order_M], own_N, "right") - 1
    true_MB = np.cumsum(hits_MB[order_M], axis=0)[ends_M]
    precision_MB = true_MB / np.maximum(true_MB + false_MB, 1)
    total_B = hits_MB.sum(0, dtype=np.float64) * (weights_NB[~positive_N].sum(0) > 0)
    return _share(np.einsum("mb,mb->b", hits_MB, precision_MB, dtype=np.float64), total_B)


def _weight_of_others(
    positive_N: np.ndarray, score_N: np.ndarray, weights_NB: np.ndarray, side: Literal["left", "right"]
) -> np.ndarray:
    """float32 (M, B), for each of M positive images the weight of the negative ones with a lower score (`left`), or
    with an equal one as well (`right`)."""
    others_N = score_N[~positive_N]
    order = np.argsort(others_N, kind="stable")
    sums = np.zeros((len(order) + 1, weights_NB.shape[1]), np.float32)
    np.cumsum(weights_NB[~positive_N][order], axis=0, out=sums[1:])
    return sums[np.searchsorted(others_N[order], score_N[positive_N], side)]


def _sums(values_NK: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """float64 (B, K)."""
    return (weights_NB.T @ values_NK.astype(np.float32)).astype(np.float64)


def _mean(values_N: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    # The centre is taken off first: float32 then rounds what differs between images, and not the value itself.
    centre = float(values_N.mean())
    sums_B = _sums((values_N - centre)[:, None], weights_NB)[:, 0]
    return centre + _share(sums_B, weights_NB.sum(0, dtype=np.float64))


def _share(part_B: np.ndarray, whole_B: np.ndarray) -> np.ndarray:
    return np.divide(part_B, whole_B, out=np.full(len(part_B), np.nan), where=whole_B > 0)
