"""What out-of-fold predictions say: confusion, curves per fold, calibration and thresholds.

Arrays in, arrays and numbers out. N predictions (every image once per repeat), C classes, G points of a grid, F folds;
a predicted class is the one with the highest probability.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analysis.results import Results
from analysis.shares import share
from analysis.trials import mean_std

FPR_GRID = np.linspace(0, 1, 101).round(2)
"""False-positive rates at which the ROC curves of the folds are averaged."""
RECALL_GRID = np.linspace(0, 1, 101).round(2)
"""Recalls at which their precision is averaged."""
THRESHOLD_GRID = np.linspace(0, 1, 101).round(2)
"""Probabilities from which on an image is called positive."""
EDGES = np.linspace(0, 1, 21).round(2)
"""Of the bins in which scores of images are counted."""
CALIBRATION_EDGES = np.linspace(0, 1, 11).round(1)
"""Of the bins in which a probability is held against what happened."""
SENSITIVITIES = (0.8, 0.9, 0.95, 0.99)
"""For which a threshold is sought."""


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of one target; rows are those of folds.parquet."""

    name: str
    classes: list[str]
    scored: bool
    """Whether it counts in the score of a trial, or is only trained along."""
    targets_N: np.ndarray
    probabilities_NC: np.ndarray
    fold_N: np.ndarray

    @property
    def predicted_N(self) -> np.ndarray:
        predicted: np.ndarray = self.probabilities_NC.argmax(1)
        return predicted

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets, probabilities and folds."""
        return self.targets_N, self.probabilities_NC, self.fold_N


def out_of_fold(results: Results, number: int) -> list[OutOfFold]:
    """Of every target of a trial, the first one first. Raises `Unavailable` where they cannot be read."""
    data = results.experiment["data"]
    first = {"name": data["target_name"], "classes": results.classes, "scored": True}
    targets: list[Any] = [first, *data["further"]]
    several = len(targets) > 1
    of_targets = [[f"{t['name']}:{name}" for name in t["classes"]] if several else t["classes"] for t in targets]
    probabilities = results.predictions(number, [column for columns in of_targets for column in columns])
    blocks = np.split(probabilities, np.cumsum([len(columns) for columns in of_targets])[:-1], axis=1)
    return [
        OutOfFold(
            target["name"],
            list(target["classes"]),
            target["scored"],
            results.folds["target" if index == 0 else f"target_{target['name']}"].to_numpy(),
            block,
            results.validated_in,
        )
        for index, (target, block) in enumerate(zip(targets, blocks, strict=True))
    ]


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


def guessed_precision(own: OutOfFold) -> float:
    """The mean precision of guessing: the share of the positive class, of more than two the mean over classes."""
    return float((own.targets_N == 1).mean()) if len(own.classes) == 2 else 1 / len(own.classes)


# --- curves of folds


@dataclass(frozen=True)
class FoldCurves:
    """One curve per fold that holds images of two classes."""

    folds: list[int]
    """Which, counting from 0: an index into `Results.fold_names`."""
    values_FG: np.ndarray
    areas: list[float]


@dataclass(frozen=True)
class Ranked:
    """Each class against the rest in each fold; NaN where a fold lacks the class, or has no other."""

    tpr_FCG: np.ndarray
    """True-positive rates on `FPR_GRID`."""
    auroc_FC: np.ndarray
    precision_FCG: np.ndarray
    """On `RECALL_GRID`."""
    average_precision_FC: np.ndarray

    @staticmethod
    def of(targets_N: np.ndarray, probabilities_NC: np.ndarray, fold_N: np.ndarray) -> "Ranked":
        folds, classes = np.unique(fold_N), probabilities_NC.shape[1]
        tpr, precision = (np.full((len(folds), classes, len(grid)), np.nan) for grid in (FPR_GRID, RECALL_GRID))
        auroc, average_precision = np.full((2, len(folds), classes), np.nan)
        for f, fold in enumerate(folds):
            targets, probabilities = targets_N[fold_N == fold], probabilities_NC[fold_N == fold]
            for c in range(classes):
                if 0 < (targets == c).sum() < len(targets):
                    _, hits, alarms = _passed(targets == c, probabilities[:, c])
                    tpr[f, c], auroc[f, c] = _roc(hits, alarms)
                    precision[f, c], average_precision[f, c] = _precision_recall(hits, alarms)
        return Ranked(tpr, auroc, precision, average_precision)

    @property
    def roc(self) -> FoldCurves:
        """Of two classes that of the second; of several the mean over classes (macro)."""
        return _macro(self.tpr_FCG, self.auroc_FC)

    @property
    def precision_recall(self) -> FoldCurves:
        return _macro(self.precision_FCG, self.average_precision_FC)


def _macro(values_FCG: np.ndarray, areas_FC: np.ndarray) -> FoldCurves:
    positives = slice(1, 2) if areas_FC.shape[1] == 2 else slice(None)
    values_FCG, areas_FC = values_FCG[:, positives], areas_FC[:, positives]
    there = np.flatnonzero(~np.isnan(areas_FC).all(1))
    return FoldCurves(
        there.tolist(), np.nanmean(values_FCG[there], axis=1), np.nanmean(areas_FC[there], axis=1).tolist()
    )


def _roc(hits: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, float]:
    """Fawcett 2006."""
    x, y = np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])
    return np.interp(FPR_GRID, x, y), float(np.trapezoid(y, x))


def _precision_recall(hits: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, float]:
    """The precision at a recall is that of the first threshold which reaches it: a line between two thresholds promises
    what no threshold gives (Davis and Goadrich 2006). The area is the average precision."""
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    first = np.searchsorted(recall, np.maximum(RECALL_GRID, 1 / hits[-1]) - 1e-9)
    return precision[first], float(np.diff(recall, prepend=0) @ precision)


def _passed(positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores that occur, falling, and how many positives and negatives reach each of them."""
    order = np.argsort(-score_N, kind="stable")
    ends = np.append(np.diff(score_N[order]) != 0, True)
    hits = np.cumsum(positive_N[order])[ends]
    return score_N[order][ends], hits, np.flatnonzero(ends) + 1 - hits


# --- calibration and thresholds


def reliability(probability_N: np.ndarray, true_N: np.ndarray, group_N: np.ndarray, repeats: int) -> list[dict]:
    """What a probability promises against what happened, of each bin of `CALIBRATION_EDGES` that holds any: its edges,
    `images` (each once per repeat), the mean `predicted` probability, and the `observed` share."""
    bin_N = np.clip(np.searchsorted(CALIBRATION_EDGES, probability_N, side="right") - 1, 0, len(CALIBRATION_EDGES) - 2)
    return [
        {
            "from": float(CALIBRATION_EDGES[index]),
            "to": float(CALIBRATION_EDGES[index + 1]),
            "images": int(inside.sum()),
            "predicted": float(probability_N[inside].mean()),
            "observed": share(true_N[inside], group_N[inside], repeats),
        }
        for index in np.unique(bin_N)
        for inside in [bin_N == index]
    ]


def brier(targets_N: np.ndarray, probabilities_NC: np.ndarray) -> float:
    """Mean squared error of the probability of the second of two classes; of several, summed over them (Brier 1950)."""
    squares_NC = (probabilities_NC - np.eye(probabilities_NC.shape[1])[targets_N]) ** 2
    return float((squares_NC[:, 1] if squares_NC.shape[1] == 2 else squares_NC.sum(1)).mean())


def balanced_threshold(positive_N: np.ndarray, probability_N: np.ndarray) -> float:
    """Where sensitivity plus specificity is highest (Youden 1950), halfway between two probabilities that occur; of
    equals the one next to 0.5, which also stands where there is nothing to choose by.

    positive_N: 0 or 1. probability_N: of 1, as often as there are repeats.
    """
    values = np.unique(probability_N)
    cuts = np.concatenate([[0.5, 0.0], (values[:-1] + values[1:]) / 2])
    of_positive, of_negative = (np.sort(probability_N[positive_N == truth]) for truth in (1, 0))
    if not len(of_positive) or not len(of_negative):
        return 0.5
    sensitivity = 1 - np.searchsorted(of_positive, cuts) / len(of_positive)
    specificity = np.searchsorted(of_negative, cuts) / len(of_negative)
    best = np.isclose(sensitivity + specificity, (sensitivity + specificity).max(), rtol=0, atol=1e-12)
    return float(min(cuts[best], key=lambda cut: abs(cut - 0.5)))


def thresholds_of(positive_N: np.ndarray, score_N: np.ndarray) -> dict[str, float]:
    """From which score on an image is called positive: `youden`, the `balanced_threshold`; and `sensitivity 0.9`, … the
    highest that reaches it, which lies halfway to the next lower score, or is 0 where there is none.

    Raises ValueError where a class is missing.
    """
    scores, hits, alarms = _passed(positive_N, score_N)
    if not hits[-1] or not alarms[-1]:
        raise ValueError("a threshold needs images of both classes")
    halfway = np.append((scores[:-1] + scores[1:]) / 2, 0.0)
    sensitivity = hits / hits[-1]
    return {
        "youden": balanced_threshold(positive_N, score_N),
        **{f"sensitivity {s}": float(halfway[np.argmax(sensitivity >= s - 1e-9)]) for s in SENSITIVITIES},
    }


def rates_on_grid(positive_N: np.ndarray, score_N: np.ndarray, fold_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity of each threshold of `THRESHOLD_GRID` in each fold that holds both classes, (F,
    G)."""
    found = []
    for fold in np.unique(fold_N):
        positive, score = positive_N[fold_N == fold], score_N[fold_N == fold]
        if 0 < positive.sum() < len(positive):
            below = [np.searchsorted(np.sort(score[of]), THRESHOLD_GRID) / of.sum() for of in (positive, ~positive)]
            found.append((1 - below[0], below[1]))
    rates = np.array(found).reshape(-1, 2, len(THRESHOLD_GRID))
    return rates[:, 0], rates[:, 1]


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
