"""Folds of a trial that are trained in this process, one after the other or, where only heads learn, as one.

What is decided about them (`lockstep.py`) is asked of a `Group`: of all folds here, or of folds that have a process
each (`spread.py`).

Shapes: V validation images of a fold, P columns of predictions.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
from torch import nn

from datasets import ImageDataset, InputError
from datasets.folds import Folds
from datasets.pixels import pixels, pixels_key
from datasets.stores import no_room_for
from trainables.augmentation import augmentation
from trainables.config import TrialConfig
from trainables.energy import joules
from trainables.features import IN_MEMORY_BYTES, FrozenBody, PrefixFeatures, begun
from trainables.fold import Fold, compute_dtype
from trainables.fused import FusedHeads, can_be_fused, optimizer_of_all, optimizer_of_each
from trainables.images import Fetch, feature_fetch, pixel_fetch
from trainables.memory import MicroBatch
from trainables.network import Network, build_head, copied, parameter_counts
from trainables.objectives import Objective
from trainables.optimisation import Phase, layer_shares
from trainables.protocol import Protocol
from trainables.seeding import epoch_seed

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Built:
    """What is known of the networks of a trial before they are trained."""

    trainable_parameters: int
    total_parameters: int
    cut: dict[str, str] | None
    """Where a checkpoint's networks begin: `after` which place of a prefix of which digest (`prefix`). None: they are
    whole."""
    precision: str
    """That is computed in: `float32` or `bfloat16`."""
    notes: list[str]
    """What their user should know of how they are computed."""


@dataclass(frozen=True)
class FoldEpoch:
    """What an epoch has come to in one fold."""

    train_loss: float
    learning_rate: float
    predictions: np.ndarray
    """Of its validation images, float32 (V, P)."""


@dataclass(frozen=True)
class GroupEpoch:
    """What a call of `advance` has come to."""

    folds: list[FoldEpoch] | None
    """None: it was halted before the epoch was through."""
    joules: float | None
    """That it has used of GPUs; None where none tells."""
    parts: int
    """In how many a batch is trained: more than asked for from when memory did not suffice."""
    told: bool = False
    """Whether the process of a fold has heard meanwhile that it is about to end."""


class Group(Interface):
    """The folds of a trial, wherever they are computed."""

    built: Built
    halting: bool
    """To be set, also by a signal's handler: `advance` then returns as soon as the batches are done that it is in."""

    def advance(self, epoch: int, phase: Phase, decays: int) -> GroupEpoch:
        """Train and validate an epoch, counted from 1, or what is left of it after it was halted.

        decays: how often the plateau schedule has lowered the rate before it.
        """

    def keep(self) -> None:
        """The weights are now the best."""

    def best(self) -> list[Weights]:
        """Of each fold when they were last kept, or of its beginning, on the CPU."""

    def states(self) -> list[dict[str, Any]]:
        """Of each fold, all that `load` needs to go on exactly, on the CPU or on the device."""

    def load(self, phase: Phase, states: Sequence[dict[str, Any]], best: Sequence[Weights], in_epoch: bool) -> None:
        """Of any form of a group, in that phase. in_epoch: whether it was halted in the middle of an epoch."""


@dataclass(frozen=True)
class _Tail:
    """The part of a body that runs in every epoch."""

    module: nn.Module
    fetch: Callable[[], Fetch]
    """Of what it is given: images, or features, which are computed when this is first called."""
    cut: dict[str, str] | None = None
    """Where it begins, if not with the images."""


class FoldGroup:
    """A `Group` in this process."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: ImageDataset,
        folds: Folds,
        protocol: Protocol,
        objective: Objective,
        phases: Sequence[Phase],
        some: Collection[int] | None = None,
    ):
        """phases: of the trial, one after the other. some: the numbers of the folds that are trained here; None: all.

        Raises `InputError` where a configuration cannot be built.
        """
        self._config, self._dataset, self._protocol, self._objective = config, dataset, protocol, objective
        self._micro_batch = MicroBatch(config.accumulate)
        self._has_all = some is None
        self.halting = False
        self._build(folds, phases, some)
        self._begin(phases[0])
        self.keep()

    def _build(self, folds: Folds, phases: Sequence[Phase], some: Collection[int] | None) -> None:
        config, dataset, protocol = self._config, self._dataset, self._protocol
        frozen = begun(config, dataset.channels, protocol, head_only=False)
        body = frozen.body
        if body.dense != self._objective.dense:
            answers = ("image", "pixel") if self._objective.dense else ("pixel", "image")
            raise InputError(
                f"model={config.model!r} gives an answer per {answers[0]}, and a {dataset.kind} task needs one per "
                f"{answers[1]}: choose {'encoder_decoder' if self._objective.dense else 'another model'}"
            )
        head = partial(build_head, config, body.features, self._objective.outputs, dense=body.dense)

        interpolation = body.interpolation or protocol.interpolation
        self._pixels_key = pixels_key(dataset, config.image_size_px, interpolation)
        self.pixel_fetch = pixel_fetch(
            pixels(dataset, config.image_size_px, interpolation),
            self._objective.targets,
            body,
            protocol.device,
            augmentation(config),
            masks=self._objective.dense,
        )
        self._notes: list[str] = []
        self._tails: dict[Phase, _Tail] = {}
        """Of the phases that have not begun; what is behind needs no memory."""
        if phases[0].head_only:
            alone = begun(config, dataset.channels, protocol, head_only=True)
            self._tails[phases[0]] = self._after_store(alone)
        tail = self._after_store(frozen)
        self._tails.setdefault(phases[-1], tail)
        self.folds = [
            Fold(
                index,
                Network(_copied(tail.module), head(epoch_seed(protocol.seed, index, epoch=0))).to(protocol.device),
                train_rows,
                validation_rows,
                self._objective,
                config,
                protocol,
                self._micro_batch,
            )
            for index, (train_rows, validation_rows) in enumerate(folds)
            if some is None or index in some
        ]
        parameters = parameter_counts(Network(body.module, head(seed=0)))
        self.built = Built(
            *parameters, tail.cut, str(compute_dtype(protocol)).removeprefix("torch."), notes=self._notes
        )

    def _after_store(self, frozen: FrozenBody) -> _Tail:
        """What remains of a body after its frozen prefix, whose features are stored; the whole where that cannot be."""
        config = self._config
        drawn = config.augmented and (not config.views or self._objective.dense)  # masks would move with their images
        whole = _Tail(frozen.body.module, lambda: self.pixel_fetch)
        if config.mixed or drawn:  # of pixels, in every batch anew
            return whole
        if not frozen.places:
            if frozen.is_partly_frozen:
                self._notes.append(f"{config.model} cannot be cut where its frozen layers end: trained whole")
            return whole
        features = PrefixFeatures(
            frozen, config, self._protocol, self.pixel_fetch, self._pixels_key, len(self._dataset)
        )
        if reason := no_room_for(features.size_bytes):
            cannot = f"{config.model}: features of {features.size_bytes / 1e9:.3g} GB cannot be stored ({reason}): "
            if features.size_bytes > IN_MEMORY_BYTES:
                self._notes.append(f"{cannot}trained whole")
                return whole
            self._notes.append(f"{cannot}computed again by every trial")
        place = frozen.places[-1]
        return _Tail(
            frozen.tail,
            lambda: feature_fetch(features, self._objective.targets, self._protocol.device),
            {"after": place.name, "prefix": frozen.digest(place)},
        )

    def _begin(self, phase: Phase) -> None:
        """Unless it has begun."""
        if phase not in self._tails:
            return
        tail = self._tails.pop(phase)
        self.fetch = tail.fetch()
        frozen = _copied(tail.module).to(self._protocol.device) if phase.head_only else None
        body = self.folds[0].network.body if frozen is None else frozen
        shares = layer_shares(body, self.fetch(torch.arange(1))[0].float(), self._config.body_rate)
        self._begin_each = partial(_begin_each, self.folds, phase, frozen, shares)
        self._begin_each()
        drawn = self._config.augmented or self._config.mixed
        self.fused: FusedHeads | None = None
        if self._has_all and (tail.cut or not drawn) and can_be_fused(self.folds, self._config):
            self.fused = FusedHeads(self.folds, self._config)

    def advance(self, epoch: int, phase: Phase, decays: int) -> GroupEpoch:
        used_before = joules(self._protocol.device)
        self._begin(phase)
        losses = self.fused.train(epoch, self.fetch, decays) if self.fused else self._in_turn(epoch, decays)
        folds = None
        if losses is not None:
            folds = [
                FoldEpoch(loss, fold.learning_rate, fold.predict(self.fetch))
                for fold, loss in zip(self.folds, losses, strict=True)
            ]
        used = joules(self._protocol.device)
        used = None if used is None or used_before is None else used - used_before
        return GroupEpoch(folds, used, self._micro_batch.parts)

    def _in_turn(self, epoch: int, decays: int) -> list[float] | None:
        """A fold that was through when another was halted says its loss again."""
        losses: list[float] = []
        for fold in self.folds:
            if losses and self.halting:
                return None
            loss = fold.train(epoch, self.fetch, decays, lambda: self.halting)
            if loss is None:
                return None
            losses.append(loss)
        return losses

    def keep(self) -> None:
        self._best = [fold.weights() for fold in self.folds]

    def best(self) -> list[Weights]:
        return self._best

    def states(self) -> list[dict[str, Any]]:
        states = [fold.state_dict() | {"parts": self._micro_batch.parts} for fold in self.folds]
        if self.fused and self.fused.has_one_optimizer:
            for state, own in zip(states, optimizer_of_each(states[0]["optimizer"], len(states)), strict=True):
                state["optimizer"] = own
        return states

    def load(self, phase: Phase, states: Sequence[dict[str, Any]], best: Sequence[Weights], in_epoch: bool) -> None:
        self._micro_batch.parts = max(state["parts"] for state in states)
        self._begin(phase)
        if self.fused and in_epoch:  # that others have begun fold by fold: it can only be ended like that
            self.fused = None
            self._begin_each()
        if self.fused and self.fused.has_one_optimizer:
            of_all = optimizer_of_all([state["optimizer"] for state in states])
            states = [state | {"optimizer": of_all} for state in states]
        for fold, state in zip(self.folds, states, strict=True):
            fold.load_state_dict(state)
        self._best = list(best)


def _begin_each(folds: Sequence[Fold], phase: Phase, frozen: nn.Module | None, shares: dict[str, float]) -> None:
    for fold in folds:
        fold.begin(phase, frozen, shares)


def _copied(module: nn.Module) -> nn.Module:
    """What has nothing that could change is shared."""
    return copied(module) if module.state_dict() else module
