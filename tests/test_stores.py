"""Stores: computed once, never half written, never over budget."""

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from datasets import stores
from datasets.stores import masks, pixels, stored_array, stored_table
from tests.small import small_dataset


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    return tmp_path


def test_an_array_is_computed_once_and_then_read(folder):
    calls = []

    def fill(array: np.ndarray) -> None:
        calls.append(1)
        array[:] = 7

    first = stored_array("k", (3, 2), np.uint8, fill)
    second = stored_array("k", (3, 2), np.uint8, fill)
    assert len(calls) == 1
    assert (first == 7).all()
    assert (second == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        second[0] = 1


def _compute_slowly(folder: str, counter: str) -> None:
    os.environ["IMAGE_SEARCH_STORE"] = folder

    def fill(array: np.ndarray) -> None:
        with Path(counter).open("a") as file:
            file.write("x")
        time.sleep(0.3)
        array[:] = 5

    assert (stored_array("shared", (100,), np.int64, fill) == 5).all()


def test_several_processes_compute_it_once(folder):
    counter = folder / "count"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_compute_slowly, args=(str(folder), str(counter))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert counter.read_text() == "x"


def test_a_writer_that_fails_leaves_nothing_behind(folder):
    def fail(array: np.ndarray) -> None:
        array[0] = 1
        raise RuntimeError("no more images")

    with pytest.raises(RuntimeError, match="no more images"):
        stored_array("k", (3,), np.uint8, fail)
    assert not list(folder.glob("*.npy")) + list(folder.glob("*.part"))
    assert (stored_array("k", (3,), np.uint8, lambda array: array.fill(2)) == 2).all()


def test_the_part_of_a_killed_writer_is_removed(folder):
    (folder / "k.999999.part").write_bytes(b"half")
    stored_array("k", (3,), np.uint8, lambda array: array.fill(2))
    assert not list(folder.glob("*.part"))


def test_no_locks_are_left_behind(folder):
    stored_array("k", (3,), np.uint8, lambda array: array.fill(2))
    stored_table("t", lambda: pl.DataFrame({"a": [1]}))
    assert sorted(file.name for file in folder.iterdir()) == ["k.npy", "t.parquet"]


def test_a_table_is_computed_once_and_again_when_it_is_damaged(folder, caplog):
    calls = []

    def compute() -> pl.DataFrame:
        calls.append(1)
        return pl.DataFrame({"a": [1, 2]})

    for _ in range(2):
        assert stored_table("k", compute)["a"].to_list() == [1, 2]
    assert len(calls) == 1
    (folder / "k.parquet").write_bytes(b"PAR1 half")
    assert stored_table("k", compute)["a"].to_list() == [1, 2]
    assert len(calls) == 2
    assert "damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00"])
def test_a_damaged_store_is_computed_again(content, folder, caplog):
    stored_array("k", (1000,), np.uint8, lambda array: array.fill(2))
    file = folder / "k.npy"
    file.write_bytes(content or file.read_bytes()[:500])
    assert (stored_array("k", (1000,), np.uint8, lambda array: array.fill(3)) == 3).all()
    assert "damaged" in caplog.text


def test_stores_are_not_deleted_for_what_would_not_fit_anyway(folder, monkeypatch):
    stored_array("k", (1000,), np.uint8, lambda array: array.fill(2))
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert (stored_array("large", (2000,), np.uint8, lambda array: array.fill(3)) == 3).all()
    assert [file.stem for file in folder.glob("*.npy")] == ["k"]


def test_the_least_recently_used_go_first(folder, monkeypatch):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.0000025")  # 2,500 bytes: room for two
    for age, key in ((300, "old"), (200, "older-but-used")):
        stored_array(key, (1000,), np.uint8, lambda array: array.fill(1))
        os.utime(folder / f"{key}.npy", (time.time() - age,) * 2)
    stored_array("older-but-used", (1000,), np.uint8, lambda array: array.fill(1))
    stored_array("new", (1000,), np.uint8, lambda array: array.fill(1))
    assert {file.stem for file in folder.glob("*.npy")} == {"older-but-used", "new"}


def test_archives_that_nobody_used_for_a_day_make_room_and_others_stay(folder, monkeypatch):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.0000025")
    for name, age_s in (("yesterday", 2 * stores.DAY_S), ("today", 60)):
        archive = folder / "archives" / name
        archive.mkdir(parents=True)
        (archive / "film.png").write_bytes(b"x" * 1000)
        os.utime(archive, (time.time() - age_s,) * 2)
    stored_array("k", (1000,), np.uint8, lambda array: array.fill(1))
    assert [path.name for path in folder.glob("archives/*")] == ["today"]
    assert (folder / "k.npy").exists()


def test_what_does_not_fit_is_computed_in_memory(folder, monkeypatch, caplog):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.0000001")
    array = stored_array("k", (1000,), np.uint8, lambda array: array.fill(3))
    assert (array == 3).all()
    assert not array.flags.writeable
    assert "exceed the budget" in caplog.text
    assert not list(folder.glob("*.npy")) + list(folder.glob("*.part"))


def test_a_full_disk_is_noticed_before_writing(folder, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert (stored_array("k", (10,), np.uint8, lambda array: array.fill(3)) == 3).all()
    assert "No space left on device" in caplog.text
    assert not list(folder.glob("*.npy")) + list(folder.glob("*.part"))


def test_pixels_are_resized_to_a_square_and_change_with_the_images(folder):
    dataset = small_dataset(images=6, size_px=16, channels=3)
    stored = pixels(dataset, 8)
    assert stored.shape == (6, 8, 8, 3)
    assert stored.dtype == np.uint8
    whole = pixels(dataset, 16)
    assert (whole[2] == dataset.decode(2)).all()
    assert abs(stored[2].mean() - whole[2].mean()) < 3
    assert len(list(folder.glob("*.npy"))) == 2
    pixels(small_dataset(images=8, size_px=16, channels=3), 8)
    assert len(list(folder.glob("*.npy"))) == 3


def test_pixels_are_found_again_when_only_labels_or_groups_have_changed(folder):
    dataset = small_dataset(images=6, channels=3)
    pixels(dataset, 8)
    table = dataset.table.with_columns(target=1 - pl.col("target"), group=pl.lit("one"))
    pixels(dataclasses.replace(dataset, table=table), 8)
    assert len(list(folder.glob("*.npy"))) == 1


def test_a_larger_image_may_be_decoded_smaller_but_not_below_what_is_asked_for(folder):
    asked = []

    def decoder(row: dict[str, Any]) -> np.ndarray:
        asked.append(row.get("at_least_px"))
        return np.full((40, 60, 3), 9, np.uint8)

    dataset = small_dataset(images=4, channels=3).rows(np.arange(4), decoder=decoder)
    assert (pixels(dataset, 8) == 9).all()
    assert asked == [stores.ENOUGH_PX] * 4
    pixels(dataset, 300)
    assert asked[4:] == [300] * 4


def test_masks_keep_their_classes(folder):
    def mask(row: dict[str, Any]) -> np.ndarray:
        halves = np.zeros((9, 9, 1), np.uint8)
        halves[4:] = 3
        return halves

    stored = masks(small_dataset(images=4).rows(np.arange(4), mask_decoder=mask), 6)
    assert (stored.shape, stored.dtype) == ((4, 6, 6), np.uint8)
    assert set(np.unique(stored)) == {0, 3}


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_number_of_channels_are_resized(channels, folder):
    def decoder(row: dict[str, Any]) -> np.ndarray:
        return np.broadcast_to(np.arange(channels, dtype=np.uint8) * 50, (20, 30, channels)).copy()

    dataset = small_dataset(images=3).rows(np.arange(3), decoder=decoder, channels=channels)
    assert (pixels(dataset, 8) == np.arange(channels) * 50).all()


def test_the_store_is_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("IMAGE_SEARCH_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert stores.store_folder() == Path("/somewhere/image-search")


def test_a_part_takes_its_pixels_from_the_store_of_the_whole(folder):
    calls = []

    def decoder(row: dict[str, Any]) -> np.ndarray:
        calls.append(row["image_id"])
        return np.full((9, 9, 1), int(row["image_id"][-3:]), np.uint8)

    whole = dataclasses.replace(small_dataset(images=6), decoder=decoder)
    part = whole.rows(np.array([True, False, True, True, False, True])).rows(np.array([3, 1]))
    pixels(whole, 8)
    calls.clear()
    assert pixels(part, 8)[:, 0, 0, 0].tolist() == [5, 2]
    assert not calls
    assert pixels(part, 7)[:, 0, 0, 0].tolist() == [5, 2], "another size is decoded"
    assert len(calls) == 2
