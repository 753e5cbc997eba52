"""Schedulers: who goes on at a rung, and that an interruption changes nothing."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from search.schedulers import make_scheduler
from tests.small import small_protocol

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def trial(number):
    return SimpleNamespace(config={"number": number}, trial_id=f"rays-{number}")


def asha(past=None, **protocol):
    return make_scheduler("asha", small_protocol(**{"max_epochs": 27} | protocol), past or {})


def decided(scheduler, number, epoch, score, metric="accuracy"):
    return scheduler.on_trial_result(None, trial(number), {"epoch": epoch, metric: score})


def added(scheduler, *numbers):
    for number in numbers:
        scheduler.on_trial_add(None, trial(number))
    return scheduler


def test_the_best_third_goes_on():
    scheduler = added(asha(), 0, 1, 2, 3)
    decisions = [decided(scheduler, number, 1, score) for number, score in enumerate((0.5, 0.9, 0.6, 0.95))]
    assert decisions == [GO_ON, GO_ON, STOP, GO_ON]


def test_of_losses_the_lowest_third_goes_on():
    scheduler = added(asha(metric="log_loss"), 0, 1, 2)
    decisions = [decided(scheduler, number, 1, loss, "log_loss") for number, loss in enumerate((0.5, 0.9, 0.1))]
    assert decisions == [GO_ON, STOP, GO_ON]


def test_decisions_are_made_at_rungs_only():
    scheduler = added(asha(), 0, 1)
    decided(scheduler, 0, 3, 0.9)
    assert decided(scheduler, 1, 4, 0.1) == GO_ON, "a report between rungs"
    assert decided(scheduler, 1, 9, 0.1) == GO_ON, "nobody else has reached this rung"
    assert decided(scheduler, 1, 27, 0.1) == STOP, "the last epoch"


def test_rungs_remember_what_was_before_an_interruption():
    past = {
        0: [{"epoch": 1, "accuracy": 0.9}, {"epoch": 3, "accuracy": 0.95}],
        1: [{"epoch": 1, "accuracy": 0.8}],
        2: [{"epoch": 0, "accuracy": None, "error": "RuntimeError"}],
        3: [{"epoch": 0, "error": "its process died"}],
    }
    scheduler = added(asha(past), 4, 5)
    assert decided(scheduler, 4, 1, 0.7) == STOP
    assert decided(scheduler, 5, 1, 0.92) == GO_ON
    assert decided(scheduler, 5, 3, 0.92) == STOP


def test_a_trial_that_goes_on_is_the_same_trial():
    past = {0: [{"epoch": 1, "accuracy": 0.6}], 1: [{"epoch": 1, "accuracy": 0.9}]}
    scheduler = added(asha(past), 0)
    assert decided(scheduler, 0, 2, 0.1) == GO_ON
    assert decided(scheduler, 0, 3, 0.7) == GO_ON
    (first_rung,) = (recorded for milestone, recorded in scheduler._brackets[0]._rungs if milestone == 1)
    assert first_rung == {"0": 0.6, "1": 0.9}, "not recorded twice, and not with a later score"
    scheduler.on_trial_complete(None, trial(0), {"epoch": 3, "accuracy": 0.7})
    scheduler.on_trial_remove(None, trial(0))


@pytest.mark.parametrize("score", [0.0, float("nan")])
def test_without_a_scheduler_everybody_goes_on(score):
    scheduler = make_scheduler("none", small_protocol(), {})
    scheduler.on_trial_add(None, trial(0))
    assert decided(scheduler, 0, 1, score) == GO_ON
