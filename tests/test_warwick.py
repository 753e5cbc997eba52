"""Glands in the layouts of the course and of the contest: pairs, patients, grades and masks of every kind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import InputError, warwick

RNG = np.random.default_rng(0)
GRADE_HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"


def tissue(size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return RNG.integers(1, 256, (*size[::-1], 3), dtype=np.uint8)


def course(root: Path, counts: dict[str, int], white: int = 255) -> Path:
    """WARWICK as its zip unpacks: two stains, blue zero, masks of 0 and 255."""
    for part, images in counts.items():
        (root / part).mkdir(parents=True)
        for number in range(1, images + 1):
            pixels = tissue()
            pixels[:, :, 2] = 0
            Image.fromarray(pixels).save(root / part / f"image_{number:02d}.png")
            mask = np.zeros((8, 8), np.uint8)
            mask[:number, :4] = white
            Image.fromarray(mask).save(root / part / f"label_{number:02d}.png")
    return root


def contest(root: Path, ends: str = "\n") -> Path:
    """Warwick_QU_Dataset: instance numbers in the masks, blanks in Grade.csv, two patients on both sides."""
    root.mkdir(parents=True)
    lines = [GRADE_HEADER]
    for name, patient, grade, fine in (
        ("train_1", 1, "benign", "adenomatous"),
        ("train_2", 1, "malignant", "moderately-to-poorly differentated"),
        ("train_10", 2, "malignant", "poorly differentiated"),
        ("testA_1", 1, "benign", "healthy"),
        ("testB_1", 2, "malignant", "moderately differentiated"),
    ):
        Image.fromarray(tissue((12, 7))).save(root / f"{name}.bmp")
        mask = np.zeros((7, 12), np.uint8)
        mask[1:3, 2:5], mask[4:6, 7:11] = 1, 2
        Image.fromarray(mask).save(root / f"{name}_anno.bmp")
        lines.append(f"{name}, {patient}, {grade}, {fine}")
    (root / "Grade.csv").write_bytes(ends.join(lines).encode())
    return root


# The course


@pytest.mark.parametrize("place", [".", "WARWICK"])
@pytest.mark.parametrize("parts", [("Train", "Test"), ("train", "test")])
def test_images_and_labels_of_one_folder_are_paired_by_number(
    tmp_path: Path, place: str, parts: tuple[str, str]
) -> None:
    course(tmp_path / place, dict(zip(parts, (4, 2), strict=True)))
    dataset = warwick.read(tmp_path)
    assert dataset.kind == "segmentation"
    assert dataset.classes == ("background", "gland")
    assert dataset.splits == {"development": 4, "test": 2}
    assert dataset.targets.tolist() == [0] * 6
    for i, row in enumerate(dataset.table.rows(named=True)):
        number = int(row["image_id"][-6:-4])
        assert dataset.decode_mask(i)[:, :, 0].sum() == 4 * number
        assert (row["split"] == "test") == (parts[1] in row["image_id"].split("/"))
    assert dataset.skipped == ()


def test_blue_is_left_out(tmp_path: Path) -> None:
    dataset = warwick.read(course(tmp_path / "x", {"Train": 2, "Test": 1}))
    assert dataset.channels == 2
    stored = np.asarray(Image.open(dataset.table["path"][0]))
    assert stored[:, :, 2].max() == 0
    assert np.array_equal(dataset.decode(0), stored[:, :, :2])


@pytest.mark.parametrize("white", [255, 1])
def test_labels_of_255_and_of_1_are_gland(tmp_path: Path, white: int) -> None:
    dataset = warwick.read(course(tmp_path / "x", {"Train": 2}, white))
    assert np.unique(dataset.decode_mask(1)).tolist() == [0, 1]
    assert dataset.decode_mask(1).shape == (8, 8, 1)
    assert dataset.splits == {"development": 2, "test": 0}


def test_what_has_no_partner_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = course(tmp_path / "x", {"Train": 5, "Test": 1})
    (root / "Train/label_02.png").unlink()
    (root / "Train/image_03.png").unlink()
    for source, copy in (("Train/image_01.png", "Train/image_1.png"), ("Train/image_01.png", "Train/overview.png")):
        (root / copy).write_bytes((root / source).read_bytes())
    (root / "Test/Thumbs.db").touch()
    for name in ("image_09.png", "label_09.png"):
        Image.fromarray(tissue()).save(root / name)
    dataset = warwick.read(root)
    assert dataset.splits == {"development": 3, "test": 1}
    assert [(entry.path, entry.reason) for entry in dataset.skipped] == [
        ("Test/Thumbs.db", "not an image"),
        ("Train/image_02.png", "no mask beside it"),
        ("Train/image_1.png", "has the number of image_01.png"),
        ("Train/label_03.png", "no image beside it"),
        ("Train/overview.png", "neither an image of this set nor a mask"),
        ("image_09.png", "neither in Train nor in Test"),
    ]


def test_same_picture_twice_shares_a_group_and_another_mask_is_another_content(tmp_path: Path) -> None:
    root = course(tmp_path / "x", {"Train": 3})
    (root / "Train/image_02.png").write_bytes((root / "Train/image_01.png").read_bytes())
    table = warwick.read(root).table
    assert table["group"].n_unique() == 2
    assert table["content"].n_unique() == 3


# The contest


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Macintosh"])
@pytest.mark.parametrize("place", [".", "Warwick QU Dataset (Released 2016_07_08)"])
def test_patients_and_grades_come_from_the_table(tmp_path: Path, place: str, ends: str) -> None:
    contest(tmp_path / "x" / place, ends)
    dataset = warwick.read(tmp_path / "x")
    rows = dataset.table.with_columns(name=dataset.table["image_id"].str.split("/").list.last()).sort("name")
    assert rows.select("name", "group", "grade", "stratum", "official_split", "split").rows() == [
        ("testA_1.bmp", "patient 1", "benign", 0, "testA", "test"),
        ("testB_1.bmp", "patient 2", "malignant", 1, "testB", "test"),
        ("train_1.bmp", "patient 1", "benign", 0, "train", "development"),
        ("train_10.bmp", "patient 2", "malignant", 1, "train", "development"),
        ("train_2.bmp", "patient 1", "malignant", 1, "train", "development"),
    ]
    assert dataset.skipped == ()
    assert dataset.channels == 3
    assert dataset.decode(0).shape == (7, 12, 3)


def test_numbers_of_glands_are_one_class(tmp_path: Path) -> None:
    dataset = warwick.read(contest(tmp_path / "x"))
    mask = dataset.decode_mask(0)[:, :, 0]
    assert np.unique(mask).tolist() == [0, 1]
    assert mask.sum() == 6 + 8


def test_coloured_palette_of_the_masks_changes_nothing(tmp_path: Path) -> None:
    root = contest(tmp_path / "x")
    before = warwick.read(root).decode_mask(0)
    for file in root.glob("*_anno.bmp"):
        image = Image.open(file).convert("L")
        coloured = Image.new("P", image.size)
        coloured.putpalette([0, 0, 0, 10, 200, 30, 250, 0, 90])
        coloured.frombytes(image.tobytes())
        coloured.save(file)
    assert np.array_equal(warwick.read(root).decode_mask(0), before)


def test_images_without_patient_and_patients_without_image_are_left_out(tmp_path: Path) -> None:
    root = contest(tmp_path / "x")
    lines = (root / "Grade.csv").read_text().split("\n")
    (root / "Grade.csv").write_text("\n".join([*lines[:2], *lines[3:], "train_77, 3, benign, healthy"]))
    reasons = {entry.path: entry.reason for entry in warwick.read(root).skipped}
    assert reasons == {
        "train_2.bmp": "not in Grade.csv: its patient is not known",
        "train_77": "in Grade.csv, but not in the folder",
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "Grade.csv is missing, which says whose images these are"),
        ("name,grade\ntrain_1,benign\n", "has the columns name, grade; expected name, patient id"),
        (f"{GRADE_HEADER}\ntrain_1, , benign, healthy\n", "train_1: patient '', grade 'benign'; expected the number"),
        (f"{GRADE_HEADER}\ntrain_1, 1, bad, healthy\n", "grade 'bad'; expected .* benign or malignant"),
    ],
)
def test_a_wrong_grade_table_is_one_clear_line(tmp_path: Path, table: str | None, message: str) -> None:
    root = contest(tmp_path / "x")
    (root / "Grade.csv").unlink()
    if table is not None:
        (root / "Grade.csv").write_text(table)
    with pytest.raises(InputError, match=message) as error:
        warwick.read(root)
    assert "\n" not in str(error.value)


def test_wrong_folders_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected WARWICK or GlaS"):
        warwick.read(tmp_path / "gone")
    with pytest.raises(InputError, match=r"neither image_01\.png and label_01\.png, nor train_1\.bmp"):
        warwick.read(tmp_path)
    course(tmp_path / "a", {"Train": 1})
    (tmp_path / "a/Train/label_01.png").unlink()
    with pytest.raises(InputError, match="no image has its mask beside it"):
        warwick.read(tmp_path)
    contest(tmp_path / "b")
    with pytest.raises(InputError, match=r"holds GlaS \(.*\) and WARWICK \(.*\), which share images: pass one"):
        warwick.read(tmp_path)


# Phantoms


def test_phantoms_have_the_size_of_the_course_and_two_stains() -> None:
    dataset = warwick.phantoms()
    assert dataset.splits == {"development": 85, "test": 60}
    assert len(dataset) == warwick.IMAGES
    assert dataset.kind == "segmentation"
    assert dataset.decode(1).shape == (128, 128, 2)
    mask = dataset.decode_mask(1)
    assert mask.shape == (128, 128, 1)
    assert 0.05 < mask.mean() < 0.95
    assert 0.9 < dataset.best_accuracy < 1
