"""One network trained by several processes, of which each computes a share of every batch.

    own = division(part)
    with own.of_whole:
        logits = network(inputs[own.rows])
    ...                                   # backward, of sums over images that are divided by those of the whole batch
    loss = added_up(loss, parameters)     # and their gradients

The batch stays that of the configuration, and what is learned is what one process learns, up to rounding. Every process
fetches, augments and mixes the whole batch, from the same random numbers, and computes its own rows of it; where images
of a batch know of each other it sees to that: batch norm takes mean and variance of the whole batch, forward and
backward (`torch.nn.SyncBatchNorm` does so on GPUs only), and dropout draws for the whole batch and takes its rows. Both
are put in place of torch's functions while the network is called, so it is the same for every model.

torch's DistributedDataParallel is not used. It takes the mean of the processes' gradients, which is that of the batch
only where all shares are equal and no image weighs more than another; it wants every process to have images in every
step; and it divides the parts of a batch (`accumulate`) in another way. What it has instead is that it adds up while
the backward pass still goes on.

Shapes: B images of a batch or a part of one, S of them a process's own; C channels.
"""

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trainables.dropout import dropout


def processes() -> int:
    """How many train together; 1 unless torch's process group has been initialised."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@dataclass(frozen=True)
class Division:
    """What a process does of a part of a batch."""

    rows: slice
    """Of the batch, those that it computes."""
    times: int
    """How many processes compute each of them."""
    of_whole: contextlib.AbstractContextManager[Any]
    """While it calls the network."""


def division(part: slice) -> Division:
    """Of these rows of a batch among the processes. Of fewer images than processes everyone computes all, as layers of
    no images are not what anybody has tried."""
    count, images = processes(), part.stop - part.start
    if count == 1:
        return Division(part, 1, contextlib.nullcontext())
    if images < count:
        return Division(part, count, contextlib.nullcontext())
    start, end = (images * place // count for place in (distributed.get_rank(), distributed.get_rank() + 1))
    return Division(slice(part.start + start, part.start + end), 1, _OfWhole(images, start, end))


def added_up(loss: torch.Tensor, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """A loss (scalar) and the gradients of parameters, which are replaced, over all processes; in all the same bits."""
    if processes() == 1:
        return loss
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    distributed.all_reduce(flat)
    sums = flat[1:].split([gradient.numel() for gradient in gradients])
    for gradient, of_all in zip(gradients, sums, strict=True):
        gradient.copy_(of_all.view_as(gradient))
    return flat[0].clone()


_BY_CHANNEL = (F.dropout1d, F.dropout2d, F.dropout3d)
"""They drop whole channels of an image."""


class _OfWhole(TorchFunctionMode):
    """Functions that are not of each image alone are those of the whole (part of a) batch meanwhile."""

    def __init__(self, images: int, start: int, end: int):
        """images: B; start, end: those that are this process's own."""
        super().__init__()
        self._images, self._start, self._end = images, start, end

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func in (dropout, F.dropout, *_BY_CHANNEL):
            return self._dropped(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _dropped(
        self,
        func: Callable[..., torch.Tensor],
        values: torch.Tensor,
        p: float,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        """What the function would have left of the values in the whole batch: drawn for ones that lie in memory as
        they would, as it is in this order that numbers are drawn."""
        if not training or p == 0:
            return values
        each, rest = divmod(len(values), self._end - self._start)
        assert not rest, "the first dimension is that of the images"
        images = each * self._images
        if func in _BY_CHANNEL:
            ones = values.new_ones(images, values.shape[1], *[1] * (values.ndim - 2))
        else:
            strides = torch.empty_like(values).stride()[1:]
            of_image = math.prod(values.shape[1:])
            ones = values.detach().new_empty_strided((images, *values.shape[1:]), (of_image, *strides)).fill_(1)
        return values * func(ones, p=p)[each * self._start : each * self._end]


def _batch_norm(
    values: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """As torch's, with the statistics of the values of all processes."""
    if not training or running_mean is None or running_var is None:  # it may standardise weights, which have none
        return F.batch_norm(values, running_mean, running_var, weight, bias, training, momentum, eps)
    count, mean_C, variance_C = _statistics(values.detach())
    running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
    running_var.lerp_((variance_C * (count / (count - 1))).to(running_var.dtype), momentum)
    normalised: torch.Tensor = _Normalised.apply(values, weight, bias, mean_C, variance_C, count, eps)
    return normalised


def _statistics(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number of values of a channel in all processes, scalar, their mean and their (biased) variance, (C,), float64.

    From the numbers, means and variances of each process (Chan et al. 1979, eq. 2.1): one exchange, and as exact as
    that of all at once, which a mean of squares would not be.
    """
    variance_C, mean_C = torch.var_mean(values.float(), _but_channels(values), correction=0)
    own = torch.cat([mean_C, variance_C, mean_C.new_tensor([values.numel() / values.shape[1]])]).double()
    gathered = [torch.empty_like(own) for _ in range(processes())]
    distributed.all_gather(gathered, own)
    of_each = torch.stack(gathered)
    counts, means, variances = of_each[:, -1:], *of_each[:, :-1].chunk(2, dim=1)
    count = counts.sum()
    mean_C = (counts * means).sum(0) / count
    variance_C = (counts * (variances + (means - mean_C) ** 2)).sum(0) / count
    return count, mean_C, variance_C


class _Normalised(torch.autograd.Function):
    """Values less the mean over the standard deviation, times weight plus bias (Ioffe and Szegedy 2015, algorithm 1).
    Mean and variance are those of the values of all processes, and so is what the backward pass sends through them."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        weight_C: torch.Tensor | None,
        bias_C: torch.Tensor | None,
        mean_C: torch.Tensor,
        variance_C: torch.Tensor,
        count: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        scale_C = (variance_C + eps).rsqrt().float()
        mean_C, variance_C = mean_C.float(), variance_C.float()
        ctx.save_for_backward(values, weight_C, mean_C, scale_C, count)
        return F.batch_norm(values, mean_C, variance_C, weight_C, bias_C, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of weight and bias are of this process's values, as those of every parameter are."""
        values, weight_C, mean_C, scale_C, count = ctx.saved_tensors
        gradient, but_channels = gradients[0].float(), _but_channels(values)
        along = [1, -1, *[1] * (values.ndim - 2)]
        standardised = (values.float() - mean_C.view(along)) * scale_C.view(along)
        of_bias_C = gradient.sum(but_channels)
        of_weight_C = (gradient * standardised).sum(but_channels)
        of_values = None
        if ctx.needs_input_grad[0]:
            sums = torch.cat([of_bias_C, of_weight_C])
            distributed.all_reduce(sums)
            mean_gradient_C, mean_product_C = (sums / count.float()).chunk(2)
            factor_C = scale_C if weight_C is None else scale_C * weight_C
            of_values = gradient - mean_gradient_C.view(along) - standardised * mean_product_C.view(along)
            of_values = (of_values * factor_C.view(along)).to(values.dtype)
        wanted = (weight_C is not None, ctx.needs_input_grad[2])
        return (of_values, of_weight_C if wanted[0] else None, of_bias_C if wanted[1] else None, *[None] * 4)


def _but_channels(values: torch.Tensor) -> list[int]:
    """Every dimension but the second."""
    return [0, *range(2, values.ndim)]
