"""Spaces narrowed and gridded."""

import dataclasses

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from datasets import InputError
from search.spaces import agreeing, check_space, fixed_space, grid, models, one_of_each_model, possible_points
from search_spaces import blood, covid, digits, mnist, parts, warwick
from trainables.config import TrialConfig
from trainables.models import options_of


def space(trial):
    layers = trial.suggest_int("layers", 0, 2)
    return {
        "model": trial.suggest_categorical("model", ("a", "b")),
        "flag": trial.suggest_categorical("flag", (False, True)),
        "rate": trial.suggest_float("rate", 1e-4, 1e-2, log=True),
        "widths": [trial.suggest_int(f"width_{i}", 8, 32) for i in range(layers)],
    }


def test_a_grid_has_every_point_of_every_branch_once():
    points = grid(space)
    assert len(points) == 2 * 2 * 3 * (1 + 3 + 9)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert {point["rate"] for point in points} == {1e-4, 1e-3, 1e-2}
    assert {point["width_1"] for point in points if point["layers"] == 2} == {8, 20, 32}
    assert all("width_1" not in point for point in points if point["layers"] < 2)


def test_grid_points_are_in_the_space():
    for point in grid(fixed_space(digits.search_space, {"dropout": 0.1, "warmup_epochs": 0, "optimizer": "adam"})):
        digits.search_space(optuna.trial.FixedTrial({**point, "dropout": 0.1, "warmup_epochs": 0, "optimizer": "adam"}))


def test_an_absurd_grid_is_refused():
    with pytest.raises(
        InputError, match=r"the grid has .* points and 2,000 are the most; fix parameters with --set.*unfrozen_layers"
    ):
        grid(covid.search_space)


@given(st.floats(1e-4, 1e-2), st.integers(0, 2))
def test_fixed_parameters_are_not_asked_for(rate, layers):
    narrowed = fixed_space(space, {"rate": rate, "layers": layers})
    trial = optuna.create_study().ask()
    made = narrowed(trial)
    assert made["rate"] == rate
    assert len(made["widths"]) == layers
    assert not {"rate", "layers"} & trial.params.keys()


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"rat": 1}, "no such parameter; did you mean 'rate'"),
        ({"rate": 1.0}, "rate=1.0: choose a value from 0.0001 to 0.01"),
        ({"rate": "fast"}, "choose a value from"),
        ({"layers": 1.5}, "choose a value from 0 to 2"),
        ({"flag": 1}, "flag=1: choose one of False, True"),
        ({"model": "c"}, "model=c: choose one of a, b"),
        ({"width_1": 99, "layers": 2}, "width_1=99: choose a value from 8 to 32"),
        ({"width_1": 16, "layers": 0}, "width_1=16: changes nothing beside the rest of --set"),
    ],
)
def test_impossible_fixed_parameters_are_refused(fixed, says):
    with pytest.raises(InputError, match=says):
        fixed_space(space, fixed)


@pytest.mark.parametrize("task", search_spaces.tasks())
def test_every_parameter_that_a_task_may_ask_for_can_be_fixed(task):
    searched = search_spaces.space_of(task).search_space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = {}
    for _ in range(300):
        trial = study.ask()
        searched(trial)
        asked |= trial.params
    asked.pop("unfrozen_layers", None)  # its range depends on the model
    for name, value in asked.items():
        fixed_space(searched, {name: value})


def test_parameters_below_two_conditions_are_known():
    fixed_space(covid.search_space, {"unfrozen_layers": 10})
    fixed_space(covid.search_space, {"model": "mobilenetv2_100", "fine_tune": True, "unfrozen_layers": 100})
    with pytest.raises(InputError, match="unfrozen_layers=100: choose a value from 1 to 87"):
        fixed_space(covid.search_space, {"unfrozen_layers": 100})


def test_the_count_of_seed_002_can_be_asked_for():
    narrowed = fixed_space(blood.search_space, {"oversample_to": 1500})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [TrialConfig.of(narrowed(study.ask())) for _ in range(60)]
    assert {config.oversample_to for config in found if "oversample" in config.balance} == {1500}
    assert {config.oversample_to for config in found if "oversample" not in config.balance} == {None}
    balanced = fixed_space(blood.search_space, {"balance": "augmented_oversample", "oversample_to": 1500})
    config = TrialConfig.of(balanced(study.ask()))
    assert (config.balance, config.oversample_to, config.flip) == ("augmented_oversample", 1500, True)


@pytest.mark.parametrize("asked_of", [parts.body, parts.small_cnn])
def test_shared_parts_answer_every_question_that_they_ask(asked_of):
    given = (("residual",), {"mobilenetv2_035": 90}) if asked_of is parts.body else (28, ("unet", "mlp"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        made = asked_of(trial, *given)
        unknown = made.keys() - {field.name for field in dataclasses.fields(TrialConfig)}
        assert not unknown
        assert trial.params


@pytest.mark.parametrize(
    ("fixed", "chosen", "left"),
    [
        ({}, (), [1, 2, 3, 4]),
        ({"model": "mobilenetv2_100", "learning_rate": 1e-6}, (), [3, 4]),
        ({"unfrozen_layers": 14}, (), [1, 2, 3]),  # the first two have no such question
        ({"augment": False}, ("svendsen_cnn", "mobilenetv2_100"), [2, 3, 4]),
        ({}, ("mobilenetv3_small_100", "svendsen_cnn"), [1]),
        ({"defaults": "keras"}, (), [1, 2, 3, 4]),
        ({"defaults": "torch"}, (), []),
        ({"ema": 0.99}, (), []),
        ({"ema": 0.0}, (), [1, 2, 3, 4]),
    ],
)
def test_published_configurations_that_would_be_others_are_left_out(fixed, chosen, left):
    narrowed = fixed_space(covid.search_space, fixed, chosen)
    names = [entry.name for entry in agreeing(covid.PUBLISHED, covid.search_space, narrowed)]
    assert names == [f"svendsen2025-model{number}" for number in left]


def test_a_published_configuration_that_leaves_a_question_open_is_refused_with_its_name():
    entry = dataclasses.replace(covid.PUBLISHED[0], params=covid.PUBLISHED[0].params | {"dropout": 0.9})
    with pytest.raises(InputError, match=r"svendsen2025-model1: .*dropout=0.9: choose a value from 0 to 0.7"):
        agreeing([entry], covid.search_space, covid.search_space)
    entry.params.pop("dropout")
    with pytest.raises(InputError, match="svendsen2025-model1: dropout is left open"):
        agreeing([entry], covid.search_space, covid.search_space)


def sampled(space, count=40):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [TrialConfig.of(space(study.ask())) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "given", "becomes"),
    [
        ("ema", 0.97, 0.97),
        ("patience", 5, 5),
        ("mixup", 0, 0),
        ("defaults", "keras", "keras"),
        ("dense_widths", 256, (256,)),
        ("dense_widths", (256, 128), (256, 128)),
        ("dense_widths", "none", ()),
        ("head_learning_rate", "none", None),
    ],
)
def test_a_field_that_a_space_does_not_ask_for_can_be_set_in_all(name, given, becomes):
    found = sampled(fixed_space(mnist.search_space, {name: given}))
    assert {getattr(config, name) for config in found} == {becomes}
    assert len({config.learning_rate for config in found}) == len(found), "the rest is searched"


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"ema": 1.5}, r"--set ema=1.5: not possible in this space: ema=1.5: must be in \[0, 1\)"),
        ({"defaults": "jax"}, "defaults='jax': expected one of 'torch', 'keras'"),
        ({"accumulate": 100}, "accumulate=100: must be from 1 to batch_size"),
        ({"oversample_to": 100}, "it belongs to 'oversample'"),
        ({"emma": 0.9}, "--set emma: no such parameter; did you mean 'ema'"),
    ],
)
def test_an_impossible_value_of_a_field_is_refused_before_anything_begins(fixed, says):
    with pytest.raises(InputError, match=says):
        fixed_space(mnist.search_space, fixed)


def test_a_space_is_narrowed_to_the_chosen_models():
    two = fixed_space(covid.search_space, {}, ("svendsen_cnn", "mobilenetv2_100"))
    assert models(two) == ["mobilenetv2_100", "svendsen_cnn"]
    assert {config.model for config in sampled(two)} == {"mobilenetv2_100", "svendsen_cnn"}
    one = fixed_space(warwick.search_space, {}, ("unet",))
    trial = optuna.create_study().ask()
    assert one(trial)["model"] == "unet"
    assert "model" not in trial.params, "no question with one answer"
    assert models(fixed_space(digits.search_space, {}, ("digits_cnn",))) == ["digits_cnn"]


@pytest.mark.parametrize(
    ("searched", "fixed", "chosen", "says"),
    [
        (
            covid.search_space,
            {},
            ("svendsen_cmm",),
            "svendsen_cmm: no model of this space; did you mean 'svendsen_cnn'",
        ),
        (digits.search_space, {}, ("unet",), r"unet: no model of this space\. Its models are: digits_cnn"),
        (
            covid.search_space,
            {"model": "svendsen_cnn"},
            ("mobilenetv2_100",),
            "--set model=svendsen_cnn: choose one of",
        ),
        (covid.search_space, {"unfrozen_layers": 5}, ("svendsen_cnn",), "changes nothing beside the rest of --set and"),
    ],
)
def test_models_that_a_space_does_not_have_are_refused(searched, fixed, chosen, says):
    with pytest.raises(InputError, match=says):
        fixed_space(searched, fixed, chosen)


def test_the_models_of_a_space_are_known():
    assert models(covid.search_space) == ["mobilenetv2_100", "mobilenetv3_small_100", "svendsen_cnn", "test_resnet"]
    assert models(fixed_space(covid.search_space, {"model": "svendsen_cnn"})) == ["svendsen_cnn"]


def test_points_that_a_narrower_space_does_not_have_are_left_out():
    first = covid.DEMO.first
    assert possible_points(first, fixed_space(covid.search_space, {}, covid.DEMO.models)) == list(first)
    assert possible_points(first, fixed_space(covid.search_space, {}, ("svendsen_cnn",))) == []
    frozen = fixed_space(covid.search_space, {"fine_tune": False})
    assert possible_points(first, frozen) == list(first[:1])


def test_there_is_one_configuration_of_each_model():
    each = one_of_each_model(covid.search_space)
    assert sorted(config.model for config in each) == models(covid.search_space)


@pytest.mark.parametrize("task", search_spaces.tasks())
def test_what_is_searched_of_a_body_is_what_it_leaves_open(task):
    for model in models(search_spaces.space_of(task).search_space):
        assert set(parts.OPTIONS.get(model, ())) <= set(options_of(model))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("return None", "search_space returns NoneType, not a dict"),
        ("return {'model': 'm'}", "parameter 'image_size_px' is missing"),
    ],
)
def test_what_goes_wrong_in_the_space_of_a_file_is_one_message(body, says, tmp_path):
    file = tmp_path / "space.py"
    file.write_text(f"def search_space(trial):\n    {body}\n")
    with pytest.raises(InputError, match=says):
        check_space(search_spaces.search_space_of("covid", "binary", file), file)
