"""Several processes that train one network learn what one learns, up to rounding; without Ray.

Weights are compared after an epoch or two of plain gradient descent: adaptive optimizers divide by gradients, and of
those that are nearly zero all is rounding.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from datasets import ImageDataset
from tests.small import MOBILENET, small_config, small_dataset, small_protocol, small_segmentation
from trainables.distributed import _OfWhole, added_up, division
from trainables.dropout import Dropout
from trainables.memory import MicroBatch
from trainables.refit import Refit

COUNT = 3
"""Of processes, which so have unequal shares of a batch of eight."""
TOLERANCE = 2e-3
"""Of a tensor of weights in float32, as a share of its length. torch's batch norm of maps of features on a CPU, which
one process uses, rounds a hundred times as coarsely as that of several."""
MIXED = {"mixup": 0.3, "cutmix": 0.3}
HEAD = {"dense_batch_norm": True, "dropout": 0.4}
CONFIGS: dict[str, dict[str, Any]] = {
    "batch norm and dropout": HEAD,
    "class weights, smoothed labels, a last batch of three": {
        **HEAD,
        "batch_size": 11,
        "balance": "class_weights",
        "label_smoothing": 0.1,
    },
    "fewer images than processes": {"batch_size": 17, "dropout": 0.4},
    "parts of a batch, averaged weights": {**HEAD, "accumulate": 2, "ema": 0.9},
    "augmented": {"flip": True, "rotation_deg": 20.0, "noise": 0.1, "intensity_percentile": 5.0},
    "mixed": MIXED,
    "dropout in the body": {"model": "asproudis_cnn", "body_dropout": 0.4},
    "dropout of channels": {"model": "kth_alexnet", "body_dropout": 0.4, "batch_norm": True, "image_size_px": 64},
    "a backbone of which only the last layers are trained": {**MOBILENET, "unfrozen_layers": 8, "flip": True},
    "the head first, then all": {"head_epochs": 1, "head_batch_size": 12},
    "masks": {"model": "encoder_decoder", "dense_widths": (), "batch_norm": True},
}


def dataset_for(config: dict[str, Any]) -> ImageDataset:
    if config.get("model") == "encoder_decoder":
        return small_segmentation(24)
    return small_dataset(24, channels=3 if "mobilenet" in config.get("model", "") else 1)


def trained(config: dict[str, Any]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of every epoch and the weights after the last."""
    asked = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.5} | config
    one = {"networks": 1, "epochs": 1 + config.get("head_epochs", 0), "losses": ()}
    lockstep = Refit(small_config(**asked), dataset_for(config), small_protocol(max_epochs=2), **one)
    while not lockstep.finished:
        lockstep.advance()
    return [entry["train_loss"] for entry in lockstep.curve], lockstep._group.best()[0]


def normalised_and_dropped() -> dict[str, torch.Tensor]:
    """What layers make of the rows of a batch of 8, and of gradients; as a process has them."""
    torch.manual_seed(0)
    own, found = division(slice(0, 8)), {}
    for name, shape, layer in (
        ("batch norm of vectors", (8, 5), nn.BatchNorm1d(5)),
        ("batch norm of maps", (8, 5, 4, 4), nn.BatchNorm2d(5)),
        ("batch norm without parameters", (8, 5), nn.BatchNorm1d(5, affine=False)),
        ("batch norm of the mean of all batches", (8, 5), nn.BatchNorm1d(5, momentum=None)),
        ("our dropout", (8, 33), Dropout(0.5)),
        ("dropout", (8, 5, 7), nn.Dropout(0.5)),
        ("dropout of tokens", (24, 7), nn.Dropout(0.5)),
        ("dropout of channels", (8, 5, 4, 4), nn.Dropout2d(0.5)),
        ("dropout of maps, channels last", (8, 5, 4, 4), nn.Dropout(0.5)),
    ):
        whole, gradient = torch.randn(shape) * 3 + 2, torch.randn(shape)
        if "channels last" in name:
            whole = whole.contiguous(memory_format=torch.channels_last)
        each = len(whole) // 8
        rows = slice(own.rows.start * each, own.rows.stop * each)
        values = whole[rows].clone(memory_format=torch.preserve_format).requires_grad_()
        with own.of_whole:
            result = layer(values)
        (result * gradient[rows]).sum().backward()
        added_up(torch.zeros(()), layer.parameters())
        found[f"{name}, result"], found[f"{name}, gradient"] = result.detach(), values.grad
        found |= {f"{name}, {key}": tensor for key, tensor in layer.state_dict().items()}
        found |= {f"{name}, gradient of {key}": parameter.grad for key, parameter in layer.named_parameters()}
    return found


def process(place: int, count: int, folder: Path, compute: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=place, world_size=count)
    try:
        torch.save(compute(), folder / f"{place}.pt")
    finally:
        distributed.destroy_process_group()


def in_processes(count: int, folder: Path, compute: Callable[[], Any]) -> list[Any]:
    """What each process has found."""
    multiprocessing.spawn(process, (count, folder, compute), count)
    return [torch.load(folder / f"{place}.pt") for place in range(count)]


def of_every_config() -> dict[str, Any]:
    return {name: trained(config) for name, config in CONFIGS.items()}


def everything() -> dict[str, Any]:
    return {"layers": normalised_and_dropped(), **of_every_config()}


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return everything()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_processes(COUNT, tmp_path_factory.mktemp("processes"), everything)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_network_is_learned_by_one_process_or_by_several(name, alone, together):
    losses, weights = alone[name]
    for other_losses, other_weights in (of_one[name] for of_one in together):
        assert other_losses == pytest.approx(losses, rel=1e-3)
        assert other_weights.keys() == weights.keys()
        for tensor, expected in weights.items():
            apart = (other_weights[tensor].double() - expected.double()).norm()
            assert apart <= TOLERANCE * expected.double().norm() + 1e-5, tensor


@pytest.mark.parametrize("name", CONFIGS)
def test_all_processes_have_the_same_network(name, together):
    """Bit for bit, or they would drift apart."""
    (losses, weights), *others = (of_one[name] for of_one in together)
    for other_losses, other_weights in others:
        assert other_losses == losses
        assert all(torch.equal(other_weights[tensor], weights[tensor]) for tensor in weights)


def test_layers_compute_as_for_the_whole_batch(alone, together):
    """Results and gradients of the rows side by side are those of the batch; statistics and parameters are in all the
    same."""
    for name, expected in alone["layers"].items():
        found = [of_one["layers"][name] for of_one in together]
        if name.endswith(("result", "gradient")):
            torch.testing.assert_close(torch.cat(found), expected, rtol=1e-5, atol=1e-5)
        else:
            for each in found:
                torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_as_exact_as_in_twice_the_precision(tmp_path):
    folder = tmp_path / "group"
    distributed.init_process_group("gloo", init_method=f"file://{folder}", rank=0, world_size=1)
    try:
        values, gradient = (torch.randn(8, 32, 16, 16, dtype=torch.float64) for _ in range(2))
        values = values * 0.01 + 5  # a mean of squares less the square of the mean would be nothing but rounding
        gradients, results = [], []
        for given, mode in ((values, None), (values.float(), _OfWhole(8, 0, 8))):
            given = given.clone().requires_grad_()
            statistics = (torch.zeros(32, dtype=given.dtype), torch.ones(32, dtype=given.dtype))
            if mode is None:
                result = F.batch_norm(given, *statistics, training=True)
            else:
                with mode:
                    result = F.batch_norm(given, *statistics, training=True)
            (result * gradient.to(given.dtype)).sum().backward()
            results.append(result.detach().double())
            gradients.append(given.grad.double())
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=2e-2)
    finally:
        distributed.destroy_process_group()


def test_standardised_weights_are_no_batch_norm():
    """Layers that standardise their weights call the same function, without statistics: of one process alone."""
    weights = torch.randn(1, 4, 9)
    alone = F.batch_norm(weights, None, None, training=True)
    with _OfWhole(8, 0, 4):
        assert torch.equal(F.batch_norm(weights, None, None, training=True), alone)


def test_every_image_is_computed_by_one_process_or_by_all(monkeypatch):
    monkeypatch.setattr("trainables.distributed.processes", lambda: 3)
    for images in range(1, 12):
        counted = np.zeros(20)
        for place in range(3):
            monkeypatch.setattr(distributed, "get_rank", lambda place=place: place)
            own = division(slice(5, 5 + images))
            counted[own.rows] += 1 / own.times
        assert counted[5 : 5 + images].tolist() == pytest.approx([1.0] * images)
        assert counted.sum() == pytest.approx(images)


def test_memory_that_does_not_suffice_is_not_tried_again_while_others_wait(monkeypatch):
    monkeypatch.setattr("trainables.fold.processes", lambda: 2)
    attempts = []

    def fitting(self: MicroBatch, attempt: object, largest: int, before: object) -> None:
        attempts.append(largest)
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(MicroBatch, "fitting", fitting)
    with pytest.raises(torch.OutOfMemoryError):
        trained({"accumulate": 2})
    assert attempts == [2]
