"""The frame of all phantoms: the table is what was asked for, and the stated truth is true."""

import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from datasets import InputError
from datasets.phantoms import PITFALLS, best_accuracy, mixed_up, phantom_dataset, sign_missing
from datasets.phantoms.draws import FEW, hashed, interleaved, ranks, uniform
from tests.pets import CLASSES, DEVELOPMENT, PARTS, TEST, draw, phantoms, segmented


def test_the_real_size_has_exactly_the_real_counts():
    dataset = phantoms()
    assert dataset.part("development").counts == dict(zip(CLASSES, DEVELOPMENT, strict=True))
    assert dataset.part("test").counts == dict(zip(CLASSES, TEST, strict=True))
    assert dataset.table["group"].to_list() == dataset.table["image_id"].to_list()
    assert dataset.table["content"].is_unique().all()
    assert set(dataset.table["planted"]) == {""}


@pytest.mark.parametrize("images", [30, 121, 600, 1500])
def test_other_sizes_keep_the_shares_and_a_test_part_in_proportion(images):
    dataset = phantoms(images=images)
    assert len(dataset.part("development")) == images
    assert len(dataset.part("test")) == max(images // 5, 3 * FEW)
    counts = np.array(list(dataset.part("development").counts.values()))
    assert np.abs(counts - images * np.array([3, 2, 1]) / 6).max() <= 1


@hypothesis.given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8), images=st.integers(1, 400), begin=st.integers(1, 400)
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_every_beginning_is_mixed_and_the_same_however_many_follow(counts, images, begin):
    strata = interleaved(np.array(counts), images)
    assert len(strata) == images
    assert (interleaved(np.array(counts), begin)[:images] == strata[:begin]).all()
    shares = np.array(counts) / sum(counts)
    found = np.bincount(strata, minlength=len(counts))
    once = images % sum(counts) == 0
    assert (
        np.isclose(found, images * shares).all()
        if once
        else (found <= np.maximum(images * shares + len(counts), FEW)).all()
    )
    assert found.min() >= min(FEW, *counts, images // len(counts))


def test_random_numbers_are_the_same_on_every_machine_and_look_random():
    assert hashed(7, "pets/test", np.arange(3)).tolist() == [
        13429913990420848983,
        13464600289527296561,
        3610874092588779431,
    ]
    number = np.arange(100_000)
    chance = uniform(0, "a", number)
    assert abs(chance.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(chance, uniform(1, "a", number))[0, 1]) < 0.01
    assert abs(np.corrcoef(chance, uniform(0, "b", number))[0, 1]) < 0.01
    assert abs(np.corrcoef(chance[1:], chance[:-1])[0, 1]) < 0.01
    assert len(np.unique(hashed(0, "a", number))) == len(number)


def test_rank_counts_the_earlier_rows_of_the_same_label():
    assert ranks(np.array([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize(
    "plant", [(), *[(pitfall,) for pitfall in PITFALLS], PITFALLS], ids=lambda plant: "+".join(plant)[:20] or "none"
)
def test_an_image_depends_on_seed_number_and_pitfalls_and_not_on_how_many_there_are(plant):
    few, many = phantoms(plant, images=130), phantoms(plant, images=400)
    for part in ("development", "test"):
        of_few, of_many = (dataset.table.filter(dataset.table["split"] == part) for dataset in (few, many))
        assert of_few.equals(of_many.head(len(of_few)))
    other = phantoms(plant, images=130, seed=1)
    assert not set(other.table["draw"]) & set(few.table["draw"])
    assert other.digest != few.digest


def test_fewer_images_than_classes_are_refused():
    with pytest.raises(InputError, match=r"2 phantoms of pets asked for.*at least 3"):
        phantoms(images=2)


def test_best_accuracy_of_simple_cases():
    assert best_accuracy([162, 162], sign_missing(0.06)) == pytest.approx(0.97)
    assert best_accuracy([1, 5], sign_missing(0.1)) == pytest.approx(1 - 5 * 0.1 / 6)
    assert best_accuracy([1, 99], sign_missing(0.5)) == pytest.approx(0.99)  # calls everything positive
    assert best_accuracy([1, 1, 1], mixed_up(3, 0.3)) == pytest.approx(0.7)
    assert best_accuracy([[1, 0], [0, 1]], sign_missing(0.5)) == 1  # the context tells


@pytest.mark.parametrize("plant", [(), ["imbalance"]])
@pytest.mark.parametrize("parts", [False, True])
def test_no_observer_of_the_appearance_beats_the_stated_accuracy_and_the_best_reaches_it(plant, parts):
    further = (PARTS,) if parts else ()
    counts = ((300, 200, 100), (50, 50, 300)) if parts else (300, 200, 100)
    confusion = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.05, 0.45, 0.5]])
    dataset = phantom_dataset(
        "pets", CLASSES, draw, counts, further=further, confusion=confusion, plant=plant, images=40_000
    )
    seen = dataset.table["appearance"].to_numpy() + (3 * dataset.table["target_part"].to_numpy() if parts else 0)
    joint = np.zeros((3, 6))
    np.add.at(joint, (dataset.targets, seen), 1)
    assert joint.max(axis=0).sum() / len(dataset) == pytest.approx(
        dataset.best_accuracy, abs=0.008
    )  # 3 standard errors


def test_further_targets_have_their_columns_and_counts():
    counts = np.array([[40, 20, 10], [30, 30, 60]])
    dataset = phantom_dataset("pets", CLASSES, draw, counts, counts // 10, further=(PARTS,), target_name="pet")
    assert dataset.kind == "multitask"
    development = dataset.part("development").table
    found = np.zeros_like(counts)
    np.add.at(found, (development["target_part"].to_numpy(), development["target"].to_numpy()), 1)
    assert (found == counts).all()
    assert dataset.table["content"].is_unique().all()


def test_workers_get_the_decoders():
    dataset = pickle.loads(pickle.dumps(segmented(["text", "source"])))
    assert (dataset.decode(5) == segmented(["text", "source"]).decode(5)).all()
    assert (dataset.decode_mask(5) == segmented(["text", "source"]).decode_mask(5)).all()
