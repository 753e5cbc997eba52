"""The trainable in Ray's hands."""

import math

import pytest
from ray import tune

from tests.small import small_config, small_dataset, small_folds, small_protocol
from trainables.cross_validation import CrossValidation


def configuration(number=0, **params):
    return {
        "number": number,
        "published": None,
        "continue_from": None,
        "params": small_config(**params).params(),
    }


def trainable(protocol=None):
    dataset = small_dataset()
    given = {"dataset": dataset, "folds": small_folds(dataset), "protocol": protocol or small_protocol()}
    return tune.with_parameters(CrossValidation, **given)


@pytest.fixture
def local(ray_on_loopback):
    """Makes trainables in this process."""
    made = []

    def make(config, protocol=None):
        made.append(trainable(protocol)(config=config))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def told(result):
    return {key: result[key] for key in ("epoch", "best_epoch", "accuracy", "accuracy_std", "folds", "finished")}


def test_a_step_ends_at_every_rung_with_a_whole_cross_validation(local):
    one = local(configuration())
    results = [one.train() for _ in range(3)]
    assert [result["epoch"] for result in results] == [1, 3, 4]
    assert [result["done"] for result in results] == [False, False, True]
    for result in results:
        assert len(result["folds"]["accuracy"]) == 3
        assert result["accuracy"] == pytest.approx(sum(result["folds"]["accuracy"]) / 3)
        assert (result["number"], result["params"]["model"]) == (0, "digits_cnn")
    assert [len(result["curve"]) for result in results] == [3, 6, 3]


@pytest.mark.parametrize("rung", [1, 2])
@pytest.mark.parametrize("phases", [{}, {"head_epochs": 2, "ema": 0.9}])
def test_a_trial_restored_at_any_rung_ends_with_the_same_numbers(phases, rung, local, tmp_path):
    straight, stopped, restored = (local(configuration(dropout=0.3, rotation_deg=10.0, **phases)) for _ in range(3))
    expected = [straight.train() for _ in range(3)][-1]
    for _ in range(rung):
        stopped.train()
    stopped.save_checkpoint(str(tmp_path))
    restored.load_checkpoint(str(tmp_path))
    results = [restored.train() for _ in range(3 - rung)]
    assert told(results[-1]) == told(expected)


def test_a_reused_trainable_gives_the_numbers_of_a_fresh_one(local):
    reused = local(configuration(learning_rate=0.1))
    reused.train()
    assert reused.reset(configuration(number=1, dense_widths=(4,)))
    assert told(reused.train()) == told(local(configuration(number=1, dense_widths=(4,))).train())


def test_a_trial_goes_on_from_a_checkpoint_of_an_earlier_search(local, tmp_path):
    before = local(configuration())
    before.train()
    before.save_checkpoint(str(tmp_path))
    expected = before.train()
    after = local(configuration() | {"continue_from": str(tmp_path)})
    assert told(after.train()) == told(expected)


def test_a_trial_asks_to_be_saved_where_much_would_be_lost_and_saving_takes_little_of_its_time(
    local, monkeypatch, tmp_path
):
    from trainables import cross_validation

    def asks(saved_after_s, saving_share):
        monkeypatch.setattr(cross_validation, "SAVED_AFTER_S", saved_after_s)
        monkeypatch.setattr(cross_validation, "SAVING_SHARE", saving_share)
        return one.train()["should_checkpoint"]

    one = local(configuration(), small_protocol(max_epochs=27))
    assert not asks(saved_after_s=1000.0, saving_share=1.0), "nothing much would be lost"
    assert asks(saved_after_s=0.0, saving_share=1.0)
    one.save_checkpoint(str(tmp_path))
    assert not asks(saved_after_s=0.0, saving_share=1e-9), "it would take most of its time"


def test_long_steps_are_cut_so_that_little_can_be_lost(local, monkeypatch):
    from trainables import cross_validation

    monkeypatch.setattr(cross_validation, "LONGEST_STEP_S", 0.0)
    one = local(configuration(), small_protocol(max_epochs=3))
    assert [one.train()["epoch"] for _ in range(3)] == [1, 2, 3]


def test_a_configuration_that_cannot_be_trained_is_reported_and_ends_its_trial(local, tmp_path):
    one = local(configuration(model="svendsen_cnn"))  # too small an image for it
    result = one.train()
    assert result["done"]
    assert math.isnan(result["accuracy"])
    assert result["error"].startswith("InputError: image_size_px=16: svendsen_cnn needs at least")
    assert "Traceback" in result["traceback"]
    one.save_checkpoint(str(tmp_path))
    assert not list(tmp_path.iterdir())
