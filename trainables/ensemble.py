"""The networks of one trial's folds, whole, with all that is needed to ask them about an image.

    ensemble = Ensemble.load(folder)
    probabilities_kNC = ensemble.predict([pixels_HWC, …])       # uint8 in, of any size

In a folder it is `model.safetensors` and `model.json`, and nothing in them is code: a model that comes from somebody
else is built from the names and numbers of its JSON, by this program, or refused. To load it takes neither Ray nor the
data set nor a network connection.

Shapes: k networks, N images, C columns of probabilities, H height, W width; `channels` of an image.
"""

import copy
import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from datasets import ImageDataset, InputError, Target
from datasets.folds import Folds
from datasets.pixels import squeezed
from trainables.config import TrialConfig
from trainables.cutting import between
from trainables.description import Description
from trainables.features import FrozenBody, begun
from trainables.fold_tensors import SHARED, alike, by_fold, check_header, check_tensors
from trainables.images import EVALUATION_BATCH
from trainables.models import Body, is_own
from trainables.network import Network, build_head, outputs_for
from trainables.objectives.classification import Classification
from trainables.protocol import Protocol

Pixels = Sequence[np.ndarray] | np.ndarray
"""Images, uint8 (H, W, channels) each, of any size: a list of them, or (N, H, W, channels)."""


class Ensemble:
    """Network i is that of fold i of `folds.parquet`, which counts on over repeats. All are in eval mode, and ask for
    gradients of what the trial trained."""

    def __init__(self, frozen: FrozenBody, description: Description, tensors: list[dict[str, torch.Tensor]]):
        """frozen: the body that all begin with. tensors: for every network those that are not the frozen body's, by
        their names in its state dict; the same tensor, not only an equal one, where networks share it."""
        self.description = description
        self._frozen = frozen
        whole = _network(frozen.body, description)
        names = dict(whole.state_dict(keep_vars=True))
        same = [name for name in names if len({id(of_one.get(name)) for of_one in tensors}) == 1]
        self._shared = frozenset(same) if len(tensors) > 1 else frozenset()
        _fill(whole, {name: tensors[0][name] for name in self._shared if name in tensors[0]})
        once = {id(names[name]): names[name] for name in self._shared}
        self.networks = [copy.deepcopy(whole, dict(once)) for _ in tensors]
        for network, of_one in zip(self.networks, tensors, strict=True):
            _fill(network, {name: of_one[name] for name in of_one if name not in self._shared})
            network.eval()

    @staticmethod
    def of_trial(
        checkpoint: Path, config: TrialConfig, dataset: ImageDataset, folds: Folds, protocol: Protocol
    ) -> "Ensemble":
        """The networks of a trial's best epoch.

        Where the checkpoint holds only what comes after a cut, the rest is that of the body which all trials begin
        with. Raises `InputError` where it is another one here, or where the checkpoint does not fit.
        """
        try:
            note = json.loads((checkpoint / "checkpoint.json").read_text())
            saved = load_file(checkpoint / "model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{checkpoint}: the networks cannot be read ({error})") from error
        frozen = begun(config, dataset.channels, protocol, head_only=False)
        if note.get("cut"):
            _check_prefix(frozen, note["cut"], checkpoint, protocol)
        description = Description(
            task=dataset.name,
            kind=dataset.kind,
            targets=(Target(dataset.target_name, dataset.classes), *dataset.further),
            channels=dataset.channels,
            config=config,
            interpolation=frozen.body.interpolation or protocol.interpolation,
            mean=frozen.body.mean,
            std=frozen.body.std,
        )
        tensors = by_fold(saved, len(folds))
        expected = _network(frozen.body, description).state_dict()
        beginning = expected.keys() - tensors[0].keys() if note.get("cut") else set()
        check_tensors(tensors, {name: expected[name] for name in expected if name not in beginning}, checkpoint)
        return Ensemble(frozen, description, alike(tensors))

    @staticmethod
    def load(folder: Path) -> "Ensemble":
        """What `save` has written. Raises `InputError` where that is not all there, or not what it claims to be."""
        description = Description.read(folder / "model.json")
        config, file = description.config, folder / "model.safetensors"
        if not _is_known(config.model):
            raise InputError(f"{folder / 'model.json'}: unknown model {config.model!r}; nothing but names is loaded")
        _check_size(config, file)
        try:
            frozen = FrozenBody(config, description.channels, weights="none", seed=0)
            expected = _network(frozen.body, description).state_dict()
        except (RuntimeError, MemoryError, ValueError, AttributeError, TypeError) as error:  # names that do not go well
            raise InputError(f"{folder / 'model.json'}: no such network can be built ({error})") from error
        if frozen.body.dense != (description.kind == "segmentation"):
            raise InputError(f"{folder / 'model.json'}: {config.model} does not answer as {description.kind} needs it")
        check_header(file, expected, description.networks)
        tensors = load_file(file)
        shared = {name.removeprefix(SHARED): tensors[name] for name in tensors if name.startswith(SHARED)}
        own = by_fold({name: tensors[name] for name in tensors if not name.startswith(SHARED)}, description.networks)
        return Ensemble(frozen, description, [shared | of_one for of_one in own])

    def save(self, folder: Path) -> None:
        """`model.safetensors`, then `model.json`. What all networks have in common is written once."""
        folder.mkdir(parents=True, exist_ok=True)
        named: dict[str, torch.Tensor] = {}
        for index, network in enumerate(self.networks):
            for name, tensor in network.state_dict().items():
                key = f"{SHARED}{name}" if name in self._shared else f"fold{index}.{name}"
                if key not in named:
                    named[key] = tensor.detach().cpu().contiguous()
        part = folder / "model.part"
        save_file(named, part)
        part.replace(folder / "model.safetensors")
        dataclasses.replace(self.description, networks=len(self)).write(folder / "model.json")

    def __len__(self) -> int:
        return len(self.networks)

    def to(self, device: str) -> "Ensemble":
        """Itself, on that device."""
        for network in self.networks:
            network.to(device)
        self.__dict__.pop("parts", None)  # made of tensors that are elsewhere now
        return self

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    @property
    def columns(self) -> tuple[str, ...]:
        """Of `predict`, (C,): the classes, of several targets `target:class`; of masks the classes of a pixel."""
        return self.description.columns

    def prepared(self, pixels: Pixels) -> torch.Tensor:
        """What the networks take: float32 (N, channels, size, size), squeezed to a square and normalised, on the
        device."""
        size_px, channels = self.description.config.image_size_px, self.description.channels
        for image in pixels:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
                raise InputError(
                    f"an image of {image.dtype} numbers, shape {image.shape}: expected uint8 (height, width, "
                    f"{channels}), as this model was trained on"
                )
        squares = np.stack([squeezed(image, size_px, self.description.interpolation) for image in pixels])
        return self.normalised(torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2))

    def normalised(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Gray values or colours from 0 to 255, of any type, as the networks take them: float32."""
        of_channels = [
            torch.tensor(values, device=images_BCHW.device).view(1, -1, 1, 1)
            for values in (self.description.mean, self.description.std)
        ]
        return (images_BCHW.float() / 255 - of_channels[0]) / of_channels[1]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, C); of masks of every pixel, (B, C, H, W)."""
        if self.description.kind != "segmentation":
            return self._classification.predictions(logits, logits)
        if logits.shape[1] == 1:
            return torch.cat([-logits, logits], dim=1).sigmoid()
        return logits.softmax(1)

    def batches(self, pixels: Pixels, batch_size: int = EVALUATION_BATCH) -> Iterator[torch.Tensor]:
        """Probabilities of some images at a time, (k, B, C) or (k, B, C, H, W), float32 on the device."""
        for start in range(0, len(pixels), batch_size):
            with torch.inference_mode():
                images = self.prepared(pixels[start : start + batch_size])
                yield torch.stack([self.probabilities(logits) for logits in self.logits(images)])

    def logits(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of each network, for `prepared` images; what the networks share before their first difference is computed
        once."""
        prefix, tails = self.parts
        features = images if prefix is None else prefix(images)
        for tail, network in zip(tails, self.networks, strict=True):
            yield network.head(tail(features)).float()

    def predict(self, pixels: Pixels) -> np.ndarray:
        """Probabilities of every network, float32 (k, N, C); of masks (k, N, C, size, size), for which `batches` takes
        less memory."""
        found = [batch.cpu().numpy() for batch in self.batches(pixels)]
        if not found:
            size = (self.description.config.image_size_px,) * 2 * (self.description.kind == "segmentation")
            return np.zeros((len(self), 0, len(self.columns), *size), np.float32)
        return np.concatenate(found, axis=1)

    @cached_property
    def _classification(self) -> Classification:
        return Classification(self.description.targets, np.zeros((0, len(self.description.targets)), np.int64))

    @cached_property
    def parts(self) -> tuple[nn.Module | None, list[nn.Module]]:
        """What the bodies share, if anything, and what comes after it in each."""
        bodies = [network.body for network in self.networks]
        if len(bodies) == 1 or not self._frozen.places:
            return None, bodies
        place = self._frozen.places[-1]
        prefix = between(bodies[0], None, place)
        if not {f"body.{name}" for name in prefix.state_dict()} <= self._shared:
            return None, bodies
        return prefix, [between(body, place, None) for body in bodies]


def _check_size(config: TrialConfig, file: Path) -> None:
    """Raises `InputError` where the dense layers alone would be larger than the file: a few numbers of somebody's are
    not to fill the memory."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    widths = config.dense_widths
    if 4 * (sum(widths) + sum(before * after for before, after in pairwise(widths))) > size:
        raise InputError(f"{file}: {size:,} bytes cannot hold dense layers of {', '.join(map(str, widths[:9]))}")


def _is_known(model: str) -> bool:
    if is_own(model):
        return True
    import timm  # takes two seconds

    return bool(timm.is_model(model.split(".")[0]))


def _network(body: Body, description: Description) -> Network:
    """A copy of the body, and a head."""
    targets = description.targets[:1] if description.kind == "segmentation" else description.targets
    outputs = sum(outputs_for(len(target.classes)) for target in targets)
    head = build_head(description.config, body.features, outputs, seed=0, dense=body.dense)
    return Network(copy.deepcopy(body.module), head)


def _fill(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copies them into the network, whose tensors stay the same ones; their names and shapes have been checked."""
    own = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _check_prefix(frozen: FrozenBody, cut: dict[str, str], checkpoint: Path, protocol: Protocol) -> None:
    """Raises `InputError` where what a checkpoint's networks are to be put behind is not what they were trained on."""
    place = frozen.places[-1] if frozen.places else None
    if place is None or place.name != cut["after"] or frozen.digest(place) != cut["prefix"]:
        raise InputError(
            f"{checkpoint}: it was trained behind frozen layers (up to {cut['after']}) that are not those of "
            f"weights={protocol.weights} here: use the versions that experiment.json names, and the same weights"
        )
