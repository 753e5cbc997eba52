"""What is done about classes of unequal size, in the training images of a fold only: validation never knows.

    class_weights         the loss of an image counts n / (C n_c), with n training images of which n_c are of its class
                          and C classes; of a batch the weighted mean is taken. Each target has its own classes.
    sample_weights        the same, but the weighted losses are divided by the number of images and not by the sum of
                          their weights (Keras' `sample_weight`), and of several targets an image has one weight: its
                          class is the combination of all its classes.
    oversample            in every epoch the images of smaller classes are drawn again, each as often as the others of
                          its class or once more, until every class has `oversample_to` images. Of several targets, a
                          class is again a combination.
    augmented_oversample  the same, and the repeats, and only they, are augmented.

Two classes are balanced like several. Masks have no classes and cannot be balanced; `trainables.objectives` says so.
Weights change the training loss only; all that is drawn is of torch's generator, which is seeded for every epoch.

Shapes: n training images, B of a batch, T targets.
"""

import numpy as np
import torch

from trainables.config import TrialConfig


def classes_of(targets_nT: np.ndarray) -> np.ndarray:
    """int64 (n,): which class, or combination of classes, each image is of; counted from 0, all present."""
    return np.unique(targets_nT, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def loss_weights(config: TrialConfig, targets: np.ndarray, train_rows: np.ndarray) -> torch.Tensor:
    """float32 (images, T): what each image counts for each target; NaN for images that are not trained on.

    targets: int64 (images, T), or masks, of which each image counts 1.
    """
    of_targets = targets[train_rows] if targets.ndim == 2 else np.zeros((len(train_rows), 1), np.int64)
    weights = np.full((len(targets), of_targets.shape[1]), np.nan, np.float32)
    if config.balance == "class_weights":
        weights[train_rows] = np.stack([_balanced(classes_of(one[:, None])) for one in of_targets.T], axis=1)
    elif config.balance == "sample_weights":
        weights[train_rows] = _balanced(classes_of(of_targets))[:, None]
    else:
        weights[train_rows] = 1
    return torch.from_numpy(weights)


def weighted_mean(config: TrialConfig, losses_BT: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch for each target, (T,)."""
    if config.balance == "class_weights":
        return (losses_BT * weights_BT).sum(0) / weights_BT.sum(0)
    return (losses_BT * weights_BT).mean(0)


def epoch_order(
    config: TrialConfig, train_rows: torch.Tensor, classes_n: np.ndarray | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows to train on in one epoch, int64, each at least once, in random order; and which of them, bool, are to
    be augmented where anything is. `classes_n`: see `classes_of`; None for masks."""
    rows = train_rows
    if "oversample" in config.balance:
        assert classes_n is not None
        rows = torch.cat([train_rows, train_rows[_repeats(classes_n, config.oversample_to)]])
    augmented = torch.ones(len(rows), dtype=torch.bool)
    if config.balance == "augmented_oversample":
        augmented[: len(train_rows)] = False
    order = torch.randperm(len(rows))
    return rows[order], augmented[order]


def _balanced(classes_n: np.ndarray) -> np.ndarray:
    """n / (C n_c) of each image; their mean is 1 and every class has the same sum."""
    counts = np.bincount(classes_n)
    return len(classes_n) / (len(counts) * counts[classes_n])


def _repeats(classes_n: np.ndarray, oversample_to: int | None) -> torch.Tensor:
    """Places in `classes_n` to be drawn again, int64."""
    counts = np.bincount(classes_n)
    drawn = [torch.empty(0, dtype=torch.int64)]
    for index, count in enumerate(counts):
        wanted = (oversample_to or counts.max()) - count
        places = torch.from_numpy(np.flatnonzero(classes_n == index))
        while wanted > 0:
            drawn.append(places[torch.randperm(len(places))[:wanted]])
            wanted -= len(drawn[-1])
    return torch.cat(drawn)
