"""A body, a head, and the line between what is frozen and what is trained.

Shapes: B images of a batch, C channels, H height, W width, D features, K outputs.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import nn

from trainables.config import TrialConfig
from trainables.dropout import Dropout
from trainables.models import OPTIONS, Body, build_body, is_own
from trainables.seeding import seed_generators

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Network(nn.Module):
    """Normalised images (B, C, H, W) to logits (B, K), of a dense body (B, K, H, W); `body` and `head` are its two
    parts."""

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images_BCHW))

    def train(self, mode: bool = True) -> "Network":
        """As torch's, but a layer whose parameters are frozen stays in eval mode: its batch norm uses, and keeps, the
        stored statistics."""
        super().train(mode)
        for module in self.modules():
            if module is self:
                continue
            if _all_frozen(module.parameters()):
                module.eval()  # with its dropout and its batch norm without parameters
            elif _all_frozen(module.parameters(recurse=False)):
                module.training = False  # but not the layers inside, some of which are trained
        return self


def pristine_body(config: TrialConfig, channels: int, weights: str, seed: int) -> Body:
    """The body every fold and every trial of this model starts from: pretrained, or random from `seed`."""
    options = tuple((name, getattr(config, name)) for name in OPTIONS)
    of_config = (config.image_size_px, config.pooling, weights, options, config.defaults == "keras")
    body = _pristine_body(config.model, channels, *of_config, seed=seed)
    return dataclasses.replace(body, module=copied(body.module))


@lru_cache(maxsize=2)
def _pristine_body(
    model: str,
    channels: int,
    image_size_px: int,
    pooling: str,
    weights: str,
    options: tuple[tuple[str, Any], ...],
    as_keras: bool,
    seed: int,
) -> Body:
    with torch.random.fork_rng(devices=[]):
        seed_generators(seed)
        body = build_body(model, channels, image_size_px, pooling, weights, **dict(options))
        if as_keras and is_own(model):
            _begin_as_keras(body.module)
        return body


def network_size(config: TrialConfig, channels: int, classes: int, further: Sequence[int] = ()) -> tuple[int, int]:
    """Trainable and total parameters of a configuration's network; `further`: the classes of each further target."""
    body = frozen_body(config, channels, weights="none", seed=0)
    outputs = sum(map(outputs_for, (classes, *further)))
    return parameter_counts(Network(body.module, build_head(config, body.features, outputs, 0, body.dense)))


def frozen_body(config: TrialConfig, channels: int, weights: str, seed: int) -> Body:
    """The pristine body, with only its unfrozen layers trainable."""
    body = pristine_body(config, channels, weights, seed)
    freeze(body.module, config.unfrozen_layers, (channels, config.image_size_px, config.image_size_px))
    return body


def outputs_for(classes: int) -> int:
    """Of the head, for a target: one for two classes, the logit of the second; else one per class."""
    return 1 if classes == 2 else classes


def build_head(config: TrialConfig, features: int, outputs: int, seed: int, dense: bool = False) -> nn.Sequential:
    """Per dense layer: linear, batch norm if wanted, ReLU, dropout; then a linear layer to the logits.

    features: D, of the body, which are flattened first where its pooling leaves that to do. outputs: K. dense: the same
    for every pixel of a map of features (1 x 1 convolutions).
    """
    as_keras = config.defaults == "keras"
    layers: list[nn.Module] = [nn.Flatten()] if config.pooling == "flatten" and not dense else []
    linear: Callable[..., nn.Module] = partial(nn.Conv2d, kernel_size=1) if dense else nn.Linear
    batch_norm = nn.BatchNorm2d if dense else nn.BatchNorm1d
    with torch.random.fork_rng(devices=[]):
        seed_generators(seed)
        for width in config.dense_widths:
            # A bias before batch norm changes nothing; Keras has one.
            layers.append(linear(features, width, bias=as_keras or not config.dense_batch_norm))
            if config.dense_batch_norm:
                layers.append(batch_norm(width))
            layers += [nn.ReLU(), Dropout(config.dropout)]
            features = width
        if not config.dense_widths:
            layers.append(Dropout(config.dropout))
        elif config.last_dropout is not None:
            layers[-1] = Dropout(config.last_dropout)
        layers.append(linear(features, outputs))
        head = nn.Sequential(*layers)
        if as_keras:
            _begin_as_keras(head)
    return head


def _begin_as_keras(network: nn.Module) -> None:
    """Weights from Glorot's uniform distribution (Glorot and Bengio 2010, equation 16), biases of zero, and batch norm
    with Keras' momentum of 0.99 (of the old value; 0.01 of the new in torch's terms) and epsilon of 1e-3."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum, layer.eps = 0.01, 1e-3


def freeze(body: nn.Module, unfrozen_layers: int | None, image_shape: tuple[int, ...]) -> None:
    """Leave only the last n parametrised layers trainable, in the order in which they are executed.

    image_shape: (C, H, W). Parameters that stand outside any layer, as a transformer's position embedding at its root,
    count as the first layer. Dropout before the first layer that is trained is switched off with the frozen ones.
    """
    if unfrozen_layers is None or next(body.parameters(), None) is None:
        return
    parametrised = _parametrised(body)
    device = next(body.parameters()).device
    order = execution_order(body, torch.zeros(1, *image_shape, device=device))
    executed = [layer for layer in order if layer in parametrised]
    trained = set(executed[max(0, len(executed) - unfrozen_layers) :])
    for layer in parametrised:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(layer in trained)
    for layer in order:
        if layer in trained:
            break
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0


def execution_order(body: nn.Module, inputs: torch.Tensor) -> list[nn.Module]:
    """Every module that is called, containers before what is in them, in the order of their first calls.

    inputs: any batch that the body takes, which is left in eval mode.
    """
    order: dict[nn.Module, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, _: order.setdefault(module)) for module in body.modules()
    ]
    body.eval()
    try:
        with torch.no_grad():
            body(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Of names, shapes, types and values; sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Trainable and total."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def copied(module: AnyModule) -> AnyModule:
    """As `copy.deepcopy`, of whose time a third goes into a dozen empty dictionaries of hooks in each module."""
    empty = [value for part in module.modules() for value in vars(part).values() if isinstance(value, dict)]
    return copy.deepcopy(module, {id(value): type(value)() for value in empty if not value})


def _all_frozen(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether there are any, and none is trained."""
    trained = [parameter.requires_grad for parameter in parameters]
    return bool(trained) and not any(trained)


def _parametrised(module: nn.Module) -> set[nn.Module]:
    return {layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None}
