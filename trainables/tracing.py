"""The steps of a body, as a graph that can be taken apart.

A body is traced by running it once on tensors without memory (torch's `meta` device), noting every torch function and
every layer that is called. So its Python meets real tensors and real sizes, and what it computes from sizes is constant
by then. Only the number of images must stay open: the body is traced with a prime number of images that no other size
is a multiple of, and a multiple of it stands for the number of images wherever it appears.
"""

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

IMAGES = 10_007
"""Images of the batch that is traced: a prime above all channels, and 3 modulo 4, so that no n x n + 1 is a multiple
either, the tokens of a vision transformer."""


SAME_SHAPE = frozenset(
    {F.batch_norm, F.layer_norm, F.group_norm, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid, F.silu, F.gelu}
)
"""Functions that give a tensor of the shape of the first that they are given: on the meta device they are slow."""


class Untraceable(Exception):
    """Why a body, or a module of it, cannot be traced."""


def trace(body: nn.Module, image_shape: tuple[int, ...]) -> fx.Graph:
    """The steps of a body, which is left in eval mode, for images of that size in any number and on any device.

    One step is a layer: of torch's, or with parameters or statistics of its own and no blocks of other layers in it. So
    is a torch function that is called outside of these; and a module that cannot be traced further, because it decides
    on values or on the type of numbers, or switches mixed precision or gradients itself. Raises `Untraceable`.
    """
    body.eval()
    try:
        return _Recorder(body).graph_of(image_shape)
    except Exception as error:  # whatever a model's Python does with its values
        message = str(error).strip().partition("\n")[0]
        raise Untraceable(
            message if isinstance(error, Untraceable) else f"{type(error).__name__}: {message}"
        ) from error


class _Recorder(TorchFunctionMode):
    """Notes what a body does with its images while it runs on the meta device."""

    def __init__(self, body: nn.Module):
        self._body = body
        self._graph = fx.Graph()
        self._tensors: dict[int, tuple[torch.Tensor, fx.Node, int]] = {}
        """By identity, the tensors of the body, the steps that they come from, and their version then."""
        self._in_step = False
        self._copy = _without_memory(body)
        self._attributes = {
            id(tensor): (name, tensor) for name, tensor in (*self._copy.named_parameters(), *self._copy.named_buffers())
        }
        for path, module in list(self._copy.named_modules()):
            if path:
                module.forward = self._noting(path, module)

    def graph_of(self, image_shape: tuple[int, ...]) -> fx.Graph:
        given = self._graph.placeholder("images")
        self._number = self._graph.call_method("size", (given, 0))
        self._device = self._graph.call_function(getattr, (given, "device"))
        self._number.meta["constant"] = self._device.meta["constant"] = True
        with ExitStack() as modes:
            for device, there in (("cpu", True), ("cuda", torch.cuda.is_available())):
                modes.enter_context(torch.autocast(device, torch.bfloat16, enabled=there))
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            self._modes = _modes()
            images = torch.empty(IMAGES, *image_shape, device="meta")
            self._know(images, given)
            modes.enter_context(self)
            result = self._copy(images)
        self._graph.output(map_aggregate(result, self._argument))
        # What in-place steps changed was made to depend on them, so what nothing depends on has no purpose.
        self._graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        for tensor, node, _ in self._tensors.values():  # one that was changed in place: from its last step
            shape = tuple(tensor.shape)
            node.meta["shape"] = shape
            of_images = len(shape) >= 2 and shape[0] == IMAGES and all(size % IMAGES for size in shape[1:])
            node.meta["whole"] = of_images and tensor.is_floating_point()
        return self._graph

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in SAME_SHAPE and self._in_step:
            return args[0].zero_() if kwargs.get("inplace") else torch.empty_like(args[0])
        if self._in_step:
            return func(*args, **kwargs)
        name = (func.__self__ if func.__name__ == "__get__" else func).__name__.strip("_")
        if name == "dtype":
            raise Untraceable("it asks for the type of numbers, which mixed precision changes")
        if _modes() != self._modes:
            raise Untraceable("it switches mixed precision or gradients")
        before = _versions(args, kwargs)
        result = func(*args, **kwargs)
        changed = _versions(args, kwargs) != before
        if not changed and not _versions(result):
            return result  # a size, a device: constant, or a multiple of IMAGES
        taken, named = self._arguments(args, kwargs)
        if func.__name__ == "__get__":
            node = self._graph.call_function(getattr, (*taken, name))
        elif getattr(torch.Tensor, func.__name__, None) == func:
            node = self._graph.create_node("call_method", func.__name__, taken, named, name=name)
        else:
            node = self._graph.create_node("call_function", func, taken, named, name=name)
        return self._noted(node, result, changed)

    def _noting(self, path: str, module: nn.Module) -> Callable[..., Any]:
        """The module's forward pass, noted as one step or as those that it consists of."""
        forward = module.forward
        has_own = any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
        of_blocks = any(any(True for _ in child.children()) for child in module.children())
        of_torch = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        one_step = of_torch or (has_own and not of_blocks)

        def noting(*args: Any, **kwargs: Any) -> Any:
            if self._in_step or isinstance(module, nn.Identity):
                return forward(*args, **kwargs)
            if not one_step:
                tensors = dict(self._tensors)
                try:
                    return forward(*args, **kwargs)
                except Exception:  # whatever its Python does with its values
                    self._tensors = tensors  # nothing depends on the steps that were noted until then
            with self._one_step():
                before, taken = _versions(args, kwargs), self._arguments(args, kwargs)
                try:
                    result = forward(*args, **kwargs)
                except Exception:  # it decides on values, which there are none of
                    result = self._by_computing(path, args, kwargs)
                node = self._graph.create_node("call_module", path, *taken)
                return self._noted(node, result, _versions(args, kwargs) != before)

        return noting

    @contextmanager
    def _one_step(self) -> Iterator[None]:
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def _by_computing(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """What a module gives for real zeros, of two numbers of images so that sizes that grow with it are found."""
        module = self._body.get_submodule(path)
        device = next((tensor.device for tensor in self._body.parameters()), torch.device("cpu"))

        def shape(images: int) -> torch.Size:
            def real(value: Any) -> Any:
                if isinstance(value, torch.Tensor):
                    sizes = [images * (size // IMAGES) if size % IMAGES == 0 else size for size in value.shape]
                    return torch.zeros(sizes, dtype=value.dtype, device=device)
                return images * (value // IMAGES) if type(value) is int and value % IMAGES == 0 else value

            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                return module(*map_aggregate(args, real), **map_aggregate(kwargs, real)).shape

        sizes = [few + (more - few) * (IMAGES - 2) for few, more in zip(shape(2), shape(3), strict=True)]
        return torch.empty(sizes, device="meta")

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return map_aggregate(args, self._argument), map_aggregate(kwargs, self._argument)

    def _argument(self, value: Any) -> Any:
        """As the graph has it: a tensor is the step that it comes from."""
        if isinstance(value, torch.Tensor):
            if id(value) in self._attributes and id(value) not in self._tensors:
                self._know(value, self._graph.get_attr(self._attributes[id(value)][0]))
            if id(value) not in self._tensors:
                raise Untraceable("it uses a tensor that comes from none of its steps")
            return self._tensors[id(value)][1]
        if isinstance(value, torch.device) and value.type == "meta":
            return self._device
        if type(value) is int and value and value % IMAGES == 0:
            product = self._graph.call_function(operator.mul, (self._number, value // IMAGES))
            product.meta["constant"] = True
            return product
        return value

    def _know(self, tensor: torch.Tensor, step: fx.Node) -> None:
        self._tensors[id(tensor)] = (tensor, step, tensor._version)

    def _noted(self, node: fx.Node, result: Any, changed: bool = False) -> Any:
        """The result, whose tensors are known to come from this step. changed: whether it changed some in place."""
        if isinstance(result, torch.Tensor):
            known = self._tensors.get(id(result))
            if id(result) in self._attributes or (known and known[2] == result._version):
                result = result.view_as(result)  # given back as it was, as by dropout: from here on another tensor
            self._know(result, node)
        elif isinstance(result, tuple | list):
            parts = [
                self._noted(self._graph.call_function(operator.getitem, (node, index)), part)
                if _versions(part)
                else part
                for index, part in enumerate(result)
            ]
            if any(part is not before for part, before in zip(parts, result, strict=True)):
                result = type(result)(parts)
        if changed:
            for tensor, step, version in list(self._tensors.values()):
                if tensor._version != version:
                    self._know(tensor, self._graph.call_function(operator.getitem, ((step, node), 0)))
        return result


def _without_memory(body: nn.Module) -> nn.Module:
    """A copy on the meta device."""
    copies: dict[int, Any] = {}
    for parameter in body.parameters():
        copies[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in body.buffers():
        copies[id(buffer)] = buffer.to("meta")
    for module in body.modules():  # a dozen empty dictionaries of hooks each, which would be most of the work
        copies |= {id(value): type(value)() for value in vars(module).values() if isinstance(value, dict) and not value}
    return copy.deepcopy(body, copies)


def _modes() -> tuple[bool, bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"), torch.is_grad_enabled()


def _versions(*values: Any) -> list[int]:
    """How often each of these tensors has been changed in place."""
    found: list[int] = []
    map_aggregate(values, lambda value: found.append(value._version) if isinstance(value, torch.Tensor) else None)
    return found
