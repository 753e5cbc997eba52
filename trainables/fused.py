"""The k folds of a trial trained as one, where only their heads learn: every layer of the k heads is one batched layer.

The same as training them in turn, up to rounding: each fold has its own images, order, dropout, batch norm statistics
and number of steps. Heads are small, and k small steps at once take hardly longer than one.

Shapes: k folds, S steps of an epoch, B images of a step (of the fold that has most of them; the others are filled up
with what counts nothing), D inputs of a layer, W its outputs, T targets.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from trainables.balance import divisor
from trainables.config import TrialConfig
from trainables.distributed import processes
from trainables.dropout import Dropout, dropped, kept
from trainables.fold import Fold
from trainables.images import Fetch
from trainables.optimisation import optimizer, set_learning_rate


def can_be_fused(folds: Sequence[Fold], config: TrialConfig) -> bool:
    """Whether nothing but heads is to be trained, of layers that can be batched, in whole batches, by one process."""
    alone = all(fold.only_head_learns and {type(layer) for layer in fold.head} <= _FUSED.keys() for fold in folds)
    return alone and config.accumulate == 1 and processes() == 1


class FusedHeads:
    """Trains the heads of folds whose phase has begun. The parameters and statistics of these become views of its own,
    so that their checkpoints, averages and best weights are as ever."""

    def __init__(self, folds: Sequence[Fold], config: TrialConfig):
        self._folds, self._config, self._phase = folds, config, folds[0].phase
        self._layers = [_FUSED[type(layers[0])](layers) for layers in zip(*(fold.head for fold in folds), strict=True)]
        self._parameters = [parameter for layer in self._layers for parameter in layer.parameters()]
        self._steps = [-(-len(fold.epoch(self._phase.first_epoch).rows) // self._phase.batch_size) for fold in folds]
        self.has_one_optimizer = len(set(self._steps)) == 1
        """Whether all folds make as many steps: then they share one, and otherwise each has its own."""
        if self.has_one_optimizer:
            of_all = optimizer(config, self._phase.learning_rate, [("", each) for each in self._parameters], {})
            for fold in folds:
                fold.optimizer = of_all

    def train(self, epoch: int, fetch: Fetch, decays: int) -> list[float]:
        """As `Fold.train`, of every fold."""
        config, objective, device = self._config, self._folds[0].objective, self._folds[0].device
        drawn, generators = [], []
        for fold in self._folds:
            fold.network.train()
            drawn.append(fold.epoch(epoch))
            generators.append(_generator(device))
        sizes_Sk = _sizes([len(each.rows) for each in drawn], self._phase.batch_size)
        rows_kSB, views_kSB, weights_kSBT = (
            _in_steps([getattr(each, name) for each in drawn], self._phase.batch_size)
            for name in ("rows", "views", "weights")
        )
        counted_kST = torch.as_tensor(divisor(config, weights_kSBT, sizes_Sk.T[:, :, None]))
        counted_kST = counted_kST.where(counted_kST > 0, 1).to(device)  # of a fold that has no images left
        weights_kSBT, images_Sk = weights_kSBT.to(device), sizes_Sk.to(device)
        loss_sum_k = torch.zeros(len(self._folds), device=device)
        for step, sizes in enumerate(sizes_Sk.tolist()):
            some = slice(0, max(sizes))
            inputs, targets = fetch(rows_kSB[:, step, some].flatten(), views_kSB[:, step, some].flatten())
            logits = self._logits(inputs, sizes, generators)
            losses_kBT = objective.losses(logits, targets, config.label_smoothing).unflatten(0, (len(sizes), -1))
            losses_kT = (losses_kBT * weights_kSBT[:, step, some]).sum(1) / counted_kST[:, step]
            loss_k = losses_kT @ self._folds[0].shares
            for parameter in self._parameters:
                parameter.grad = None
            loss_k.sum().backward()  # no parameter belongs to two folds
            loss_sum_k += loss_k.detach() * images_Sk[step]
            self._step(epoch, step, [place for place, size in enumerate(sizes) if size], decays)
        return (loss_sum_k / images_Sk.sum(0)).tolist()

    def _logits(self, inputs: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        """(k x B, K)"""
        values_kBD = self._folds[0].body(inputs).float().unflatten(0, (len(sizes), -1))
        for layer in self._layers:
            values_kBD = layer(values_kBD, sizes, generators)
        return values_kBD.flatten(0, 1)

    def _step(self, epoch: int, step: int, active: list[int], decays: int) -> None:
        """active: the places of the folds that had images."""
        if not self.has_one_optimizer:
            for layer in self._layers:
                layer.hand_out_gradients()
        for place in active[:1] if self.has_one_optimizer else active:
            fold = self._folds[place]
            epochs_done = epoch - self._phase.first_epoch + step / self._steps[place]
            set_learning_rate(fold.optimizer, self._config, self._phase, epochs_done, decays)
            fold.optimizer.step()
        for place in active:
            self._folds[place].follow((epoch - self._phase.first_epoch) * self._steps[place] + step)


class _Fused(nn.Module):
    """The same layer of k heads. In training only, as `forward(values (k, B, D), sizes, generators)`: how many of the B
    images are a fold's own, and what draws for it."""

    def __init__(self, layers: Sequence[Any]):
        super().__init__()
        self._of_folds = layers
        for name, parameter in layers[0]._parameters.items():
            self.register_parameter(name, None if parameter is None else nn.Parameter(_together(layers, name)))
        for name, _ in layers[0].named_buffers():
            self.register_buffer(name, _together(layers, name))

    def hand_out_gradients(self) -> None:
        for name, parameter in self.named_parameters():
            assert parameter.grad is not None
            for layer, gradient in zip(self._of_folds, parameter.grad, strict=True):
                getattr(layer, name).grad = gradient


class _Linear(_Fused):
    weight: torch.Tensor
    bias: torch.Tensor | None

    def forward(self, values_kBD: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        """The weights first: then their gradient comes as they lie in memory, which takes a quarter less time."""
        if self.bias is None:
            return (self.weight @ values_kBD.mT).mT
        return torch.baddbmm(self.bias[:, :, None], self.weight, values_kBD.mT).mT


class _BatchNorm(_Fused):
    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def forward(self, values_kBW: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        self.num_batches_tracked += torch.tensor(sizes, device=values_kBW.device) > 0
        if len(set(sizes)) == 1:  # the channels of all folds side by side, as those of one layer
            normalised_BX = self._normalised(values_kBW.transpose(0, 1).flatten(1), slice(None))
            return normalised_BX.unflatten(1, (len(sizes), -1)).transpose(0, 1)
        parts = [
            self._normalised(values_kBW[place, :size], slice(place, place + 1)) if size else values_kBW[place, :0]
            for place, size in enumerate(sizes)
        ]
        return pad_sequence(parts, batch_first=True)

    def _normalised(self, values_BX: torch.Tensor, folds: slice) -> torch.Tensor:
        return F.batch_norm(
            values_BX,
            self.running_mean[folds].flatten(),
            self.running_var[folds].flatten(),
            self.weight[folds].flatten(),
            self.bias[folds].flatten(),
            training=True,
            momentum=self._of_folds[0].momentum,
            eps=self._of_folds[0].eps,
        )


class _Activation(_Fused):
    def forward(self, values_kBW: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        return values_kBW.relu()


class _Dropout(_Fused):
    def forward(self, values_kBW: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        """Drawn as each fold in turn would draw it: for its own images, from its own generator."""
        p, width, device = self._of_folds[0].p, values_kBW.shape[2], values_kBW.device
        if p == 0:
            return values_kBW
        drawn = [kept((size, width), p, device, own) for size, own in zip(sizes, generators, strict=True)]
        return dropped(values_kBW, pad_sequence(drawn, batch_first=True), p)


class _Flatten(_Fused):
    def forward(self, values: torch.Tensor, sizes: list[int], generators: list[torch.Generator]) -> torch.Tensor:
        return values.flatten(2)


_FUSED: dict[type[nn.Module], type[_Fused]] = {
    nn.Linear: _Linear,
    nn.BatchNorm1d: _BatchNorm,
    nn.ReLU: _Activation,
    Dropout: _Dropout,
    nn.Flatten: _Flatten,
}
"""The layers of `build_head`."""


def optimizer_of_each(state: dict[str, Any], folds: int) -> list[dict[str, Any]]:
    """The state of the one optimizer of all folds to those that they would have by themselves; counts of steps, which
    have no dimension, are the same in all."""

    def own(value: Any, place: int) -> Any:
        if not torch.is_tensor(value):
            return value
        return (value[place] if value.ndim else value).clone()  # nothing that two optimizers would change

    return [
        state
        | {
            "state": {
                number: {name: own(value, place) for name, value in of_parameter.items()}
                for number, of_parameter in state["state"].items()
            }
        }
        for place in range(folds)
    ]


def optimizer_of_all(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `optimizer_of_each` has taken apart."""

    def of_all(values: list[Any]) -> Any:
        return torch.stack(values) if torch.is_tensor(values[0]) and values[0].ndim else values[0]

    first = states[0]
    return first | {
        "state": {
            number: {name: of_all([state["state"][number][name] for state in states]) for name in of_parameter}
            for number, of_parameter in first["state"].items()
        }
    }


def _together(layers: Sequence[nn.Module], name: str) -> torch.Tensor:
    """A parameter or a statistic of all layers, (k, …), of which their own become parts."""
    own = [getattr(layer, name) for layer in layers]
    together = torch.stack([tensor.detach() for tensor in own])
    for tensor, part in zip(own, together, strict=True):
        tensor.data = part
    return together


def _generator(device: str) -> torch.Generator:
    """Draws on a device what torch would draw there next."""
    generator = torch.Generator(device)
    generator.set_state(torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state())
    return generator


def _sizes(images: list[int], batch_size: int) -> torch.Tensor:
    """How many images each fold has in each step, int64 (S, k)."""
    starts_S = torch.arange(0, max(images), batch_size)
    return (torch.tensor(images) - starts_S[:, None]).clamp(0, batch_size)


def _in_steps(of_folds: list[torch.Tensor], batch_size: int) -> torch.Tensor:
    """(n, …) of each fold to (k, S, B, …) of all, filled up with zeros."""
    steps = -(-max(map(len, of_folds)) // batch_size)
    filled = of_folds[0].new_zeros(len(of_folds), steps * batch_size, *of_folds[0].shape[1:])
    for places, values in zip(filled, of_folds, strict=True):
        places[: len(values)] = values
    return filled.unflatten(1, (steps, batch_size))
