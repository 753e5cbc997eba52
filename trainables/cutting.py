"""Cutting a body into a prefix that no training changes, whose features can be stored, and the tail after it."""

import logging
import operator
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import fx, nn
from torch.fx.node import Argument, map_aggregate

from trainables.tracing import Untraceable, trace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Between two steps of a body, where a single tensor crosses that holds all that is known of the images."""

    name: str
    """Of the step before it."""
    shape: tuple[int, ...]
    """Of the crossing tensor for one image."""
    step: fx.Node = field(repr=False)
    """That step, in the graph of the whole body."""


def places(body: nn.Module, image_shape: tuple[int, ...], graph: fx.Graph | None = None) -> list[Place]:
    """Every place at or before the first trained layer of a body where a single tensor crosses, the images along its
    first dimension, from the input on: the last is where to cut. [] where nothing is frozen, and where there is none;
    a warning says once why a body that is frozen in part cannot be cut.

    image_shape: (C, H, W). graph: the body's, from `trace`; it does not depend on what is frozen.
    """
    if all(parameter.requires_grad for parameter in body.parameters()):
        return []
    try:
        graph = graph or trace(body, image_shape)
    except Untraceable as error:
        _warn(type(body).__name__, str(error))
        return []
    steps = _frozen_steps(body, graph)
    last_use = {
        step: max((steps.get(user, len(steps)) for user in step.users if not user.meta.get("constant")), default=-1)
        for step in steps
    }
    found: dict[fx.Node, Place] = {}
    crossing: set[fx.Node] = set()
    for step, index in steps.items():
        crossing = {before for before in (*crossing, step) if last_use[before] > index}
        if len(crossing) == 1:
            (alone,) = crossing
            if alone.op != "placeholder" and alone.meta.get("whole"):
                found.setdefault(alone, Place(alone.name, alone.meta["shape"][1:], alone))
    if not found and any(_has_parameters(body, step) for step in steps):
        _warn(type(body).__name__, "no single tensor crosses before its first trained layer")
    return list(found.values())


def between(body: nn.Module, start: Place | None, end: Place | None) -> fx.GraphModule:
    """The part of a body between two places, in eval mode and with the body's own layers; None: the images, the output.

    body: that of `places`, or a copy of it. At least one place must be given.
    """
    place = start or end
    assert place is not None, "that is the whole body"
    whole = place.step.graph
    images = next(iter(whole.nodes))
    given = images if start is None else start.step
    result = whole.output_node().args[0] if end is None else end.step

    needed = _leading_to(result, {given, images})
    part = fx.Graph()
    features = part.placeholder("images" if start is None else "features")
    copies = {given: features, images: features}  # of the images only their number and device are asked for later
    for node in whole.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(map_aggregate(result, lambda value: copies[value] if isinstance(value, fx.Node) else value))
    module = fx.GraphModule(body, part)
    module.eval()
    return module


def cut(body: nn.Module, image_shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module, str] | None:
    """Split a frozen body into a prefix that no training changes and the tail after it: `body(x) == tail(prefix(x))`.

    The cut is the last of `places`; frozen layers between it and the first trained one stay in the tail. Also returns
    its name. None where there is no place: the body is then trained whole.
    """
    found = places(body, image_shape)
    if not found:
        return None
    return between(body, None, found[-1]), between(body, found[-1], None), found[-1].name


def steps_before(graph: fx.Graph, place: Place | None) -> list[fx.Node]:
    """Those that what crosses there comes from, in the order of execution; None: that the output comes from."""
    needed = _leading_to(graph.output_node().args[0] if place is None else place.step, set())
    return [node for node in graph.nodes if node in needed]


def described(body: nn.Module, step: fx.Node) -> tuple[str, dict[str, torch.Tensor]]:
    """What a step does, in words that are the same in every process, and its weights."""
    target = step.target if isinstance(step.target, str) else fx.node._get_qualified_name(step.target)
    words = f"{step.name} {step.op} {target} {step.args} {step.kwargs}"
    if step.op == "call_module":
        module = body.get_submodule(target)
        return f"{words} {module}", module.state_dict()
    if step.op == "get_attr":
        return words, {"": operator.attrgetter(target)(body)}
    return words, {}


def _leading_to(result: Argument, given: set[fx.Node]) -> set[fx.Node]:
    """The steps that a result comes from, up to what is given."""
    needed: set[fx.Node] = set()
    asked: list[fx.Node] = []
    map_aggregate(result, lambda value: asked.append(value) if isinstance(value, fx.Node) else None)
    while asked:
        node = asked.pop()
        if node not in needed and node not in given:
            needed.add(node)
            asked += node.all_input_nodes
    return needed


def _frozen_steps(body: nn.Module, graph: fx.Graph) -> dict[fx.Node, int]:
    """Those that depend on the images, before the first that is trained, or before the output; and their order."""
    trained: set[fx.Node] = set()
    steps: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if _is_trained(body, node) or not trained.isdisjoint(inputs):
            trained.add(node)
        if node.op == "placeholder" or (not node.meta.get("constant") and any(before in steps for before in inputs)):
            if node in trained or node.op == "output":
                break
            steps[node] = len(steps)
    return steps


def _is_trained(body: nn.Module, node: fx.Node) -> bool:
    return any(parameter.requires_grad for parameter in _parameters(body, node))


def _has_parameters(body: nn.Module, node: fx.Node) -> bool:
    return bool(_parameters(body, node))


def _parameters(body: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    if node.op == "call_module":
        return list(body.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(body)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


@cache
def _warn(model: str, reason: str) -> None:
    """Once per process."""
    log.warning("%s cannot be cut (%s): trained whole", model, reason)
