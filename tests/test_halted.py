"""Training that is halted in the middle of an epoch ends with the numbers of training that is not."""

import math
from itertools import count

import numpy as np
import pytest
import torch

from tests.small import MOBILENET, small_config, small_dataset, small_folds, small_protocol
from trainables import fold_group
from trainables.fold import Fold
from trainables.lockstep import Lockstep

IMAGES, EPOCHS = 30, 2
VARIANTS = {
    "all that is drawn": {
        "dropout": 0.4,
        "dense_batch_norm": True,
        "mixup": 0.4,
        "cutmix": 1.0,
        "ema": 0.9,
        "flip": True,
        "rotation_deg": 36.0,
        "contrast": 0.1,
        "noise": 0.05,
        "optimizer": "adamw",
        "schedule": "cosine",
    },
    "oversampled": {"balance": "augmented_oversample", "oversample_to": 14, "flip": True, "optimizer": "sgd"},
    "two phases in parts": {"head_epochs": 1, "head_batch_size": 10, "accumulate": 2, "dropout": 0.2},
}


def begun(**config) -> Lockstep:
    dataset = small_dataset(IMAGES)
    return Lockstep(small_config(**config), dataset, small_folds(dataset, 2), small_protocol(max_epochs=EPOCHS))


def halting_in(monkeypatch, batch: int) -> list[Lockstep]:
    """Whatever is put into this list is halted while that batch is trained, counted over all folds and epochs."""
    halted: list[Lockstep] = []
    numbers = count(1)
    follow = Fold.follow

    def followed(self: Fold, steps: int) -> None:
        if next(numbers) == batch:
            halted[0].halt()
        follow(self, steps)

    monkeypatch.setattr(Fold, "follow", followed)
    return halted


def trained(lockstep: Lockstep) -> Lockstep:
    while not lockstep.finished:
        lockstep.advance()
    return lockstep


def assert_same(one: Lockstep, other: Lockstep) -> None:
    """To the last bit."""
    assert one.curve == other.curve
    np.testing.assert_array_equal(one._best_predictions, other._best_predictions)
    for first, second in zip(one._group.best(), other._group.best(), strict=True):
        for name, tensor in first.items():
            assert second[name].equal(tensor), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_halted_after_every_few_batches_it_ends_with_the_same_numbers(variant, monkeypatch, tmp_path):
    straight, lockstep = trained(begun(**VARIANTS[variant])), begun(**VARIANTS[variant])
    numbers, places = count(1), set()
    follow = Fold.follow

    def followed(self: Fold, steps: int) -> None:
        if next(numbers) % 3 == 0:
            lockstep.halt()
        follow(self, steps)

    monkeypatch.setattr(Fold, "follow", followed)
    while not lockstep.finished:
        epoch = lockstep.epoch
        lockstep.advance()
        if lockstep.epoch > epoch:
            continue
        assert lockstep.halted
        states = lockstep._group.states()
        places.add((epoch, *(state["underway"] and state["underway"]["step"] for state in states)))
        lockstep.save(tmp_path)
        torch.manual_seed(99)  # whatever the process does in between
        lockstep = begun(**VARIANTS[variant])
        lockstep.load(tmp_path)
    assert {epoch for epoch, *_ in places} == {0, 1}
    assert {len(set(place)) for place in places} - {1}, "in the middle of one fold, and not of the other"
    assert_same(straight, lockstep)


def test_in_the_same_process_it_goes_on_too(monkeypatch):
    config = VARIANTS["all that is drawn"]
    straight = trained(begun(**config))
    for batch in (1, 2, 3, 4, 7):  # of two each in both folds: in the middle of the first, after it, …
        with monkeypatch.context() as patched:
            halting = halting_in(patched, batch)
            halting.append(begun(**config))
            lockstep = halting[0]
            lockstep.advance()
            assert lockstep.halted is (batch <= 4)
            assert lockstep.epoch == (batch >= 4), "a halt in the last batch finds the epoch through"
            assert_same(straight, trained(lockstep))


def test_before_any_epoch_is_through_there_is_a_report_without_a_score_and_a_checkpoint(tmp_path):
    lockstep = begun()
    lockstep.halt()  # in between: the next batch is the last
    lockstep.advance()
    report = lockstep.report()
    assert (lockstep.halted, report["epoch"], report["best_epoch"], report["finished"]) == (True, 0, 0, False)
    assert math.isnan(report["accuracy"])
    assert report["seconds"] > 0
    lockstep.save(tmp_path)
    again = begun()
    again.load(tmp_path)
    again.advance()
    assert (again.epoch, again.halted) == (1, False)


def test_what_is_reported_is_the_last_whole_epoch():
    lockstep = begun()
    lockstep.advance()
    whole = lockstep.report()
    lockstep.halt()
    lockstep.advance()
    assert lockstep.report() | {"seconds": 0} == whole | {"seconds": 0}


def test_halted_while_it_validates_the_epoch_is_through_and_the_next_is_not_touched(monkeypatch):
    lockstep = begun()
    predict = Fold.predict

    def halting(self: Fold, fetch):
        lockstep.halt()
        return predict(self, fetch)

    with monkeypatch.context() as patched:
        patched.setattr(Fold, "predict", halting)
        lockstep.advance()
    assert (lockstep.epoch, lockstep.halted) == (1, True)
    lockstep.advance()
    assert (lockstep.epoch, lockstep.halted) == (2, False)


HEADS = {**MOBILENET, "unfrozen_layers": 0, "dropout": 0.3}


def of_heads() -> Lockstep:
    dataset = small_dataset(IMAGES, size_px=32, channels=3)
    return Lockstep(small_config(**HEADS), dataset, small_folds(dataset, 2), small_protocol(max_epochs=EPOCHS))


def test_heads_that_are_trained_as_one_finish_their_epoch():
    lockstep = of_heads()
    lockstep.halt()
    lockstep.advance()
    assert lockstep._group.fused
    assert (lockstep.epoch, lockstep.halted) == (1, True)


@pytest.mark.parametrize(("in_turn_first", "in_epoch"), [(True, False), (True, True), (False, False)])
def test_heads_trained_in_turn_go_on_as_one_and_the_other_way_round(in_turn_first, in_epoch, monkeypatch, tmp_path):
    """An epoch that was begun fold by fold is ended so, as is all of its phase."""
    straight = trained(of_heads())
    with monkeypatch.context() as patched:
        patched.setattr(fold_group, "can_be_fused", lambda *_: False)
        in_turn = of_heads()
    before, after = (in_turn, of_heads()) if in_turn_first else (of_heads(), in_turn)
    before.advance()
    if in_epoch:
        before.halt()
        before.advance()
    before.save(tmp_path)
    after.load(tmp_path)
    assert bool(after._group.fused) is (in_turn_first and not in_epoch)
    for one, other in zip(straight.curve, trained(after).curve, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
