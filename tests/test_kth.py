"""Skin and bone images of the KTH course as its two laboratories lay them out, in miniature, with every trap."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from datasets import ImageDataset, InputError, bone, skin

COURSE = "DL_course_data"


def write(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def lab1(tmp_path: Path) -> Path:
    """Flat files: six to train on and four to test with, of each organ, and the X-rays of another task."""
    root = tmp_path / COURSE / "Lab1"
    for organ, marks in {"Skin": ("Mel", "Nev"), "Bone": ("AFF", "NFF")}.items():
        for seed, part in enumerate(["train"] * 3 + ["test"] * 2):
            for mark in marks:
                write(root / organ / part / f"{mark}_{seed}.jpg", seed=10 * seed + (mark in ("Mel", "AFF")))
    write(root / "X_ray/train/C4_4662.jpg", 99)
    return root


@pytest.fixture
def lab2(tmp_path: Path) -> Path:
    """Class folders, with files whose names say nothing: eight to train on and four to validate with."""
    root = tmp_path / COURSE / "Lab2"
    for organ, classes in {"Skin": ("Mel", "Nevi"), "Bone": ("AFF", "NFF")}.items():
        for seed, part in enumerate(["train"] * 4 + ["validation"] * 2):
            for name in classes:
                write(root / organ / part / name / f"{seed}.jpg", seed=100 + 10 * seed + (name in ("Mel", "AFF")))
    return root


def reasons(dataset: ImageDataset) -> dict[str, str]:
    return {file.path: file.reason for file in dataset.skipped}


def targets(dataset: ImageDataset) -> dict[str, int]:
    return dict(zip(dataset.table["image_id"], dataset.targets.tolist(), strict=True))


@pytest.mark.parametrize(("task", "positive"), [(skin, "Mel"), (bone, "AFF")])
def test_the_disease_is_the_positive_class_in_both_laboratories(
    lab1: Path, lab2: Path, task: ModuleType, positive: str
) -> None:
    flat, folders = task.read(lab1), task.read(lab2)
    assert flat.classes == folders.classes == task.CLASSES
    assert task.CLASSES[1] == positive
    assert flat.kind == "binary"
    assert {image_id: positive in image_id for image_id in targets(flat)} == targets(flat)
    assert {image_id: f"/{positive}/" in image_id for image_id in targets(folders)} == targets(folders)
    assert (flat.splits, folders.splits) == ({"development": 6, "test": 4}, {"development": 8, "test": 4})


def test_skin_is_read_in_colour_and_bone_in_gray(lab1: Path) -> None:
    assert (skin.read(lab1).channels, skin.read(lab1).decode(0).shape) == (3, (9, 8, 3))
    assert (bone.read(lab1).channels, bone.read(lab1).decode(0).shape) == (1, (9, 8, 1))


@pytest.mark.parametrize("given", ["", COURSE, f"{COURSE}/Lab2", f"{COURSE}/Lab2/Skin"])
def test_root_may_be_the_course_the_laboratory_or_the_organ(lab2: Path, tmp_path: Path, given: str) -> None:
    assert skin.read(tmp_path / given).digest == skin.read(lab2 / "Skin").digest


def test_an_archive_in_a_folder_of_its_own_is_understood(lab1: Path, tmp_path: Path) -> None:
    before = skin.read(lab1).digest
    outer = tmp_path / "downloaded"
    outer.mkdir()
    (tmp_path / COURSE).rename(outer / "course")
    (outer / ".DS_Store").touch()
    assert skin.read(outer).digest == before


def test_names_in_other_letters_are_understood(lab2: Path) -> None:
    before = skin.read(lab2)
    (lab2 / "Skin/train/Mel").rename(lab2 / "Skin/train/MEL")
    (lab2 / "Skin/train/Nevi/0.jpg").rename(lab2 / "Skin/train/Nevi/0.JPG")
    (lab2 / "Skin/validation").rename(lab2 / "Skin/Validation")
    (lab2 / "Skin").rename(lab2 / "SKIN")
    after = skin.read(lab2.rename(lab2.with_name("lab2")))
    assert (after.counts, after.splits) == (before.counts, before.splits)


def test_laboratories_are_never_mixed(lab1: Path, lab2: Path, tmp_path: Path) -> None:
    for given in (tmp_path, tmp_path / COURSE):
        with pytest.raises(InputError, match=r"of 2 laboratories.*must not be mixed; pass one.*Lab1/Skin, .*Lab2/Skin"):
            skin.read(given)


def test_class_comes_from_the_name_of_the_file_and_not_of_its_path(tmp_path: Path) -> None:
    """In /Nevada/Melanie/AFFiliates every path holds Nev, Mel and AFF."""
    root = tmp_path / "Nevada/Melanie/AFFiliates"
    for seed, name in enumerate(("Mel_1", "Nev_1", "ISICMel12", "nevus_7", "x-mel3")):
        write(root / f"Skin/train/{name}.jpg", seed)
    write(root / "Bone/train/NFF_1.jpg", 7)
    write(root / "Bone/train/AFF_1.jpg", 8)
    assert targets(skin.read(root)) == {
        "train/ISICMel12.jpg": 1,
        "train/Mel_1.jpg": 1,
        "train/Nev_1.jpg": 0,
        "train/nevus_7.jpg": 0,
        "train/x-mel3.jpg": 1,
    }
    assert targets(bone.read(root)) == {"train/AFF_1.jpg": 1, "train/NFF_1.jpg": 0}


def test_folder_decides_in_the_second_laboratory_whatever_the_file_is_called(lab2: Path) -> None:
    (lab2 / "Bone/train/AFF/0.jpg").rename(lab2 / "Bone/train/AFF/NFF_like.jpg")
    assert targets(bone.read(lab2))["train/AFF/NFF_like.jpg"] == 1


def test_a_folder_that_only_begins_like_a_class_is_none(lab2: Path) -> None:
    write(lab2 / "Bone/train/AFFiliates/1.jpg", 1)
    films = bone.read(lab2)
    assert reasons(films) == {"Bone/train/AFFiliates/1.jpg": "not in a class folder (NFF, AFF)"}
    assert films.counts == {"NFF": 6, "AFF": 6}


def test_what_fits_no_class_is_left_out_with_its_reason(lab1: Path) -> None:
    for seed, name in enumerate(
        ("train/caramel_1.jpg", "train/Mel_Nev.jpg", "train/7.jpg", "extra/Mel_1.jpg", "Mel.jpg")
    ):
        write(lab1 / "Skin" / name, 200 + seed)
    (lab1 / "Skin/train/._Mel_0.jpg").touch()
    (lab1 / "Skin/train/labels.csv").touch()
    lesions = skin.read(lab1.parent)
    elsewhere = "in neither train nor validation nor test"
    assert reasons(lesions) == {
        "Lab1/Skin/Mel.jpg": elsewhere,
        "Lab1/Skin/extra/Mel_1.jpg": elsewhere,
        "Lab1/Skin/train/._Mel_0.jpg": "hidden, or left behind by a file manager",
        "Lab1/Skin/train/7.jpg": "its name holds neither Mel nor Nev",
        "Lab1/Skin/train/Mel_Nev.jpg": "its name holds both Mel and Nev",
        "Lab1/Skin/train/caramel_1.jpg": "its name holds neither Mel nor Nev",
        "Lab1/Skin/train/labels.csv": "not an image",
    }
    assert len(lesions) == 10


def test_what_lies_beside_the_organ_is_told_and_other_organs_are_not(lab1: Path, tmp_path: Path) -> None:
    write(tmp_path / "__MACOSX/x.png", 1)
    write(tmp_path / COURSE / "lost.png", 2)
    (lab1 / "notes.txt").touch()
    assert reasons(skin.read(tmp_path)) == {
        "__MACOSX": "hidden, or left behind by a file manager",
        f"{COURSE}/lost.png": "beside what is read",
        f"{COURSE}/Lab1/notes.txt": "beside what is read",
    }


def test_one_stray_folder_or_file_does_not_change_the_laboratory(lab1: Path, lab2: Path) -> None:
    write(lab1 / "Skin/train/Mel/Mel_77.jpg", 1)
    write(lab2 / "Skin/train/Mel_77.jpg", 1)
    flat, folders = skin.read(lab1), skin.read(lab2)
    assert (len(flat), len(folders)) == (10, 12)
    assert reasons(flat) == {"Skin/train/Mel/Mel_77.jpg": "in a class folder, but most files lie beside it"}
    assert reasons(folders) == {"Skin/train/Mel_77.jpg": "not in a class folder (Nevi, Mel)"}


def test_both_layouts_alike_are_refused(lab1: Path) -> None:
    for number in range(10):
        write(lab1 / f"Skin/train/Nevi/{number}.jpg", number)
    with pytest.raises(InputError, match=r"both flat files \(10\) and class folders \(10\)"):
        skin.read(lab1)


def test_copies_share_a_group_and_nothing_else_does(lab2: Path) -> None:
    (lab2 / "Bone/validation/NFF/copy.jpg").write_bytes((lab2 / "Bone/train/AFF/0.jpg").read_bytes())
    table = bone.read(lab2).table
    assert table["group"].n_unique() == table["content"].n_unique() == len(table) - 1


def test_wrong_folders_say_what_is_expected(lab1: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected the folder of skin images"):
        skin.read(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no skin images; expected a folder with train.*\(pass the folder above\)"):
        skin.read(lab1 / "Skin/train")
    with pytest.raises(InputError, match=r"no images of Nevi or Mel; the first of 10 files: test/AFF_3\.jpg: its name"):
        skin.read(lab1 / "Bone")
    with pytest.raises(InputError, match="no bone images"):
        bone.read(lab1 / "X_ray/train")


@pytest.mark.parametrize(
    ("task", "splits", "development", "best"),
    [
        (skin, {"development": 1000, "test": 200}, {"Nevi": 500, "Mel": 500}, 0.9),
        (bone, {"development": 1112, "test": 96}, {"NFF": 656, "AFF": 456}, 1 - 0.1 * 456 / 1112),
    ],
)
def test_phantoms_have_the_size_of_the_second_laboratory(
    task: ModuleType, splits: dict[str, int], development: dict[str, int], best: float
) -> None:
    dataset = task.phantoms()
    assert (len(dataset), dataset.splits) == (task.IMAGES, splits)
    assert dataset.part("development").counts == development
    assert dataset.best_accuracy == pytest.approx(best)
    assert (dataset.classes, dataset.channels) == (task.CLASSES, task.CHANNELS)
    assert dataset.decode(0).shape == (128, 128, task.CHANNELS)
    assert task.phantoms(images=20).part("development").table.equals(dataset.part("development").table[:20])
