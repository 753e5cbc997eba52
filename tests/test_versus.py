"""The two sides of the benchmarks are given the same to do, and scores that do not agree are found."""

import numpy as np
import pytest

from benchmarks.agreement import Scores, differences
from benchmarks.comparison import Task, points
from search.spaces import check_space, fixed_space, possible_points
from search_spaces import experiment_of, space_in
from trainables.config import TrialConfig
from trainables.network import Network, build_head, frozen_body, parameter_counts


def scores(rng: np.random.Generator, auroc: float, spread: float = 0.01) -> Scores:
    return Scores(auroc + rng.normal(0, spread, (5, 3)), 0.5 + rng.normal(0, spread, (5, 3)), 100)


def test_other_seeds_of_the_same_agree_and_a_worse_network_does_not():
    rng = np.random.default_rng(0)
    of_seeds = [[scores(rng, auroc) for _ in range(3)] for auroc in (0.8, 0.9)]
    ours = [scores(rng, auroc) for auroc in (0.8, 0.9)]
    alike, worse = ([scores(rng, auroc) for auroc in aurocs] for aurocs in ((0.8, 0.9), (0.75, 0.85)))
    assert all(difference.agrees for difference in differences(ours, alike, of_seeds))
    assert [difference.agrees for difference in differences(ours, worse, of_seeds)] == [False, True]


def test_one_configuration_that_is_trained_wrongly_is_found_among_many():
    rng = np.random.default_rng(1)
    of_seeds = [[scores(rng, 0.8) for _ in range(3)] for _ in range(4)]
    ours, theirs = ([scores(rng, 0.8) for _ in range(20)] for _ in range(2))
    assert all(difference.agrees for difference in differences(ours, theirs, of_seeds))
    theirs[7] = scores(rng, 0.7)
    assert not differences(ours, theirs, of_seeds)[0].agrees


def test_networks_of_which_other_layers_are_trained_are_not_compared():
    rng = np.random.default_rng(2)
    ours, theirs = (Scores(np.ones((1, 3)), np.ones((1, 3)), trained) for trained in (100, 101))
    with pytest.raises(ValueError, match="100 and 101"):
        differences([ours], [theirs], [[scores(rng, 0.8), scores(rng, 0.8)]])


@pytest.mark.parametrize("layers", [0, (0, 40), None])
def test_every_point_is_a_configuration_of_the_space_that_we_search_and_is_tried_first(layers, tmp_path):
    task = Task(tmp_path, layers, epochs=2, points=points(6, layers))
    file = tmp_path / "space.py"
    file.write_text(task.space())
    check_space(space_in(file).search_space, file)
    experiment = experiment_of("images", "binary", demonstration=False, file=file)
    assert possible_points(experiment.first, fixed_space(space_in(file).search_space, {})) == task.points
    assert (experiment.trials, experiment.max_epochs) == (6, 2)


def test_pairs_of_points_have_as_many_layers_as_the_space_has_on_average():
    drawn = [point["unfrozen_layers"] for point in points(40, (0, 40))]
    assert {first + second for first, second in zip(drawn[::2], drawn[1::2], strict=True)} == {40}
    assert len(set(drawn)) > 25
    assert points(2, (0, 40)) == points(40, (0, 40))[:2]


@pytest.mark.parametrize("layers", [0, 13, None])
def test_the_guides_network_trains_the_same_parameters(layers, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    from benchmarks.by_the_book import Classifier

    point = points(1, 0)[0] | {"model": "mobilenetv2_100", "unfrozen_layers": layers}
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv2_100", num_classes=0).state_dict(), weights)
    theirs = Classifier(point, str(weights))
    config = TrialConfig(
        model="mobilenetv2_100",
        image_size_px=64,
        unfrozen_layers=layers,
        learning_rate=1e-3,
        batch_size=16,
        dense_widths=(point["dense_width"],),
        dropout=point["dropout"],
    )
    body = frozen_body(config, 3, weights=str(weights), seed=0)
    ours = Network(body.module, build_head(config, body.features, outputs=1, seed=0))
    assert parameter_counts(theirs) == parameter_counts(ours)
    assert {name for name, each in theirs.named_parameters() if each.requires_grad} == {
        name for name, each in ours.named_parameters() if each.requires_grad
    }
    theirs.train(), ours.train()
    in_training = [
        {n for n, m in each.named_modules() if type(m).__name__.startswith("BatchNorm") and m.training}
        for each in (theirs, ours)
    ]
    assert in_training[0] == in_training[1]
