"""A device's memory that does not suffice: what was attempted is done again in more and smaller parts.

A batch that is trained in parts, whose gradients add up, takes the same step of the optimizer as a whole one, but for
batch norm, which then knows the images of a part only (Ioffe and Szegedy 2015 take its statistics from what passes
through together).
"""

import gc
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import nn

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_OTHER_WORDS = (
    "CUDA error: out of memory",  # a kernel that is loaded when it is first called finds no room
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)
"""What memory that does not suffice is called where it is not a `torch.OutOfMemoryError`."""


class Before:
    """What an attempt changes although it fails: the random generators and the running statistics of layers.

    `keep` before the attempt and `put_back` after a failure: then nothing depends on how often it has failed.
    """

    def __init__(self, *networks: nn.Module):
        """networks: as they are set to training and evaluation now; statistics change in training only."""
        by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for network in networks:
            for module in network.modules():
                for buffer in module.buffers(recurse=False) if module.training else ():
                    by_dtype.setdefault(buffer.dtype, []).append(buffer)
        self._statistics = [(alike, [torch.empty_like(one) for one in alike]) for alike in by_dtype.values()]
        self._generators: list[torch.Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        self._generators = [torch.get_rng_state()]
        if torch.cuda.is_initialized():
            self._generators.append(torch.cuda.get_rng_state())
        for now, kept in self._statistics:
            torch._foreach_copy_(kept, now)  # on a GPU one kernel for all layers, and not one for each

    @torch.no_grad()
    def put_back(self) -> None:
        torch.set_rng_state(self._generators[0])
        if len(self._generators) > 1:
            torch.cuda.set_rng_state(self._generators[1])
        for now, kept in self._statistics:
            torch._foreach_copy_(now, kept)


class MicroBatch:
    """In how many parts the batches of a trial are trained: more from when memory does not suffice."""

    def __init__(self, parts: int = 1):
        self.parts = parts

    def fitting(self, attempt: Callable[[int], Result], largest: int, before: Before | None = None) -> Result:
        """As the function `fitting`, from the parts of the last time on."""
        result, parts = fitting(attempt, self.parts, largest, before)
        if parts > self.parts:
            log.warning(
                "out of memory: batches are trained in %d parts from here on, whose gradients add up; batch norm, if "
                "there is any, sees a part at a time",
                parts,
            )
            self.parts = parts
        return result


def fitting(
    attempt: Callable[[int], Result], parts: int, largest: int, before: Before | None = None
) -> tuple[Result, int]:
    """`attempt(parts)`, again with twice the parts each time that memory does not suffice, and the parts that did.

    attempt: must begin anew each time, gradients included, and keep nothing of what failed. largest: the most parts
    that make sense. before: puts back what failed attempts have changed; None: of the random generators only. Raises
    `torch.OutOfMemoryError`, with what to do, where `largest` parts are still too large.
    """
    before = before or Before()
    while True:
        before.keep()
        try:
            return attempt(parts), parts
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Only now does nobody hold the failed attempt's tensors: the traceback did.
        before.put_back()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if parts >= largest:
            raise torch.OutOfMemoryError(
                f"memory does not suffice even for the smallest parts of a batch: choose a smaller image_size_px, "
                f"fewer unfrozen_layers or a smaller model, or fewer trials at a time (--gpus-per-trial 1). "
                f"It said: {reason}"
            )
        parts = min(2 * parts, largest)


def evaluated(
    compute: Callable[[torch.Tensor], Result], rows: torch.Tensor, batch_size: int
) -> Iterator[tuple[torch.Tensor, Result]]:
    """Row numbers (N,) batch by batch, and what `compute` makes of them; batches are halved, from then on, where memory
    does not suffice. For what treats every image alone: then the size of a batch changes nothing but rounding."""
    done = 0
    while done < len(rows):
        attempt = partial(_evaluated_part, compute, rows[done : done + batch_size])
        (batch, result), parts = fitting(attempt, 1, batch_size)
        batch_size = -(-batch_size // parts)
        done += len(batch)
        yield batch, result


def _evaluated_part(
    compute: Callable[[torch.Tensor], Result], rows: torch.Tensor, parts: int
) -> tuple[torch.Tensor, Result]:
    """Of the first of so many parts of a batch."""
    part = rows[: -(-len(rows) // parts)]
    return part, compute(part)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of the machine, does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OTHER_WORDS)
    )
