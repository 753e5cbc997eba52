"""A configuration is right or fails at once, with the name of what is wrong."""

import json

import pytest

from datasets import InputError
from tests.small import small_config
from trainables.config import TrialConfig
from trainables.protocol import Protocol


def test_params_survive_json():
    config = small_config(dense_widths=(64, 32), unfrozen_layers=None, flip=True)
    assert TrialConfig.of(json.loads(json.dumps(config.params()))) == config


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("learning_rate", "fast", "expected float"),
        ("learning_rate", -1e-3, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", 1.5, "expected int"),
        ("batch_size", True, "expected int"),
        ("optimizer", "lion", "one of 'adam', 'adamw', 'sgd'"),
        ("dense_widths", [0], "widths of at least 1"),
        ("dense_widths", [1.5], "expected tuple"),
        ("dense_widths", 128, "expected tuple"),
        ("dropout", 1.0, r"in \[0, 1\)"),
        ("unfrozen_layers", -1, "None for all"),
        ("flip", 1, "expected bool"),
        ("dense_batch_norm", True, "False with batch_size=1"),
        ("zoom", 1.0, r"in \[0, 1\)"),
        ("balance", "weights", "one of 'none', 'class_weights'"),
        ("balance", "augmented_oversample", "give one of flip, vertical_flip, rotation_deg"),
        ("oversample_to", 100, "belongs to 'oversample'"),
        ("auxiliary_weight", -0.5, "at least 0"),
    ],
)
def test_an_impossible_value_is_refused_by_name(name, value, says):
    with pytest.raises(InputError, match=says) as error:
        small_config(**{"batch_size": 1} | {name: value})
    assert str(error.value).startswith(f"{name}=")


def test_oversampling_may_say_up_to_how_many():
    config = small_config(balance="augmented_oversample", oversample_to=1500, contrast=0.1)
    assert config.oversample_to == 1500
    with pytest.raises(InputError, match="oversample_to=0: must be at least 1, or None"):
        small_config(balance="oversample", oversample_to=0)


def test_an_unknown_parameter_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="parameter 'model' is missing"):
        TrialConfig.of({})
    with pytest.raises(InputError, match="unknown parameter 'learning_rte'; did you mean 'learning_rate'"):
        small_config(learning_rte=1e-3)


def test_an_int_will_do_for_a_float():
    assert small_config(rotation_deg=36).rotation_deg == 36


@pytest.mark.parametrize(
    ("max_epochs", "rungs"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (9, (1, 3, 9)), (10, (1, 3, 9, 10))]
)
def test_rungs_are_powers_of_three_and_the_last_epoch(max_epochs, rungs):
    assert Protocol(metric="accuracy", max_epochs=max_epochs, seed=0).rungs == rungs
