"""Features of a pretrained network for every image of a data set: they say that two images are alike where pixels do
not."""

from collections.abc import Callable

import numpy as np
import torch

from datasets import ImageDataset, InputError
from datasets.pixels import pixels
from trainables.backbones import backbone
from trainables.images import shared

MODEL = "mobilenetv3_small_100"
SIZE_PX = 128
BATCH = 64


def embedding(weights: str) -> Callable[[ImageDataset], np.ndarray]:
    """A function that gives the pooled features of all images, float32 (images, features).

    weights: `imagenet`, `none` or a safetensors file of the network; fetched, or found missing, at once.
    """
    module, features, published = backbone(MODEL, 3, SIZE_PX, "avg", weights)
    mean, std = (torch.tensor(published[name]).view(1, 3, 1, 1) for name in ("mean", "std"))

    @torch.inference_mode()
    def embedded(dataset: ImageDataset) -> np.ndarray:
        if dataset.channels == 2:
            raise InputError("features of a network are of images with one or three channels; these have two")
        images_NHWC = shared(pixels(dataset, SIZE_PX, published["interpolation"]))
        found = np.empty((len(dataset), features), np.float32)
        for rows in torch.arange(len(dataset)).split(BATCH):
            images_BCHW = images_NHWC[rows].permute(0, 3, 1, 2).float().div_(255).expand(-1, 3, -1, -1)
            found[rows.numpy()] = module((images_BCHW - mean) / std).numpy()
        return found

    return embedded
