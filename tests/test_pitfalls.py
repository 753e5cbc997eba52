"""Every pitfall that is planted into phantoms is there, as it is described, and nowhere else."""

import itertools

import numpy as np
import pytest

from datasets import InputError
from datasets.phantoms import PITFALLS, phantom_dataset, planted
from tests.pets import CLASSES, DEVELOPMENT, SIDE, copies, draw, phantoms, segmented


@pytest.mark.parametrize("pitfall", sorted(set(PITFALLS) - {"imbalance"}))
def test_a_pitfall_changes_only_the_images_that_it_names(pitfall):
    plain, dataset = phantoms(), phantoms([pitfall])
    told = planted(dataset, pitfall)
    assert 0.01 < told.mean() < 0.95
    same = plain.table.filter(~told).select("image_id", "target", "draw", "appearance")
    assert dataset.table.filter(~told).select(same.columns).equals(same)
    # What is stored under the content of a plain image must not be taken for the planted one.
    assert not set(dataset.table.filter(told)["content"]) & set(plain.table.filter(told)["content"])
    for index in np.flatnonzero(~told)[:10].tolist():
        if pitfall != "patients":
            assert (dataset.decode(index) == plain.decode(index)).all()


@pytest.mark.parametrize("pitfall", sorted(set(PITFALLS) - {"split_leak"}))
def test_a_few_images_are_enough_for_every_pitfall(pitfall):
    assert planted(phantoms(PITFALLS, images=24).part("development"), pitfall).any()


def test_duplicates_are_byte_identical_and_in_groups_of_their_own():
    dataset = phantoms(["duplicates"])
    pairs = copies(dataset, "duplicates")
    assert 0.015 < len(pairs) / len(dataset) < 0.025
    for copy, first in pairs:
        assert copy["content"] == first["content"]
        assert copy["target"] == first["target"]
        assert copy["group"] != first["group"]
        assert first["planted"] == ""
        assert (dataset.decoder(copy) == dataset.decoder(first)).all()
    assert dataset.table["content"].n_unique() == len(dataset) - len(pairs)


def test_near_duplicates_look_alike_and_are_not_the_same_bytes():
    dataset = phantoms(["near_duplicates"])
    for copy, first in copies(dataset, "near_duplicates"):
        assert copy["content"] != first["content"]
        assert copy["target"] == first["target"]
        again, pixels = dataset.decoder(copy), dataset.decoder(first)
        assert not np.array_equal(again, pixels)
        assert np.corrcoef(again.ravel(), pixels.ravel())[0, 1] > 0.8
    assert dataset.table["content"].is_unique().all()


def test_contradictions_are_byte_identical_with_another_label():
    dataset = phantoms(["contradictions"])
    pairs = copies(dataset, "contradictions")
    assert len(pairs) > 8
    for copy, first in pairs:
        assert copy["content"] == first["content"]
        assert copy["target"] != first["target"]
        assert (dataset.decoder(copy) == dataset.decoder(first)).all()
    assert len({(copy["target"], first["target"]) for copy, first in pairs}) > 3


def test_contaminants_stand_under_all_labels_and_another_under_one():
    dataset = phantoms(["contaminants"])
    jokes = dataset.table.filter(planted(dataset, "contaminants"))
    labels = jokes.group_by("content").agg("target").sort(jokes["content"].unique().sort().alias("content"))
    found = {content: set(targets) for content, targets in labels.iter_rows()}
    assert sorted(map(len, found.values())) == [1, 3]
    assert dataset.table["content"].n_unique() == len(dataset) - len(jokes) + 2
    first, second = (jokes.filter(jokes["content"] == content) for content in found)
    seen = [
        dataset.decoder(jokes.row(0, named=True) | row)
        for row in (*first.head(3).to_dicts(), *second.head(1).to_dicts())
    ]
    assert (seen[0] == seen[1]).all()
    assert (seen[0] == seen[2]).all()
    assert not np.array_equal(seen[0], seen[3])
    assert seen[0].shape == (SIDE, SIDE, 1)


def test_corrupt_images_do_not_decode_and_say_which():
    dataset = phantoms(["corrupt"])
    broken = np.flatnonzero(planted(dataset, "corrupt")).tolist()
    for index in broken:
        with pytest.raises(InputError, match=f"{dataset.table['image_id'][index]}: broken image"):
            dataset.decode(index)
    dataset.decode(broken[0] - 1)


def test_images_of_a_patient_share_group_class_and_patient_draw_only():
    dataset = phantoms(["patients"])
    patients = dataset.table.group_by("group", maintain_order=True).agg("target", "patient_draw", "draw", "planted")
    sizes = patients["draw"].list.len()
    assert 2.5 < sizes.mean() < 3.5
    assert sizes.max() > 5
    for column, several in (("target", False), ("patient_draw", False), ("draw", True)):
        different = patients[column].list.n_unique()
        assert (different == (sizes if several else 1)).all()
    assert patients["patient_draw"].list.first().is_unique().all()
    assert all(told == ["", *["patients"] * (len(told) - 1)] for told in patients["planted"].to_list())
    assert not set(dataset.part("test").table["group"]) & set(dataset.part("development").table["group"])


def test_views_of_one_patient_are_alike_where_the_drawing_knows_no_patients():
    dataset = phantoms(["patients"], same_patient=True, confusion=None)
    rows = {}
    for row in dataset.table.head(90).iter_rows(named=True):
        rows.setdefault(row["group"], []).append(dataset.decoder(row).ravel())
    patients = [views for views in rows.values() if len(views) > 1]
    alike = [np.corrcoef(views[0], views[1])[0, 1] for views in patients]
    strangers = [np.corrcoef(one[0], other[0])[0, 1] for one, other in itertools.pairwise(patients)]
    assert np.median(alike) > 0.6 > 0.3 > np.median(np.abs(strangers))
    assert not any(np.array_equal(views[0], views[1]) for views in patients)


@pytest.mark.parametrize("plant", [["split_leak"], ["split_leak", "patients"]])
def test_leaking_groups_stand_in_both_parts(plant):
    dataset = phantoms(plant)
    test, development = dataset.part("test").table, dataset.part("development").table
    leaking = test.filter(planted(dataset.part("test"), "split_leak"))
    assert 0.2 < len(leaking) / len(test) <= 0.25
    both = leaking.join(development.unique("group"), on="group")
    assert len(both) == len(leaking)
    assert (both["target"] == both["target_right"]).all()
    assert (both["patient_draw"] == both["patient_draw_right"]).all()
    assert set(test["group"]) & set(development["group"]) == set(leaking["group"])


def test_a_task_without_a_test_part_gets_one_when_it_is_to_leak():
    without = phantom_dataset("pets", CLASSES, draw, DEVELOPMENT)
    assert "split" not in without.table.columns
    leaking = phantom_dataset("pets", CLASSES, draw, DEVELOPMENT, plant=["split_leak"])
    assert leaking.splits == {"development": 600, "test": 120}
    assert planted(leaking, "split_leak").sum() >= 25


def test_text_in_a_corner_says_the_label_and_not_what_is_shown():
    plain, dataset = phantoms(), phantoms(["text"])
    told = planted(dataset, "text")
    assert 0.85 < told.mean() < 0.95
    words = np.array(["CAT", "DOG", "OWL"])[dataset.targets]
    assert (dataset.table["text"].to_numpy()[told] == words[told]).all()
    index = int(np.flatnonzero(told)[0])
    marked, clean = dataset.decode(index), plain.decode(index)
    assert (marked != clean).any()
    middle = slice(SIDE // 2 - 3, SIDE // 2 + 3)
    assert (marked[middle, middle] == clean[middle, middle]).all()


def test_sources_go_with_the_class_and_differ_in_size_and_border():
    dataset = phantoms(["source"])
    second = planted(dataset, "source")
    by_class = [second[dataset.targets == label].mean() for label in range(3)]
    assert by_class == pytest.approx([0.1, 0.1, 0.9], abs=0.1)
    assert set(dataset.table["source"].to_numpy()[second]) == {"archive B"}
    pixels, other = dataset.decode(int(np.flatnonzero(second)[0])), dataset.decode(int(np.flatnonzero(~second)[0]))
    assert pixels.shape == (24, 24, 1)
    assert other.shape == (SIDE, SIDE, 1)
    assert pixels[0].max() == 0 < other[0].min()


@pytest.mark.parametrize("counts", [(300, 300), (300, 200), (100, 500), (200, 200, 200, 200)])
def test_imbalance_is_at_least_one_to_five(counts):
    names = tuple("abcd"[: len(counts)])
    before = phantom_dataset("pets", names, draw, counts)
    after = phantom_dataset("pets", names, draw, counts, plant=["imbalance"])
    found = np.array(list(after.counts.values()))
    assert found.sum() == sum(counts)
    assert found.max() >= 4.9 * found.min() > 0
    assert np.argmax(found) == np.argmax(list(before.counts.values()))
    assert (planted(after, "imbalance") == (after.targets == found.argmin())).all()


def test_an_unknown_pitfall_is_named_with_those_that_there_are():
    with pytest.raises(InputError, match="unknown pitfall 'duplicate'") as error:
        phantoms(["duplicate"])
    assert all(pitfall in str(error.value) for pitfall in PITFALLS)


def test_masks_go_with_their_images_but_for_contradictions():
    dataset = segmented(PITFALLS)
    assert dataset.kind == "segmentation"
    assert dataset.best_accuracy == 0.9
    assert set(dataset.targets) == {0}
    for pitfall, same in (("duplicates", True), ("contradictions", False)):
        for copy, first in copies(dataset, pitfall):
            assert (copy["content"] == first["content"]) == same
            masks = dataset.mask_decoder(copy), dataset.mask_decoder(first)
            assert np.array_equal(*masks) == same
    for index in np.flatnonzero(~planted(dataset, "corrupt"))[:40].tolist():
        assert dataset.decode_mask(index).shape == dataset.decode(index).shape
    assert segmented().part("development").table["appearance"].value_counts(sort=True)["count"].to_list() == [48, 37]
