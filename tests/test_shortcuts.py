"""The test for shortcuts warns where the class is read off a corner or the border, and only there."""

import dataclasses

import numpy as np
import pytest

from tests.small import _draw, small_config, small_dataset, small_folds, small_protocol
from trainables import shortcuts
from trainables.ensemble import Ensemble
from trainables.lockstep import Lockstep
from trainables.out_of_fold import OutOfFold, in_each_fold, some_images
from trainables.shortcuts import CORNERS, Sample, attention, central, corner, outside_shares, probed, warnings

SIZE_PX = 20


def sample(images: int = 90, groups: int | None = None) -> Sample:
    """The class makes the middle brighter, and one corner and the border."""
    rng = np.random.default_rng(0)
    targets = np.arange(images) % 2
    pixels = rng.integers(0, 120, (images, SIZE_PX, SIZE_PX, 1))
    pixels[targets == 1, 8:12, 8:12] += 100
    pixels[targets == 1, :3, -6:] += 100
    group = np.arange(images) // 2 % (groups or images)
    return Sample(np.arange(images), pixels.astype(np.uint8), targets, np.arange(images) // 2 % 3, group.astype(str))


def reading(place: np.ndarray):
    """A network that goes by the brightness of that place."""

    def predict(fold: int, pixels_NHWL: np.ndarray) -> np.ndarray:
        second = 1 / (1 + np.exp(-(pixels_NHWL[:, place].mean((1, 2)) - 100) / 20))
        return np.column_stack([1 - second, second])

    return predict


def middle() -> np.ndarray:
    place = np.zeros((SIZE_PX, SIZE_PX), bool)
    place[8:12, 8:12] = True
    return place


def found_of(place: np.ndarray) -> dict:
    given, predict = sample(), reading(place)
    return probed(given, predict, predict(0, given.pixels_NHWL))


def test_a_network_that_reads_a_corner_is_warned_of_and_the_corner_named():
    found = found_of(corner("top right", SIZE_PX, SIZE_PX))
    assert len(warnings(found)) >= 1
    assert "corners" in warnings(found)[0]
    assert found["score"]["mean"] > 0.99
    assert found["only_corners"]["mean"] > 0.99
    assert found["masked_border"]["mean"] < 0.8
    assert found["corners_exchanged"]["same"]["mean"] > 0.99
    assert found["corners_exchanged"]["other"]["mean"] < 0.01
    alone = {entry["corner"]: entry["only"]["mean"] for entry in found["each_corner"]}
    assert set(alone) == set(CORNERS)
    assert alone.pop("top right") > 0.99
    assert max(alone.values()) < 0.7


def test_a_network_that_looks_at_the_middle_is_not_warned_of():
    found = found_of(middle())
    assert warnings(found) == []
    assert found["masked_border"]["mean"] == found["score"]["mean"] > 0.99
    assert found["only_border"]["mean"] == pytest.approx(0.5, abs=0.01), "all alike: the mean image"
    assert found["border_exchanged"]["fall"] == pytest.approx(0, abs=0.01)
    assert found["each_corner"] == [], "not asked"


def test_what_little_data_may_show_by_chance_is_no_warning(monkeypatch):
    """A fall that is large, of few images, and no further from nothing than its errors."""
    exchanged = {"same": {"mean": 0.9, "std": 0.1}, "other": {"mean": 0.7, "std": 0.1}, "fall": 0.2}
    alone = {"mean": 0.6, "std": 0.1}
    found = {f"only_{place}": alone for place in ("corners", "border")}
    certain, doubtful = ({**exchanged, "standard_errors": errors} for errors in (5.0, 3.0))
    assert len(warnings(found | {"corners_exchanged": certain, "border_exchanged": certain})) == 2
    assert warnings(found | {"corners_exchanged": doubtful, "border_exchanged": doubtful}) == []


@pytest.mark.parametrize("same_class", [True, False])
def test_what_is_exchanged_comes_from_an_image_of_the_same_fold_and_another_group(same_class):
    given = sample(60, groups=12)
    donors = shortcuts._donors(given, same_class, np.random.default_rng(0))
    assert donors is not None
    assert ((given.targets_N[donors] == given.targets_N) == same_class).all()
    assert (given.folds_N[donors] == given.folds_N).all()
    assert (given.groups_N[donors] != given.groups_N).all()


def test_a_fold_with_one_class_does_not_count_and_without_any_there_is_no_score():
    given = sample(12)
    lone = dataclasses.replace(given, folds_N=given.targets_N)
    predict = reading(middle())
    found = probed(lone, predict, predict(0, lone.pixels_NHWL))
    assert found["score"] == {"mean": None, "std": None}
    assert found["corners_exchanged"]["fall"] is None
    assert warnings(found) == []


def test_even_attention_gives_the_uniform_share_and_none_gives_none():
    even = np.ones((6, SIZE_PX, SIZE_PX), np.float32)
    even[4:] = 0
    even[0, ~central(SIZE_PX, SIZE_PX)] = 0
    shares = outside_shares(even)
    assert shares[0] == 0
    assert shares[1:4] == pytest.approx(1 - 0.7**2)
    assert np.isnan(shares[4:]).all()
    told = attention(even, np.array([0, 0, 1, 1, 2, 2]), np.arange(6), ["a", "b", "c"])
    assert told["uniform"] == pytest.approx(1 - 0.7**2)
    assert [entry["images"] for entry in told["by_class"]] == [2, 2, 0]
    first, second, third = told["by_class"]
    assert first["outside_share"] == pytest.approx(0.255)
    assert first["low"] == 0
    assert second["low"] == second["outside_share"] == second["high"]
    assert third["outside_share"] is None
    of_one_patient = attention(even, np.array([0, 0, 1, 1, 2, 2]), np.zeros(6), ["a", "b", "c"])["by_class"]
    assert {entry["outside_share"] for entry in of_one_patient} == {None}


def _draw_marked(row: dict) -> np.ndarray:
    """As `small_dataset`, much fainter, and the class in a corner of every image."""
    image = (_draw(row).astype(int) + 60) // 2
    image[1:4, -6:-1] = 40 + 200 * row["target"]
    return image.astype(np.uint8)


@pytest.mark.parametrize("marked", [False, True])
def test_trained_networks_are_warned_of_where_the_class_stands_in_a_corner(tmp_path, marked):
    dataset = small_dataset(90, size_px=20)
    if marked:
        dataset = dataclasses.replace(dataset, decoder=_draw_marked)
    config, protocol, folds = small_config(image_size_px=20), small_protocol(), small_folds(dataset)
    trial = Lockstep(config, dataset, folds, protocol)
    while not trial.finished:
        trial.advance()
    trial.save(tmp_path)
    ensemble = Ensemble.of_trial(tmp_path, config, dataset, folds, protocol)
    given, unseen = some_images(ensemble, dataset, folds, 60), OutOfFold(ensemble)
    assert np.bincount(given.targets_N * 3 + given.folds_N).tolist() == [10] * 6, "evenly over classes and folds"
    probabilities, maps, layer = in_each_fold(unseen, given)
    np.testing.assert_allclose(probabilities, trial._best_predictions[given.rows_N], atol=1e-5)
    assert maps.shape == (60, 20, 20)
    assert layer == "body.9"
    assert bool(warnings(probed(given, unseen.predict, probabilities))) == marked
