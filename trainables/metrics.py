"""Every metric, which kind of task it belongs to, and the scores of probabilities.

Every fold is scored after every epoch, so one sort gives AUROC and average precision, and one table of counts most of
the rest; the tests hold them against scikit-learn.

Shapes: N images (or studies), C classes.
"""

import numpy as np

from datasets import ImageDataset, InputError
from datasets.dataset import Kind
from datasets.folds import Folds
from trainables.protocol import Mode

OF_CLASSES = (
    "auroc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "cohen_kappa",
    "log_loss",
    "calibration_error",
)
OF_MASKS = ("dice", "iou", "log_loss")
STUDY = "study_"
"""Before the name of a metric: over studies and not over images. The probability of a study is the mean over its
images (Rajpurkar et al. 2017); so it takes a column `study`."""
OF_STUDIES = tuple(f"{STUDY}{metric}" for metric in OF_CLASSES)
LESS_IS_BETTER = ("log_loss", "calibration_error")

METRICS: dict[str, Mode] = {
    metric: "min" if metric.removeprefix(STUDY) in LESS_IS_BETTER else "max"
    for metric in (*OF_CLASSES, *OF_STUDIES, *OF_MASKS)
}
"""Every metric, and whether more of it is better."""

NEEDS_EVERY_CLASS = ("auroc", "average_precision", "cohen_kappa")
"""Metrics that are searched by only where every fold validates every class; the others have a value without."""
BINS = 15
"""Of equal width, into which the confidence is divided by the calibration error, as in Guo et al. 2017."""


def metrics_of(kind: Kind) -> tuple[str, ...]:
    """The metrics by which a task of that kind can be scored; those of studies where there are any."""
    return OF_MASKS if kind == "segmentation" else (*OF_CLASSES, *OF_STUDIES)


def check_metric(metric: str, kind: Kind) -> None:
    """Raises `InputError` where a task of that kind has no such score."""
    if metric not in metrics_of(kind):
        raise InputError(f"metric {metric!r}: choose from {', '.join(metrics_of(kind))}, the scores of a {kind} task")


def check_scorable(metric: str, dataset: ImageDataset, folds: Folds) -> None:
    """Raises `InputError` where a fold does not train on every class of every scored target, or does not validate every
    class although the metric needs them all, and where a metric of studies has none or they are torn apart. Folds are
    made to have the classes of the first target, and need not have those of the others."""
    if dataset.kind == "segmentation":
        return
    if metric.startswith(STUDY):
        _check_studies(metric, dataset, folds)
    scored = [(dataset.target_name, dataset.classes, dataset.targets)]
    scored += [
        (target.name, target.classes, dataset.table[target.column].to_numpy())
        for target in dataset.further
        if target.scored
    ]
    for name, classes, targets in scored:
        for fold, (trained, validated) in enumerate(folds):
            for rows, verb in ((trained, "trains on"), (validated, "validates")):
                missing = np.setdiff1d(np.arange(len(classes)), targets[rows])
                if len(missing) and (rows is trained or metric.removeprefix(STUDY) in NEEDS_EVERY_CLASS):
                    another = "" if rows is trained else "another metric, "
                    raise InputError(
                        f"metric {metric!r}: fold {fold} {verb} no image of {name} {classes[missing[0]]!r}, which it "
                        f"needs; choose fewer folds, {another}or leave that label out"
                    )


def _check_studies(metric: str, dataset: ImageDataset, folds: Folds) -> None:
    if "study" not in dataset.table.columns:
        raise InputError(
            f"metric {metric!r}: {dataset.name!r} does not say which images are of one study; choose "
            f"{metric.removeprefix(STUDY)!r}, which is over images"
        )
    _, study_N = np.unique(dataset.table["study"].to_numpy(), return_inverse=True)
    for validated_in in folds.validated_in:
        first_N = np.zeros(study_N.max() + 1, np.int64)
        first_N[study_N] = validated_in
        torn = np.flatnonzero(first_N[study_N] != validated_in)
        if len(torn):
            raise InputError(
                f"metric {metric!r}: the images of study {dataset.table['study'][int(torn[0])]} are validated in "
                f"several folds, so it has no probability; give all of them one group"
            )


def scores(targets_N: np.ndarray, probabilities_NC: np.ndarray) -> dict[str, float]:
    """All `OF_CLASSES` of probabilities against targets.

    Of two classes the second is the positive one, and precision, recall, F1, AUROC and average precision are its own;
    of several they are means over classes (macro), each against the rest. A class that is never predicted has
    precision and F1 of 0; balanced accuracy is the mean recall of the classes that are there. The calibration error is
    that of the most probable class (ECE: Guo et al. 2017, eq. 3), kappa is unweighted (Cohen 1960).

    NaN where the probabilities are not finite. AUROC and average precision are NaN where a class is absent, kappa where
    all images are, and are predicted to be, of one class.
    """
    if not np.isfinite(probabilities_NC).all():
        return dict.fromkeys(OF_CLASSES, float("nan"))
    probabilities_NC = probabilities_NC.astype(np.float64)
    count, classes = probabilities_NC.shape
    predicted_N = probabilities_NC.argmax(1)
    right_N = predicted_N == targets_N
    confusion_CC = np.bincount(targets_N * classes + predicted_N, minlength=classes**2).reshape(classes, classes)
    hits_C, true_C, predicted_C = confusion_CC.diagonal(), confusion_CC.sum(1), confusion_CC.sum(0)
    positives = slice(1, 2) if classes == 2 else slice(None)
    recall_C = hits_C / np.maximum(true_C, 1)
    accuracy, chance = right_N.mean(), true_C @ predicted_C / count**2
    ranked = (float("nan"), float("nan"))
    if true_C.all():
        ranked = np.mean([_ranked(targets_N == c, probabilities_NC[:, c]) for c in range(classes)[positives]], axis=0)
    found = {
        "auroc": ranked[0],
        "average_precision": ranked[1],
        "accuracy": accuracy,
        "balanced_accuracy": recall_C[true_C > 0].mean(),
        "precision": (hits_C / np.maximum(predicted_C, 1))[positives].mean(),
        "recall": recall_C[positives].mean(),
        "f1": (2 * hits_C / np.maximum(true_C + predicted_C, 1))[positives].mean(),
        "cohen_kappa": (accuracy - chance) / (1 - chance) if chance < 1 else float("nan"),
        "log_loss": _log_loss(targets_N, probabilities_NC),
        "calibration_error": calibration_error(right_N, probabilities_NC.max(1)),
    }
    return {name: float(value) for name, value in found.items()}


def study_means(
    study_N: np.ndarray, targets_NT: np.ndarray, probabilities_NC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (S, T) and mean probabilities (S, C) of S studies. Images of one study have the same targets."""
    _, first_S, study_N = np.unique(study_N, return_index=True, return_inverse=True)
    sums_SC = np.zeros((len(first_S), probabilities_NC.shape[1]))
    np.add.at(sums_SC, study_N, probabilities_NC)
    return targets_NT[first_S], sums_SC / np.bincount(study_N)[:, None]


def _ranked(positive_N: np.ndarray, score_N: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve (Fawcett 2006) and average precision, the mean precision at the recalls
    that are reached. Equal scores are passed together."""
    order = np.argsort(-score_N, kind="stable")
    ends = np.append(np.diff(score_N[order]) != 0, True)
    hits = np.cumsum(positive_N[order])[ends]
    passed = np.flatnonzero(ends) + 1
    true_rate, false_rate = hits / hits[-1], (passed - hits) / (passed - hits)[-1]
    area = np.trapezoid(np.append(0, true_rate), np.append(0, false_rate))
    return float(area), float(np.diff(true_rate, prepend=0) @ (hits / passed))


def _log_loss(targets_N: np.ndarray, probabilities_NC: np.ndarray) -> float:
    # Sums are off by 1e-7 by rounding. A probability of 0 would make it infinite; scikit-learn takes the same epsilon.
    of_truth_N = probabilities_NC[np.arange(len(targets_N)), targets_N] / probabilities_NC.sum(1)
    return float(-np.log(of_truth_N.clip(np.finfo(np.float64).eps)).mean())


def calibration_error(right_N: np.ndarray, confidence_N: np.ndarray) -> float:
    """Mean distance between the accuracy and the confidence of `BINS` bins, weighted by their images."""
    bin_N = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence_N)
    return float(np.abs(np.bincount(bin_N, right_N - confidence_N)).sum() / len(right_N))
