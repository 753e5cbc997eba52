"""CIFAR-10 as its archive unpacks, and pickles that want more than to be read."""

import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets import InputError, cifar10
from datasets.archives import unpacked
from datasets.batches import decode_batch_row

RNG = np.random.default_rng(0)
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
IMAGES = {name: RNG.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8) for name in BATCHES}
LABELS = {name: [(2 * i + row) % 10 for row in range(4)] for i, name in enumerate(BATCHES)}


def text(value: str) -> bytes:
    """A text as Python 2 pickles it: bytes in a SHORT_BINSTRING."""
    return b"U" + bytes([len(value)]) + value.encode("latin1")


def python_2_batch(images: np.ndarray, labels: list[int], **changes: bytes) -> bytes:
    """The very opcodes of a genuine batch: protocol 2, numpy's array by `numpy.core.multiarray._reconstruct`."""
    planes = images.transpose(0, 3, 1, 2).tobytes()
    shape = changes.get("shape", b"K" + bytes([len(images)]) + b"M" + (3072).to_bytes(2, "little") + b"\x86")
    raw = b"T" + len(planes).to_bytes(4, "little") + planes
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + changes.get("code", b"U\x02u1")
        + b"K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    array += b"(K\x01" + shape + dtype + b"\x89" + changes.get("raw", raw) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text("batch_label")
        + text("training batch 1 of 5")
        + changes.get("labels_key", text("labels"))
        + numbers
        + text("data")
        + array
        + text("filenames")
        + b"]("
        + b"".join(text(f"{i}.png") for i in range(len(labels)))
        + b"e"
        + b"u."
    )


def batches(folder: Path, pickled: Any = python_2_batch) -> Path:
    folder.mkdir(parents=True)
    for name in BATCHES:
        (folder / name).write_bytes(pickled(IMAGES[name], LABELS[name]))
    (folder / "batches.meta").write_bytes(b"not read")
    return folder


def is_the_set(dataset) -> bool:
    assert dataset.splits == {"development": 20, "test": 4}
    assert dataset.channels == 3
    assert dataset.classes == cifar10.CLASSES
    rows = dataset.table.rows(named=True)
    return all(
        np.array_equal(dataset.decode(i), IMAGES[row["image_id"].split("/")[0]][int(row["image_id"][-1])])
        and row["target"] == LABELS[row["image_id"].split("/")[0]][int(row["image_id"][-1])]
        and (row["split"] == "test") == row["image_id"].startswith("test_batch")
        for i, row in enumerate(rows)
    )


def python_3(protocol: int, keys: type = str):
    def pickled(images: np.ndarray, labels: list[int]) -> bytes:
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, 3072)
        batch = {"data": data, "labels": labels, "batch_label": "x"}
        return pickle.dumps({key.encode() if keys is bytes else key: value for key, value in batch.items()}, protocol)

    return pickled


@pytest.mark.parametrize("place", ["", "cifar-10-batches-py", "archive/cifar-10-batches-py"])
def test_genuine_batches_become_upright_pictures(tmp_path: Path, place: str) -> None:
    batches(tmp_path / "root" / place)
    dataset = cifar10.read(tmp_path / "root")
    assert is_the_set(dataset)
    sent = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(sent.decode(23), IMAGES["test_batch"][3])


@pytest.mark.parametrize("pickled", [python_3(2), python_3(2, bytes), python_3(4)], ids=["2", "2, bytes", "4"])
def test_batches_that_python_3_wrote_again_are_read(tmp_path: Path, pickled: Any) -> None:
    assert is_the_set(cifar10.read(batches(tmp_path / "root", pickled)))


def test_archive_as_downloaded_is_read(tmp_path: Path) -> None:
    batches(tmp_path / "cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    assert is_the_set(cifar10.read(unpacked(tmp_path / "cifar-10-python.tar.gz")))


def test_pixels_outlive_their_store(tmp_path: Path) -> None:
    row = cifar10.read(batches(tmp_path / "root")).table.row(0, named=True)
    from datasets import batches as module
    from datasets.stores import store_folder

    module._mapped.cache_clear()
    for file in store_folder().glob("batch-*.npy"):
        file.unlink()
    assert np.array_equal(decode_batch_row(row), IMAGES["data_batch_1"][0])


def test_a_batch_that_changes_is_another_one_and_never_the_old_pixels(tmp_path: Path) -> None:
    root = batches(tmp_path / "root")
    before = cifar10.read(root)
    assert np.array_equal(before.decode(0), IMAGES["data_batch_1"][0])
    (root / "data_batch_1").write_bytes(python_2_batch(255 - IMAGES["data_batch_1"], LABELS["data_batch_1"]))
    after = cifar10.read(root)
    assert after.contents != before.contents
    assert np.array_equal(after.decode(0), 255 - IMAGES["data_batch_1"][0])
    from datasets import batches as module
    from datasets.stores import store_folder

    module._mapped.cache_clear()
    for file in store_folder().glob("batch-*.npy"):
        file.unlink()
    with pytest.raises(InputError, match="data_batch_1: has changed since its images were listed"):
        before.decode(0)


@pytest.mark.parametrize("columns", [(), (1,)])
def test_npz_as_of_keras_is_read_with_labels_of_any_shape(tmp_path: Path, columns: tuple[int, ...]) -> None:
    train = np.concatenate([IMAGES[name] for name in BATCHES[:5]])
    labels = np.concatenate([LABELS[name] for name in BATCHES[:5]]).reshape(-1, *columns)
    test = np.array(LABELS["test_batch"], np.uint8).reshape(-1, *columns)
    np.savez(tmp_path / "cifar10.npz", x_train=train, y_train=labels, x_test=IMAGES["test_batch"], y_test=test)
    for root in (tmp_path, tmp_path / "cifar10.npz"):
        dataset = cifar10.read(root)
        assert dataset.splits == {"development": 20, "test": 4}
        assert dataset.targets[20:].tolist() == LABELS["test_batch"]
        assert np.array_equal(dataset.decode(7), IMAGES["data_batch_2"][3])


def test_what_lies_beside_the_batches_or_the_arrays_is_told(tmp_path: Path) -> None:
    root = batches(tmp_path / "cifar-10-batches-py")
    for name in ("cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_x", ".DS_Store"):
        (tmp_path / name).touch()
    assert {file.path: file.reason for file in cifar10.read(tmp_path).skipped} == {
        "cifar-10-python.tar.gz": "beside what is read",
        "cifar-10-batches-py/data_batch_x": "beside what is read",
        ".DS_Store": "hidden, or left behind by a file manager",
    }
    assert [file.path for file in cifar10.read(root).skipped] == ["data_batch_x"]
    shutil.rmtree(root)
    np.savez(tmp_path / "cifar10.npz", x_train=IMAGES["test_batch"], y_train=LABELS["test_batch"])
    assert {file.path for file in cifar10.read(tmp_path).skipped} == {"cifar-10-python.tar.gz", ".DS_Store"}


def test_folders_of_pictures_are_read(tmp_path: Path) -> None:
    for part, name in (("train", "airplane"), ("train", "Truck"), ("test", "truck")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.fromarray(IMAGES["test_batch"][0]).save(tmp_path / part / name / "1.png")
    dataset = cifar10.read(tmp_path)
    assert sorted(zip(dataset.table["image_id"], dataset.targets.tolist(), dataset.table["split"], strict=True)) == [
        ("test/truck/1.png", 9, "test"),
        ("train/Truck/1.png", 9, "development"),
        ("train/airplane/1.png", 0, "development"),
    ]


# Pickles that are not to be trusted


class Mischief:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def harmful(target: Path) -> dict[str, bytes]:
    """Pickles that would create `target`."""
    command = f"touch {target}"
    touch = pickle.dumps({"data": Mischief(os.system, command), "labels": [1]}, 2)
    return {
        "system": touch,
        "system, text protocol": b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.",
        "open": pickle.dumps(Mischief(open, str(target), "w"), 2),
        "eval": pickle.dumps(Mischief(eval, f"open({str(target)!r}, 'w')"), 4),
        "instance": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "numpy's own loader": pickle.dumps(Mischief(np.fromfile, str(target)), 2),
        "through a module's attribute": b"\x80\x04\x8c\x05numpy\x8c\x10os.system.__call__\x93\x8c\x01x\x85R.",
        "getattr": b"\x80\x04cbuiltins\ngetattr\n(cnumpy\nndarray\nU\x08__init__tR.",
        "another codec": b"c_codecs\nencode\n(Vx\nVhex\ntR.",
    }


@pytest.mark.parametrize("name", list(harmful(Path("x"))))
def test_a_pickle_that_asks_for_code_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, name: str) -> None:
    target = tmp_path / "harmed"
    root = batches(tmp_path / "root")
    (root / "data_batch_3").write_bytes(harmful(target)[name])
    with pytest.raises(InputError, match=r"data_batch_3: .*a batch of CIFAR-10") as error:
        cifar10.read(root)
    assert "\n" not in str(error.value)
    assert not target.exists()


SHORT = {
    "memo index": b"\x80\x02Nr" + (1 << 28).to_bytes(4, "little") + b".",
    "bytearray": b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b".",
    "text": b"\x80\x04\x8d" + (1 << 33).to_bytes(8, "little") + b".",
    "frame": b"\x80\x04\x95" + (1 << 33).to_bytes(8, "little") + b".",
    "a text encoded again and again": b"\x80\x02](c_codecs\nencode\nq\0X\0\0\x10\0"
    + b"x" * (1 << 20)
    + b"q\1X\6\0\0\0latin1q\2"
    + b"h\0h\1h\2\x86R" * (1 << 12)
    + b"e.",
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_pickle_cannot_take_much_memory(tmp_path: Path, name: str) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(SHORT[name])
    program = (
        "import sys; from pathlib import Path; from datasets.batches import _batch; import resource\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "try: _batch(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True).stdout
    assert "a batch of CIFAR-10" in said
    assert "MemoryError" not in said


def test_a_pickle_sets_no_attributes_of_functions_and_classes(tmp_path: Path) -> None:
    root = batches(tmp_path / "root")
    for target in (b"c_codecs\nencode\n", b"cnumpy\nndarray\n"):
        (root / "data_batch_2").write_bytes(b"\x80\x02" + target + b"N}X\5\0\0\0shapeK\1s\x86b.")
        with pytest.raises(InputError, match="sets the state of something else than an array"):
            cifar10.read(root)


def test_array_of_objects_is_no_batch(tmp_path: Path) -> None:
    root = batches(tmp_path / "root")
    data = np.array([[1, "x"]], dtype=object)
    (root / "data_batch_1").write_bytes(pickle.dumps({"data": data, "labels": [1]}, 2))
    with pytest.raises(InputError, match="data_batch_1: not a batch of CIFAR-10"):
        cifar10.read(root)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 4])[:-40], "not a batch of CIFAR-10: "),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3]), "3 labels, data u1 of shape"),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 10]), "expected labels 0 to 9"),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 4], raw=b"U\x03abc"), "3 bytes of data; expected 12,288"),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 4], code=b"U\x02f8"), "data f8 of shape"),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 4], shape=b"J\xff\xff\xff\xffK\x01\x86"), r"shape \(-1, 1\)"),
        (python_2_batch(IMAGES["test_batch"], [1, 2, 3, 4], labels_key=text("fine_labels")), "this is CIFAR-100"),
        (b"", "not a batch of CIFAR-10: EOFError"),
        (b"\x80\x04N.", "expected an array `data` and a list `labels`"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", "not a batch of CIFAR-10"),
        (b"<html>", "not a batch of CIFAR-10"),
    ],
    ids=range(11),
)
def test_broken_batch_is_one_clear_line(tmp_path: Path, data: bytes, message: str) -> None:
    root = batches(tmp_path / "root")
    (root / "test_batch").write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        cifar10.read(root)
    assert str(error.value).startswith(str(root / "test_batch"))
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    root = batches(tmp_path / "root")
    (root / "data_batch_4").unlink()
    with pytest.raises(InputError, match="data_batch_4 is missing"):
        cifar10.read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no images in it.*nor is there cifar-10-batches-py"):
        cifar10.read(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file or folder"):
        cifar10.read(tmp_path / "gone")


def test_phantoms_have_the_counts_of_the_real_set() -> None:
    dataset = cifar10.phantoms()
    assert dataset.splits == {"development": 50000, "test": 10000}
    assert set(dataset.part("development").counts.values()) == {5000}
    assert set(dataset.part("test").counts.values()) == {1000}
    assert cifar10.phantoms(images=30).decode(3).shape == (32, 32, 3)
