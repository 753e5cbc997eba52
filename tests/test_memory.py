"""Memory that does not suffice: smaller parts, and nothing else is different. The machine's own allocator refuses here
as a GPU's does, when it is asked for more than any machine has."""

import copy
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.small import small_config, small_dataset, small_folds, small_protocol
from trainables.lockstep import Lockstep
from trainables.memory import Before, MicroBatch, evaluated, fitting, is_out_of_memory

BEYOND_ANY = 2**58


@pytest.fixture(autouse=True)
def only_new_objects_are_collected() -> Iterator[None]:
    """After every failure: to look through those of all packages takes longer than the tests."""
    gc.freeze()
    yield
    gc.unfreeze()


def too_much() -> None:
    torch.empty(BEYOND_ANY, dtype=torch.uint8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))


def training(net: nn.Module, images: torch.Tensor, room_for: int):
    """An attempt at the gradient of a batch on a device with room for so many images, which gives up in its middle."""

    def attempt(parts: int) -> torch.Tensor:
        net.zero_grad(set_to_none=True)
        losses = []
        for part in images.tensor_split(parts):
            loss = net(part).square().sum() / len(images)
            if len(part) > room_for:
                too_much()
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    return attempt


@pytest.mark.parametrize(("room_for", "parts"), [(16, 1), (8, 2), (4, 4), (3, 8), (1, 16)])
def test_the_parts_are_doubled_until_they_fit(room_for, parts):
    net = network().eval()
    images = torch.randn(16, 5)
    loss, fitted = fitting(training(net, images, room_for), 1, largest=16)
    assert fitted == parts
    whole = network().eval()
    torch.testing.assert_close(loss, training(whole, images, 16)(1))
    for one, other in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_nothing_depends_on_how_often_it_failed():
    """Bit for bit: dropout draws from a generator, batch norm changes its statistics."""
    images, nets, after = torch.randn(16, 5), [network(), network()], []
    for net, begin_with in zip(nets, (1, 4), strict=True):
        torch.manual_seed(1)
        loss, parts = fitting(training(net, images, 4), begin_with, 16, Before(net))
        assert parts == 4
        after.append((loss, torch.get_rng_state(), net.state_dict(), [each.grad for each in net.parameters()]))
    torch.testing.assert_close(*after, rtol=0, atol=0)
    assert nets[0][1].num_batches_tracked == 4


def test_statistics_of_what_is_not_in_training_are_not_kept():
    net = network()
    assert sum(len(now) for now, _ in Before(net)._statistics) == 3
    net[1].eval()
    assert Before(net)._statistics == []


def test_where_the_smallest_part_does_not_fit_it_says_what_to_do_and_leaves_all_as_it_was():
    net, images, tried = network(), torch.randn(12, 5), []
    attempt = training(net, images, 0)
    statistics, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()

    def counted(parts):
        tried.append(parts)
        return attempt(parts)

    with pytest.raises(torch.OutOfMemoryError, match=r"smaller image_size_px.*--gpus-per-trial.*can't allocate"):
        fitting(counted, 1, 6, Before(net))
    assert tried == [1, 2, 4, 6]
    torch.testing.assert_close(dict(net.state_dict()), dict(statistics), rtol=0, atol=0)
    assert torch.get_rng_state().equal(generator)


def test_what_failed_is_released_before_it_is_tried_again():
    held, alive = [], []

    def attempt(parts: int) -> None:
        alive.append([tensor() is not None for tensor in held])
        activations = torch.zeros(100, requires_grad=True) * 2
        held.append(weakref.ref(activations))
        if parts < 4:
            too_much()

    fitting(attempt, 1, 4)
    assert alive == [[], [False], [False, False]]


def test_a_gpus_cache_is_emptied_between_attempts(monkeypatch):
    happened = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: happened.append(f"generator {state.item()}"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: happened.append("emptied"))

    def attempt(parts: int) -> None:
        happened.append(parts)
        if parts < 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    fitting(attempt, 1, 2)
    assert happened == [1, "generator 7", "emptied", 2]


def test_other_errors_are_not_tried_again():
    tried = []

    def attempt(parts: int) -> None:
        tried.append(parts)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        fitting(attempt, 1, 8)
    assert tried == [1]


def test_a_trial_keeps_the_parts_that_fitted(caplog):
    net, images, micro_batch = network(), torch.randn(16, 5), MicroBatch()
    tried = []
    for _ in range(3):
        attempt = training(net, images, 4)
        micro_batch.fitting(lambda parts, attempt=attempt: (tried.append(parts), attempt(parts)), 16, Before(net))
    assert tried == [1, 2, 4, 4, 4]
    assert micro_batch.parts == 4
    assert len(caplog.messages) == 1
    assert "4 parts" in caplog.text


def test_batches_of_an_evaluation_are_halved_and_stay_so():
    rows, sizes = torch.arange(50), []

    def compute(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 5:
            too_much()
        return batch * 2

    done = list(evaluated(compute, rows, 16))
    assert torch.cat([batch for batch, _ in done]).equal(rows)
    assert torch.cat([result for _, result in done]).equal(rows * 2)
    assert sizes == [16, 8, *[4] * 12, 2]


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_it_has_several_names(said):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(ValueError(said))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def with_room_for(images: int | None, accumulate: int) -> Lockstep:
    """A trial on a device on which no network has room for more images than that in training, nor ten in evaluation."""
    dataset = small_dataset(38)
    config = small_config(dense_batch_norm=True, dropout=0.4, ema=0.5, accumulate=accumulate, mixup=0.2)
    lockstep = Lockstep(config, dataset, small_folds(dataset, 2), small_protocol(max_epochs=3))

    def room(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if images is not None and len(inputs[0]) > (images if module.training else 10):
            too_much()

    for network in (module for fold in lockstep._group.folds for module in (fold.network, fold._average)):
        network.head[-1].register_forward_pre_hook(room)  # when batch norm and dropout have done their part
    return lockstep


def test_a_trial_without_room_goes_on_in_parts_and_is_the_one_that_had_parts_from_the_start(tmp_path):
    straight, short = with_room_for(None, accumulate=2), with_room_for(4, accumulate=1)
    for lockstep in (straight, short):
        lockstep.advance()
    assert short.report()["parts"] == 2
    short.save(tmp_path)
    resumed = with_room_for(None, accumulate=1)
    resumed.load(tmp_path)
    for lockstep in (straight, short, resumed):
        lockstep.advance()
    for one, other, again in zip(straight.curve, short.curve, resumed.curve, strict=True):
        assert one["train_loss"] == other["train_loss"] == again["train_loss"]  # to the last bit
        assert one == pytest.approx(other, rel=1e-5)  # validated in smaller batches
