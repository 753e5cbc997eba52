"""Arrays are mapped and not loaded, from every form that data sets come in, and nothing in them runs."""

import gzip
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import datasets.arrays
from datasets import InputError
from datasets.arrays import decode_row, header, mapped, members, names, row_digests

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def save(folder: Path, form: str, array: np.ndarray) -> tuple[Path, str | None]:
    path = folder / f"x.{form}"
    if form == "npy":
        np.save(path, array)
    elif form == "idx":
        path.write_bytes(idx(array))
    elif form == "idx.gz":
        path.write_bytes(gzip.compress(idx(array)))
    else:
        {"npz": np.savez, "compressed.npz": np.savez_compressed}[form](path, images=array, other=array[:1])
        return path, "images"
    return path, None


@pytest.mark.parametrize("form", ["npy", "npz", "compressed.npz", "idx", "idx.gz"])
def test_every_form_gives_the_same_read_only_map(tmp_path: Path, form: str) -> None:
    file, member = save(tmp_path, form, IMAGES)
    array = mapped(file, member)
    assert np.array_equal(array, IMAGES)
    assert not array.flags.writeable
    assert header(file, member).shape == IMAGES.shape
    base = array
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.mode in ("r", "c")


@settings(max_examples=30, deadline=None)
@given(
    array=arrays.arrays(
        st.sampled_from(["u1", "<i8", ">u2", "<f4", "bool"]),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    columns_first=st.booleans(),
)
def test_types_and_orders_survive(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, columns_first: bool
) -> None:
    array = np.asfortranarray(array) if columns_first else array
    file = tmp_path_factory.getbasetemp() / "any.npz"
    np.savez(file, x=array)
    found = mapped(file, "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_members_are_listed_without_reading_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train_images=IMAGES, train_labels=np.zeros((5, 1), np.uint8))
    found = members(tmp_path / "x.npz")
    assert {name: entry.shape for name, entry in found.items()} == {
        "train_images": (5, 4, 3, 3),
        "train_labels": (5, 1),
    }


def test_table_of_contents_is_read_once_however_many_members_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", **{f"x{i}": IMAGES for i in range(20)})
    opened = []
    parse = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: (opened.append(self), parse(self)))
    assert len(members(tmp_path / "x.npz")) == 20
    assert len(opened) == 1
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert names(tmp_path / "x.npz") == [f"x{i}" for i in range(20)]


def test_what_is_not_compressed_is_mapped_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.arrays, "stored_array", None)
    np.savez(tmp_path / "x.npz", a=np.arange(5), b=IMAGES)
    (tmp_path / "long.npz").write_bytes(b"#!/bin/sh\n" + (tmp_path / "x.npz").read_bytes())
    for name in ("x.npz", "long.npz"):
        assert np.array_equal(mapped(tmp_path / name, "a"), np.arange(5))
        assert np.array_equal(mapped(tmp_path / name, "b"), IMAGES)


def test_a_member_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=IMAGES)
    whole = (tmp_path / "x.npz").read_bytes()
    table = whole.index(b"PK\x01\x02")
    size = int.from_bytes(whole[table + 20 : table + 24], "little")
    promise = whole[:table] + whole[table:].replace(size.to_bytes(4, "little"), (size + 5000).to_bytes(4, "little"))
    (tmp_path / "x.npz").write_bytes(promise)
    with pytest.raises(InputError, match=r"x\.npz"):
        mapped(tmp_path / "x.npz", "a")


def test_another_content_under_the_same_name_is_another_array(tmp_path: Path) -> None:
    for array in (IMAGES, IMAGES[::-1].copy()):
        file, member = save(tmp_path, "npz", array)
        assert np.array_equal(mapped(file, member), array)


def test_a_large_member_is_never_in_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((64, 1 << 20), np.uint8))
    tracemalloc.start()
    assert mapped(tmp_path / "x.npz", "x")[63].sum() == 0
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def test_rows_are_decoded_with_a_channel_axis_and_known_by_their_bytes(tmp_path: Path) -> None:
    file, _ = save(tmp_path, "idx.gz", IMAGES[..., 0])
    row = {"array_file": str(file), "array_member": "", "array_row": 2}
    assert np.array_equal(decode_row(row), IMAGES[2, :, :, :1])
    identities = row_digests(np.stack([IMAGES[0], IMAGES[1], IMAGES[0]]))
    assert identities[0] == identities[2] != identities[1]
    assert len(identities[0]) == 64


class Mischief:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_objects_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    array = np.array([Mischief(tmp_path / "harmed")], dtype=object)
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=array)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(array))
    for file, member in (("x.npy", None), ("x.npz", "x")):
        with pytest.raises(InputError, match="Python objects"):
            mapped(tmp_path / file, member)
    with pytest.raises(InputError, match="not an array that can be read"):
        mapped(tmp_path / "bare.npy")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("form", ["npy", "npz", "compressed.npz", "idx", "idx.gz"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, form: str) -> None:
    file, member = save(tmp_path, form, IMAGES)
    whole = file.read_bytes()
    for kept in (0, 3, 9, len(whole) // 2, len(whole) - 5):
        file.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"x\.") as error:
            mapped(file, member)
        assert "\n" not in str(error.value)


def test_a_header_that_promises_more_than_there_can_be_reserves_nothing(tmp_path: Path) -> None:
    promise = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60_000, 60_000, 60_000)
    (tmp_path / "x").write_bytes(promise)
    (tmp_path / "x.gz").write_bytes(gzip.compress(promise))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": (1 << 50,), "descr": "|u1", "fortran_order": False})
    for file, member_name in (("x", None), ("x.gz", None), ("x.npz", "x")):
        with pytest.raises(InputError, match="ends before the"):
            mapped(tmp_path / file, member_name)


def test_less_and_more_than_the_header_promises_are_refused_when_it_is_read(tmp_path: Path) -> None:
    data = idx(IMAGES)
    for name, stored in (("short.gz", data[:-1]), ("long.gz", data + b"\0")):
        (tmp_path / name).write_bytes(gzip.compress(stored))
    with pytest.raises(InputError, match="ends after 179 of the 180 bytes"):
        mapped(tmp_path / "short.gz")
    with pytest.raises(InputError, match="holds more than the 180 bytes"):
        mapped(tmp_path / "long.gz")


def test_what_is_no_array_has_one_clear_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=IMAGES, b=IMAGES)
    (tmp_path / "text.npy").write_text("patient;label")
    with pytest.raises(InputError, match="has no array 'labels'; it holds: a, b"):
        mapped(tmp_path / "x.npz", "labels")
    with pytest.raises(InputError, match="No such file"):
        mapped(tmp_path / "gone.npz", "x")
    with pytest.raises(InputError, match=r"neither \.npy, \.npz nor an idx file"):
        mapped(tmp_path / "text.npy")
    with pytest.raises(InputError, match=r"not an \.npz file"):
        members(tmp_path / "text.npy")
