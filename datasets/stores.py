"""Arrays and tables that are computed once per machine and shared by every process through the page cache.

A store is one `.npy` file, opened as a read-only memory map, or a small table as one `.parquet` file. It is written to
a temporary name and renamed, under a file lock, so a reader sees all of it or nothing; its name is a digest of
everything that determines its content, so it is never stale. The folder may be deleted at any time. The least recently
used files go when the budget is exceeded, and what was fetched or unpacked and nobody has used for a day.
"""

import contextlib
import functools
import logging
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from datasets.errors import InputError

log = logging.getLogger(__name__)

DAY_S = 86400.0


def store_folder() -> Path:
    """`$IMAGE_SEARCH_STORE`, or `image-search` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMAGE_SEARCH_STORE") or cache / "image-search")


def store_budget_bytes() -> int:
    """`$IMAGE_SEARCH_STORE_GB`, 20 unless set."""
    said = os.environ.get("IMAGE_SEARCH_STORE_GB") or "20"
    try:
        return int(float(said) * 1e9)
    except ValueError:
        raise InputError(f"IMAGE_SEARCH_STORE_GB={said}: expected a number of gigabytes, such as 20") from None


class NoRoomError(Exception):
    """A store cannot be kept on the disk, and why."""


def stored_array(key: str, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The array of that key: opened if it is stored, otherwise allocated, filled by `fill` and stored.

    One process computes, others that want the same wait for it. Where it does not fit on the disk or in the budget,
    the array is computed in memory. Read-only either way.
    """
    try:
        return array_on_disk(key, shape, dtype, fill)
    except NoRoomError as reason:
        _warn_once(f"store {store_folder()}: {reason}; computing in memory instead")
    array: np.ndarray = np.empty(shape, dtype)
    fill(array)
    array.setflags(write=False)
    return array


def array_on_disk(key: str, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """As `stored_array`; raises `NoRoomError`, before anything is computed, where it cannot be kept on the disk."""
    folder = store_folder()
    file = folder / f"{key}.npy"
    with contextlib.suppress(FileNotFoundError):
        return opened(file)
    with _alone(folder, key):
        with contextlib.suppress(FileNotFoundError):
            return opened(file)
        part = folder / f"{key}.{os.getpid()}.part"
        try:
            array: np.ndarray = _allocated(part, shape, dtype)
            fill(array)
            del array
            _renamed(part, file)
        finally:
            part.unlink(missing_ok=True)
        return opened(file)


def found_array(key: str) -> np.ndarray | None:
    """The array of that key, if it is stored."""
    with contextlib.suppress(FileNotFoundError):
        return opened(store_folder() / f"{key}.npy")
    return None


def stored_table(key: str, compute: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The table of that key: read if it is stored, otherwise computed and, where that can be, stored."""
    folder = store_folder()
    file = folder / f"{key}.parquet"
    with contextlib.suppress(FileNotFoundError):
        return _read(file)
    try:
        with _alone(folder, key):
            with contextlib.suppress(FileNotFoundError):
                return _read(file)
            table = compute()
            part = folder / f"{key}.{os.getpid()}.part"
            try:
                _make_room(folder, int(table.estimated_size()))
                table.write_parquet(part)
                _renamed(part, file)
            except (OSError, NoRoomError) as error:
                _warn_once(f"store {folder}: {error}; computing in memory instead")
            finally:
                part.unlink(missing_ok=True)
            return table
    except NoRoomError as reason:
        _warn_once(f"store {folder}: {reason}; computing in memory instead")
        return compute()


@functools.cache
def _warn_once(message: str) -> None:
    """Every array and table would say the same of a store that cannot be used."""
    log.warning(message)


@contextlib.contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """Nobody else writes this store meanwhile; what a dead writer left is removed. The lock's file goes with it: who
    still waits on it finds the store written and opens it. Raises `NoRoomError` where nothing can be written."""
    lock = FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with _waits(folder, key):
                lock.acquire()
    except OSError as error:
        raise NoRoomError(f"cannot be written: {error.strerror or error}") from None
    try:
        for abandoned in folder.glob(f"{key}.*.part"):  # its writer held this lock and is dead
            abandoned.unlink(missing_ok=True)
        yield
    finally:
        (folder / f"{key}.lock").unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _waits(folder: Path, key: str) -> Iterator[None]:
    """Lets who writes this store know that somebody waits for it."""
    marker = folder / f"{key}.{os.getpid()}.waits"
    marker.touch()
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def waiting(key: str) -> int:
    """How many processes wait for a store to be written: they do not need their processors meanwhile."""
    return sum(_is_alive(int(marker.name.split(".")[-2])) for marker in store_folder().glob(f"{key}.*.waits"))


def _allocated(part: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A map of a new file with all of its blocks on the disk; raises `NoRoomError`."""
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with _alone(part.parent, ".room"):  # two that allocate at once would not see each other
            _make_room(part.parent, needed)
            array: np.ndarray = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
            with part.open("r+b") as handle:  # a write to a sparse map on a full disk would kill the process (SIGBUS)
                os.posix_fallocate(handle.fileno(), 0, part.stat().st_size)
    except OSError as error:
        raise NoRoomError(str(error)) from None
    return array


def _renamed(part: Path, file: Path) -> None:
    with part.open("rb") as written:  # a rename may reach the disk before what it names
        os.fsync(written.fileno())
    part.replace(file)


def release(array: np.ndarray) -> None:
    """Takes a map's pages out of this process's memory; the page cache keeps them as long as nobody else needs room."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def opened(file: Path) -> np.ndarray:
    """Raises `FileNotFoundError` where it is not there, cannot be read, or is damaged; then it is gone."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError:  # also a folder that may not be entered, or a file in its place
        raise FileNotFoundError(file) from None
    except (ValueError, EOFError):
        _damaged(file)
        raise FileNotFoundError(file) from None
    with contextlib.suppress(OSError):  # a store that others own, or that can only be read
        os.utime(file)  # the time of last use, for eviction: access times are often switched off
    return array


def _read(file: Path) -> pl.DataFrame:
    try:
        with file.open("rb"):  # polars says in several ways that it is not there
            table = pl.read_parquet(file, glob=False)
    except OSError:
        raise FileNotFoundError(file) from None
    except pl.exceptions.PolarsError:
        _damaged(file)
        raise FileNotFoundError(file) from None
    with contextlib.suppress(OSError):
        os.utime(file)
    return table


def _damaged(file: Path) -> None:
    log.warning("store %s: damaged, computed again", file)
    with contextlib.suppress(OSError):  # a store that can only be read
        file.unlink(missing_ok=True)


def no_room_for(needed: int) -> str | None:
    """Why so many bytes could not be stored now; None where they could."""
    folder = store_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder} cannot be written"
        _leaving(folder, needed)
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    except NoRoomError as reason:
        return str(reason)
    return None


def make_room(needed: int) -> None:
    """For so many bytes that are about to be written; raises `NoRoomError`."""
    folder = store_folder()
    with _alone(folder, ".room"):
        _make_room(folder, needed)


def _make_room(folder: Path, needed: int) -> None:
    """Delete the least recently used stores until `needed` bytes fit; a map that is still open stays readable, and
    keeps its blocks on the disk.

    Raises `NoRoomError`, and deletes nothing, where that would not be enough.
    """
    budget = store_budget_bytes()
    _remove_abandoned(folder)
    goes, used = _leaving(folder, needed)
    for _, size, path in goes:
        if used + needed <= budget and needed < shutil.disk_usage(folder).free:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        used -= size


def _leaving(folder: Path, needed: int) -> tuple[list[tuple[float, int, Path]], int]:
    """What may go for so many bytes, (time of last use, bytes, path), oldest first; and the bytes of all that is there.

    Raises `NoRoomError` where that would not be enough.
    """
    budget = store_budget_bytes()
    if needed > budget:
        raise NoRoomError(f"{needed / 1e9:.3g} GB exceed the budget of {budget / 1e9:.3g} GB, IMAGE_SEARCH_STORE_GB")
    stores = []
    for pattern in ("*.npy", "*.parquet", "*.part", "archives/*", "data/*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # somebody else has just made room
                stores.append((path.stat().st_mtime, _size(path), path))
    used, free = sum(size for _, size, _ in stores), shutil.disk_usage(folder).free
    goes = [store for store in sorted(stores) if _may_go(*store)]
    most = sum(size for _, size, _ in goes)
    if needed >= free + most:
        raise NoRoomError(f"{needed / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB free")
    if used - most + needed > budget:
        raise NoRoomError(f"{(used - most) / 1e9:.3g} of the {budget / 1e9:.3g} GB of the budget are in use")
    return goes, used


def _may_go(used_at: float, size: int, path: Path) -> bool:
    """Not what is being written, nor what was fetched or unpacked and used lately: its files may be wanted again."""
    return time.time() - used_at > DAY_S if path.is_dir() else path.suffix != ".part"


def _remove_abandoned(folder: Path) -> None:
    """What writers left that died, whatever they wrote: whose lock can be had at once."""
    for marker in folder.glob("*.waits"):
        if not _is_alive(int(marker.name.split(".")[-2])):
            marker.unlink(missing_ok=True)
    for part in folder.glob("*.part"):
        key = part.name.rsplit(".", 2)[0]
        with contextlib.suppress(Timeout), FileLock(folder / f"{key}.lock", timeout=0):
            part.unlink(missing_ok=True)
            (folder / f"{key}.lock").unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return _size_of_folder(path) if path.suffix == ".part" else _size_of_whole_folder(path)


def _size_of_folder(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if not file.is_dir())


_size_of_whole_folder = functools.cache(_size_of_folder)
"""What was fetched or unpacked does not change any more, and every trial asks for the size of its many files."""
