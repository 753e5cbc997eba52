"""The parts of `benchmarks.gpu` in which several small networks are trained as one: tails of folds, heads of trials."""

import copy
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.gpu_setting import Row, Setting, measured_step, peak_mb

TAIL_WIDTHS = (96, 160)
"""Channels of a small tail: two separable convolutions, as the last block of a MobileNet has them."""


def tails(setting: Setting) -> Iterator[Row]:
    """A step of k small convolutional tails on stored features: in turn, and over the folds at once by `torch.func`.

    Group norm in place of batch norm, whose running statistics `torch.func` cannot update.
    """
    for k in (3, 5, 10):
        torch.manual_seed(0)
        networks = [_tail(setting).to(setting.device).train() for _ in range(k)]
        shape = (k, setting.batch_size, TAIL_WIDTHS[0], 7, 7)
        features_kBCHW = torch.randn(shape, device=setting.device)
        truth_kB1 = torch.randint(2, (k, setting.batch_size, 1), device=setting.device).float()
        for words, step in (
            ("in turn", _in_turn(networks, features_kBCHW, truth_kB1)),
            ("vmap", _at_once(networks, features_kBCHW, truth_kB1)[1]),
        ):
            yield Row(f"k = {k}, {words}", *measured_step(setting, step), "ms per step")


def _tail(setting: Setting) -> nn.Sequential:
    before, after = TAIL_WIDTHS
    return nn.Sequential(
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.GroupNorm(8, before),
        nn.ReLU(),
        nn.Conv2d(before, after, 1, bias=False),
        nn.GroupNorm(8, after),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(after, 1),
    )


def _in_turn(networks: list[nn.Sequential], features: torch.Tensor, truth: torch.Tensor) -> Callable[[], None]:
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]

    def step() -> None:
        for network, optimizer, inputs, wanted in zip(networks, optimizers, features, truth, strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(network(inputs), wanted).backward()
            optimizer.step()

    return step


def _at_once(
    networks: list[nn.Sequential], features: torch.Tensor, truth: torch.Tensor
) -> tuple[dict[str, torch.Tensor], Callable[[], None]]:
    """The parameters of all, and a step."""
    parameters, _ = stack_module_state(networks)
    skeleton = copy.deepcopy(networks[0]).to("meta")
    optimizer = torch.optim.Adam(parameters.values(), 1e-3)

    def loss(of_one: dict[str, torch.Tensor], inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(functional_call(skeleton, of_one, (inputs,)), wanted)

    gradients = vmap(grad(loss))

    def step() -> None:
        found = gradients({name: each.detach() for name, each in parameters.items()}, features, truth)
        for name, each in parameters.items():
            each.grad = found[name]
        optimizer.step()

    return parameters, step


def heads(setting: Setting) -> Iterator[Row]:
    """Head-only trials of three fused folds each: all trials as one batch in one process, with rates of their own, and
    in two processes, one trial after the other in each. Milliseconds of an epoch of all trials."""
    context = multiprocessing.get_context("spawn")
    for processes, at_once in ((2, 1), (1, setting.trials)):
        barrier, times = context.Barrier(processes), context.Queue()
        arguments = (setting, setting.trials // processes, at_once, barrier, times)
        members = [context.Process(target=_trains_heads, args=arguments) for _ in range(processes)]
        for member in members:
            member.start()
        ended = [times.get(timeout=300) for _ in members]
        for member in members:
            member.join()
        words = "two processes, in turn" if at_once == 1 else f"{at_once} trials as one"
        yield Row(words, max(ms for ms, _ in ended), sum(memory for _, memory in ended), "ms per epoch")


def _trains_heads(setting: Setting, trials: int, at_once: int, barrier: Any, times: Any) -> None:
    """So many trials, `at_once` of them as one batch: 20 epochs of ten steps."""
    steps = [Heads(setting, 3 * at_once).step for _ in range(trials // at_once)]
    for step in steps:
        step()
    setting.wait()
    barrier.wait()
    epochs = min(20, setting.steps)
    began = time.perf_counter()
    for step in steps:
        for _ in range(epochs * 10):
            step()
    setting.wait()
    times.put(((time.perf_counter() - began) * 1000 / epochs, peak_mb(setting)))


class Heads:
    """Heads of a dense layer of 128 and an output, trained as one; each has a rate and a dropout of its own."""

    def __init__(self, setting: Setting, members: int, most_dropout: float = 0.5):
        torch.manual_seed(0)
        shapes = ((members, setting.features, 128), (members, 1, 128), (members, 128, 1), (members, 1, 1))
        self.parameters = [(torch.randn(shape, device=setting.device) * 0.02).requires_grad_() for shape in shapes]
        self.features = torch.randn(members, setting.batch_size, setting.features, device=setting.device)
        self.truth = torch.randint(2, (members, setting.batch_size, 1), device=setting.device).float()
        self.rates = torch.logspace(-4, -2, members, device=setting.device)[:, None, None]
        self._dropouts = torch.linspace(0, most_dropout, members, device=setting.device)[:, None, None]
        self._moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in self.parameters]
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        weight, bias, out_weight, out_bias = self.parameters
        hidden = torch.baddbmm(bias, self.features, weight).relu()
        hidden = hidden * (torch.rand_like(hidden) >= self._dropouts) / (1 - self._dropouts)
        logits = torch.baddbmm(out_bias, hidden, out_weight)
        losses = F.binary_cross_entropy_with_logits(logits, self.truth, reduction="none").mean((1, 2))
        self._adamw(torch.autograd.grad(losses.sum(), self.parameters))

    @torch.no_grad()
    def _adamw(self, gradients: tuple[torch.Tensor, ...]) -> None:
        """Loshchilov and Hutter 2019, with a rate for each member, which torch's has not."""
        for parameter, gradient, (first, second) in zip(self.parameters, gradients, self._moments, strict=True):
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            corrected = (second / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
            parameter.mul_(1 - self.rates * 0.01).sub_(self.rates / (1 - 0.9**self._steps) * first / corrected)
