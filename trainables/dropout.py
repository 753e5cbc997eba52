"""Dropout of the head, drawn from sixteen random bits per value.

torch's takes a whole number of its generator for each value; on a CPU that is most of what a small head costs.
"""

import math

import torch
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function_unary


class Dropout(nn.Dropout):
    """As torch's (Srivastava et al. 2014, scaled while training), with a probability rounded to 1 / 65,536."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return values
        return dropout(values, self.p)


def dropout(values: torch.Tensor, p: float) -> torch.Tensor:
    """Of values of any shape. As with torch's own functions, a `TorchFunctionMode` may do it in another way."""
    if has_torch_function_unary(values):
        dropped_by_mode: torch.Tensor = handle_torch_function(dropout, (values,), values, p)
        return dropped_by_mode
    return dropped(values, kept(values.shape, p, values.device), p)


def kept(
    shape: tuple[int, ...], p: float, device: torch.device | str, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Which values of a tensor are not dropped, bool; drawn from torch's generator unless another is given."""
    count = math.prod(shape)
    drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    bits = drawn.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    return (bits >= round(p * 2**16) - 2**15).view(shape)


def dropped(values: torch.Tensor, kept: torch.Tensor, p: float) -> torch.Tensor:
    return values * kept.to(values.dtype).div_(1 - p)
