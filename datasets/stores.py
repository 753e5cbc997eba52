"""Arrays that are computed once per machine and shared by every process through the page cache.

A store is one `.npy` file, opened as a read-only memory map. It is written to a temporary name and renamed, under a
file lock, so a reader sees all of it or nothing; its name is a digest of everything that determines its content, so it
is never stale. The folder may be deleted at any time. The least recently used files go when the budget is exceeded.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from datasets.dataset import ImageDataset, content_digest

log = logging.getLogger(__name__)

DECODER = "1"
"""Part of every pixel key: raise it when decoding or resizing changes what comes out."""


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
    with FileLock(folder / f"{key}.lock"):
        with contextlib.suppress(FileNotFoundError):
            return _opened(file)
        for abandoned in folder.glob(f"{key}.*.part"):  # its writer held this lock and is dead
            abandoned.unlink(missing_ok=True)
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
            with part.open("rb") as written:  # a rename may reach the disk before what it names
                os.fsync(written.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return _opened(file)


def pixels(dataset: ImageDataset, size_px: int) -> np.ndarray:
    """All images of a data set, uint8 (images, size, size, channels), squeezed to a square, bilinear."""

    def fill(array: np.ndarray) -> None:
        def put(index: int) -> None:
            array[index] = _resized(dataset.decode(index), size_px)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(put, range(len(dataset))))

    return stored_array(
        f"pixels-{dataset.name}-{pixels_key(dataset, size_px)}", _shape(dataset, size_px), np.uint8, fill
    )


def pixels_key(dataset: ImageDataset, size_px: int) -> str:
    """Changes when any stored pixel does; part of the key of whatever is computed from them."""
    return content_digest(["pixels", DECODER, dataset.digest, repr(_shape(dataset, size_px))])


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


def _make_room(folder: Path, needed: int) -> None:
    """Delete the least recently used stores until `needed` bytes fit; a map that is still open stays readable."""
    budget = store_budget_bytes()
    if needed > budget:
        raise OSError(f"{needed / 1e9:.1f} GB exceed the budget of {budget / 1e9:.1f} GB")
    stores = []
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # somebody else has just made room
            stores.append((file.stat().st_mtime, file.stat().st_size, file))
    used, free = sum(size for _, size, _ in stores), shutil.disk_usage(folder).free
    if needed >= free + used:
        raise OSError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free")
    for _, size, file in sorted(stores):
        if used + needed <= budget and needed < free:
            return
        file.unlink(missing_ok=True)
        used, free = used - size, free + size


def _resized(pixels_HWC: np.ndarray, size_px: int) -> np.ndarray:
    if pixels_HWC.shape[:2] == (size_px, size_px):
        return pixels_HWC
    image = Image.fromarray(pixels_HWC.squeeze(-1) if pixels_HWC.shape[2] == 1 else pixels_HWC)
    resized = np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))
    return resized.reshape(size_px, size_px, -1)
