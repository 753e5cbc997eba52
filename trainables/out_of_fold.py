"""The networks of a trial, each asked only about images that it has not been trained on; of the first target.

Shapes: n images, H height, W width, L channels, C classes.
"""

import time

import numpy as np
import torch

from datasets import ImageDataset, InputError
from datasets.confounding import sampled
from datasets.folds import Folds
from datasets.pixels import pixels
from trainables.ensemble import Ensemble
from trainables.images import EVALUATION_BATCH
from trainables.network import outputs_for
from trainables.saliency import last_map, saliency
from trainables.shortcuts import Sample

TIMED = 8
"""Images by which the time of one is estimated."""


class OutOfFold:
    """Folds are those of `ensemble.networks`."""

    def __init__(self, ensemble: Ensemble):
        self._ensemble = ensemble
        self._classes = len(ensemble.description.targets[0].classes)
        self._outputs = slice(outputs_for(self._classes))

    @torch.inference_mode()
    def predict(self, fold: int, pixels_nHWL: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) of uint8 squares of the networks' size; of masks (n, C, H, W)."""
        network, found = self._ensemble.networks[fold], []
        for images in self._images(pixels_nHWL).split(EVALUATION_BATCH):
            found.append(self._ensemble.probabilities(network(images).float())[:, : self._classes].cpu())
        return torch.cat(found).numpy()

    def saliency(self, fold: int, pixels_nHWL: np.ndarray, classes_n: np.ndarray) -> np.ndarray:
        """Where the network sees these classes, (n, H, W). Raises `InputError` where it keeps no map."""
        network = self._ensemble.networks[fold]
        return saliency(network, self._images(pixels_nHWL), torch.from_numpy(classes_n), self._outputs)

    def layer(self, pixels_1HWL: np.ndarray) -> str:
        """The name of the module whose output `saliency` is of, in its network; raises `InputError` as that."""
        return last_map(self._ensemble.networks[0], self._images(pixels_1HWL)).name

    def seconds(self, pixels_nHWL: np.ndarray) -> float:
        """That one image takes, about."""
        some = np.ascontiguousarray(pixels_nHWL[:TIMED])
        self.predict(0, some)  # what is needed once
        began = time.perf_counter()
        self.predict(0, some)
        return (time.perf_counter() - began) / len(some)

    def _images(self, pixels_nHWL: np.ndarray) -> torch.Tensor:
        device = self._ensemble.device
        return self._ensemble.normalised(torch.tensor(pixels_nHWL, device=device).permute(0, 3, 1, 2))


def some_images(ensemble: Ensemble, dataset: ImageDataset, folds: Folds, most: int) -> Sample:
    """At most so many development images, as evenly over classes and folds of the first repeat as there are."""
    description, fold_N = ensemble.description, folds.validated_in[0]
    rows = sampled(dataset.targets * folds.k + fold_N, np.arange(len(dataset)), most)
    squares = pixels(dataset, description.config.image_size_px, description.interpolation)
    groups = dataset.table["group"].to_numpy()
    return Sample(rows, np.asarray(squares[rows]), dataset.targets[rows], fold_N[rows], groups[rows])


def in_each_fold(unseen: OutOfFold, sample: Sample) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """Probabilities (N, C) of the images of a sample; where the network sees the class that it finds most probable,
    (N, H, W); and in which layer. The last two are None for networks that keep no map."""
    try:
        layer: str | None = unseen.layer(sample.pixels_NHWL[:1])
    except InputError:
        layer = None
    found, maps = [], []
    for fold in np.unique(sample.folds_N):
        squares = sample.pixels_NHWL[sample.folds_N == fold]
        found.append(unseen.predict(int(fold), squares))
        if layer is not None:
            maps.append(unseen.saliency(int(fold), squares, found[-1].argmax(1)))
    back = np.argsort(np.argsort(sample.folds_N, kind="stable"), kind="stable")
    return np.concatenate(found)[back], np.concatenate(maps)[back] if maps else None, layer
