"""Where a network looks: Grad-CAM on the last map of features before its pooling (Selvaraju et al. 2017).

The map is found by looking: of all modules that are called, the last one whose output still has places. It serves
convolutional bodies and those of transformers alike, whose tokens are put back where their patches were.

Shapes: B images of a batch, C channels, H height, W width; D features and h x w places of the map, T tokens.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from datasets import InputError

BATCH = 32


@dataclass(frozen=True)
class FeatureMap:
    """The output of a module in which places can be told apart."""

    name: str
    """Of the module, in its network."""
    layout: str
    """How its output is laid out: `BDhw`, `BhwD` or `BTD`."""
    side: int
    """h and w: images are squares."""
    prefix_tokens: int = 0
    """Of `BTD`: tokens before those of the patches."""

    def as_map(self, output: torch.Tensor) -> torch.Tensor:
        """(B, D, h, w)."""
        if self.layout == "BDhw":
            return output
        if self.layout == "BhwD":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, (self.side, self.side))

    def with_map(self, output: torch.Tensor, map_BDhw: torch.Tensor) -> torch.Tensor:
        """The output with that map in the place of its own; the other way round of `as_map`."""
        if self.layout == "BDhw":
            return map_BDhw.clone()  # what follows may change it in place
        if self.layout == "BhwD":
            return map_BDhw.permute(0, 2, 3, 1).clone()
        return torch.cat([output[:, : self.prefix_tokens], map_BDhw.flatten(2).transpose(1, 2)], dim=1)


def last_map(network: nn.Module, image_1CHW: torch.Tensor) -> FeatureMap:
    """The last output of a module of the network that has places, two by two at least.

    network: in eval mode. image_1CHW: any image as it takes them. Raises `InputError` where there is none, as in a
    perceptron.
    """
    channels_last = any(getattr(module, "output_fmt", None) == "NHWC" for module in network.modules())  # timm's word
    prefix_tokens = max((getattr(module, "num_prefix_tokens", 0) for module in network.modules()), default=0)
    found: list[FeatureMap] = []

    def look(name: str, output: object) -> None:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return
        if output.ndim == 4:
            side = output.shape[1 if channels_last else 2]
            square = output.shape[2 if channels_last else 3] == side
            if square and side >= 2:
                found.append(FeatureMap(name, "BhwD" if channels_last else "BDhw", side))
        elif output.ndim == 3:
            side = math.isqrt(max(output.shape[1] - prefix_tokens, 0))
            if side >= 2 and side**2 + prefix_tokens == output.shape[1]:
                found.append(FeatureMap(name, "BTD", side, prefix_tokens))

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: look(name, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(image_1CHW)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError(
            "this network keeps no map of its images that could show where it looks; a convolutional one does"
        )
    return found[-1]


def saliency(
    network: nn.Module, images_BCHW: torch.Tensor, target_B: torch.Tensor, outputs: slice = slice(None)
) -> np.ndarray:
    """What speaks for a class, and where: float32 (B, H, W), 0 where nothing does; only comparable within an image.

    network: images to logits (B, K), in eval mode. target_B: the class in question for each image. outputs:
    which of the logits are about it, where there are several targets; one logit is that of the second of two classes.

    Raises `InputError` where the network keeps no places, see `last_map`.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # takes a second

    place = last_map(network, images_BCHW[:1])

    def evidence(images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        logits_BK = network(images)[:, outputs].float()
        if logits_BK.shape[1] == 1:
            return logits_BK[:, 0] * (2 * classes - 1)
        return logits_BK.gather(1, classes[:, None])[:, 0]

    parts = []
    with _exposed(network, place) as crossing, torch.enable_grad():
        gradcam = LayerGradCam(evidence, crossing)
        for images, classes in zip(images_BCHW.split(BATCH), target_B.to(images_BCHW.device).split(BATCH), strict=True):
            of_places = gradcam.attribute(images, additional_forward_args=(classes,), relu_attributions=True)
            of_pixels = LayerAttribution.interpolate(of_places.detach(), tuple(images.shape[2:]), "bilinear")
            parts.append(of_pixels[:, 0].float().cpu().numpy())
    return np.concatenate(parts)


@contextlib.contextmanager
def _exposed(network: nn.Module, place: FeatureMap) -> Iterator[nn.Module]:
    """A module through which the map passes as (B, D, h, w). Gradients begin there: what comes before is not kept."""
    crossing = nn.Identity()

    def through(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        map_BDhw = place.as_map(output).detach().requires_grad_()
        return place.with_map(output.detach(), crossing(map_BDhw))

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    handle = network.get_submodule(place.name).register_forward_hook(through)
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield crossing
    finally:
        handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
