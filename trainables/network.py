"""A body, a head, and the line between what is frozen and what is trained.

Shapes: B images of a batch, C channels, H height, W width, D features, K outputs.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import fx, nn

from trainables.config import TrialConfig
from trainables.models import OPTIONS, Body, build_body, is_own


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
    return dataclasses.replace(body, module=copy.deepcopy(body.module))


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
        torch.manual_seed(seed)
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
        torch.manual_seed(seed)
        for width in config.dense_widths:
            # A bias before batch norm changes nothing; Keras has one.
            layers.append(linear(features, width, bias=as_keras or not config.dense_batch_norm))
            if config.dense_batch_norm:
                layers.append(batch_norm(width))
            layers += [nn.ReLU(), nn.Dropout(config.dropout)]
            features = width
        if not config.dense_widths:
            layers.append(nn.Dropout(config.dropout))
        elif config.last_dropout is not None:
            layers[-1] = nn.Dropout(config.last_dropout)
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
    dropouts = [layer for layer in body.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    order: dict[nn.Module, None] = {}
    handles = [
        layer.register_forward_pre_hook(lambda module, _: order.setdefault(module)) for layer in parametrised + dropouts
    ]
    body.eval()
    with torch.inference_mode():
        body(torch.zeros(1, *image_shape, device=next(body.parameters()).device))
    for handle in handles:
        handle.remove()
    executed = [layer for layer in order if layer not in dropouts]
    trained = executed[max(0, len(executed) - unfrozen_layers) :]
    for layer in parametrised:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(layer in trained)
    for layer in order:
        if layer in trained:
            break
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0


def cut(body: nn.Module, image_shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module, str] | None:
    """Split a frozen body into a prefix that no training changes and the tail after it: `body(x) == tail(prefix(x))`.

    The cut is the last place, at or before the first trainable layer, where a single tensor with the images along its
    first dimension crosses; frozen layers between the two stay in the tail. Also returns the place's name. None where
    nothing is frozen, or where the network cannot be traced or has no such place: it is then trained whole.
    """
    if all(parameter.requires_grad for parameter in body.parameters()):
        return None
    try:
        graph = _LayerTracer().trace(body)
    except Exception:  # whatever a model's Python does to fx: control flow on values, unpacking of proxies, …
        return None
    # What is left of modules whose tracing was given up. Nothing here has a purpose besides its value.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    first_trained = next(
        (index for index, node in enumerate(nodes) if _is_trained(body, node)),
        len(nodes) - 1,  # the output
    )
    for place in range(first_trained, 0, -1):
        crossing = [node for node in nodes[:place] if last_use[node] >= place and node.op != "get_attr"]
        if len(crossing) == 1 and crossing[0].op != "placeholder":
            prefix = _part(body, nodes[:place], None, crossing[0])
            if _gives_images(prefix, image_shape):
                return prefix, _part(body, nodes[place:], crossing[0], None), crossing[0].name
    return None


def weights_digest(module: nn.Module) -> str:
    """Of every parameter and running statistic; sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Trainable and total."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _all_frozen(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether there are any, and none is trained."""
    trained = [parameter.requires_grad for parameter in parameters]
    return bool(trained) and not any(trained)


def _parametrised(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None]


class _LayerTracer(fx.Tracer):
    """Takes every module with parameters or statistics of its own as one step, torch's and timm's alike."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """A module that decides on values when it runs (a head that pads small maps) is one step as well."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except fx.proxy.TraceError:
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = next(m.parameters(recurse=False), None) is not None or next(m.buffers(recurse=False), None) is not None
        return own or super().is_leaf_module(m, module_qualified_name)


def _is_trained(body: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(parameter.requires_grad for parameter in body.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(body.get_submodule(owner), name)
        return isinstance(value, nn.Parameter) and value.requires_grad
    return False


def _part(body: nn.Module, nodes: list[fx.Node], given: fx.Node | None, result: fx.Node | None) -> fx.GraphModule:
    """These nodes as a network, sharing the body's layers; `given` becomes its input, `result` its output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if given is not None:
        copies[given] = graph.placeholder("features")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            assert node.op == "get_attr", node  # the only values that may be fetched on both sides
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in nodes:
        if node.op != "get_attr":
            copies[node] = graph.node_copy(node, copied)
    if result is not None:
        graph.output(copies[result])
    part = fx.GraphModule(body, graph)
    part.eval()
    return part


def _gives_images(prefix: nn.Module, image_shape: tuple[int, ...]) -> bool:
    device = next(prefix.parameters()).device if next(prefix.parameters(), None) is not None else "cpu"
    with torch.inference_mode():
        features = prefix(torch.zeros(2, *image_shape, device=device))
    return isinstance(features, torch.Tensor) and features.ndim >= 2 and features.shape[0] == 2
