"""Batches of network inputs by row number: prepared pixels, or features of a frozen prefix.

Shapes: N images of the data set, B rows of a batch, C channels, H height, W width.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from datasets import content_digest
from datasets.stores import store_budget_bytes, stored_array
from trainables.models import Body

Fetch = Callable[[torch.Tensor], torch.Tensor]
"""Row numbers, int64 (B,), to inputs (B, …) on the device."""

EVALUATION_BATCH = 64


def pixel_fetch(pixels_NHWC: np.ndarray, body: Body, device: str, augment: nn.Module | None = None) -> Fetch:
    """Float32 images (B, C, H, W), channels last in memory, normalised as the body was trained to expect."""
    mean = torch.tensor(body.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(body.std, device=device).view(1, -1, 1, 1)

    def fetch(rows: torch.Tensor) -> torch.Tensor:
        images_BHWC = torch.from_numpy(pixels_NHWC[rows.numpy()]).to(device, non_blocking=True)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255)
        if augment is not None:
            images_BCHW = augment(images_BCHW).contiguous(memory_format=torch.channels_last)
        return (images_BCHW - mean) / std

    return fetch


def feature_fetch(features: np.ndarray, device: str) -> Fetch:
    """Stored outputs of a frozen prefix, float32 (B, …)."""

    def fetch(rows: torch.Tensor) -> torch.Tensor:
        inputs = torch.from_numpy(features[rows.numpy()]).to(device, non_blocking=True)
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs

    return fetch


def frozen_features(
    prefix: nn.Module,
    key: list[str],
    fetch: Fetch,
    images: int,
    autocast: Callable[[], torch.autocast],
) -> np.ndarray | None:
    """The prefix's output for every image, float32 (N, …), computed once per machine for all trials and folds.

    key: everything that determines it. None where it would not fit in the store's budget.
    """

    @torch.inference_mode()
    def computed(rows: torch.Tensor) -> np.ndarray:
        with autocast():
            return prefix(fetch(rows)).float().cpu().numpy()

    first = computed(torch.arange(1))
    if first.nbytes * images > store_budget_bytes():
        return None

    def fill(array: np.ndarray) -> None:
        for rows in torch.arange(images).split(EVALUATION_BATCH):
            array[rows[0] : rows[-1] + 1] = computed(rows)

    return stored_array(f"features-{content_digest(key)}", (images, *first.shape[1:]), np.float32, fill)
