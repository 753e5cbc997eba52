"""Scores of probabilities against targets, from scikit-learn."""

from collections.abc import Callable

import numpy as np
from sklearn import metrics as sk

from trainables.protocol import Mode

METRICS: dict[str, Mode] = {
    "auroc": "max",
    "accuracy": "max",
    "balanced_accuracy": "max",
    "f1": "max",
    "log_loss": "min",
}
"""Every metric, and whether more of it is better."""


def scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All `METRICS` of probabilities (images, classes) against targets (images,).

    Of two classes the second is the positive one; of several, AUROC is the mean over one class against the rest and
    F1 the mean over classes. NaN where the probabilities are not finite; AUROC is NaN where a class is absent.
    """
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(METRICS, float("nan"))
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
