"""Network bodies: images in, feature vectors out. `trainables.network` puts the searched head on top.

A model is one file here with a function `body(channels, image_size_px, **options) -> Body`; its stem is its name. The
options that it leaves open to a configuration are those of `OPTIONS` among its keyword parameters, whose defaults are
the model's own. Any other name is looked up in timm.
"""

import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import InputError
from datasets.pixels import Interpolation
from trainables.config import TrialConfig

if TYPE_CHECKING:  # torch takes seconds; which models there are is asked without it
    from torch import nn

OPTIONS = ("batch_norm", "width", "depth", "body_dropout", "activation", "pool_first")
"""Fields of `TrialConfig` that belong to bodies; at their defaults there they are as the model has them."""
OF_BODY = ("model", "image_size_px", "pooling", "defaults", *OPTIONS)
"""Fields of `TrialConfig` from which a body is built; `unfrozen_layers` is trained of it."""


@dataclass(frozen=True)
class Body:
    module: "nn.Module"
    """Maps normalised images (B, channels, size, size) to features (B, features); see `dense`. A backbone whose pooling
    is `flatten` gives a map of as many values, which the head flattens."""
    features: int
    mean: tuple[float, ...] = (0.0,)
    """Per channel (or one for all), subtracted from pixels in [0, 1]."""
    std: tuple[float, ...] = (1.0,)
    dense: bool = False
    """Whether it keeps a vector of features for every pixel, (B, features, size, size): for masks."""
    interpolation: Interpolation | None = None
    """With which images were resized in its pretraining; None where it had none, and takes what the others take."""


def is_own(model: str) -> bool:
    """Whether the model is a file of this package, trained from scratch, and not one of timm."""
    return model.isidentifier() and importlib.util.find_spec(f"{__name__}.{model}") is not None


def options_of(model: str) -> tuple[str, ...]:
    """Those of `OPTIONS` that a model leaves open; a backbone of timm none."""
    if not is_own(model):
        return ()
    parameters = inspect.signature(importlib.import_module(f"{__name__}.{model}").body).parameters
    return tuple(name for name in OPTIONS if name in parameters)


def build_body(model: str, channels: int, image_size_px: int, pooling: str, weights: str, **options: Any) -> Body:
    """A body with fresh or pretrained weights.

    options: values for some of `OPTIONS`. Raises `InputError` for an unknown model, for weights that do not fit, and
    for an option that is switched on, or a pooling, that the model does not leave open.
    """
    switched_on = {name: value for name, value in options.items() if value != getattr(TrialConfig, name)}
    left_open = options_of(model)
    for name, value in switched_on.items():
        if name not in left_open:
            knows = f"it has {', '.join(left_open)}" if left_open else "it has no options"
            must = getattr(TrialConfig, name)
            raise InputError(f"{name}={value!r}: {model} does not leave it open ({knows}); it must be {must!r}")
    if is_own(model):
        if pooling != TrialConfig.pooling:
            raise InputError(f"pooling={pooling!r}: {model} pools as it does; it must be {TrialConfig.pooling!r}")
        return importlib.import_module(f"{__name__}.{model}").body(channels, image_size_px, **switched_on)
    from trainables.backbones import backbone  # imports timm, which takes two seconds and only backbones need

    module, features, published = backbone(model, channels, image_size_px, pooling, weights)
    mean, std = tuple(published["mean"]), tuple(published["std"])
    if channels != 3:  # timm sums or repeats the first convolution's colours; what is none is normalised as their mean
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    interpolation = None if weights in ("none", "phantoms") else published["interpolation"]
    return Body(module, features, mean, std, interpolation=interpolation)


def check_size(model: str, image_size_px: int, smallest_px: int = 1, multiple_of: int = 1) -> None:
    """Raises `InputError` where a model cannot take images of this size."""
    if image_size_px < smallest_px:
        raise InputError(f"image_size_px={image_size_px}: {model} needs at least {smallest_px}")
    if image_size_px % multiple_of:
        nearest = max(1, round(image_size_px / multiple_of)) * multiple_of
        raise InputError(f"image_size_px={image_size_px}: {model} needs a multiple of {multiple_of}, such as {nearest}")
