"""Stores: computed once, never half written, never over budget."""

import errno
import io
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from filelock import FileLock

from datasets import InputError, stores
from datasets.passing import passing_folder
from datasets.stores import stored_array, stored_table


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
        while stores.waiting("shared") < 2:
            time.sleep(0.01)
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
    assert stores.waiting("shared") == 0


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


def test_the_files_of_what_was_fetched_are_counted_once(folder, monkeypatch):
    whole, part = folder / "data" / "abc", folder / "data" / "def.part"
    for path in (whole, part):
        path.mkdir(parents=True)
        (path / "film.png").write_bytes(b"x" * 1000)
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.000004")
    assert stores.no_room_for(1500) is None
    walked: list[Path] = []
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: walked.append(path) or rglob(path, pattern))
    (part / "second.png").write_bytes(b"x" * 1000)
    assert "of the budget are in use" in stores.no_room_for(1500), "of 4,000 bytes; what comes is looked at again"
    assert walked == [part]


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


def test_the_store_is_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("IMAGE_SEARCH_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert stores.store_folder() == Path("/somewhere/image-search")


def test_what_any_dead_writer_left_is_removed_and_what_is_being_written_stays(folder):
    (folder / "dead.999999.part").write_bytes(b"half")
    with FileLock(folder / "alive.lock"):
        (folder / "alive.999998.part").write_bytes(b"half")
        stored_array("k", (3,), np.uint8, lambda array: array.fill(2))
        assert [part.name for part in folder.glob("*.part")] == ["alive.999998.part"]


def test_nothing_is_deleted_where_that_would_not_be_enough(folder, monkeypatch, caplog):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.000003")
    stored_array("k", (1000,), np.uint8, lambda array: array.fill(1))
    archive = folder / "archives" / "today"
    archive.mkdir(parents=True)
    (archive / "film.png").write_bytes(b"x" * 2500)
    assert (stored_array("other", (1000,), np.uint8, lambda array: array.fill(3)) == 3).all()
    assert (folder / "k.npy").exists()
    assert "of the budget are in use" in caplog.text


def test_a_store_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "file" / "store"))
    assert (stored_array("k", (3,), np.uint8, lambda array: array.fill(2)) == 2).all()
    assert stored_table("k", lambda: pl.DataFrame({"a": [1]}))["a"].to_list() == [1]
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("store", ["file", "locked"])
def test_a_store_that_is_a_file_or_may_not_be_entered_is_done_without(tmp_path, monkeypatch, caplog, store):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / store))
    allowed = io.open

    def refused(file, *args, **kwargs):
        if str(file).startswith(str(tmp_path / "locked")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
        return allowed(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refused)
    monkeypatch.setattr(io, "open", refused)
    monkeypatch.setattr(stores.Path, "mkdir", lambda *_, **__: refused(tmp_path / "locked"))
    assert (stored_array("k", (3,), np.uint8, lambda array: array.fill(2)) == 2).all()
    assert stored_table("k", lambda: pl.DataFrame({"a": [1]}))["a"].to_list() == [1]
    with pytest.raises(FileNotFoundError):
        stores.opened(stores.store_folder() / "k.npy")
    assert "cannot be written" in caplog.text


def test_a_budget_that_is_no_number_is_said_so(folder, monkeypatch):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "20G")
    with pytest.raises(InputError, match="IMAGE_SEARCH_STORE_GB=20G: expected a number of gigabytes"):
        stored_array("k", (3,), np.uint8, lambda array: array.fill(2))


def test_what_is_on_its_way_goes_with_its_process_or_when_the_next_one_comes(folder):
    process = multiprocessing.get_context("spawn").Process(target=_die_on_the_way)
    process.start()
    process.join()
    (left,) = [path for path in (folder / "passing").iterdir() if path.is_dir()]
    assert (left / "large").exists()
    with passing_folder() as first, passing_folder() as second:
        (first / "kept").touch()
        assert not left.exists()
        assert {path for path in (folder / "passing").iterdir() if path.is_dir()} == {first, second}
    assert not list((folder / "passing").iterdir())


def _die_on_the_way() -> None:
    with passing_folder() as passing:
        (passing / "large").touch()
        os._exit(1)


def test_without_a_store_files_pass_through_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "file"))
    with passing_folder() as passing:
        (passing / "file").touch()
    assert not passing.exists()
