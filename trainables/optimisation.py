"""The phases of a trial, and in each of them its optimizer and its learning rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from trainables.config import TrialConfig
from trainables.network import execution_order


@dataclass(frozen=True)
class Phase:
    """Epochs with one optimizer, one schedule and a patience of their own."""

    head_only: bool
    """Whether the body is frozen as a whole."""
    after: int
    """Epochs of the trial before this phase."""
    epochs: int
    """Its length, if nothing ends the trial earlier."""
    learning_rate: float
    """Peak, of the head."""
    batch_size: int

    @property
    def first_epoch(self) -> int:
        """Counted from 1, over the whole trial."""
        return self.after + 1


def phases(config: TrialConfig, max_epochs: int) -> tuple[Phase, ...]:
    """One after the other: the head alone for `head_epochs`, then the layers that are unfrozen with it, which have the
    last epoch at least."""
    alone = min(config.head_epochs, max_epochs - 1)
    head = Phase(
        True, 0, alone, config.head_learning_rate or config.learning_rate, config.head_batch_size or config.batch_size
    )
    both = Phase(False, alone, max_epochs - alone, config.learning_rate, config.batch_size)
    return tuple(phase for phase in (head, both) if phase.epochs)


def optimizer(
    config: TrialConfig,
    learning_rate: float,
    parameters: Iterable[tuple[str, torch.Tensor]],
    shares: dict[str, float],
) -> torch.optim.Optimizer:
    """Of all parameters that are trained. `shares`: of the learning rate, by the parameter's name; 1 where it has none.
    Each group of parameters keeps its own as `share`."""
    groups: dict[float, list[torch.Tensor]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault(shares.get(name, 1.0), []).append(parameter)
    trained = [{"params": parameters, "share": share} for share, parameters in groups.items()]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            trained, learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    epsilon = 1e-7 if config.defaults == "keras" else 1e-8
    return kind(trained, learning_rate, eps=epsilon, weight_decay=config.weight_decay, fused=True)


def layer_shares(body: nn.Module, inputs: torch.Tensor, body_rate: float) -> dict[str, float]:
    """What each trained parameter of a body has of the head's learning rate, by its name in the body: `body_rate` in
    the first trained layer that is executed, and from one to the next the same factor more, up to the head.

    inputs: any batch that the body takes.
    """
    if body_rate == 1:
        return {}
    names = {layer: name for name, layer in body.named_modules()}
    order = [layer for layer in execution_order(body, inputs) if any(map(_is_trained, layer.parameters(recurse=False)))]
    return {
        f"{names[layer]}.{name}".removeprefix("."): body_rate ** (1 - place / len(order))
        for place, layer in enumerate(order)
        for name, _ in layer.named_parameters(recurse=False)
    }


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrialConfig, phase: Phase, epochs_done: float, decays: int
) -> None:
    """See `learning_rate_factor`; of each group its share."""
    rate = phase.learning_rate * learning_rate_factor(config, epochs_done, phase.epochs, decays)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate_factor(config: TrialConfig, epochs_done: float, epochs: int, decays: int = 0) -> float:
    """Of the peak, in a phase of so many epochs: linear warm-up, then constant, or multiplied by `gamma` at intervals,
    or a half cosine down to zero at the last epoch (Loshchilov and Hutter 2017, eq. 5, without restarts).

    epochs_done: of the phase, with the fraction of the running one. decays: of the plateau schedule, before this epoch.
    """
    if epochs_done < config.warmup_epochs:
        return min(max(epochs_done, 0.01) / config.warmup_epochs, 1.0) * config.gamma**decays
    scheduled = epochs_done - config.warmup_epochs
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(scheduled / max(epochs - config.warmup_epochs, 1e-9), 1.0)))
    if config.schedule == "step":
        decays = int(scheduled / config.decay_epochs)
    return config.gamma**decays


def average_share(ema: float, steps: int) -> float:
    """What the moving average of the weights keeps of itself after so many earlier steps of a phase: `ema`, or less at
    first, so that it is never about weights from before the training. The rise is timm's (`ModelEmaV3`, `use_warmup`):
    0.99 is reached after a thousand steps."""
    return min(ema, 1 - (1 + steps) ** (-2 / 3))


def _is_trained(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


def plateau_decays(losses: list[float], decay_epochs: int) -> int:
    """How often the plateau schedule has lowered the rate after these mean validation losses, one per epoch: once per
    `decay_epochs` epochs in a row without a loss below the lowest so far."""
    decays, waited, lowest = 0, 0, math.inf
    for loss in losses:
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        if waited == decay_epochs:
            decays, waited = decays + 1, 0
    return decays
