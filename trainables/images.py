"""Batches of network inputs and targets by row number: prepared pixels, or features of a frozen prefix.

Shapes: N images of the data set, B rows of a batch, C channels, H height, W width. Targets are classes (N, targets) or
the classes of pixels (N, H, W), see `trainables.objectives`.
"""

import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import nn

from datasets import content_digest
from datasets.stores import store_budget_bytes, stored_array
from trainables.augmentation import Augmentation
from trainables.models import Body

EVALUATION_BATCH = 64


class Fetch(Protocol):
    def __call__(self, rows: torch.Tensor, augmented: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers, int64 (B,), to inputs (B, …) and targets (B, …) on the device.

        augmented: bool (B,), the rows whose images are to be augmented; None for none.
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

    masks: whether targets are such, which move with their images when these are augmented.
    """
    mean = torch.tensor(body.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(body.std, device=device).view(1, -1, 1, 1)
    all_pixels, all_targets = shared(pixels_NHWC), shared(targets)

    def changed(images_BCHW: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert augmentation is not None
        return augmentation.together(images_BCHW, wanted) if masks else (augmentation(images_BCHW), wanted)

    def fetch(rows: torch.Tensor, augmented: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        images_BHWC = all_pixels.index_select(0, rows).to(device, non_blocking=True)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255)
        wanted = all_targets.index_select(0, rows).to(device, non_blocking=True)
        if augmentation is not None and augmented is not None:
            if augmented.all():
                images_BCHW, wanted = changed(images_BCHW, wanted)
                images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            elif augmented.any():
                chosen = augmented.nonzero()[:, 0].to(device, non_blocking=True)  # numbers: no GPU has to be asked
                images_BCHW[chosen], wanted[chosen] = changed(images_BCHW[chosen], wanted[chosen])
        return (images_BCHW - mean) / std, wanted

    return fetch


def feature_fetch(features: np.ndarray, targets: np.ndarray, device: str) -> Fetch:
    """Inputs are stored outputs of a frozen prefix, float32 (B, …), which cannot be augmented."""

    all_features, all_targets = shared(features), shared(targets)

    def fetch(rows: torch.Tensor, augmented: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = all_features.index_select(0, rows).to(device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, all_targets.index_select(0, rows).to(device, non_blocking=True)

    return fetch


def frozen_features(
    prefix: nn.Module,
    key: list[str],
    fetch: Fetch,
    images: int,
    autocast: Callable[[], torch.autocast],
) -> Callable[[], np.ndarray] | None:
    """Gives the prefix's output for every image, float32 (N, …), which is computed when it is first asked for, once per
    machine for all trials and folds.

    key: everything that determines it. None where it would not fit in the store's budget.
    """

    @torch.inference_mode()
    def computed(rows: torch.Tensor) -> np.ndarray:
        inputs, _ = fetch(rows)
        with autocast():
            return prefix(inputs).float().cpu().numpy()

    first = computed(torch.arange(1))
    if first.nbytes * images > store_budget_bytes():
        return None

    def fill(array: np.ndarray) -> None:
        for rows in torch.arange(images).split(EVALUATION_BATCH):
            array[rows[0] : rows[-1] + 1] = computed(rows)

    return lambda: stored_array(f"features-{content_digest(key)}", (images, *first.shape[1:]), np.float32, fill)


def shared(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor on the same memory, a map of a store for one: to be read only. `index_select` copies whole
    rows, seven to thirteen times as fast as indexing by a tensor does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
