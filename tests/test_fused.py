"""k heads trained as one: the same numbers as in turn, whatever the heads are and however unequal the folds."""

import math

import numpy as np
import pytest
import torch

from datasets.folds import Folds
from tests.small import MOBILENET, small_config, small_dataset, small_folds, small_multitask, small_protocol
from trainables import fold_group
from trainables.dropout import Dropout, kept
from trainables.fold import Fold
from trainables.lockstep import Lockstep

HEADS = {
    "a linear layer": {},
    "dropout": {"dropout": 0.5, "dense_widths": (16, 8), "last_dropout": 0.2},
    "batch norm": {"dense_batch_norm": True, "dense_widths": (16, 8), "dropout": 0.3},
    "batches of uneven last sizes": {"batch_size": 7, "dense_batch_norm": True, "dense_widths": (8,)},
    "class weights": {"balance": "class_weights", "label_smoothing": 0.1},
    "sample weights": {"balance": "sample_weights", "optimizer": "adamw", "weight_decay": 0.1},
    "oversampling": {"balance": "oversample", "oversample_to": 20},
    "averaged weights": {"ema": 0.8, "dense_batch_norm": True},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05, "schedule": "cosine", "warmup_epochs": 1.0},
    "as in Keras": {"defaults": "keras", "dense_widths": (16,), "schedule": "plateau", "decay_epochs": 1},
    "larger batches for the head": {"head_epochs": 2, "head_batch_size": 16, "batch_size": 4, "dense_batch_norm": True},
    "augmented views": {"flip": True, "rotation_deg": 30.0, "views": 2},
    "augmented repeats": {"balance": "augmented_oversample", "oversample_to": 20, "flip": True, "views": 3},
}


def uneven_folds() -> Folds:
    """Three folds that validate 2, 13 and 23 of 38 images: they train in five, three and two steps of eight."""
    return Folds(np.repeat([0, 1, 2], [2, 13, 23])[None, np.arange(38) * 7 % 38])


def trained(monkeypatch, fused: bool, dataset=None, folds=None, epochs: int = 3, **given) -> Lockstep:
    dataset = dataset or small_dataset(38, size_px=32, channels=3)
    given = {**MOBILENET, "unfrozen_layers": 0, **given}
    with monkeypatch.context() as patched:
        if not fused:
            patched.setattr(fold_group, "can_be_fused", lambda *_: False)
        protocol = small_protocol(max_epochs=epochs, metric="accuracy")
        one = Lockstep(small_config(**given), dataset, folds or small_folds(dataset), protocol)
    assert bool(one._group.fused) is fused
    while not one.finished:
        one.advance()
    return one


def assert_same(first: Lockstep, second: Lockstep) -> None:
    """But for rounding, which batch norm and Adam magnify: other random numbers would change the second digit."""
    for one, other in zip(first.curve, second.curve, strict=True):
        for name in ("train_loss", "log_loss", "learning_rate"):
            assert other[name] == pytest.approx(one[name], rel=2e-3), name
    for one, other in zip(first._group.folds, second._group.folds, strict=True):
        of_other = other.weights()
        for name, tensor in one.weights().items():
            torch.testing.assert_close(of_other[name], tensor, rtol=1e-2, atol=2e-3, msg=name)


@pytest.mark.parametrize("head", HEADS)
def test_heads_train_together_as_in_turn(head, monkeypatch):
    assert_same(*(trained(monkeypatch, fused, **HEADS[head]) for fused in (False, True)))


@pytest.mark.parametrize("head", ["batch norm", "class weights", "averaged weights"])
def test_folds_of_very_different_sizes_train_together_as_in_turn(head, monkeypatch):
    in_turn, together = (trained(monkeypatch, fused, folds=uneven_folds(), **HEADS[head]) for fused in (False, True))
    assert together._group.fused._steps == [5, 3, 2]
    assert_same(in_turn, together)


def test_several_targets_and_bodies_without_parameters_train_together_as_in_turn(monkeypatch):
    dataset = small_multitask(38)
    given = {"model": "mlp", "image_size_px": 16, "unfrozen_layers": None, "dropout": 0.2, "auxiliary_weight": 0.5}
    assert_same(*(trained(monkeypatch, fused, dataset, **given) for fused in (False, True)))


def test_a_fold_that_diverges_takes_none_with_it(monkeypatch):
    one = trained(monkeypatch, True, epochs=1)
    with torch.no_grad():
        one._group.folds[1].head[-1].weight.fill_(math.nan)
    losses = one._group.fused.train(1, one._group.fetch, 0)
    assert [math.isfinite(loss) for loss in losses] == [True, False, True]


@pytest.mark.parametrize("head", ["batch norm", "averaged weights"])
@pytest.mark.parametrize("folds", [None, uneven_folds()])
def test_heads_that_train_together_resume_exactly(head, folds, monkeypatch, tmp_path):
    straight = trained(monkeypatch, True, folds=folds, **HEADS[head])
    dataset = small_dataset(38, size_px=32, channels=3)
    config = small_config(**{**MOBILENET, "unfrozen_layers": 0, **HEADS[head]})
    folds = folds or small_folds(dataset)
    begun = Lockstep(config, dataset, folds, small_protocol(max_epochs=3, metric="accuracy"))
    begun.advance()
    begun.save(tmp_path)
    resumed = Lockstep(config, dataset, folds, small_protocol(max_epochs=3, metric="accuracy"))
    resumed.load(tmp_path)
    while not resumed.finished:
        resumed.advance()
    assert resumed.curve == straight.curve


@pytest.mark.parametrize(
    "given",
    [
        {"unfrozen_layers": 3},
        {"accumulate": 2},
        {"mixup": 0.4},
        {"flip": True, "views": 0},
        {"model": "mlp", "unfrozen_layers": None, "flip": True},
    ],
)
def test_what_is_more_than_heads_on_ready_features_trains_in_turn(given, monkeypatch):
    trained(monkeypatch, False, epochs=1, **given)
    with pytest.raises(AssertionError):
        trained(monkeypatch, True, epochs=1, **given)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_dropout_drops_the_asked_for_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    mask = kept((200, 301), p, "cpu")
    assert float(mask.float().mean()) == pytest.approx(1 - p, abs=0.01)
    assert float(mask.float().std(0).min()) > 0, "no column is all the same"
    values = Dropout(p)(torch.ones(200, 301))
    assert values.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert Dropout(p).eval()(torch.ones(3)).equal(torch.ones(3))


def test_repeats_of_an_image_in_an_epoch_are_other_views_of_it():
    dataset = small_dataset(30, size_px=32, channels=3)
    given = {**MOBILENET, "balance": "augmented_oversample", "oversample_to": 40, "flip": True, "views": 4}
    one = Lockstep(small_config(**given, unfrozen_layers=0), dataset, small_folds(dataset), small_protocol())
    fold: Fold = one._group.folds[0]
    for number in (1, 2):
        epoch = fold.epoch(number)
        for row in epoch.rows.unique():
            views = sorted(epoch.views[epoch.rows == row].tolist())
            assert views.count(-1) == 1, "once as it is"
            assert len(set(views)) == len(views) <= 5
