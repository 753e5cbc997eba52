"""MURA v1.1 as its archive unpacks, in miniature with every trap that is known of it, and once in its full size."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets import ImageDataset, InputError
from datasets.mura import IMAGES, PARTS, phantoms, read
from datasets.phantoms import planted
from tests.trees import MURA_STUDIES, mura_tree, tiny_png

FIRST = "train/XR_SHOULDER/patient00001/study1_positive"


@pytest.fixture
def mura(tmp_path: Path) -> Path:
    return mura_tree(tmp_path / "data", full=False)


def reasons(films: ImageDataset) -> dict[str, str]:
    return {file.path: file.reason for file in films.skipped}


def test_films_have_label_part_patient_study_and_view(mura: Path) -> None:
    films = read(mura)
    assert (films.name, films.kind, films.classes, films.target_name) == (
        "mura",
        "multitask",
        ("normal", "abnormal"),
        "abnormality",
    )
    assert films.splits == {"development": 37, "test": 12}
    assert films.skipped == ()
    row = films.table.row(by_predicate=pl.col("image_id") == f"{FIRST}/image2.png", named=True)
    expected = {
        "target": 1,
        "part": "SHOULDER",
        "target_part": PARTS.index("SHOULDER"),
        "stratum": 7 + PARTS.index("SHOULDER"),
        "group": "patient00001",
        "study": "train/xr_shoulder/patient00001/study1_positive",
        "view": 2,
        "split": "development",
        "path": str(mura / FIRST / "image2.png"),
    }
    assert {name: row[name] for name in expected} == expected
    assert films.table.filter(pl.col("image_id").str.starts_with("valid/"))["split"].unique().to_list() == ["test"]
    assert list(films.table["image_id"]) == sorted(films.table["image_id"])
    assert [(target.name, target.classes, target.scored) for target in films.further] == [("part", PARTS, False)]


def test_a_film_is_gray_and_a_worker_sees_the_same(mura: Path) -> None:
    Image.new("RGB", (9, 7), (50, 50, 50)).save(mura / FIRST / "image1.png")
    films = pickle.loads(pickle.dumps(read(mura)))
    index = films.table["image_id"].to_list().index(f"{FIRST}/image1.png")
    assert (films.decode(index) == np.full((7, 9, 1), 50)).all()
    assert films.table["content"].n_unique() == len(films)


def test_first_row_of_a_csv_is_a_row(mura: Path) -> None:
    """Who reads them with a header loses an abnormal study of each split, as asproudis2025 did: 3 and 4 films."""
    films = read(mura)
    for split, study, views in (
        ("train", "XR_SHOULDER/patient00001/study1_positive", 3),
        ("valid", "XR_WRIST/patient11185/study1_positive", 4),
    ):
        assert (mura / f"{split}_image_paths.csv").read_text().startswith(f"MURA-v1.1/{split}/{study}/image1.png\n")
        assert (mura / f"{split}_labeled_studies.csv").read_text().startswith(f"MURA-v1.1/{split}/{study}/,1\n")
        assert films.table["study"].to_list().count(f"{split}/{study}".lower()) == views


def test_group_is_the_patient_alone_under_whatever_part(mura: Path) -> None:
    films = read(mura).table
    parts = films.group_by("group").agg(pl.col("part").n_unique(), pl.col("target").n_unique())
    assert films["group"].str.contains(r"^patient\d{5}$").all()
    assert films["group"].n_unique() == 16
    assert (parts["part"] > 1).sum() == 3
    assert (parts["target"] > 1).sum() == 3


@pytest.mark.parametrize("above", [0, 1, 2])
def test_root_may_be_the_folder_or_one_above(mura: Path, above: int) -> None:
    given = (mura, *mura.parents)[above]
    assert read(given).digest == read(mura).digest
    assert read(given).table.equals(read(mura).table)
    assert read(given).origin == str(given)


def test_folders_alone_give_the_same_films(mura: Path) -> None:
    listed = read(mura)
    for file in mura.glob("*.csv"):
        file.unlink()
    assert read(mura).digest == listed.digest


def test_lists_without_their_prefix_with_odd_line_ends_and_blanks_are_read(mura: Path) -> None:
    before = read(mura).digest
    for file in mura.glob("*.csv"):
        rows = file.read_text().replace("MURA-v1.1/", "" if "train" in file.name else "./data/MURA-v1.1/").splitlines()
        file.write_bytes(("\ufeff" + "\r\n\r\n".join(f" {row}  " for row in rows) + "\r").encode())
    films = read(mura)
    assert (films.digest, films.skipped) == (before, ())


def test_names_in_other_letters_are_understood(mura: Path) -> None:
    before = read(mura)
    (mura / FIRST / "image2.png").rename(mura / FIRST / "IMAGE2.PNG")
    (mura / FIRST).rename(mura / f"{FIRST[:-8]}Positive")
    (mura / "train/XR_SHOULDER").rename(mura / "train/xr_Shoulder")
    (mura / "valid").rename(mura / "Valid")
    (mura / "train_image_paths.csv").rename(mura / "Train_Image_Paths.csv")
    films = read(mura.rename(mura.parent / "mura-V1.1"))
    assert films.skipped == ()
    for column in ("target", "group", "part", "study", "view", "split"):
        assert sorted(films.table[column]) == sorted(before.table[column])


def test_what_is_no_film_is_left_out_with_its_reason(mura: Path) -> None:
    before = read(mura).digest
    junk = "hidden, or left behind by a file manager"
    files = {
        "MURA-v1.1/.DS_Store": junk,
        f"MURA-v1.1/{FIRST}/._image1.png": junk,
        f"MURA-v1.1/{FIRST}/.DS_Store": junk,
        f"MURA-v1.1/{FIRST}/Thumbs.db": "not the name of a view of MURA",
        f"MURA-v1.1/{FIRST}/image1.jpg": "not the name of a view of MURA",
        "MURA-v1.1/train/XR_FOOT": "not the name of a part of MURA",
        "MURA-v1.1/train/XR_WRIST/patient1": "not the name of a patient of MURA",
        "MURA-v1.1/train/XR_WRIST/patient99999": "a file with the name of a patient",
        "MURA-v1.1/README.md": "not part of MURA v1.1",
        "__MACOSX": junk,
        "notes.txt": "not part of MURA v1.1",
    }
    for name in files:
        (mura.parent / name).touch()
    (mura / FIRST / "image9.png").symlink_to("nowhere")
    films = read(mura.parent)
    assert reasons(films) == files | {f"MURA-v1.1/{FIRST}/image9.png": "a link to nothing with the name of a view"}
    assert films.digest == before


def test_films_that_are_listed_and_missing_or_there_and_not_listed_are_told(mura: Path) -> None:
    (mura / FIRST / "image1.png").unlink()
    (mura / FIRST / "image7.png").write_bytes(tiny_png(1000))
    unlabelled = "train/XR_WRIST/patient00005/study7_negative"
    (mura / unlabelled).mkdir(parents=True)
    (mura / unlabelled / "image1.png").write_bytes(tiny_png(1001))
    with (mura / "train_image_paths.csv").open("a") as listed:
        listed.write(f"MURA-v1.1/{unlabelled}/image1.png\npath\n")
    shutil.rmtree(mura / "train/XR_HAND")
    shutil.rmtree(mura / "valid/XR_SHOULDER")
    films = read(mura)
    assert reasons(films) == {
        f"{FIRST}/image1.png": "not there; listed in train_image_paths.csv",
        f"{FIRST}/image7.png": "not listed in train_image_paths.csv",
        f"{unlabelled}/image1.png": "its study is not listed in train_labeled_studies.csv",
        "train_image_paths.csv, line 39": "not a row of MURA v1.1: path",
        "train/XR_HAND": "not there; 10 images of it listed in train_image_paths.csv",
        "valid/XR_SHOULDER": "not there; 4 images of it listed in valid_image_paths.csv",
    }
    assert films.splits == {"development": 37 - 10 - 1, "test": 12 - 4}


def test_a_part_alone_is_a_data_set(mura: Path) -> None:
    for part in ("train/XR_HAND", "train/XR_SHOULDER", "valid"):
        shutil.rmtree(mura / part)
    films = read(mura)
    assert films.counts == {"normal": 9, "abnormal": 5}
    assert set(films.table["part"]) == {"WRIST"}
    assert set(reasons(films)) == {"train/XR_HAND", "train/XR_SHOULDER", "valid"}


def test_a_label_that_contradicts_the_folder_is_refused(mura: Path) -> None:
    csv = mura / "train_labeled_studies.csv"
    csv.write_text(csv.read_text().replace(f"{FIRST}/,1", f"{FIRST}/,0"))
    with pytest.raises(InputError, match=rf"{FIRST} is labelled 0 so in a csv file.*remove the csv files") as error:
        read(mura)
    assert "more" not in str(error.value)
    csv.write_text(csv.read_text().replace(",0", ",x").replace(",1", ",0").replace(",x", ",1"))
    with pytest.raises(InputError, match="; 13 more studies too"):
        read(mura)


def test_a_folder_that_was_renamed_to_the_other_label_is_refused(mura: Path) -> None:
    (mura / FIRST).rename(mura / FIRST.replace("positive", "negative"))
    with pytest.raises(InputError, match="study1_positive is listed so in a csv file"):
        read(mura)


def test_a_label_that_is_none_leaves_its_study_out(mura: Path) -> None:
    csv = mura / "train_labeled_studies.csv"
    csv.write_text(csv.read_text().replace(f"{FIRST}/,1", f"{FIRST}/,2"))
    films = read(mura)
    assert reasons(films)["train_labeled_studies.csv, line 1"] == f"not a row of MURA v1.1: MURA-v1.1/{FIRST}/,2"
    assert len(films) == 49 - 3
    assert not films.table["image_id"].str.starts_with(FIRST).any()


def test_version_1_0_is_refused(mura: Path) -> None:
    for file in mura.glob("*.csv"):
        file.unlink()
    (mura / "train.csv").touch()
    with pytest.raises(InputError, match=r"MURA v1\.0 by its train\.csv; expected v1\.1"):
        read(mura)
    (mura / "train.csv").unlink()
    with pytest.raises(InputError, match=r"MURA v1\.0; expected v1\.1"):
        read(mura.rename(mura.parent / "MURA-v1.0"))


def test_wrong_folders_say_what_is_expected(mura: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; expected the folder MURA-v1\.1"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="pass the folder above train and valid"):
        read(mura / "train")
    with pytest.raises(InputError, match=r"expected MURA-v1\.1, or a folder above it"):
        read(mura / FIRST)
    shutil.copytree(mura, mura.parent / "copy")
    with pytest.raises(InputError, match=r"holds MURA several times, pass one: .*MURA-v1\.1, .*copy"):
        read(mura.parent)
    (mura / "train_image_paths.csv").write_text("")
    shutil.rmtree(mura / "valid")
    with pytest.raises(InputError, match=r"none of its 37 films counts.*not listed in train_image_paths\.csv"):
        read(mura)


@pytest.mark.slow
def test_full_tree_has_the_counts_of_the_published_files(tmp_path: Path) -> None:
    films = read(mura_tree(tmp_path, full=True))
    assert len(films) == IMAGES == 40005
    assert films.skipped == ()
    table = films.table.with_columns(folder=pl.col("image_id").str.split("/").list.get(0))
    for (split, part), expected in MURA_STUDIES.items():
        of_part = table.filter(folder=split, part=part)
        normal, abnormal = of_part.filter(target=0), of_part.filter(target=1)
        assert (normal["study"].n_unique(), abnormal["study"].n_unique(), len(normal), len(abnormal)) == expected
    views = table.group_by("study").len()["len"]
    assert (views.min(), views.median(), views.max(), len(views)) == (1, 3, 11, 13457 + 1199)
    train, valid = films.part("development").table, films.part("test").table
    assert train["group"].n_unique() == 11184
    assert valid["group"].n_unique() == 783
    assert (train["group"].max(), valid["group"].min(), valid["group"].max()) == (
        "patient11184",
        "patient11185",
        "patient11967",
    )
    patients = train.group_by("group").agg(pl.col("part").n_unique(), pl.col("target").n_unique())
    assert ((patients["part"] > 1).sum(), (patients["target"] > 1).sum()) == (1467, 888)


def test_phantoms_have_the_counts_of_mura() -> None:
    films = phantoms()
    assert films.splits == {"development": 36808, "test": 3197}
    counts = films.table.group_by("split", "part", "target").len()
    for (split, part), (_, _, normal, abnormal) in MURA_STUDIES.items():
        of_part = counts.filter(split={"train": "development", "valid": "test"}[split], part=part).sort("target")
        assert of_part["len"].to_list() == [normal, abnormal]
    assert films.best_accuracy == pytest.approx(1 - 0.2 * 14873 / 36808)
    assert films.origin == "phantoms, seed 0"
    assert set(films.table["planted"]) == {""}


def test_phantom_patients_are_like_those_of_mura() -> None:
    films = phantoms().part("development").table
    studies = films.group_by("study").agg(pl.col("target", "part", "group").n_unique(), pl.len(), pl.col("view").max())
    assert studies.select(pl.col("target", "part", "group").max()).row(0) == (1, 1, 1)
    assert studies["len"].max() == 4
    assert studies["len"].equals(studies["view"].cast(pl.UInt32))
    patients = films.group_by("group").agg(pl.col("target", "part", "study").n_unique())
    assert 9500 < len(patients) < 11500
    assert 0.04 < (patients["target"] > 1).mean() < 0.09
    assert 0.1 < (patients["part"] > 1).mean() < 0.15
    assert (patients["study"] > 1).mean() > 0.2
    test_patients = set(phantoms().part("test").table["group"])
    assert not test_patients & set(films["group"])


def test_phantom_depends_on_seed_and_number_only() -> None:
    few, many = phantoms(images=60).part("development").table, phantoms(images=90).part("development").table
    assert many[:60].equals(few)
    told = phantoms(images=60, plant=("patients",))
    assert planted(told, "patients").any()
    assert told.origin == "phantoms, seed 0, planted: patients"
    leaking = phantoms(images=400, plant=("split_leak",))
    assert set(leaking.part("test").table["group"]) & set(leaking.part("development").table["group"])
