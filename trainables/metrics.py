"""Every metric, which kind of task it belongs to, and the scores of probabilities, from scikit-learn."""

from collections.abc import Callable

import numpy as np
from sklearn import metrics as sk

from datasets import ImageDataset, InputError
from datasets.dataset import Kind
from datasets.folds import Folds
from trainables.protocol import Mode

METRICS: dict[str, Mode] = {
    "auroc": "max",
    "accuracy": "max",
    "balanced_accuracy": "max",
    "f1": "max",
    "dice": "max",
    "iou": "max",
    "log_loss": "min",
}
"""Every metric, and whether more of it is better."""

OF_CLASSES = ("auroc", "accuracy", "balanced_accuracy", "f1", "log_loss")
OF_MASKS = ("dice", "iou", "log_loss")


def metrics_of(kind: Kind) -> tuple[str, ...]:
    """The metrics by which a task of that kind can be scored."""
    return OF_MASKS if kind == "segmentation" else OF_CLASSES


def check_metric(metric: str, kind: Kind) -> None:
    """Raises `InputError` where a task of that kind has no such score."""
    if metric not in metrics_of(kind):
        raise InputError(f"metric {metric!r}: choose from {', '.join(metrics_of(kind))}, the scores of a {kind} task")


def check_scorable(metric: str, dataset: ImageDataset, folds: Folds) -> None:
    """Raises `InputError` where a fold does not train on every class of every scored target, or, for AUROC, does not
    validate every class. Folds are made to have those of the first target, and need not have those of the others."""
    if dataset.kind == "segmentation":
        return
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
                if len(missing) and (rows is trained or metric == "auroc"):
                    another = "" if rows is trained else "another metric, "
                    raise InputError(
                        f"metric {metric!r}: fold {fold} {verb} no image of {name} {classes[missing[0]]!r}, which it "
                        f"needs; choose fewer folds, {another}or leave that label out"
                    )


def scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All `OF_CLASSES` of probabilities (images, classes) against targets (images,).

    Of two classes the second is the positive one; of several, AUROC is the mean over one class against the rest and
    F1 the mean over classes. NaN where the probabilities are not finite; AUROC is NaN where a class is absent.
    """
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(OF_CLASSES, float("nan"))
    labels = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(1)
    # Rounding leaves sums off by 1e-7, which scikit-learn complains about.
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    binary = len(labels) == 2
    computed: dict[str, Callable[[], float]] = {
        "auroc": lambda: (
            sk.roc_auc_score(targets, probabilities[:, 1])
            if binary
            else sk.roc_auc_score(targets, probabilities, multi_class="ovr", labels=labels)
        ),
        "accuracy": lambda: sk.accuracy_score(targets, predicted),
        "balanced_accuracy": lambda: sk.recall_score(
            targets, predicted, average="macro", labels=np.unique(targets), zero_division=0
        ),
        "f1": lambda: sk.f1_score(
            targets, predicted, average="binary" if binary else "macro", labels=labels, zero_division=0
        ),
        "log_loss": lambda: sk.log_loss(targets, probabilities, labels=labels),
    }
    complete = len(np.unique(targets)) == len(labels)
    return {
        name: float(compute()) if complete or name != "auroc" else float("nan") for name, compute in computed.items()
    }
