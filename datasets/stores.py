"""Arrays that are computed once per machine and shared by every process through the page cache.

A store is one `.npy` file, opened as a read-only memory map, or a small table as one `.parquet` file. It is written to
a temporary name and renamed, under a file lock, so a reader sees all of it or nothing; its name is a digest of
everything that determines its content, so it is never stale. The folder may be deleted at any time. The least recently
used files go when the budget is exceeded, and unpacked archives that nobody has used for a day.
"""

import contextlib
import logging
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock
from PIL import Image

from datasets.dataset import ImageDataset, content_digest

log = logging.getLogger(__name__)

DECODER = "2"
"""Part of every pixel key: raise it when decoding or resizing changes what comes out."""
ENOUGH_PX = 224
"""A JPEG is decoded at a reduced size, but no smaller than this: the same for all purposes, so that one decoding serves
several and the pixels do not depend on which came first."""
ROWS = 256
"""Images that are decoded before their pixels are handed over to the page cache: what a fill holds in memory."""
DAY_S = 86400.0


def store_folder() -> Path:
    """`$IMAGE_SEARCH_STORE`, or `image-search` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMAGE_SEARCH_STORE") or cache / "image-search")


def store_budget_bytes() -> int:
    """`$IMAGE_SEARCH_STORE_GB`, 20 unless set."""
    return int(float(os.environ.get("IMAGE_SEARCH_STORE_GB") or 20) * 1e9)


def stored_array(key: str, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The array of that key: opened if it is stored, otherwise allocated, filled by `fill` and stored.

    One process computes, others that want the same wait for it. Where it does not fit on the disk or in the budget,
    the array is computed in memory. Read-only either way.
    """
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key}.npy"
    with contextlib.suppress(FileNotFoundError):
        return _opened(file)
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with _alone(folder, key):
        with contextlib.suppress(FileNotFoundError):
            return _opened(file)
        part = folder / f"{key}.{os.getpid()}.part"
        try:
            _make_room(folder, needed)
            array: np.ndarray = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
            with part.open("r+b") as handle:  # a write to a sparse map on a full disk would kill the process (SIGBUS)
                os.posix_fallocate(handle.fileno(), 0, part.stat().st_size)
        except OSError as error:
            part.unlink(missing_ok=True)
            log.warning("store %s: %s; computing in memory instead", folder, error)
            array = np.empty(shape, dtype)
            fill(array)
            array.setflags(write=False)
            return array
        try:
            fill(array)
            del array
            _renamed(part, file)
        finally:
            part.unlink(missing_ok=True)
        return _opened(file)


def stored_table(key: str, compute: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The table of that key: read if it is stored, otherwise computed and stored."""
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key}.parquet"
    with contextlib.suppress(FileNotFoundError):
        return _read(file)
    with _alone(folder, key):
        with contextlib.suppress(FileNotFoundError):
            return _read(file)
        table = compute()
        part = folder / f"{key}.{os.getpid()}.part"
        try:
            _make_room(folder, int(table.estimated_size()))
            table.write_parquet(part)
            _renamed(part, file)
        except OSError as error:
            log.warning("store %s: %s; not kept", folder, error)
        finally:
            part.unlink(missing_ok=True)
        return table


@contextlib.contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """Nobody else writes this store meanwhile; what a dead writer left is removed. The lock's file goes with it: who
    still waits on it finds the store written and opens it."""
    lock = folder / f"{key}.lock"
    with FileLock(lock):
        for abandoned in folder.glob(f"{key}.*.part"):  # its writer held this lock and is dead
            abandoned.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _renamed(part: Path, file: Path) -> None:
    with part.open("rb") as written:  # a rename may reach the disk before what it names
        os.fsync(written.fileno())
    part.replace(file)


def pixels(dataset: ImageDataset, size_px: int) -> np.ndarray:
    """All images of a data set, uint8 (images, size, size, channels), squeezed to a square, bilinear."""

    def decoded(index: int) -> np.ndarray:
        return squeezed(dataset.decode(index, at_least_px=max(size_px, ENOUGH_PX)), size_px)

    def fill(array: np.ndarray) -> None:
        whole = _pixels_of_whole(dataset, size_px)
        _filled(decoded if whole is None else whole.__getitem__)(array)

    return stored_array(_pixels_name(dataset, size_px), _shape(dataset, size_px), np.uint8, fill)


def _pixels_of_whole(dataset: ImageDataset, size_px: int) -> "_Rows | None":
    """The pixels of these images in the store of the data set that they are a part of, if there is one."""
    if dataset.part_of is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        name = f"pixels-{dataset.name}-{_pixels_key(dataset.part_of, size_px)}"
        return _Rows(_opened(store_folder() / f"{name}.npy"), dataset.table["found_row"].to_numpy())
    return None


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array, by their numbers among these."""

    array: np.ndarray
    rows: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.array[self.rows[index]]


def decode_into_store(dataset: ImageDataset, size_px: int, decode_all: Callable[[np.ndarray | None], None]) -> None:
    """Calls `decode_all`, which decodes every image for a purpose of its own, with the array of the pixel store to put
    them into on the way, squeezed; with None where they are stored already, or are better decoded by themselves."""
    shape = _shape(dataset, size_px)
    decoded = False

    def fill(array: np.ndarray) -> None:
        nonlocal decoded
        decode_all(array)
        decoded = True

    if size_px <= ENOUGH_PX and np.prod(shape) <= store_budget_bytes():
        stored_array(_pixels_name(dataset, size_px), shape, np.uint8, fill)
    if not decoded:
        decode_all(None)


def masks(dataset: ImageDataset, size_px: int) -> np.ndarray:
    """The masks of all images, uint8 (images, size, size), squeezed to a square, nearest neighbour."""

    def decoded(index: int) -> np.ndarray:
        return _resized(dataset.decode_mask(index), size_px, Image.Resampling.NEAREST)[:, :, 0]

    key = f"masks-{dataset.name}-{pixels_key(dataset, size_px)}"
    return stored_array(key, (len(dataset), size_px, size_px), np.uint8, _filled(decoded))


def _filled(decoded: Callable[[int], np.ndarray]) -> Callable[[np.ndarray], None]:
    """Fills an array row by row, in threads: Pillow decodes outside of Python's lock."""

    def fill(array: np.ndarray) -> None:
        def put(index: int) -> None:
            array[index] = decoded(index)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(array), ROWS):
                list(pool.map(put, range(start, min(start + ROWS, len(array)))))
                release(array)

    return fill


def release(array: np.ndarray) -> None:
    """Takes a map's pages out of this process's memory; the page cache keeps them as long as nobody else needs room."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def pixels_key(dataset: ImageDataset, size_px: int) -> str:
    """Changes when any stored pixel does; part of the key of whatever is computed from them."""
    return _pixels_key(dataset.contents, size_px)


def _pixels_key(contents: str, size_px: int) -> str:
    return content_digest(["pixels", DECODER, contents, str(size_px)])


def _pixels_name(dataset: ImageDataset, size_px: int) -> str:
    return f"pixels-{dataset.name}-{pixels_key(dataset, size_px)}"


def _shape(dataset: ImageDataset, size_px: int) -> tuple[int, int, int, int]:
    return (len(dataset), size_px, size_px, dataset.channels)


def _opened(file: Path) -> np.ndarray:
    """Raises `FileNotFoundError` where it is not there, or is damaged; then it is gone."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        log.warning("store %s: damaged, computed again", file)
        file.unlink(missing_ok=True)
        raise FileNotFoundError(file) from None
    with contextlib.suppress(PermissionError):  # a store that others own
        os.utime(file)  # the time of last use, for eviction: access times are often switched off
    return array


def _read(file: Path) -> pl.DataFrame:
    try:
        table = pl.read_parquet(file, glob=False)
    except pl.exceptions.PolarsError:
        log.warning("store %s: damaged, computed again", file)
        file.unlink(missing_ok=True)
        raise FileNotFoundError(file) from None
    with contextlib.suppress(PermissionError):
        os.utime(file)
    return table


def _make_room(folder: Path, needed: int) -> None:
    """Delete the least recently used stores until `needed` bytes fit; a map that is still open stays readable."""
    budget = store_budget_bytes()
    if needed > budget:
        raise OSError(f"{needed / 1e9:.1f} GB exceed the budget of {budget / 1e9:.1f} GB")
    stores = []
    for file in (*folder.glob("*.npy"), *folder.glob("*.parquet"), *folder.glob("archives/*")):
        with contextlib.suppress(FileNotFoundError):  # somebody else has just made room
            stores.append((file.stat().st_mtime, _size(file), file))
    used, free = sum(size for _, size, _ in stores), shutil.disk_usage(folder).free
    goes = [store for store in sorted(stores) if store[2].is_file() or time.time() - store[0] > DAY_S]
    if needed >= free + sum(size for _, size, _ in goes):
        raise OSError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free")
    for _, size, path in goes:
        if used + needed <= budget and needed < free:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        used, free = used - size, free + size


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if not file.is_dir())


def squeezed(pixels_HWC: np.ndarray, size_px: int) -> np.ndarray:
    """uint8 (size, size, channels): squeezed to a square, bilinear over all that a pixel covers."""
    return _resized(pixels_HWC, size_px, Image.Resampling.BILINEAR)


def _resized(pixels_HWC: np.ndarray, size_px: int, resampling: Image.Resampling) -> np.ndarray:
    if pixels_HWC.shape[:2] == (size_px, size_px):
        return pixels_HWC
    if pixels_HWC.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels_HWC).resize((size_px, size_px), resampling))
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels_HWC, 2, 0)]
    return np.stack([np.asarray(plane.resize((size_px, size_px), resampling)) for plane in planes], axis=2)
