"""What is done about classes of unequal size, in the training images of a fold only: validation never knows.

    class_weights         the loss of an image counts n / (C n_c), with n training images of which n_c are of its class
                          and C classes; of a batch the weighted mean is taken. Each target has its own classes.
    sample_weights        the same, but the weighted losses are divided by the number of images and not by the sum of
                          their weights (Keras' `sample_weight`), and of several targets an image has one weight: its
                          class is the combination of all its classes.
    oversample            in every epoch the images of smaller classes are drawn again, each as often as the others of
                          its class or once more, until every class has `oversample_to` images. Of several targets, a
                          class is again a combination.
    augmented_oversample  the same, and the repeats, and only they, are augmented. Every image is also seen once as it
                          is. Where classes are equal there are no repeats, and nothing is augmented.

A class may be as small as one image, and combinations of many targets are: so no image is drawn more than `MOST_TIMES`
times in an epoch, and none weighs more than `MOST_TIMES` times the mean, which is 1. Smaller classes then stay smaller.
So an epoch is at most `MOST_TIMES` as long as one without oversampling.

Two classes are balanced like several. Images with masks are all of one class (`Objective.labels`), and to balance them
is refused by `trainables.objectives`. Weights change the training loss only; all that is drawn is of torch's generator,
which is seeded for every epoch.

Shapes: N images of the data set, n training images, B of a batch, T targets.
"""

import numpy as np
import torch

from trainables.config import TrialConfig

MOST_TIMES = 10
"""How often an image is drawn in an epoch at most, and how much it weighs at most."""


def classes_of(labels_nT: np.ndarray) -> np.ndarray:
    """int64 (n,): which class, or combination of classes, each image is of; counted from 0, all present."""
    return np.unique(labels_nT, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def loss_weights(config: TrialConfig, labels_NT: np.ndarray, train_rows: np.ndarray) -> torch.Tensor:
    """float32 (N, T): what each image counts for each target; NaN for images that are not trained on."""
    labels_nT = labels_NT[train_rows]
    weights = np.full(labels_NT.shape, np.nan, np.float32)
    if config.balance == "class_weights":
        weights[train_rows] = np.stack([_balanced(classes_of(one[:, None])) for one in labels_nT.T], axis=1)
    elif config.balance == "sample_weights":
        weights[train_rows] = _balanced(classes_of(labels_nT))[:, None]
    else:
        weights[train_rows] = 1
    return torch.from_numpy(weights)


def divisor(config: TrialConfig, weights_BT: torch.Tensor, images: torch.Tensor | int) -> torch.Tensor | int:
    """What the sum of a batch's weighted losses is divided by, for each target (T,) or for all alike. Of many batches,
    (…, B, T), with their numbers of images (…, 1), where they are filled up with weights of 0."""
    return weights_BT.sum(-2) if config.balance == "class_weights" else images


def epoch_order(
    config: TrialConfig, train_rows: torch.Tensor, classes_n: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows to train on in one epoch, int64, each at least once, in random order; and which of them, bool, are to
    be augmented where anything is. `classes_n`: see `classes_of`."""
    rows = train_rows
    if "oversample" in config.balance:
        rows = torch.cat([train_rows, train_rows[_repeats(classes_n, config.oversample_to)]])
    augmented = torch.ones(len(rows), dtype=torch.bool)
    if config.balance == "augmented_oversample":
        augmented[: len(train_rows)] = False
    order = torch.randperm(len(rows))
    return rows[order], augmented[order]


def _balanced(classes_n: np.ndarray) -> np.ndarray:
    """n / (C n_c) of each image, `MOST_TIMES` at most. Otherwise their mean is 1 and all classes have equal sums."""
    counts = np.bincount(classes_n)
    return np.minimum(len(classes_n) / (len(counts) * counts[classes_n]), MOST_TIMES)


def _repeats(classes_n: np.ndarray, oversample_to: int | None) -> torch.Tensor:
    """Places in `classes_n` to be drawn again, int64."""
    counts = np.bincount(classes_n)
    drawn = [torch.empty(0, dtype=torch.int64)]
    for index, count in enumerate(counts):
        wanted = min(oversample_to or counts.max(), MOST_TIMES * count) - count
        places = torch.from_numpy(np.flatnonzero(classes_n == index))
        while wanted > 0:
            drawn.append(places[torch.randperm(len(places))[:wanted]])
            wanted -= len(drawn[-1])
    return torch.cat(drawn)
