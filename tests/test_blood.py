"""Blood cells in the three forms that they come in, in miniature, with every trap that is known of them."""

import hashlib
import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets import ImageDataset, InputError
from datasets.blood import CLASSES, COUNTS, IMAGES, phantoms, read

WORDS = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
FOLDERS = {
    "basophil": "BA",
    "eosinophil": "EO",
    "erythroblast": "ERB",
    "ig": "PMY",
    "lymphocyte": "LY",
    "monocyte": "MO",
    "neutrophil": "BNE",
    "platelet": "PLATELET",
}


def cells(images: int, size_px: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, size_px, size_px, 3), dtype=np.uint8)


@pytest.fixture
def an2dl(tmp_path: Path) -> Path:
    """Sixteen cells and, behind them, one joke under every label; labels have a trailing axis."""
    images_NHWC = np.concatenate([cells(16, 96), np.repeat(cells(1, 96, seed=1), 8, axis=0)])
    labels = np.concatenate([np.arange(16) % 8, np.arange(8)])[:, None]
    np.savez_compressed(tmp_path / "training_set.npz", images=images_NHWC, labels=labels)
    return tmp_path / "training_set.npz"


@pytest.fixture
def bloodmnist(tmp_path: Path) -> Path:
    arrays = {}
    for seed, (part, images) in enumerate({"train": 16, "val": 8, "test": 9}.items()):
        arrays[f"{part}_images"] = cells(images, 28, seed)
        arrays[f"{part}_labels"] = (np.arange(images) % 8).astype(np.uint8)[:, None]
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    return tmp_path / "bloodmnist.npz"


@pytest.fixture
def pbc(tmp_path: Path) -> Path:
    """Two pictures per class as the archive unpacks, one of them under two labels, and what macOS leaves."""
    root = tmp_path / "PBC_dataset_normal_DIB"
    for seed, (folder, prefix) in enumerate(FOLDERS.items()):
        (root / folder).mkdir(parents=True)
        for i, pixels_HWC in enumerate(cells(2, 36, seed)):
            Image.fromarray(pixels_HWC).save(root / folder / f"{prefix}_{seed}{i}.jpg")
    (root / "neutrophil/BNE_191112.jpg").write_bytes((root / "eosinophil/EO_10.jpg").read_bytes())
    (root / "neutrophil/.DS_169665.jpg").write_bytes(b"\0\0\0\1Bud1")
    (root / "__MACOSX/neutrophil").mkdir(parents=True)
    (root / "__MACOSX/neutrophil/._BNE_60.jpg").touch()
    return root


def reasons(dataset: ImageDataset) -> dict[str, str]:
    return {file.path: file.reason for file in dataset.skipped}


def test_labels_of_the_homework_set_lose_their_trailing_axis(an2dl: Path) -> None:
    dataset = read(an2dl)
    assert dataset.classes == CLASSES == WORDS
    assert (dataset.name, dataset.kind, dataset.channels) == ("blood", "multiclass", 3)
    assert dataset.targets.tolist() == [*range(8)] * 3
    assert dataset.splits == {"development": 24, "test": 0}
    assert dataset.table["image_id"][12] == "image/00012"


def test_decoded_is_what_the_file_holds_in_a_worker_too(an2dl: Path) -> None:
    images_NHWC = np.load(an2dl)["images"]
    dataset = pickle.loads(pickle.dumps(read(an2dl)))
    for i in (0, 17):
        assert (dataset.decode(i) == images_NHWC[i]).all()
        assert dataset.table["content"][i] == hashlib.sha256(images_NHWC[i].tobytes()).hexdigest()


def test_copies_of_a_joke_are_one_group_and_one_content(an2dl: Path) -> None:
    table = read(an2dl).table
    assert set(table["group"][16:]) == {"image/00016"}
    assert table["content"][16:].n_unique() == 1
    assert table["group"][:16].to_list() == table["image_id"][:16].to_list()


def test_flat_labels_under_the_other_name_are_the_same_cells(an2dl: Path) -> None:
    before = read(an2dl).digest
    with np.load(an2dl) as arrays:
        np.savez(an2dl.with_name("train_data.npz"), images=arrays["images"], labels=arrays["labels"].ravel())
    an2dl.unlink()
    assert read(an2dl.parent).digest == before


def test_train_and_val_of_bloodmnist_are_searched_and_test_is_not(bloodmnist: Path) -> None:
    dataset = read(bloodmnist)
    assert dataset.splits == {"development": 24, "test": 9}
    table = dataset.table
    assert table["official_split"].to_list() == ["train"] * 16 + ["val"] * 8 + ["test"] * 9
    assert table.filter(split="test")["official_split"].unique().to_list() == ["test"]
    assert table["image_id"][16] == "val/00000"
    assert (dataset.decode(16) == np.load(bloodmnist)["val_images"][0]).all()


def test_folder_of_a_file_is_as_good_as_the_file(bloodmnist: Path) -> None:
    assert read(bloodmnist.parent).digest == read(bloodmnist).digest
    assert read(bloodmnist.parent).table.equals(read(bloodmnist).table)


@pytest.mark.parametrize("size_px", [28, 64, 128, 224])
def test_every_size_of_bloodmnist_is_read(tmp_path: Path, size_px: int) -> None:
    arrays = {f"{part}_images": cells(8, size_px) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": np.arange(8)[:, None] for part in ("train", "val", "test")}
    file = tmp_path / (f"bloodmnist_{size_px}.npz" if size_px > 28 else "bloodmnist.npz")
    np.savez(file, **arrays)
    assert read(file).decode(20).shape == (size_px, size_px, 3)


def test_pbc_is_read_from_its_folders(pbc: Path) -> None:
    dataset = read(pbc)
    assert dataset.classes == WORDS
    assert dataset.counts == {name: 2 + (name == "neutrophil") for name in WORDS}
    assert dataset.table.filter(pl.col("image_id").str.starts_with("ig/"))["target"].unique().to_list() == [3]
    assert set(dataset.table.filter(target=3)["prefix"]) == {"PMY"}
    assert dataset.decode(0).shape == (36, 36, 3)
    assert read(pbc.parent).digest == dataset.digest


def test_pictures_of_pbc_that_are_none_are_skipped_with_their_reason(pbc: Path) -> None:
    junk = "hidden, or left behind by a file manager"
    assert reasons(read(pbc)) == {"neutrophil/.DS_169665.jpg": junk, "__MACOSX": junk}


def test_what_lies_beside_the_cells_is_told(pbc: Path, tmp_path: Path) -> None:
    for name in ("notes.txt", ".DS_Store", "__MACOSX"):
        (tmp_path / name).touch()
    junk, other = "hidden, or left behind by a file manager", "beside what is read"
    inside = {"PBC_dataset_normal_DIB/neutrophil/.DS_169665.jpg": junk, "PBC_dataset_normal_DIB/__MACOSX": junk}
    around = {"notes.txt": other, ".DS_Store": junk, "__MACOSX": junk}
    assert reasons(read(tmp_path)) == around | inside
    shutil.rmtree(pbc)
    np.savez(tmp_path / "deep.npz", images=cells(8), labels=np.arange(8))
    assert reasons(read(tmp_path)) == around


def test_a_picture_of_pbc_with_two_labels_is_one_group(pbc: Path) -> None:
    pair = read(pbc).table.filter(pl.col("image_id").is_in(["eosinophil/EO_10.jpg", "neutrophil/BNE_191112.jpg"]))
    assert pair["content"].n_unique() == pair["group"].n_unique() == 1
    assert pair["target"].to_list() == [1, 6]


def test_class_folders_in_capital_letters_are_understood(pbc: Path) -> None:
    before = read(pbc).counts
    for folder in FOLDERS:
        (pbc / folder).rename(pbc / folder.upper())
    assert read(pbc).counts == before


def test_several_forms_in_one_folder_are_told_and_one_is_asked_for(an2dl: Path, bloodmnist: Path, pbc: Path) -> None:
    with pytest.raises(
        InputError, match=r"in several forms.*pass one: .*bloodmnist\.npz, .*training_set\.npz, .*PBC_d"
    ):
        read(an2dl.parent)
    shutil.rmtree(pbc)
    shutil.copy(bloodmnist, bloodmnist.with_name("bloodmnist_64.npz"))
    an2dl.unlink()
    with pytest.raises(InputError, match=r"bloodmnist\.npz, .*bloodmnist_64\.npz"):
        read(an2dl.parent)
    assert len(read(bloodmnist)) == 33


def test_other_arrays_beside_the_cells_are_left_out_with_their_reason(an2dl: Path) -> None:
    np.savez(an2dl.with_name("weights.npz"), layer=np.zeros(3))
    an2dl.with_name("broken.npz").write_bytes(b"PK")
    left_out = reasons(read(an2dl.parent))
    assert left_out.keys() == {"weights.npz", "broken.npz"}
    assert left_out["weights.npz"].startswith("holds layer; expected images and labels (AN2DL), or train_images")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((8, 6, 6, 3)), np.arange(8), r"images: holds float64 of shape \(8, 6, 6, 3\); expected uint8"),
        (np.zeros((8, 6, 6), np.uint8), np.arange(8), r"images: holds uint8 of shape \(8, 6, 6\); expected"),
        (np.zeros((8, 3, 6, 6), np.uint8), np.arange(8), "expected uint8"),
        (cells(8), np.arange(7), "labels: 7 labels for the 8 images of images"),
        (cells(8), np.eye(8, dtype=int), r"labels: holds int64 of shape \(8, 8\); expected one"),
        (cells(8), np.arange(8.0), "labels: holds float64"),
        (cells(8), np.arange(8) + 1, "labels: labels from 1 to 8; expected 0 to 7"),
        (cells(8), np.arange(8) - 1, "labels: labels from -1 to 6"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "training_set.npz", images=images, labels=labels)
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "training_set.npz")
    assert "\n" not in str(error.value)


def test_a_pickle_in_the_file_is_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "training_set.npz", images=np.array([print] * 8, object), labels=np.arange(8))
    with pytest.raises(InputError, match="Python objects"):
        read(tmp_path / "training_set.npz")


def test_other_data_sets_of_medmnist_are_not_blood(bloodmnist: Path) -> None:
    with pytest.raises(InputError, match="another data set of MedMNIST"):
        read(bloodmnist.rename(bloodmnist.with_name("dermamnist.npz")))


def test_what_is_not_there_or_no_cells_is_told_with_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder[\s\S]*zenodo"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no blood cells found\.[\s\S]*zenodo"):
        read(tmp_path)
    with io.BytesIO() as nothing:
        np.savez(nothing, x=np.zeros(1))
        (tmp_path / "test_set.npz").write_bytes(nothing.getvalue())
    with pytest.raises(InputError, match=r"no blood cells found; test_set\.npz: holds x; expected"):
        read(tmp_path)
    (tmp_path / "cells.txt").touch()
    with pytest.raises(InputError, match=r"cells\.txt: not an \.npz file"):
        read(tmp_path / "cells.txt")


def test_phantoms_have_the_counts_of_the_clean_homework_set() -> None:
    dataset = phantoms()
    assert len(dataset) == IMAGES == 11959
    assert tuple(dataset.counts.values()) == COUNTS
    assert dataset.best_accuracy == pytest.approx(0.97)
    assert dataset.decode(0).shape == (96, 96, 3)


def test_planted_contaminants_are_those_of_the_homework_set() -> None:
    dataset = phantoms(plant=("contaminants",))
    assert tuple(dataset.counts.values()) == (1052, 2381, 1285, 2226, 1049, 1393, 2530, 1843)
    assert len(dataset) == 13759
    assert dataset.table["image_id"].n_unique() == 13759
    assert dataset.table[:11959].select(phantoms().table.columns).equals(phantoms().table)
    everywhere, monocytes = dataset.table[11959:13559], dataset.table[13559:]
    assert everywhere["content"].n_unique() == monocytes["content"].n_unique() == 1
    assert everywhere["target"].value_counts()["count"].to_list() == [200] * 8
    assert set(monocytes["target"]) == {CLASSES.index("monocyte")}
    assert (dataset.decode(12080) == dataset.decode(12565)).all()
    assert (dataset.decode(13628) == dataset.decode(13632)).all()
    assert (dataset.decode(12080) != dataset.decode(13628)).any()
    assert set(dataset.table["planted"][11959:]) == {"contaminants"}
    assert dataset.origin == "phantoms, seed 0, planted: contaminants"
    assert pickle.loads(pickle.dumps(dataset)).digest == dataset.digest


def test_contaminants_go_with_all_other_pitfalls() -> None:
    dataset = phantoms(plant=("contaminants", "corrupt", "text", "source", "split_leak", "near_duplicates"))
    assert dataset.splits["development"] == 13759
    assert dataset.decode(dataset.table["image_id"].to_list().index("phantom-13758")).shape == (96, 96, 3)
    assert phantoms(images=160, plant=("contaminants",)).table["planted"].str.contains("contaminants").sum() > 8
