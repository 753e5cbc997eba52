"""What a prediction looks like: masks, and where the networks look."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from datasets import InputError
from datasets.decoding import upright_size
from search.predicted import Batch, decided
from trainables.network import outputs_for
from trainables.saliency import saliency

if TYPE_CHECKING:
    from trainables.ensemble import Ensemble

SHADE = 0.6
"""Of the colour, where a network looks most."""


def write_masks(batch: Batch, folder: Path, place_of: dict[Path, Path]) -> None:
    """As large as the images: 255 where the mean of the networks finds the second of two classes; of more classes the
    number of the class."""
    for index, file in enumerate(batch.files):
        probabilities_CHW = batch.probabilities_kBC[:, index].mean(0)
        size = upright_size(file)
        planes = [
            np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in probabilities_CHW
        ]
        mask_HW = np.argmax(planes, axis=0).astype(np.uint8)
        _save(mask_HW * 255 if len(planes) == 2 else mask_HW, folder / place_of[file])


def write_saliency(ensemble: "Ensemble", batch: Batch, folder: Path, place_of: dict[Path, Path]) -> None:
    """The squares that the networks see, red where they look: the mean over the networks, each scaled to its own
    largest value, of what speaks for the class of the first target that is decided for."""
    target = ensemble.description.targets[0]
    mean_BC = batch.probabilities_kBC.mean(0)[:, : len(target.classes)]
    threshold = ensemble.description.threshold(target)
    chosen_B = torch.tensor([decided(mean_C, threshold) for mean_C in mean_BC])
    outputs = slice(0, outputs_for(len(target.classes)))
    images = ensemble.prepared(batch.pixels)
    found_kBHW = np.stack([saliency(network, images, chosen_B, outputs) for network in ensemble.networks])
    largest_kB11 = found_kBHW.max((2, 3), keepdims=True)
    heat_BHW = (found_kBHW / np.where(largest_kB11 > 0, largest_kB11, 1)).mean(0)
    for index, file in enumerate(batch.files):
        base_HW3 = np.repeat(batch.pixels[index].mean(2, dtype=np.float32, keepdims=True), 3, axis=2)
        share_HW1 = (SHADE * heat_BHW[index])[:, :, None]
        picture = base_HW3 * (1 - share_HW1) + np.array([255, 0, 0], np.float32) * share_HW1
        _save(picture.round().astype(np.uint8), folder / place_of[file])


def _save(pixels: np.ndarray, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error})") from None
