"""Batches of network inputs and targets by row number: prepared pixels, or features of a frozen prefix.

Shapes: N images of the data set, B rows of a batch, C channels, H height, W width. Targets are classes (N, targets) or
the classes of pixels (N, H, W), see `trainables.objectives`.
"""

import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from trainables.augmentation import Augmentation
from trainables.models import Body

EVALUATION_BATCH = 64
AS_IT_IS = -1
"""In place of the number of an augmented view: the image itself."""


class Fetch(Protocol):
    def __call__(self, rows: torch.Tensor, views: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers, int64 (B,), to inputs (B, …) and targets (B, …) on the device.

        views: which augmented view of each image, int64 (B,), or `AS_IT_IS`; None: all as they are.
        """


def pixel_fetch(
    pixels_NHWC: np.ndarray,
    targets: np.ndarray,
    body: Body,
    device: str,
    augmentation: Augmentation | None = None,
    masks: bool = False,
) -> Fetch:
    """Inputs are float32 images (B, C, H, W), channels last in memory, normalised as the body was trained to expect.
    Every augmented view is drawn anew, whatever its number.

    masks: whether targets are such, which move with their images when these are augmented.
    """
    mean = torch.tensor(body.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(body.std, device=device).view(1, -1, 1, 1)
    all_pixels, all_targets = shared(pixels_NHWC), shared(targets)

    def changed(images_BCHW: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert augmentation is not None
        return augmentation.together(images_BCHW, wanted) if masks else (augmentation(images_BCHW), wanted)

    def fetch(rows: torch.Tensor, views: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        images_BHWC = all_pixels.index_select(0, rows).to(device, non_blocking=True)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255)
        wanted = all_targets.index_select(0, rows).to(device, non_blocking=True)
        if augmentation is not None and views is not None:
            augmented = views != AS_IT_IS
            if augmented.all():
                images_BCHW, wanted = changed(images_BCHW, wanted)
                images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            elif augmented.any():
                chosen = augmented.nonzero()[:, 0].to(device, non_blocking=True)  # numbers: no GPU has to be asked
                images_BCHW[chosen], wanted[chosen] = changed(images_BCHW[chosen], wanted[chosen])
        return (images_BCHW - mean) / std, wanted

    return fetch


def feature_fetch(features: Callable[[int], torch.Tensor], targets: np.ndarray, device: str) -> Fetch:
    """Inputs are stored outputs of a frozen prefix, (B, …), in the precision in which they are stored.

    features: the number of a view, or `AS_IT_IS`, to the features of all images, (N, …).
    """
    all_targets = shared(targets)

    def fetch(rows: torch.Tensor, views: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = [AS_IT_IS] if views is None else views.unique().tolist()
        if views is None or len(wanted) == 1:
            inputs = features(wanted[0]).index_select(0, rows)
        else:
            inputs = features(wanted[0]).new_empty(len(rows), *features(wanted[0]).shape[1:])
            for view in wanted:
                places = (views == view).nonzero()[:, 0]
                inputs[places] = features(view).index_select(0, rows[places])
        inputs = inputs.to(device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, all_targets.index_select(0, rows).to(device, non_blocking=True)

    return fetch


def shared(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor on the same memory, a map of a store for one: to be read only. `index_select` copies whole
    rows, five to twelve times as fast as indexing by a tensor does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
