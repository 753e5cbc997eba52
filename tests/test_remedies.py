"""What is left out, what stays, and who shares a group."""

import numpy as np
import pytest

from datasets import InputError, Target
from datasets.remedies import remedied
from tests.pictures import BROKEN, dataset_of, photographs

CELLS = tuple("abcdefgh")


def kept(dataset) -> list[str]:
    return dataset.table["image_id"].to_list()


def reasons(dataset) -> dict[str, str]:
    return {dropped.path: dropped.reason for dropped in dataset.dropped}


def test_clean_images_all_stay_as_they_are():
    dataset = dataset_of(photographs(20, seed=1))
    found = remedied(dataset)
    assert found.table.equals(dataset.table)
    assert found.dropped == ()


def test_the_jokes_of_an2dl_go_and_all_cells_stay():
    """In miniature: 96 cells, 16 of them 8 identical pairs; one joke in all classes, another many times in one."""
    cells = photographs(88, seed=2)
    cells += [cells[8 * i] for i in range(8)]
    targets = [i % 8 for i in range(88)] + [(8 * i) % 8 for i in range(8)]
    shrek, rick = photographs(2, seed=3)
    images = [*cells, *[shrek] * 40, *[rick] * 12]
    dataset = dataset_of(images, [*targets, *np.tile(range(8), 5), *[5] * 12], classes=CELLS)
    found = remedied(dataset)
    assert kept(found) == [f"a{i}" for i in range(96)]
    assert reasons(found)["a96"] == "contaminant: the same picture 40 times under 8 labels"
    assert reasons(found)["a147"] == "contaminant: the same picture 12 times under the label f"
    assert len(found.dropped) == 52
    assert found.table["group"].n_unique() == 88


def test_the_copies_of_pbc_stay_in_groups_and_the_pair_with_two_labels_goes():
    cells = photographs(40, seed=4)
    images = [*cells, *cells[:17]]
    targets = [i % 8 for i in range(40)] + [i % 8 for i in range(16)] + [(16 + 1) % 8]
    found = remedied(dataset_of(images, targets, classes=CELLS))
    assert reasons(found) == {
        "a16": "contradiction: the same image as a56, under the label b",
        "a56": "contradiction: the same image as a16, under the label a",
    }
    assert len(found) == 55
    groups = dict(found.table.select("image_id", "group").iter_rows())
    assert all(groups[f"a{i}"] == groups[f"a{40 + i}"] == f"a{i}" for i in range(16))
    assert found.table["group"].n_unique() == 39


def test_a_picture_under_three_labels_is_a_contaminant_and_under_two_a_contradiction():
    images = photographs(12, seed=5)
    found = remedied(dataset_of([*images, images[0], images[0], images[1]], [0] * 12 + [1, 2, 1], classes=CELLS))
    assert {path: reason.split(":")[0] for path, reason in reasons(found).items()} == {
        **dict.fromkeys(("a0", "a12", "a13"), "contaminant"),
        **dict.fromkeys(("a1", "a14"), "contradiction"),
    }


def test_the_same_image_under_another_further_label_is_a_contradiction():
    images = photographs(6, seed=6)
    dataset = dataset_of(
        [*images, images[2]], [0] * 7, further=(Target("part", ("hand", "foot")),), target_part=[0] * 6 + [1]
    )
    found = remedied(dataset)
    assert reasons(found)["a2"] == "contradiction: the same image as a6, under the labels benign and foot"
    assert len(found) == 5


def test_the_same_image_with_two_masks_is_a_contradiction():
    images = photographs(4, seed=7)
    masks = [np.eye(64, dtype=np.uint8) for _ in range(4)] + [np.ones((64, 64), np.uint8), np.eye(64, dtype=np.uint8)]
    found = remedied(dataset_of([*images, images[1], images[2]], [0] * 6, masks=masks))
    assert set(reasons(found)) == {"a1", "a4"}


def test_what_does_not_decode_goes_first_and_names_its_reason():
    found = remedied(dataset_of([*photographs(5, seed=8), BROKEN]))
    assert reasons(found) == {"a5": "corrupt: broken image: image file is truncated"}
    with pytest.raises(InputError, match=r"1 image does not decode .a5: broken image.* add corrupt to --drop"):
        remedied(dataset_of([*photographs(5, seed=8), BROKEN]), drop=())


def test_without_drop_contradictions_and_contaminants_stay_in_one_group():
    images = photographs(6, seed=9)
    found = remedied(dataset_of([*images, *[images[0]] * 12], [0] * 6 + [1] * 12), drop=())
    assert len(found) == 18
    assert found.table["group"].n_unique() == 6


def test_dropping_duplicates_keeps_the_first_of_each():
    images = photographs(8, seed=10)
    brighter = np.clip(images[5].astype(int) + 9, 0, 255).astype(np.uint8)
    found = remedied(dataset_of([*images, images[2], brighter], [0] * 10), drop=("duplicates",))
    assert kept(found) == [f"a{i}" for i in range(8)]
    assert reasons(found) == {"a8": "duplicate: a copy of a2", "a9": "duplicate: a copy of a5"}


def test_a_dropped_duplicate_says_where_its_label_was_another():
    images = photographs(8, seed=10)
    brighter = np.clip(images[5].astype(int) + 9, 0, 255).astype(np.uint8)
    found = remedied(dataset_of([*images, images[2], brighter], [0] * 8 + [1, 1]), drop=("duplicates",))
    assert reasons(found) == {
        "a8": "duplicate: a copy of a2, but under the label malignant; a2 stands under the label benign",
        "a9": "duplicate: a copy of a5, but under the label malignant; a5 stands under the label benign",
    }
    masks = [np.eye(64, dtype=np.uint8)] * 9 + [np.ones((64, 64), np.uint8)]
    found = remedied(dataset_of([*images, images[2], images[3]], [0] * 10, masks=masks), drop=("duplicates",))
    assert reasons(found) == {"a8": "duplicate: a copy of a2", "a9": "duplicate: a copy of a3, with another mask"}


def test_four_copies_under_two_labels_are_a_contaminant_but_not_under_two_masks_or_one_label():
    images = photographs(12, seed=5)
    found = remedied(dataset_of([*images, *[images[0]] * 3, *[images[1]] * 3], [0] * 12 + [1, 0, 1, 0, 0, 0]))
    assert reasons(found) == dict.fromkeys(
        ("a0", "a12", "a13", "a14"), "contaminant: the same picture 4 times under 2 labels"
    )
    masks = [np.eye(64, dtype=np.uint8)] * 14 + [np.ones((64, 64), np.uint8)]
    found = remedied(dataset_of([*images, *[images[0]] * 3], [0] * 15, masks=masks))
    assert {reason.split(":")[0] for reason in reasons(found).values()} == {"contradiction"}


def test_a_copy_joins_the_groups_of_two_patients_and_those_that_they_touch():
    images = photographs(6, seed=11)
    dataset = dataset_of(
        [*images, images[0], np.clip(images[3].astype(int) + 9, 0, 255).astype(np.uint8)],
        [0] * 8,
        group=["p", "p", "q", "r", "s", "t", "q", "s"],
    )
    assert remedied(dataset).table["group"].to_list() == ["p", "p", "p", "r", "r", "t", "p", "r"]


def test_what_is_left_out_joins_no_groups():
    images = photographs(6, seed=12)
    dataset = dataset_of([*images, images[0]], [0, 0, 0, 0, 0, 0, 1], group=["p", "p", "q", "q", "r", "s", "q"])
    assert remedied(dataset).table["group"].to_list() == ["p", "q", "q", "r", "s"]


def test_the_split_is_left_as_it_is():
    images = photographs(6, seed=13)
    split = ["development"] * 6 + ["test"]
    found = remedied(dataset_of([*images, images[0]], [0] * 7, split=split))
    assert found.table["split"].to_list() == split
    assert found.table["group"][6] == found.table["group"][0]


@pytest.mark.parametrize("name", ["a3", "3"])
def test_what_is_like_a_named_image_goes_with_it(name):
    images = photographs(8, seed=14)
    found = remedied(dataset_of([*images, images[3]], [0] * 9), drop=(), like=[name])
    assert reasons(found) == {"a3": "contaminant: named by --like", "a8": "contaminant: the same picture as a3"}


def test_features_find_what_resembles_a_named_image():
    features = np.tile([1.0, 0.0], (10, 1))
    features[[2, 5]] = [[0.1, 1.0], [0.5, 1.0]]
    dataset = dataset_of(photographs(10, seed=15))
    found = remedied(dataset, drop=(), like=["a2"], embed=lambda of: features[of.table["at"].to_numpy()])
    assert set(reasons(found)) == {"a2", "a5"}
    assert "resembles a2 (cosine similarity 0.93)" in reasons(found)["a5"]
    with pytest.raises(InputError, match="8 of 10 images resemble it, more than half"):
        remedied(dataset, drop=(), like=["a0"], embed=lambda of: features[of.table["at"].to_numpy()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"drop": ("duplicate",)}, "--drop duplicate: unknown; did you mean 'duplicates'.*Known: corrupt, contam"),
        ({"like": ("a33",)}, "--like a33: no such image; did you mean 'a3'.*row number, 0 to 3"),
        ({"like": ("77",)}, "--like 77: no such image"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given, message):
    with pytest.raises(InputError, match=message):
        remedied(dataset_of(photographs(4, seed=16)), **given)


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match="none of its 2 images decodes; the first one: broken"):
        remedied(dataset_of([BROKEN, BROKEN]))
    with pytest.raises(InputError, match="no image is left"):
        remedied(dataset_of(photographs(1) * 12))


def test_frames_of_one_patient_are_no_contamination():
    image = photographs(1, seed=17)[0].astype(int)
    frames = [np.clip(image + shade, 0, 255).astype(np.uint8) for shade in range(0, 24, 2)]
    others = photographs(30, seed=18)
    group = [*["film"] * 12, *(f"p{i}" for i in range(30))]
    assert len(remedied(dataset_of([*frames, *others], [0] * 42, group=group))) == 42
    unsaid = remedied(dataset_of([*frames, *others], [0] * 42))
    assert unsaid.table["group"].head(12).n_unique() == 1
    assert len(unsaid) == 42
