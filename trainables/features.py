"""What the frozen prefix of a body gives for every image: computed once per machine, for all trials, folds and epochs.

A body is cut before its first trained layer. What comes before is run once per image, and once per augmented view of
it; what it gives is kept in a store (`datasets.stores`), named by a digest of everything that determines it.

Shapes: N images of the data set.
"""

import copy
import importlib.metadata
import logging
import math
import os
from functools import cache, cached_property, lru_cache, partial

import numpy as np
import torch
from torch import fx, nn

from datasets import content_digest
from datasets.stores import found_array, release, stored_array, waiting
from trainables.config import AUGMENTATIONS, TrialConfig
from trainables.cutting import Place, between, described, places, steps_before
from trainables.fold import autocast, compute_dtype
from trainables.images import AS_IT_IS, Fetch, shared
from trainables.memory import evaluated
from trainables.models import OF_BODY, OPTIONS
from trainables.network import frozen_body, weights_digest
from trainables.protocol import Protocol
from trainables.seeding import epoch_seed, seed_generators

log = logging.getLogger(__name__)

BATCH = {"cpu": 64, "cuda": 256}
"""Images that go through a prefix at once. Views are drawn batch by batch."""
DRAWN = "1"
"""Part of the key of every view: raise it when `augmentation.py` draws otherwise."""
IN_MEMORY_BYTES = 10**9
"""Features that are kept in memory where they cannot be stored; of more than that there are none."""
CHECKED, TOLERANCE = 16, 0.2
"""Features of a body are kept in bfloat16 where its output for so many images differs from float32's by less than this
share of what the images differ by: rounding is then less than 4 % of the variance. A trained network's output differs
by some hundredths; of a random one that hardly tells images apart, most of the difference may be rounding."""
STORED_AS = {torch.bfloat16: np.int16, torch.float32: np.float32}
"""numpy has no bfloat16: its bits are stored."""


class FrozenBody:
    """A body in two parts: a prefix that no training changes, and the tail after it. Shared by the trials of a process,
    so what is trained is a copy."""

    def __init__(self, config: TrialConfig, channels: int, weights: str, seed: int):
        self.body = frozen_body(config, channels, weights, seed)
        self.body.module.to(memory_format=torch.channels_last)
        self.places = places(self.body.module, (channels, config.image_size_px, config.image_size_px))
        """Where it can be cut, at or before the first trained layer. None where nothing is frozen, or where it cannot
        be cut: then it is trained whole."""
        self._digests: dict[Place | None, str] = {}
        self._steps: dict[fx.Node, str] = {}

    @property
    def is_partly_frozen(self) -> bool:
        return not all(parameter.requires_grad for parameter in self.body.module.parameters())

    @cached_property
    def tail(self) -> nn.Module:
        """After the last place; the body where there is none."""
        return self.part(self.places[-1], None) if self.places else self.body.module

    def part(self, start: Place | None, end: Place | None) -> nn.Module:
        """What leads from one place to another. None: from the images, to the features that the head takes."""
        return between(self.body.module, start, end)

    def digest(self, place: Place | None) -> str:
        """Of the weights before a place, and of what is done with them; None: of the whole body, which can be cut."""
        if place not in self._digests:
            steps = steps_before(self.places[0].step.graph, place)
            self._digests[place] = content_digest(map(self._of_step, steps))
        return self._digests[place]

    def _of_step(self, step: fx.Node) -> str:
        """Looked at once, however many places come after it."""
        if step not in self._steps:
            words, weights = described(self.body.module, step)
            self._steps[step] = f"{words} {weights_digest(weights)}"
        return self._steps[step]


def begun(config: TrialConfig, channels: int, protocol: Protocol, head_only: bool) -> FrozenBody:
    """What a configuration's trials begin with. head_only: all of the body is frozen."""
    of_body = {name: getattr(config, name) for name in OF_BODY}
    unfrozen_layers = 0 if head_only else config.unfrozen_layers
    bare = TrialConfig(**of_body, unfrozen_layers=unfrozen_layers, learning_rate=1.0, batch_size=1)
    return _begun(bare, channels, protocol.weights, protocol.seed)


_begun = lru_cache(maxsize=4)(FrozenBody)


class PrefixFeatures:
    """Features of every image, or of an augmented view of every image, (N, …), in the precision that they are stored
    in. They are computed when they are first asked for, from the nearest earlier place that is stored, or from pixels.
    """

    def __init__(
        self, frozen: FrozenBody, config: TrialConfig, protocol: Protocol, fetch: Fetch, pixels_key: str, images: int
    ):
        """fetch: of images as the body takes them, from pixels of that key."""
        self._frozen, self._config, self._protocol, self._fetch = frozen, config, protocol, fetch
        self._place, self._images = frozen.places[-1], images
        # A GPU's float32 convolutions round to TF32.
        computed_by = [protocol.device, str(compute_dtype(protocol)), torch.__version__, _version("timm")]
        self._key = [pixels_key, config.model, *(f"{name}={getattr(config, name)}" for name in OPTIONS), *computed_by]
        self._opened: dict[int, torch.Tensor] = {}

    @property
    def size_bytes(self) -> int:
        """Of all that a trial may come to store."""
        views = self._config.views if self._config.augmented else 0
        of_image = math.prod(self._place.shape) * compute_dtype(self._protocol).itemsize
        return (1 + views) * self._images * of_image

    def __call__(self, view: int = AS_IT_IS) -> torch.Tensor:
        if view not in self._opened:
            name, shape = self._name(self._place, view, self._precision), (self._images, *self._place.shape)
            array = stored_array(name, shape, STORED_AS[self._precision], partial(self._fill, view))
            self._opened[view] = shared(array).view(self._precision)
        return self._opened[view]

    def _fill(self, view: int, array: np.ndarray) -> None:
        earlier, part = self._nearest(view)
        part, threads = self._on_device(part), torch.get_num_threads()
        name = self._name(self._place, view, self._precision)
        try:
            for rows in torch.arange(self._images).split(BATCH[self._protocol.device]):
                inputs = self._inputs(rows, view) if earlier is None else earlier.index_select(0, rows)
                # With the processors of those that can do nothing else meanwhile: a forward pass gives the same bits.
                torch.set_num_threads(min(threads * (1 + waiting(name)), os.cpu_count() or 1))
                given = partial(self._computed, part, inputs, self._precision)
                for some, features in evaluated(given, torch.arange(len(rows)), len(rows)):
                    array[rows[some]] = _bits(features)
                release(array)
        finally:
            torch.set_num_threads(threads)

    def _nearest(self, view: int) -> tuple[torch.Tensor | None, nn.Module]:
        """The stored features of the last place before ours from where the way leads to the same bits as from pixels,
        and that way; or that from pixels."""
        for place in reversed(self._frozen.places[:-1]):
            array = found_array(self._name(place, view, self._precision))
            if array is not None and self._is_exact(place):
                return shared(array).view(self._precision), self._frozen.part(place, self._place)
        return None, self._frozen.part(None, self._place)

    def _is_exact(self, place: Place) -> bool:
        """Whether what crosses there has the stored precision anyway: sums of a transformer's blocks, for one, are
        float32 among layers in bfloat16."""
        if self._precision == torch.float32:
            return True
        prefix = self._on_device(self._frozen.part(None, place))
        with torch.inference_mode(), autocast(self._protocol):
            return prefix(self._inputs(torch.arange(1), AS_IT_IS)).dtype == self._precision

    def _inputs(self, rows: torch.Tensor, view: int) -> torch.Tensor:
        """Images of the body, (B, C, H, W). Views are drawn batch by batch, each from a seed of its own."""
        if view == AS_IT_IS:
            return self._fetch(rows)[0]
        on_a_gpu = self._protocol.device == "cuda"
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_a_gpu else []):
            seed_generators(epoch_seed(self._protocol.seed, int(rows[0]), view), self._protocol.device)
            return self._fetch(rows, torch.full_like(rows, view))[0]

    @torch.inference_mode()
    def _computed(
        self, part: nn.Module, inputs: torch.Tensor, precision: torch.dtype, rows: torch.Tensor
    ) -> torch.Tensor:
        """Features of some rows of the inputs, (B, …), on the CPU."""
        with torch.autocast(self._protocol.device, torch.bfloat16, enabled=precision == torch.bfloat16):
            some = inputs.index_select(0, rows.to(inputs.device)).to(self._protocol.device)
            return part(some).to(precision).cpu()

    def _on_device(self, part: nn.Module) -> nn.Module:
        return part if self._protocol.device == "cpu" else copy.deepcopy(part).to(self._protocol.device)

    @cached_property
    def _precision(self) -> torch.dtype:
        """The one that is computed in, unless it is too coarse for this body: then float32. Looked at once per machine:
        rounding adds up from place to place, so what is fine enough at the end is so everywhere."""
        precision = compute_dtype(self._protocol)
        if precision == torch.float32:
            return precision
        name = f"rounding-{content_digest([*self._key, self._frozen.digest(None)])}"
        return precision if stored_array(name, (1,), np.float32, self._round)[0] <= TOLERANCE else torch.float32

    def _round(self, error: np.ndarray) -> None:
        """What rounding changes in the output of the body, as a share of what images differ by."""
        body, precision = self._on_device(self._frozen.body.module), compute_dtype(self._protocol)
        rows = torch.linspace(0, self._images - 1, min(CHECKED, self._images)).long()
        images, all_of_them = self._inputs(rows, AS_IT_IS), torch.arange(len(rows))
        exact, coarse = (
            self._computed(body, images, each, all_of_them).float().flatten(1) for each in (torch.float32, precision)
        )
        error[0] = float((coarse - exact).norm() / (exact - exact.mean(0)).norm())
        if not error[0] <= TOLERANCE:
            log.warning(
                "%s: rounded to %s, features differ too much (%.2f): kept in float32",
                self._config.model,
                precision,
                error[0],
            )

    def _name(self, place: Place, view: int, precision: torch.dtype) -> str:
        """Of a store: changes with whatever changes its content."""
        key = [*self._key, self._frozen.digest(place), place.name, str(precision)]
        if view != AS_IT_IS:
            augmentations = [f"{name}={getattr(self._config, name)}" for name in AUGMENTATIONS]
            drawn_by = [DRAWN, _version("kornia"), str(self._protocol.seed), str(BATCH[self._protocol.device])]
            key += [*augmentations, *drawn_by, str(view)]
        return f"features-{content_digest(key)}"


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _bits(features: torch.Tensor) -> np.ndarray:
    return features.view(torch.int16 if features.dtype == torch.bfloat16 else features.dtype).numpy()
