"""Every pitfall is found where it is planted, and not where it is not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import Request, Skipped, Target, load_all
from datasets.audit import Audit, audit, quick_findings
from datasets.audit_page import audit_page
from datasets.confounding import probe
from datasets.images import from_class_folders
from datasets.mura import read as read_mura
from datasets.phantoms import planted
from tests.pictures import BROKEN, class_folders, dataset_of, lettered, photographs
from tests.trees import mura_tree

IMAGES = photographs(60, seed=1)
BRIGHTER = [np.clip(image.astype(int) + 9, 0, 255).astype(np.uint8) for image in IMAGES]
SPLIT = ["development"] * 50 + ["test"] * 10
MASKS = [np.tri(64, dtype=np.uint8)] * 60
SKIPPED = (
    Skipped("__MACOSX", "hidden, or left behind by a file manager"),
    Skipped("neutrophil/.DS_169665.jpg", "hidden, or left behind by a file manager"),
)


def checks(dataset, **given) -> dict[str, str]:
    """Severity by check."""
    return {finding.check: finding.severity for finding in audit(dataset, **given).findings}


def ids(found: Audit, check: str) -> set[str]:
    (finding,) = (finding for finding in found.findings if finding.check == check)
    return set(finding.images)


def test_clean_images_have_notes_only():
    assert checks(dataset_of(IMAGES)) == {"majority": "note", "small_set": "note"}
    assert checks(dataset_of(IMAGES, [0] * 60, masks=MASKS)) == {"small_set": "note"}


PLANTED = {
    "contradictions": lambda: dataset_of([*IMAGES, IMAGES[0]], [*[0, 1] * 30, 1]),
    "duplicates": lambda: dataset_of([*IMAGES, IMAGES[0]], [*[0, 1] * 30, 0]),
    "near_duplicates": lambda: dataset_of([*IMAGES, BRIGHTER[0]], [*[0, 1] * 30, 0]),
    "near_contradictions": lambda: dataset_of([*IMAGES, BRIGHTER[0]], [*[0, 1] * 30, 1]),
    "copies_in_both_splits": lambda: dataset_of([*IMAGES[:59], BRIGHTER[1]], split=SPLIT),
    "contaminants": lambda: dataset_of([*IMAGES, *[IMAGES[0]] * 10]),
    "many_copies": lambda: dataset_of([*IMAGES, *[IMAGES[0]] * 3], [*[0, 1] * 30, 0, 0, 0]),
    "corrupt": lambda: dataset_of([*IMAGES, BROKEN]),
    "blank": lambda: dataset_of([*IMAGES, np.full((64, 64), 7, np.uint8)]),
    "empty_masks": lambda: dataset_of(IMAGES, [0] * 60, masks=[*MASKS[1:], 0 * MASKS[0]]),
    "constant_channel": lambda: dataset_of([np.stack([image, 0 * image], axis=2) for image in IMAGES]),
    "constant_target": lambda: dataset_of(IMAGES, further=(Target("part", ("WRIST", "OTHER")),), target_part=[1] * 60),
    "empty_class": lambda: dataset_of(IMAGES, classes=tuple("abcd"), targets=[0, 1, 3] * 20),
    "group_in_both_splits": lambda: dataset_of(IMAGES, split=SPLIT, group=[f"p{i % 55}" for i in range(60)]),
    "groups_with_several_labels": lambda: dataset_of(IMAGES, group=[f"p{i // 2}" for i in range(60)]),
    "groups_under_several_parts": lambda: dataset_of(
        IMAGES, group=[f"p{i % 30}" for i in range(60)], part=["hand"] * 30 + ["wrist"] * 30
    ),
    "small_test": lambda: dataset_of(IMAGES, split=SPLIT),
    "tiny_class": lambda: dataset_of(IMAGES, [0] * 26 + [1] * 25 + [2] * 9, classes=tuple("abc")),
    "imbalance": lambda: dataset_of(IMAGES, [0] * 48 + [1] * 12),
    "class_by_size": lambda: dataset_of([image[: 64 - 8 * (i % 2)] for i, image in enumerate(IMAGES)]),
    "class_by_frame": lambda: dataset_of(
        [np.pad(image.clip(40), 4)[4 * (i % 2) :] for i, image in enumerate(IMAGES)]
    ),
    "class_by_brightness": lambda: dataset_of([image // (1 + i % 2) for i, image in enumerate(IMAGES)]),
    "class_by_source": lambda: dataset_of(IMAGES, source=["here", "there"] * 30),
    "sources_differ": lambda: dataset_of(
        [image[: 64 - 8 * (i % 2)] for i, image in enumerate(IMAGES)], [0] * 60, MASKS, source=["here", "there"] * 30
    ),
    "label_by_source": lambda: dataset_of(
        IMAGES, [0] * 60, MASKS, source=["here", "there"] * 30, stratum=[0, 1] * 30
    ),
    "label_only_stratifies": lambda: dataset_of(
        IMAGES, [0] * 60, MASKS, source=["here", "there"] * 30, stratum=[0, 0, 1, 1] * 15
    ),
    "class_by_text": lambda: dataset_of(lettered(IMAGES)),
    "skipped": lambda: dataclasses.replace(dataset_of(IMAGES), skipped=SKIPPED),
}  # fmt: skip
ERRORS = {
    "contradictions",
    "copies_in_both_splits",
    "contaminants",
    "constant_target",
    "empty_class",
    "group_in_both_splits",
}
NOTES = {
    "duplicates",
    "groups_with_several_labels",
    "groups_under_several_parts",
    "label_only_stratifies",
    "skipped",
}


@pytest.mark.parametrize("check", PLANTED)
def test_what_is_planted_is_found_and_nothing_that_is_not(check):
    found = checks(PLANTED[check]())
    assert found[check] == ("error" if check in ERRORS else "note" if check in NOTES else "warning")
    beside = {
        "class_by_frame": {
            "class_by_size",
            "class_by_brightness",
            "class_by_text",
        },  # larger, darker, and a bright edge
        "many_copies": {"duplicates"},
        "label_by_source": {"label_only_stratifies"},
        "copies_in_both_splits": {"near_duplicates", "small_test"},
        "group_in_both_splits": {"small_test", "groups_with_several_labels"},
    }
    assert set(found) - {check, "majority", "small_set"} <= beside.get(check, set())


def test_findings_name_all_images_concerned():
    found = audit(dataset_of([*IMAGES, IMAGES[3], BRIGHTER[8], BROKEN], [*[0, 1] * 30, 0, 0, 1]))
    assert ids(found, "contradictions") == {"a3", "a60"}
    assert ids(found, "near_duplicates") == {"a8", "a61"}
    assert ids(found, "corrupt") == {"a62"}
    assert (found.remaining, {dropped.path for dropped in found.dropped}) == (60, {"a3", "a60", "a62"})


def test_a_finding_says_its_numbers_in_a_sentence():
    titles = {
        finding.check: finding.title for finding in audit(dataset_of(IMAGES * 2, split=[*SPLIT, *SPLIT])).findings
    }
    assert titles["duplicates"].startswith("60 images are there more than once")
    titles = {finding.check: finding.title for finding in audit(dataset_of(IMAGES, [0] * 45 + [1] * 15)).findings}
    assert "always saying benign is right for 75 % of the development images" in titles["majority"]
    assert "benign has 3.0 times as many images as malignant (45 and 15)" in titles["imbalance"]


def test_the_standard_error_is_that_of_the_groups():
    of_images = audit(dataset_of(IMAGES)).findings[-1].numbers
    of_patients = audit(dataset_of(IMAGES, group=[f"p{i % 15}" for i in range(60)])).findings[-1].numbers
    assert of_images["standard_error"] == pytest.approx((0.09 / 60) ** 0.5)
    assert of_patients["standard_error"] == pytest.approx((0.09 / 15) ** 0.5)
    assert of_images["difference"] == pytest.approx(1.96 * 2**0.5 * (0.09 / 60) ** 0.5)


def test_of_masks_the_small_set_is_told_without_an_accuracy():
    of_classes, of_masks = (audit(dataset_of(IMAGES, [0, 1] * 30, masks)).findings[-1] for masks in (None, MASKS))
    assert of_classes.check == of_masks.check == "small_set"
    assert "an accuracy of 90 %" in of_classes.title
    assert "accuracy" not in of_masks.title
    assert "a mean Dice has a standard error of 2.6 points, if images differ in it by 0.2" in of_masks.title
    assert of_masks.numbers["standard_error"] == pytest.approx(0.2 / 60**0.5)


def test_all_tiny_classes_are_one_finding_of_development_images():
    targets = [0] * 30 + [1] * 9 + [2] * 4 + [3] * 7 + [1] * 5 + [0] * 5
    split = ["development"] * 50 + ["test"] * 10
    found = audit(
        dataset_of(IMAGES, targets, classes=tuple("abcd"), split=split, group=[f"p{i // 2}" for i in range(60)])
    )
    (finding,) = (finding for finding in found.findings if finding.check == "tiny_class")
    assert "c (4 images of 3 groups), d (7 images of 4 groups) and b (9 images of 5 groups)" in finding.title
    assert set(finding.images) == {f"a{i}" for i in range(30, 50)}
    assert finding.numbers["classes"]["c"] == {"images": 4, "groups": 3}


def test_many_tiny_classes_are_counted_and_not_all_named():
    found = audit(dataset_of(IMAGES, [i % 20 for i in range(60)], classes=tuple("abcdefghijklmnopqrst")))
    (finding,) = (finding for finding in found.findings if finding.check == "tiny_class")
    assert finding.title.endswith("h (3 images) and 12 others.")


def test_copies_under_several_labels_are_no_patients_with_several_labels():
    images, targets = [*IMAGES, IMAGES[0], *[IMAGES[1]] * 4], [*[0, 1] * 30, 1, 0, 1, 0, 1]
    group = [*(f"a{i}" for i in range(60)), "a0", *["a1"] * 4]
    found = checks(dataset_of(images, targets, group=group))
    assert {"contradictions", "contaminants"} <= set(found)
    assert "groups_with_several_labels" not in found
    group[2] = "a3"
    assert ids(audit(dataset_of(images, targets, group=group)), "groups_with_several_labels") == {"a2", "a3"}


@pytest.mark.parametrize(
    ("again", "check"), [([1], "contradictions"), ([1, 0], "contradictions"), ([1, 0, 1], "contaminants")]
)
def test_of_two_classes_a_picture_under_both_is_a_contaminant_from_four_copies_on(again, check):
    found = audit(dataset_of([*IMAGES, *[IMAGES[0]] * len(again)], [*[0, 1] * 30, *again]))
    assert {finding.check for finding in found.findings if finding.severity == "error"} == {check}
    assert ids(found, check) == {"a0", *(f"a{60 + i}" for i in range(len(again)))}
    assert found.remaining == 59


@pytest.mark.parametrize("images", [100, 200, 300])
@pytest.mark.parametrize("task", ["blood", "covid"])
def test_few_planted_contaminants_are_found_and_nothing_else(task, images):
    dataset = load_all(task, Request(demonstration=True, images=images, plant=("contaminants",)))
    findings = quick_findings(dataset)
    told = [finding for finding in findings if finding.check in ("contaminants", "many_copies")]
    assert told[0].severity == "error"
    jokes = set(dataset.table.filter(planted(dataset, "contaminants"))["image_id"])
    assert {image for finding in told for image in finding.images} == jokes
    assert sum(len(finding.images) for finding in told) == len(jokes)


def test_one_class_is_shown_and_a_search_would_refuse_it():
    found = audit(dataset_of(IMAGES, [0] * 60))
    first = found.findings[0]
    assert (first.check, first.severity) == ("constant_target", "error")
    assert "a search refuses these images" in first.title
    assert found.remaining is None
    assert "images of one class only (benign)" in found.refusal


def test_what_is_left_out_may_leave_one_class():
    images = [*IMAGES[:12], IMAGES[0]]
    found = audit(dataset_of(images, [0] * 12 + [1]))
    assert len(found.dropped) == 2
    assert "images of one class only (benign)" in found.refusal


def test_planted_sources_are_told_where_masks_are_the_target():
    plain, planted_in = (load_all("warwick", Request(demonstration=True, plant=plant)) for plant in ((), ("source",)))
    assert "sources_differ" not in checks(plain)
    (finding,) = (finding for finding in audit(planted_in).findings if finding.check == "sources_differ")
    assert finding.numbers["size"]["balanced_accuracy"] > 0.99
    source_of = dict(planted_in.table.select("image_id", "source").iter_rows())
    assert len({source_of[image] for image in finding.images[:2]}) == 2


def test_a_table_with_masks_and_a_label_says_that_the_label_is_not_predicted(tmp_path: Path):
    for i, image in enumerate(IMAGES[:12]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(255 * MASKS[0]).save(tmp_path / f"{i}_mask.png")
    lines = [f"{i}.png,{i}_mask.png,{'ab'[i % 2]}" for i in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,mask,label", *lines]))
    findings = quick_findings(load_all("images", Request(root=tmp_path, table=tmp_path / "labels.csv")))
    (finding,) = (finding for finding in findings if finding.check == "label_only_stratifies")
    assert finding.severity == "note"
    assert "a label (2 values): the masks are predicted, the label is not" in finding.title


@pytest.mark.parametrize("plant", [(), ("text",)])
@pytest.mark.parametrize("task", ["covid", "mura"])
def test_text_in_the_corners_of_phantoms_is_found_and_only_where_it_is(task, plant):
    found = checks(load_all(task, Request(demonstration=True, images=100, plant=plant)))
    assert ("class_by_text" in found) == bool(plant)


def test_a_probe_cannot_use_what_only_images_of_one_patient_share():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    groups = np.repeat(np.arange(40), 10)
    of_patient = np.repeat(rng.normal(size=(40, 1)), 10, axis=0).astype(np.float32)
    assert not probe(of_patient, labels, groups).exceeds(0.15)
    assert probe(of_patient + 3 * labels[:, None], labels, groups).exceeds(0.15)


def test_shuffled_labels_are_rarely_told():
    fired = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        told = probe(rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 2, 200), np.arange(200))
        fired.append(told.exceeds(0.15))
    assert sum(fired) <= 1


def test_mura_with_a_lost_first_row_is_found(tmp_path: Path):
    root = mura_tree(tmp_path, full=False)
    found = audit(read_mura(tmp_path))
    assert "lists_disagree" not in {finding.check for finding in found.findings}
    (headless,) = (finding for finding in found.findings if finding.check == "list_without_header")
    assert headless.numbers["rows"]["train_labeled_studies.csv"] == 15
    studies = root / "train_labeled_studies.csv"
    studies.write_text("".join(studies.read_text().splitlines(keepends=True)[1:]))
    (finding,) = (finding for finding in audit(read_mura(tmp_path)).findings if finding.check == "lists_disagree")
    assert finding.severity == "error"
    assert "3 images in 1 folder not listed" in finding.title
    assert len(finding.images) == 3


def test_the_heatmap_counts_images_and_studies_by_part_and_class(tmp_path: Path):
    mura_tree(tmp_path, full=False)
    found = audit(read_mura(tmp_path))
    assert found.parts["parts"] == ["HAND", "SHOULDER", "WRIST"]
    assert found.parts["images"] == {"development": [[4, 6], [5, 8], [9, 5]], "test": [[0, 0], [3, 1], [2, 6]]}
    assert found.parts["studies"] == {"development": [[2, 2], [2, 3], [4, 2]], "test": [[0, 0], [1, 1], [1, 2]]}
    assert found.counts["abnormality"]["normal"] == {"development": 18, "test": 5}
    assert found.sizes == [{"width_px": 8, "height_px": 8, "images": 49}]


def test_the_class_given_away_by_the_format_of_the_files(tmp_path: Path):
    found = checks(from_class_folders("images", class_folders(tmp_path)))
    assert found["class_by_format"] == "warning"
    assert found["mixed_modes"] == "note"


def test_old_line_ends_and_blanks_in_a_list_are_told(tmp_path: Path):
    (class_folders(tmp_path) / "Grade.csv").write_bytes(b"name,patient ID, grade (GlaS)\rtrain_1, 1, benign\r")
    (finding,) = (
        finding for finding in audit(from_class_folders("images", tmp_path)).findings if finding.check == "odd_list"
    )
    assert "line ends of the old Macintosh and blanks around the names" in finding.title


def test_labels_in_a_column_are_told(tmp_path: Path):
    for name, shape in (("column", (60, 1)), ("row", (60,))):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((60, 2, 2), np.uint8), labels=np.zeros(shape, int))
    one, other = (dataset_of(IMAGES, array_file=[str(tmp_path / f"{name}.npz")] * 60) for name in ("column", "row"))
    assert checks(one)["labels_in_a_column"] == "note"
    assert "labels_in_a_column" not in checks(other)


@pytest.mark.parametrize(
    ("values", "said"), [((0, 255), "0 and 255"), ((0, 1, 2, 7), "4 values up to 7"), ((0, 1), None)]
)
def test_masks_of_255_or_of_instances_are_told(tmp_path: Path, values, said):
    Image.fromarray(np.resize(np.array(values, np.uint8), (64, 64))).save(tmp_path / "mask.png")
    dataset = dataset_of(IMAGES, [0] * 60, masks=MASKS, mask_path=[str(tmp_path / "mask.png")] * 60)
    titles = {finding.check: finding.title for finding in audit(dataset).findings}
    assert (said in titles["mask_values"]) if said else "mask_values" not in titles


def test_a_channel_that_the_reader_left_out_is_told(tmp_path: Path):
    pixels = np.stack([*IMAGES[:2], np.zeros((64, 64), np.uint8)], axis=2)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    two = [np.stack([image, image[::-1]], axis=2) for image in IMAGES]
    (finding,) = (
        finding
        for finding in audit(dataset_of(two, path=[str(tmp_path / "image.png")] * 60)).findings
        if finding.check == "constant_channel"
    )
    assert (finding.severity, finding.numbers) == ("note", {"channels": ["blue"]})


def test_features_point_out_what_pixels_do_not():
    features = np.eye(60)
    features[7] = features[3] + 0.1 * features[7]
    found = audit(dataset_of(IMAGES), embed=lambda dataset: features[dataset.table["at"].to_numpy()])
    assert ids(found, "alike") == {"a3", "a7"}
    blind = audit(dataset_of(IMAGES), embed=lambda dataset: np.ones((len(dataset), 4)))
    assert "does not tell these images apart" in next(one.title for one in blind.findings if one.check == "alike")


def test_what_a_named_image_resembles_is_a_finding():
    found = audit(dataset_of([*IMAGES, BRIGHTER[2]], [0, 1] * 30 + [0]), like=["a2"])
    assert ids(found, "like") == {"a2", "a60"}
    assert found.remaining == 59


def test_a_refusal_of_the_search_is_told_and_does_not_stop_the_audit():
    found = audit(dataset_of([*IMAGES, BROKEN]), drop=("duplicates",))
    assert found.remaining is None
    assert "add corrupt to --drop" in found.refusal
    assert "A search would refuse these images" in audit_page(found, "pictures")
