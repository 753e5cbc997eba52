"""How many trials share a GPU: as many as the largest configuration of the search space has room for.

`--gpus-per-trial auto`. Which configuration is the largest is found without a GPU, by what autograd keeps of an image;
what it takes is then measured, by training it for two steps on a GPU, in a process of its own.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from datasets import ImageDataset, InputError
from datasets.fetching import on_this_node
from datasets.folds import Folds
from search.plan import Plan
from search_spaces import Space
from trainables.config import TrialConfig
from trainables.models import OF_BODY
from trainables.protocol import Protocol

SPARE = 0.05
"""Of a GPU's memory, left free: caches fragment, and the largest configuration was found by an estimate. What still
does not fit is trained in smaller parts (`trainables.memory`)."""
CONTEXT_BYTES = 768 * 2**20
"""What the context of one process takes of a GPU at most, before anything is allocated; what is in use beyond that is
somebody else's."""
FIRST_RESULT_S = 900.0


@dataclass(frozen=True)
class Footprint:
    """What one trial takes of a GPU."""

    peak_bytes: int
    """Largest memory of its process: what torch reserved, its context, and kernels that were loaded."""
    room_bytes: int
    """Of the whole GPU, less what others have in use."""
    parts: int = 1
    """In which batches had to be trained because they did not fit; 1 where they did."""

    @property
    def fitting(self) -> int:
        """Trials side by side, one at least."""
        return max(1, int(self.room_bytes * (1 - SPARE) // self.peak_bytes)) if self.parts == 1 else 1


def trials_per_gpu(plan: Plan, resources: dict[str, float], say: Callable[[str], Any]) -> int:
    """For `share_of`; 1 unless it is to be found out. `say`: what was found, in one line.

    resources: what Ray has now. Ray must be up. Raises `InputError` where a cluster has no GPU yet.
    """
    if plan.options.gpus_per_trial != "auto":
        return 1
    gpus = int(resources.get("GPU", 0))
    if not gpus:
        if plan.options.address is not None:
            raise InputError(
                "--gpus-per-trial auto: the cluster has no GPU now on which a trial could be measured; give a number"
            )
        say("--gpus-per-trial auto: no GPU here, trials are trained on the CPU")
        return 1
    config = largest_config(plan.space, size_of(plan.dataset, plan.folds))
    subset, folds = shortened(plan.dataset, plan.folds, 2 * config.batch_size)
    words = f"{config.model}, {config.image_size_px} px, batches of {config.batch_size}, {_trained(config)}"
    try:
        found = _on_a_gpu(config, subset, folds, plan.protocol("cuda"))
    except Exception as error:  # a search with a GPU for each trial is better than none
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        say(f"--gpus-per-trial auto: the largest configuration ({words}) could not be measured ({reason}): 1 per GPU")
        return 1
    cpus, trials = int(resources.get("CPU", 0)), plan.experiment.trials
    most = max(1, min(cpus // gpus, math.ceil(trials / gpus)))
    packed = min(found.fitting, most)
    said = f"the largest configuration ({words}) takes {_gb(found.peak_bytes)} of {_gb(found.room_bytes)}"
    if found.parts > 1:
        said += f" in {found.parts} parts"
    if packed < found.fitting:
        said += f", which is room for {found.fitting}; there are {cpus} CPUs and {trials} trials"
    say(f"--gpus-per-trial auto: {said}: {packed} per GPU")
    return packed


def largest_config(space: Space, size: Callable[[TrialConfig], float]) -> TrialConfig:
    """The configuration of the greatest size that is found, for each model, by changing one answer at a time, from the
    last value of every question on. Of a range only its ends are tried: what makes a trial larger does so all the way.
    """
    _, asked = _answered(space, {})
    of_models = [_climbed(space, size, {"model": model}) for model in asked.get("model", [None])]
    return max(of_models, key=size)


def _climbed(space: Space, size: Callable[[TrialConfig], float], answers: dict[str, Any]) -> TrialConfig:
    config, asked = _answered(space, answers)
    greatest, improved = size(config), True
    while improved:
        improved = False
        for name, value in [(name, value) for name, values in asked.items() for value in values]:
            other, also_asked = _answered(space, answers | {name: value})
            if name != "model" and size(other) > greatest:
                answers, config, asked = answers | {name: value}, other, also_asked
                greatest, improved = size(other), True
    return config


def size_of(dataset: ImageDataset, folds: Folds) -> Callable[[TrialConfig], float]:
    """An estimate of the bytes that a trial needs on its device, for comparisons only: what autograd keeps of a part of
    a batch, and weights, gradients and moments of all folds."""

    @cache
    def of_body(config: TrialConfig) -> _Counted:
        return _counted(config, dataset)

    def size(config: TrialConfig) -> float:
        body = of_body(_with_this_body(config))
        widths = (body.features, *config.dense_widths, 1)
        head = 4 * sum(before * after for before, after in pairwise(widths))
        # Of each layer its inputs; of each dense one what ReLU gives and its dropout's mask, and what batch norm takes.
        values = sum(widths[:-1]) + (2 + config.dense_batch_norm) * sum(config.dense_widths)
        per_fold = (body.weights + head) * (2 if config.ema else 1) + 3 * (body.trained + head)
        part = -(-config.batch_size // config.accumulate)
        return part * (body.per_image + 4 * values * body.pixels) + len(folds) * per_fold

    return size


@dataclass(frozen=True)
class _Counted:
    """Of a body. In bytes: what autograd keeps of each image, all weights, and those that are trained."""

    per_image: float
    weights: int
    trained: int
    features: int
    """Of an image, or of each of its pixels."""
    pixels: int


def _counted(config: TrialConfig, dataset: ImageDataset) -> _Counted:
    import torch  # takes seconds, which a search without a GPU should not wait for

    from trainables.network import frozen_body

    body = frozen_body(config, dataset.channels, weights="none", seed=0)
    network, side = body.module.train(), config.image_size_px
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(2, dataset.channels, side, side)  # batch norm cannot do with one
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(images)  # holds what is kept, so that no address is used twice
    pixels = side * side if body.dense else 1
    sizes = [(parameter.nbytes, parameter.requires_grad) for parameter in network.parameters()]
    trained = sum(nbytes for nbytes, requires_grad in sizes if requires_grad)
    weights = sum(nbytes for nbytes, _ in sizes)
    return _Counted(sum(kept.values()) / 2, weights, trained, output[0].numel() // pixels, pixels)


def shortened(dataset: ImageDataset, folds: Folds, train_images: int) -> tuple[ImageDataset, Folds]:
    """Some images of every fold and class, so that every fold trains on `train_images` of them at least, where there
    are so many; in the folds of the first repeat."""
    validated_in = folds.validated_in[0]
    labels = [dataset.targets] if dataset.kind != "segmentation" else []
    labels += [dataset.table[target.column].to_numpy() for target in dataset.further]
    _, strata = np.unique(np.stack([validated_in, *labels], axis=1), axis=0, return_inverse=True)
    # The n-th image of its stratum has rank n: those of the lowest ranks are a fair sample of every stratum.
    order = np.argsort(strata, kind="stable")
    starts = np.flatnonzero(np.diff(strata[order], prepend=-1))
    rank = np.empty(len(strata), np.int64)
    rank[order] = np.arange(len(strata)) - np.repeat(starts, np.diff([*starts, len(strata)]))
    wanted = train_images * folds.k / (folds.k - 1) + folds.k
    depth = next((depth for depth in range(1, rank.max() + 2) if (rank < depth).sum() >= wanted), rank.max() + 1)
    rows = np.flatnonzero(rank < depth)
    return dataset.rows(rows), Folds(validated_in[None, rows])


def footprint(config: TrialConfig, dataset: ImageDataset, folds: Folds, protocol: Protocol) -> Footprint:
    """Trains and validates a configuration on the process's GPU and says what that took. Steps in which the head alone
    is trained are left out: they take less."""
    import torch

    from trainables.lockstep import Lockstep

    dataset = on_this_node(dataset)
    device_free, total = torch.cuda.mem_get_info()
    torch.cuda.reset_peak_memory_stats()
    others = max(0, total - device_free - CONTEXT_BYTES)
    lockstep = Lockstep(
        dataclasses.replace(config, head_epochs=0), dataset, folds, dataclasses.replace(protocol, max_epochs=1)
    )
    lockstep.advance()
    free_now, _ = torch.cuda.mem_get_info()
    beside = total - free_now - others - torch.cuda.memory_reserved()
    peak = torch.cuda.max_memory_reserved() + max(0, beside)
    parts = lockstep.report()["parts"]
    return Footprint(peak, total - others, parts if parts > config.accumulate else 1)


def _on_a_gpu(config: TrialConfig, dataset: ImageDataset, folds: Folds, protocol: Protocol) -> Footprint:
    """`footprint` in a process that ends with it, on a GPU that nobody else has from Ray meanwhile."""
    import ray

    remote = ray.remote(num_gpus=1, num_cpus=1, max_calls=1, max_retries=0)(footprint)
    reference = remote.remote(config, dataset, folds, protocol)
    try:
        found: Footprint = ray.get(reference, timeout=FIRST_RESULT_S)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        raise TimeoutError(f"no GPU was free, or no result there, in {FIRST_RESULT_S / 60:.0f} minutes") from None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found


class _Probe:
    """A trial with some answers, and the last value where it has none; writes down what it was asked."""

    def __init__(self, answers: dict[str, Any]):
        self._answers = answers
        self.asked: dict[str, list[Any]] = {}

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> Any:
        return self._answer(name, [low, high])

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> Any:
        return self._answer(name, [low, high])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, list(choices))

    def _answer(self, name: str, values: list[Any]) -> Any:
        self.asked[name] = values
        answer = self._answers.get(name, values[-1])
        return answer if answer in values else values[-1]  # another question of that name in another branch


def _answered(space: Space, answers: dict[str, Any]) -> tuple[TrialConfig, dict[str, list[Any]]]:
    probe = _Probe(answers)
    return TrialConfig.of(space(probe)), probe.asked


def _with_this_body(config: TrialConfig) -> TrialConfig:
    """The same for all configurations whose bodies need as much memory for an image: everything else is not theirs."""
    kept = {name: getattr(config, name) for name in OF_BODY} | {"body_dropout": 0.5 if config.body_dropout else 0.0}
    return TrialConfig(learning_rate=1e-3, batch_size=2, unfrozen_layers=config.unfrozen_layers, **kept)


def _trained(config: TrialConfig) -> str:
    if config.unfrozen_layers is None:
        return "all layers trained"
    return f"{config.unfrozen_layers} layers trained" if config.unfrozen_layers else "the head trained"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
