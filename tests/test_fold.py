"""How a fold trains: parts of a batch, averaged weights, learning rates layer by layer."""

import copy
from itertools import chain, count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.utils import ModelEmaV3

from tests.small import small_config, small_dataset, small_folds, small_multitask, small_protocol, small_segmentation
from trainables.fold import Fold
from trainables.lockstep import Lockstep
from trainables.network import Network


def lockstep(dataset=None, epochs: int = 2, metric: str = "accuracy", **given) -> Lockstep:
    dataset = dataset or small_dataset(38)
    protocol = small_protocol(max_epochs=epochs, metric=metric)
    return Lockstep(small_config(**given), dataset, small_folds(dataset, 2), protocol)


def trained(*args, **given) -> Lockstep:
    one = lockstep(*args, **given)
    while not one.finished:
        one.advance()
    return one


# --- parts of a batch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"balance": "class_weights"},
        {"balance": "sample_weights"},
        {"mixup": 0.4},
        {"balance": "class_weights", "cutmix": 1.0, "label_smoothing": 0.1},
        {"flip": True, "noise": 0.1},
    ],
)
@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(options, accumulate):
    """Last batches of 3 images included: of 19 training images, the batches are 8, 8 and 3."""
    images = small_multitask(38)
    rare = np.flatnonzero(np.arange(38) % 8 % 3 != 1)
    for dataset in (images, images.rows(rare)):
        sgd = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "model": "mlp"}
        whole, parts = (trained(dataset, **sgd, **options, accumulate=count) for count in (1, accumulate))
        for first, second in zip(whole._group.folds, parts._group.folds, strict=True):
            for name, tensor in first.weights().items():
                torch.testing.assert_close(second.weights()[name], tensor, rtol=1e-4, atol=1e-6)
        for first, second in zip(whole.curve, parts.curve, strict=True):
            assert second == pytest.approx(first, rel=1e-4)


def test_masks_in_parts_have_the_gradient_of_the_whole():
    sgd = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "model": "encoder_decoder"}
    whole, parts = (trained(small_segmentation(), metric="dice", **sgd, accumulate=count) for count in (1, 3))
    for first, second in zip(whole.curve, parts.curve, strict=True):
        assert second == pytest.approx(first, rel=1e-3)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 90))
def test_parts_are_equal_fit_and_are_not_of_one_image(batch_size, accumulate, images):
    accumulate = min(batch_size, accumulate)
    fold = Fold.__new__(Fold)
    fold._config = small_config(batch_size=batch_size)
    parts = [list(range(images))[part] for part in fold._parts(images, accumulate)]
    assert list(chain(*parts)) == list(range(images))
    if accumulate == 1:
        assert len(parts) == 1
        return
    sizes, fits = {len(part) for part in parts}, -(-batch_size // accumulate)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= fits + (images % fits == 1)
    assert min(sizes) >= min(2, fits, images)
    if images == batch_size:
        assert len(parts) <= accumulate


def test_the_body_is_given_parts(monkeypatch):
    seen = []
    one = lockstep(accumulate=4)
    for fold in one._group.folds:
        fold.network.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, len(inputs[0]))))
    one.advance()
    assert {size for training, size in seen if training} == {2, 3}, "8 in four parts of 2, the last 3 together"


# --- averaged weights


@pytest.mark.parametrize("ema", [0.5, 0.8])
def test_the_average_is_timms_and_is_what_is_validated_and_kept(ema, monkeypatch):
    """Through two epochs, six steps, of a network with batch norm: 0.5 is reached in them, 0.8 is not."""
    one = lockstep(model="digits_cnn", dense_batch_norm=True, ema=ema)
    fold = one._group.folds[0]
    oracle = ModelEmaV3(copy.deepcopy(fold.network), decay=ema, use_warmup=True)
    steps = count(1)
    original = fold.optimizer.step

    def stepped(*args, **kwargs):
        result = original(*args, **kwargs)
        # before `fold` updates its own average; running statistics have been updated in the forward pass
        oracle.update(fold.network, step=next(steps))
        return result

    monkeypatch.setattr(fold.optimizer, "step", stepped)
    one.advance()
    one.advance()
    for name, tensor in fold.weights().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, oracle.module.state_dict()[name], msg=name)
    kept = {name: value for name, value in fold.weights().items() if "weight" in name}
    assert all(not value.equal(fold.network.state_dict()[name]) for name, value in kept.items())

    averaged = fold.predict(one._group.fetch)
    fold.network.load_state_dict(oracle.module.state_dict())
    plain = lockstep(model="digits_cnn", dense_batch_norm=True)._group.folds[0]
    plain.network.load_state_dict(oracle.module.state_dict())
    np.testing.assert_allclose(plain.predict(one._group.fetch), averaged, rtol=1e-4)


def test_a_long_average_is_of_use_from_the_first_epochs():
    """It would else be about the initial weights for hundreds of steps, and be stopped at the first rung."""
    plain, averaged = trained(epochs=6), trained(epochs=6, ema=0.999)
    assert plain.report()["accuracy"] > 0.9
    assert averaged.report()["accuracy"] > 0.9


def test_averaging_changes_validation_but_not_training():
    plain, averaged = trained(epochs=3), trained(epochs=3, ema=0.9)
    losses = [[entry["train_loss"] for entry in one.curve] for one in (plain, averaged)]
    assert losses[0] == losses[1]
    assert [entry["log_loss"] for entry in plain.curve] != [entry["log_loss"] for entry in averaged.curve]


def test_best_weights_give_the_predictions_that_were_kept(tmp_path):
    one = trained(epochs=3, ema=0.7)
    for fold, best in zip(one._group.folds, one._group.best(), strict=True):
        fold._average.load_state_dict(best)
        rows = fold.validation_rows.numpy()
        np.testing.assert_array_equal(fold.predict(one._group.fetch), one._best_predictions[rows])


# --- learning rates


def test_early_layers_move_less():
    moved = []
    for body_rate in (1.0, 1e-6):
        one = lockstep(epochs=1, body_rate=body_rate, optimizer="sgd")
        before = one._group.folds[0].weights()
        one.advance()
        after = one._group.folds[0].weights()
        weights = [name for name in before if name.endswith("weight") and before[name].ndim > 1]
        moved.append([float((after[name] - before[name]).norm()) for name in weights])
    assert moved[1][0] < 1e-4 * moved[0][0], "the first layer stands still"
    assert moved[1][-1] > 0.1 * moved[0][-1], "the head does not"


def test_the_learning_rate_told_is_the_heads():
    one = trained(epochs=1, body_rate=0.01)
    assert {entry["learning_rate"] for entry in one.curve} == {small_config().learning_rate}


def test_smoothing_is_of_training_only():
    plain, smoothed = (lockstep(epochs=1, label_smoothing=smoothing) for smoothing in (0.0, 0.2))
    for fold, same in zip(plain._group.folds, smoothed._group.folds, strict=True):
        same.network.load_state_dict(fold.network.state_dict())
        np.testing.assert_array_equal(fold.predict(plain._group.fetch), same.predict(smoothed._group.fetch))
    for one in (plain, smoothed):
        one.advance()
        rows = one._group.folds[0].validation_rows.numpy()
        assert one.curve[0]["log_loss"] == one._objective.scores(rows, one._best_predictions[rows])["log_loss"]
    assert plain.curve[0]["train_loss"] != smoothed.curve[0]["train_loss"]


# --- compiled networks


def test_what_is_compiled_is_what_is_trained_and_the_same_in_results(monkeypatch):
    given, calls = {"model": "tsouderos_cnn"}, []
    plain = trained(**given)

    def compiled(network):
        return lambda images: calls.append(len(images)) or network(images)

    monkeypatch.setattr(torch, "compile", compiled)
    dataset = small_dataset(38)
    protocol = small_protocol(max_epochs=2, metric="accuracy", compile=True)
    one = Lockstep(small_config(**given), dataset, small_folds(dataset, 2), protocol)
    while not one.finished:
        one.advance()
    assert one.curve == plain.curve
    assert calls == 4 * [8, 8, 3]


# --- memory that does not suffice


def test_batches_that_do_not_fit_are_trained_in_parts_with_the_same_result(monkeypatch, tmp_path):
    given = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1, "model": "tsouderos_cnn", "dropout": 0.0}
    whole, scarce, forward = trained(**given), lockstep(**given), Network.forward

    def out_of_memory(network: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(network, images)

    monkeypatch.setattr(Network, "forward", out_of_memory)
    scarce.advance()
    scarce.save(tmp_path)
    resumed = lockstep(**given)
    resumed.load(tmp_path)
    resumed.advance()
    for first, second in zip(whole.curve, resumed.curve, strict=True):
        assert second == pytest.approx(first, rel=1e-3)
    assert resumed.report()["parts"] == 4
    (note,) = resumed.report()["notes"]
    assert note.startswith("memory did not suffice: tsouderos_cnn is trained in 4 parts")


def test_where_not_even_two_images_fit_the_error_says_what_to_do(monkeypatch):
    def out_of_memory(network: Network, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    one = lockstep(model="tsouderos_cnn")
    monkeypatch.setattr(Network, "forward", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="choose a smaller image_size_px"):
        one.advance()
