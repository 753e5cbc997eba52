"""Network bodies: images in, feature vectors out. `trainables.network` puts the searched head on top.

A model is one file here with a function `body(channels, image_size_px) -> Body`, and its stem is its name. Any other
name is looked up in timm.
"""

import importlib
import importlib.util
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Body:
    module: nn.Module
    """Maps normalised images (B, channels, size, size) to features (B, features)."""
    features: int
    mean: tuple[float, ...] = (0.0,)
    """Per channel (or one for all), subtracted from pixels in [0, 1]."""
    std: tuple[float, ...] = (1.0,)


def is_own(model: str) -> bool:
    """Whether the model is a file of this package, trained from scratch, and not one of timm."""
    return model.isidentifier() and importlib.util.find_spec(f"{__name__}.{model}") is not None


def build_body(model: str, channels: int, image_size_px: int, pooling: str, weights: str) -> Body:
    """A body with fresh or pretrained weights. Raises `InputError` for an unknown model or weights that do not fit."""
    if is_own(model):
        return importlib.import_module(f"{__name__}.{model}").body(channels, image_size_px)
    from trainables.backbones import backbone  # imports timm, which takes two seconds and only backbones need

    module, features, published = backbone(model, channels, image_size_px, pooling, weights)
    mean, std = tuple(published["mean"]), tuple(published["std"])
    if channels == 1:  # timm sums the first convolution over the colours, so a gray image is normalised as their mean
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Body(module, features, mean, std)
