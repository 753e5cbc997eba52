"""What out-of-fold predictions say: confusion, scores per class, ROC curves per fold; of masks, how they are spread.

N images (each as often as there are repeats), C classes; a predicted class is the one with the highest probability.
"""

from typing import Any

import numpy as np
import polars as pl

from analysis.trials import mean_std

FPR_GRID = np.linspace(0, 1, 101)
"""False-positive rates at which the curves of the folds are averaged."""
EDGES = np.linspace(0, 1, 21)
"""Of the bins in which scores of images are counted."""


def confusion_CC(targets_N: np.ndarray, probabilities_NC: np.ndarray) -> np.ndarray:
    """Images per true class (row) and predicted class (column)."""
    classes = probabilities_NC.shape[1]
    cells = targets_N * classes + probabilities_NC.argmax(1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def of_each_class(
    targets_N: np.ndarray, probabilities_NC: np.ndarray, fold_N: np.ndarray
) -> list[dict[str, tuple[float | None, float | None]]]:
    """Precision, recall and F1 of every class against the rest: mean and standard deviation over the folds that hold
    it. Precision and F1 are 0 in a fold that never predicts it, as in `trainables.metrics`."""
    folds = np.unique(fold_N)
    confusion_FCC = np.stack(
        [confusion_CC(targets_N[fold_N == fold], probabilities_NC[fold_N == fold]) for fold in folds]
    )
    hits_FC = confusion_FCC.diagonal(axis1=1, axis2=2)
    true_FC, predicted_FC = confusion_FCC.sum(2), confusion_FCC.sum(1)
    of_folds = {
        "precision": hits_FC / np.maximum(predicted_FC, 1),
        "recall": hits_FC / np.maximum(true_FC, 1),
        "f1": 2 * hits_FC / np.maximum(true_FC + predicted_FC, 1),
    }
    return [
        {name: mean_std(values_FC[true_FC[:, c] > 0, c].tolist()) for name, values_FC in of_folds.items()}
        for c in range(confusion_FCC.shape[1])
    ]


def roc_curves(
    targets_N: np.ndarray, probabilities_NC: np.ndarray, fold_N: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """True-positive rates on `FPR_GRID`, shape (folds, grid), and the area under each fold's curve.

    Of two classes the second is the positive one; of several, one class against the rest, averaged over classes
    (macro). A class that a fold lacks, or that is all of it, does not count there.
    """
    classes = probabilities_NC.shape[1]
    positives = [1] if classes == 2 else range(classes)
    tpr, areas = [], []
    for fold in np.unique(fold_N):
        inside = fold_N == fold
        drawn = [
            _roc(targets_N[inside] == positive, probabilities_NC[inside, positive])
            for positive in positives
            if 0 < (targets_N[inside] == positive).sum() < inside.sum()
        ]
        if drawn:
            tpr.append(np.mean([np.interp(FPR_GRID, x, y) for x, y in drawn], axis=0))
            areas.append(float(np.mean([np.trapezoid(y, x) for x, y in drawn])))
    return np.array(tpr), areas


def distribution(scores_N: np.ndarray) -> list[int]:
    """Images in each bin of `EDGES`; a bin holds its lower edge, the last one both."""
    counts: list[int] = np.histogram(scores_N, EDGES)[0].tolist()
    return counts


def extremes(image_ids: pl.Series, scores: dict[str, np.ndarray], count: int) -> dict[str, list[dict[str, Any]]]:
    """The `best` and the `worst` images by the first score, most extreme first: image_id and means over repeats."""
    by_image = pl.DataFrame({"image_id": image_ids, **scores}).group_by("image_id").agg(pl.col(*scores).mean())
    first = next(iter(scores))
    return {
        name: by_image.sort(first, "image_id", descending=[name == "best", False]).head(count).to_dicts()
        for name in ("best", "worst")
    }


def _roc(positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rate while the threshold falls; equal scores are passed together."""
    order = np.argsort(-score_N, kind="stable")
    ends = np.append(np.diff(score_N[order]) != 0, True)
    hits = np.cumsum(positive_N[order])[ends]
    alarms = np.cumsum(~positive_N[order])[ends]
    return np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])
