"""MNIST and Fashion-MNIST in every form that they are stored in, and never one for the other."""

import gzip
import hashlib
import pickle
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import InputError, fashion_mnist, mnist, mnist_files
from datasets.mnist_files import FINGERPRINTS

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10
TEST = RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10, dtype=np.uint8)[::-1].copy()
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_files(folder: Path, packed: bool = False, names: tuple[str, ...] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(names, (*TRAIN, *TEST), strict=True):
        data = idx(array)
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)
    return folder


def png_tree(folder: Path, parts: tuple[str, str]) -> Path:
    for part, (images, labels) in zip(parts, (TRAIN, TEST), strict=True):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / part / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def is_the_set(dataset) -> bool:
    """Every image with its label and split, whatever the order."""
    expected = {
        (hashlib.sha256(image.tobytes()).hexdigest(), int(label), split)
        for (images, labels), split in ((TRAIN, "development"), (TEST, "test"))
        for image, label in zip(images, labels, strict=True)
    }
    found = {
        (hashlib.sha256(dataset.decode(i).tobytes()).hexdigest(), row["target"], row["split"])
        for i, row in enumerate(dataset.table.rows(named=True))
    }
    return found == expected and dataset.channels == 1 and dataset.splits == {"development": 20, "test": 10}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw", "archive/MNIST"])
def test_idx_files_are_read_wherever_they_lie(tmp_path: Path, place: str, packed: bool) -> None:
    idx_files(tmp_path / place, packed)
    dataset = mnist.read(tmp_path)
    assert is_the_set(dataset)
    assert dataset.classes == mnist.CLASSES
    assert dataset.table["image_id"][0] == "train/00000"
    assert dataset.origin == str(tmp_path)
    sent = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(sent.decode(25), TEST[0][5][:, :, None])


@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw", "fashion-mnist"])
def test_fashion_has_its_own_classes_and_places(tmp_path: Path, place: str) -> None:
    idx_files(tmp_path / place, packed=True)
    dataset = fashion_mnist.read(tmp_path)
    assert is_the_set(dataset)
    assert dataset.classes[0] == "T-shirt/top"
    assert dataset.name == "fashion_mnist"


def test_files_as_kaggle_names_them_are_read(tmp_path: Path) -> None:
    dotted = tuple(name.replace("-idx", ".idx") for name in NAMES)
    idx_files(tmp_path / "dotted", names=dotted)
    assert is_the_set(mnist.read(tmp_path / "dotted"))
    idx_files(tmp_path / "folders", names=NAMES)
    for name in NAMES:
        path = tmp_path / "folders" / name
        data = path.read_bytes()
        path.unlink()
        path.mkdir()
        (path / name).write_bytes(data)
    assert is_the_set(mnist.read(tmp_path / "folders"))


def test_plain_files_go_before_packed_ones_beside_them(tmp_path: Path) -> None:
    idx_files(tmp_path)
    for name in NAMES:
        (tmp_path / f"{name}.gz").write_bytes(b"half of a download")
    assert is_the_set(mnist.read(tmp_path))


@pytest.mark.parametrize("parts", [("Train", "Test"), ("train", "test"), ("TRAIN", "TEST")])
@pytest.mark.parametrize("place", [".", "MNIST"])
def test_png_folders_are_read_in_any_case(tmp_path: Path, place: str, parts: tuple[str, str]) -> None:
    png_tree(tmp_path / place, parts)
    assert is_the_set(mnist.read(tmp_path))


def test_png_folders_of_fashion_have_its_class_names(tmp_path: Path) -> None:
    dataset = fashion_mnist.read(png_tree(tmp_path, ("Train", "Test")))
    assert is_the_set(dataset)
    assert dataset.classes == fashion_mnist.CLASSES


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("columns", [(), (1,)])
def test_npz_of_keras_is_read(tmp_path: Path, direct: bool, columns: tuple[int, ...]) -> None:
    labels = [part[1].reshape(-1, *columns).astype(np.int64) for part in (TRAIN, TEST)]
    np.savez(tmp_path / "mnist.npz", x_train=TRAIN[0], y_train=labels[0], x_test=TEST[0], y_test=labels[1])
    assert is_the_set(mnist.read(tmp_path / "mnist.npz" if direct else tmp_path))


def test_train_alone_is_all_development(tmp_path: Path) -> None:
    idx_files(tmp_path)
    for name in NAMES[2:]:
        (tmp_path / name).unlink()
    assert mnist.read(tmp_path).splits == {"development": 20, "test": 0}


def test_copies_share_a_group_across_the_splits(tmp_path: Path) -> None:
    idx_files(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(idx(np.concatenate([TRAIN[0][:1], TEST[0][1:]])))
    table = mnist.read(tmp_path).table
    assert table["group"][20] == table["group"][0] == "train/00000"
    assert table["group"].n_unique() == 29


def test_what_lies_beside_the_files_is_told(tmp_path: Path) -> None:
    idx_files(tmp_path / "MNIST/raw")
    for name in ("MNIST/raw/t10k-images-idx3-ubyte.gz", "notes.txt", "__MACOSX"):
        (tmp_path / name).touch()
    around = {"notes.txt": "beside what is read", "__MACOSX": "hidden, or left behind by a file manager"}
    said = {file.path: file.reason for file in mnist.read(tmp_path).skipped}
    assert said == around | {"MNIST/raw/t10k-images-idx3-ubyte.gz": "beside what is read"}
    shutil.rmtree(tmp_path / "MNIST")
    np.savez(tmp_path / "mnist.npz", x_train=TRAIN[0], y_train=TRAIN[1])
    assert {file.path: file.reason for file in mnist.read(tmp_path).skipped} == around


def test_one_of_the_files_alone_is_one_clear_line(tmp_path: Path) -> None:
    idx_files(tmp_path, packed=True)
    with pytest.raises(InputError, match=r"ubyte\.gz: a file; pass the folder that holds it") as error:
        mnist.read(tmp_path / f"{NAMES[0]}.gz")
    assert "\n" not in str(error.value)


# The other set


@pytest.mark.parametrize(("task", "place"), [(fashion_mnist, "MNIST/raw"), (mnist, "FashionMNIST/raw")])
def test_the_other_set_is_refused_by_its_folder(tmp_path: Path, task, place: str) -> None:
    idx_files(tmp_path / place)
    for root in (tmp_path, tmp_path / place.split("/")[0]):
        with pytest.raises(InputError, match="by the name of its folder; try the task") as error:
            task.read(root)
        assert "\n" not in str(error.value)
    png_tree(tmp_path / "png" / place.split("/")[0], ("Train", "Test"))
    for root in (tmp_path / "png", tmp_path / "png" / place.split("/")[0]):
        with pytest.raises(InputError, match="by the name of its folder; try the task") as error:
            task.read(root)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "really"),
    [
        ("mnist_png", "mnist"),
        ("MNIST-small/images", "mnist"),
        ("fashion/mnist", "mnist"),
        ("Fashion MNIST (png)", "fashion_mnist"),
        ("mnist-fashion", "fashion_mnist"),
        ("fmnist/png", "fashion_mnist"),
        ("mnist/fashion-mnist", "fashion_mnist"),
        ("fashion", "fashion_mnist"),
        ("kmnist", None),
        ("mnist and fashion", None),
        ("images", None),
    ],
)
def test_png_folders_are_of_the_set_that_the_nearest_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, really: str | None
) -> None:
    png_tree(tmp_path / path, ("Train", "Test"))
    monkeypatch.chdir(tmp_path / path.split("/")[0])
    for root in (tmp_path, tmp_path / path.split("/")[0], Path(), Path("Train/..") if "/" not in path else Path()):
        for name, task in (("mnist", mnist), ("fashion_mnist", fashion_mnist)):
            if really in (None, name):
                assert is_the_set(task.read(root))
            else:
                with pytest.raises(InputError, match=f"by the name of its folder; try the task {really}$"):
                    task.read(root)


def test_an_npz_is_of_the_set_that_its_name_says(tmp_path: Path) -> None:
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), (*TRAIN, *TEST), strict=True))
    np.savez(tmp_path / "mnist.npz", **arrays)
    for root in (tmp_path, tmp_path / "mnist.npz"):
        assert is_the_set(mnist.read(root))
        with pytest.raises(
            InputError, match=r"mnist\.npz: this is MNIST, by the name of the file; try the task mnist$"
        ):
            fashion_mnist.read(root)
    np.savez(tmp_path / "fashion-mnist.npz", **arrays | {"y_train": TRAIN[1][::-1]})
    assert mnist.read(tmp_path).targets[:3].tolist() == [0, 1, 2]
    assert fashion_mnist.read(tmp_path).targets[:3].tolist() == [9, 8, 7]
    np.savez(tmp_path / "mnist_small.npz", **arrays)
    with pytest.raises(InputError, match=r"has mnist\.npz and mnist_small\.npz; pass one of them"):
        mnist.read(tmp_path)


def test_an_npz_of_the_other_set_does_not_hide_png_folders(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=TRAIN[0], y_train=TRAIN[1])
    png_tree(tmp_path / "FashionMNIST", ("Train", "Test"))
    assert is_the_set(fashion_mnist.read(tmp_path))


def test_of_both_sets_in_one_folder_the_right_one_is_taken(tmp_path: Path) -> None:
    idx_files(tmp_path / "MNIST/raw")
    other = tmp_path / "FashionMNIST/raw"
    idx_files(other)
    (other / NAMES[1]).write_bytes(idx(TRAIN[1][::-1].copy()))
    assert mnist.read(tmp_path).targets[:3].tolist() == [0, 1, 2]
    assert fashion_mnist.read(tmp_path).targets[:3].tolist() == [9, 8, 7]


def test_the_other_set_is_refused_by_the_hash_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx_files(tmp_path, packed=True)
    md5 = hashlib.md5((tmp_path / f"{NAMES[0]}.gz").read_bytes()).hexdigest()
    known = mnist_files.Fingerprint("MNIST", frozenset((md5,)), (), ())
    monkeypatch.setitem(FINGERPRINTS, "mnist", known)
    assert is_the_set(mnist.read(tmp_path))
    with pytest.raises(InputError, match="this is MNIST, by its MD5; try the task mnist"):
        fashion_mnist.read(tmp_path)


def test_the_other_set_is_refused_by_its_class_sizes(tmp_path: Path) -> None:
    """Whole sets of labels with the published counts, and as many black images."""
    for task, other, name in ((mnist, fashion_mnist, "fashion_mnist"), (fashion_mnist, mnist, "mnist")):
        labels = np.repeat(np.arange(10, dtype=np.uint8), FINGERPRINTS[name].train_counts)
        np.savez_compressed(tmp_path / "x.npz", x_train=np.zeros((60000, 28, 28), np.uint8), y_train=labels)
        with pytest.raises(InputError, match=f"by its labels; try the task {name}"):
            task.read(tmp_path / "x.npz")
        assert len(other.read(tmp_path / "x.npz")) == 60000
        wrongly_named = (tmp_path / "x.npz").rename(tmp_path / f"{task.__name__.split('.')[1]}.npz")
        assert len(other.read(wrongly_named)) == 60000, "what is in it goes before what it is called"


@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("test",)])
@pytest.mark.parametrize(
    ("task", "other", "name"), [(mnist, fashion_mnist, "fashion_mnist"), (fashion_mnist, mnist, "mnist")]
)
def test_png_folders_of_the_other_set_are_refused_by_how_many_images_a_class_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task, other, name: str, parts: tuple[str, ...]
) -> None:
    """A hundredth of the images, and a fingerprint of a hundredth."""
    for set_name, known in FINGERPRINTS.items():
        train, test = (tuple(count // 100 for count in of) for of in (known.train_counts, known.test_counts))
        monkeypatch.setitem(FINGERPRINTS, set_name, replace(known, train_counts=train, test_counts=test))
    for part in parts:
        for label, count in enumerate(getattr(FINGERPRINTS[name], f"{part}_counts")):
            for number in range(count):
                path = tmp_path / task.__name__.split(".")[1] / part / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    if name == "fashion_mnist" and parts == ("test",):  # 1,000 of each may be of any set
        assert len(task.read(tmp_path)) == 100
        return
    with pytest.raises(InputError, match=f"by how many images each class has; try the task {name}$"):
        task.read(tmp_path)
    assert len(other.read(tmp_path)) > 80, "whatever its folder is called"


def test_fingerprints_are_those_of_the_facts_sheet() -> None:
    assert sum(mnist.TRAIN_COUNTS) == 60000
    assert sum(mnist.TEST_COUNTS) == 10000
    assert FINGERPRINTS["mnist"].train_counts == mnist.TRAIN_COUNTS
    assert FINGERPRINTS["mnist"].test_counts == mnist.TEST_COUNTS
    assert FINGERPRINTS["mnist"].has((6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)), "both parts"
    assert all(len(known.md5) == 4 for known in FINGERPRINTS.values())


# What is wrong with the files


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (NAMES[0], idx(TRAIN[0])[:-1], "ends before the 15,680 bytes"),
        (NAMES[0], idx(TRAIN[1]), r"holds uint8 of shape \(20,\); expected uint8 of shape \(images, 28, 28\)"),
        (NAMES[0], b"\0\0\x0d\x03" + idx(TRAIN[0])[4:], "neither .npy, .npz nor an idx file"),
        (NAMES[0], b"PNG" + bytes(100), "neither .npy, .npz nor an idx file"),
        (NAMES[1], idx(TRAIN[0]), "expected one label per image"),
        (NAMES[1], idx(TRAIN[1][:-1]), "19 labels for the 20 images"),
        (NAMES[1], idx(TRAIN[1] + 1), "labels from 1 to 10; expected 0 to 9"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_one_clear_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    idx_files(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        mnist.read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        mnist.read(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no images in it.*nor are there idx files"):
        mnist.read(tmp_path)
    idx_files(tmp_path)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(InputError, match="one of t10k-images and t10k-labels, but not the other"):
        mnist.read(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(InputError, match="expected train-images and train-labels"):
        mnist.read(tmp_path)
    np.savez(tmp_path / "x.npz", images=TRAIN[0])
    with pytest.raises(InputError, match="holds images; expected x_train, y_train"):
        mnist.read(tmp_path / "x.npz")


# Phantoms


@pytest.mark.parametrize("task", [mnist, fashion_mnist])
def test_phantoms_have_the_counts_of_the_real_set(task) -> None:
    dataset = task.phantoms()
    assert dataset.splits == {"development": 60000, "test": 10000}
    counts = tuple(dataset.part("development").counts.values())
    assert counts == FINGERPRINTS[task.__name__.split(".")[1]].train_counts
    if task is mnist:
        assert tuple(dataset.part("test").counts.values()) == mnist.TEST_COUNTS
    assert 0.9 < dataset.best_accuracy < 1
    assert task.phantoms(images=30).decode(3).shape == (28, 28, 1)
