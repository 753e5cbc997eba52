"""The time of a search over the least that its arithmetic takes on this machine.

    python -m benchmarks.versus_limit --quick     two minutes on two cores
    python -m benchmarks.versus_limit --record    a quarter of an hour; adds its rows to versus_limit.md

The least is one pass of all images through the frozen network, in large batches on all cores, and then of every trial
only what training changes, in a bare loop over tensors in memory, with as many trials at a time as there are cores:
forward, backward and step of every batch, forward of the images that are validated. No decoding, no store, no scores,
no reports, no checkpoints, no search. Heads alone are multiplied for all folds at once, optimizers are torch's fused
ones, the layers that are trained begin at the same cut as ours. Features are random numbers: the arithmetic is the
same.

Ours is the command that a user calls, from the first pass of images through the network to the last report. What
comes before and after stands beside it.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.comparison import FOLDS, IMAGE_SIZE_PX, Searched, Task, points, prepared, search, side_by_side
from benchmarks.measurement import Measured, measured, record, show
from benchmarks.versus_ray_tune import SPACES, Size
from trainables.config import TrialConfig
from trainables.cutting import cut
from trainables.network import Network, build_head, frozen_body

CHANNELS, BATCH = 3, 64
TARGET = 1.3
IN = ("frozen", "0-40 layers")


class Heads(nn.Module):
    """The heads of all folds as one: features (k, B, D) to logits (k, B)."""

    def __init__(self, features: int, width: int, dropout: float):
        super().__init__()
        self.first = nn.Parameter(torch.randn(FOLDS, features, width) / features**0.5)
        self.first_bias = nn.Parameter(torch.zeros(FOLDS, 1, width))
        self.second = nn.Parameter(torch.randn(FOLDS, width, 1) / width**0.5)
        self.second_bias = nn.Parameter(torch.zeros(FOLDS, 1, 1))
        self.dropout = dropout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = torch.baddbmm(self.first_bias, features, self.first).relu()
        hidden = functional.dropout(hidden, self.dropout, self.training)
        return torch.baddbmm(self.second_bias, hidden, self.second).squeeze(2)


def pass_s(task: Task, images: int, dtype: torch.dtype) -> float:
    """Seconds of one pass through the frozen network, on all cores."""
    torch.set_num_threads(side_by_side())
    body = frozen_body(_config(task.points[0] | {"unfrozen_layers": 0}), CHANNELS, str(task.weights), seed=0).module
    body.eval().to(memory_format=torch.channels_last)
    inputs = torch.randn(images, CHANNELS, IMAGE_SIZE_PX, IMAGE_SIZE_PX).to(memory_format=torch.channels_last)
    with torch.inference_mode(), _autocast(dtype):
        body(inputs[:BATCH])
        began = time.perf_counter()
        for batch in inputs.split(BATCH):
            body(batch)
        return time.perf_counter() - began


def trial_s(task: Task, point: dict[str, Any], images: int, dtype: torch.dtype) -> float:
    """Seconds of what a trial trains, on one core: all its folds and epochs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = _config(point)
    body = frozen_body(config, CHANNELS, str(task.weights), seed=0)
    body.module.to(memory_format=torch.channels_last)
    parts = cut(body.module, (CHANNELS, IMAGE_SIZE_PX, IMAGE_SIZE_PX))
    assert parts is not None
    prefix, tail, _ = parts
    with torch.inference_mode():
        shape = prefix(torch.zeros(1, CHANNELS, IMAGE_SIZE_PX, IMAGE_SIZE_PX)).shape[1:]
    features = torch.randn(images, *shape).to(dtype)
    if len(shape) == 3:
        features = features.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (images,)).float()
    if config.unfrozen_layers == 0:
        networks: list[nn.Module] = [Heads(body.features, config.dense_widths[0], config.dropout)]
    else:
        networks = [
            Network(copy.deepcopy(tail), build_head(config, body.features, outputs=1, seed=fold))
            for fold in range(FOLDS)
        ]
    epochs = [_epoch(network, features, labels, config, dtype) for network in networks]
    for epoch in epochs:
        epoch(1)  # the first of a shape takes longer
    began = time.perf_counter()
    for _ in range(task.epochs):
        for epoch in epochs:
            epoch(images)
    return time.perf_counter() - began


def _epoch(
    network: nn.Module, features: torch.Tensor, labels: torch.Tensor, config: TrialConfig, dtype: torch.dtype
) -> Callable[[int], None]:
    """Trains and validates one fold, or all at once, on so many images at most."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    together = (FOLDS,) if isinstance(network, Heads) else ()
    split = len(features) * (FOLDS - 1) // FOLDS

    def of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = features.index_select(0, rows.flatten())
        return inputs.view(*rows.shape, -1) if together else inputs, labels[rows]

    def epoch(images: int) -> None:
        network.train()
        orders = torch.stack([torch.randperm(split) for _ in range(FOLDS)]) if together else torch.randperm(split)
        for rows in orders[..., :images].split(config.batch_size, dim=-1):
            inputs, truth = of(rows)
            optimizer.zero_grad(set_to_none=True)
            with _autocast(dtype):
                logits = network(inputs).float().view(truth.shape)
            loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1).sum()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode(), _autocast(dtype):
            for rows in torch.arange(split, len(features)).expand(*together, -1).split(BATCH, dim=-1):
                network(of(rows)[0]).float().sigmoid()

    return epoch


def least(task: Task, images: int, dtype: torch.dtype) -> tuple[float, float]:
    """Seconds of the pass, and of all trials together, divided by how many there are at a time."""
    once = pass_s(task, images, dtype)
    wanted = [(task, point, images, dtype) for point in task.points]
    with get_context("spawn").Pool(side_by_side()) as processes:
        trials = processes.starmap(trial_s, wanted, chunksize=1)
    return once, sum(trials) / side_by_side()


def _config(point: dict[str, Any]) -> TrialConfig:
    return TrialConfig(
        model="mobilenetv2_100",
        image_size_px=IMAGE_SIZE_PX,
        optimizer="adamw",
        learning_rate=point["learning_rate"],
        weight_decay=point["weight_decay"],
        batch_size=point["batch_size"],
        dense_widths=(point["dense_width"],),
        dropout=point["dropout"],
        unfrozen_layers=point.get("unfrozen_layers", 0),
    )


def _autocast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)


def row(name: str, size: Size, ours: Searched, limit: Measured) -> dict[str, Any]:
    once, trials = limit.result
    ending_s = ours.called.seconds - ours.start_up_s - ours.training_s
    return {
        "space": name,
        "precision": ours.precision,
        "images, epochs": f"{size.images}, {size.epochs}",
        "trials": size.trials,
        "pass, s": f"{once:.2f}",
        "trials, s": f"{trials:.2f}",
        "least, s": f"{once + trials:.2f}",
        "ours, s": f"{ours.training_s:.2f}",
        "ratio": f"{ours.training_s / (once + trials):.2f}",
        "target": TARGET,
        "start-up, s": f"{ours.start_up_s:.1f}",
        "ending, s": f"{ending_s:.1f}",
        "private MB": f"{limit.private_bytes // 10**6}, {ours.called.private_bytes // 10**6}",
        "mapped MB": f"{limit.mapped_bytes // 10**6}, {ours.called.mapped_bytes // 10**6}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images, epochs and trials where layers are trained")
    parser.add_argument("--space", choices=IN, action="append", help="one of the spaces only")
    parser.add_argument("--precision", choices=("auto", "float32"), default="auto")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.space or IN:
            size = SPACES[name].quick if options.quick else SPACES[name].whole
            folder = Path(temporary, str(size.images))
            if not folder.exists():
                prepared(folder, size.images)
            task = Task(folder, SPACES[name].layers, size.epochs, points(size.trials, SPACES[name].layers))
            ours = search(task, name.replace(" ", "-"), options.precision)
            dtype = torch.bfloat16 if ours.precision == "bfloat16" else torch.float32
            compared = row(name, size, ours, measured(least, task, size.images, dtype))
            show(compared)
            if options.record:
                record("versus_limit", compared, "quick" if options.quick else "")


if __name__ == "__main__":
    main()
