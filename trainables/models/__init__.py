"""Network bodies: images in, feature vectors out. `trainables.network` puts the searched head on top.

A model is one file here with a function `body(channels, image_size_px) -> Body`, or `body(channels, image_size_px,
batch_norm) -> Body` where it has batch norm or not, as a configuration says; its stem is its name. Any other name is
looked up in timm.
"""

import importlib
import importlib.util
import inspect
from dataclasses import dataclass

from torch import nn

from datasets import InputError


@dataclass(frozen=True)
class Body:
    module: nn.Module
    """Maps normalised images (B, channels, size, size) to features (B, features); see `dense`."""
    features: int
    mean: tuple[float, ...] = (0.0,)
    """Per channel (or one for all), subtracted from pixels in [0, 1]."""
    std: tuple[float, ...] = (1.0,)
    dense: bool = False
    """Whether it keeps a vector of features for every pixel, (B, features, size, size): for masks."""


def is_own(model: str) -> bool:
    """Whether the model is a file of this package, trained from scratch, and not one of timm."""
    return model.isidentifier() and importlib.util.find_spec(f"{__name__}.{model}") is not None


def build_body(
    model: str, channels: int, image_size_px: int, pooling: str, weights: str, batch_norm: bool = False
) -> Body:
    """A body with fresh or pretrained weights. Raises `InputError` for an unknown model or weights that do not fit."""
    own = importlib.import_module(f"{__name__}.{model}").body if is_own(model) else None
    leaves_it_open = own is not None and "batch_norm" in inspect.signature(own).parameters
    if batch_norm and not leaves_it_open:
        raise InputError(f"batch_norm=True: {model} does not leave it open; it must be False")
    if own is not None:
        return own(channels, image_size_px, batch_norm) if leaves_it_open else own(channels, image_size_px)
    from trainables.backbones import backbone  # imports timm, which takes two seconds and only backbones need

    module, features, published = backbone(model, channels, image_size_px, pooling, weights)
    mean, std = tuple(published["mean"]), tuple(published["std"])
    if channels != 3:  # timm sums or repeats the first convolution's colours; what is none is normalised as their mean
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Body(module, features, mean, std)
