"""Arrays in files, mapped and never loaded whole: `.npy`, `.npz`, and the idx files of MNIST, also behind gzip.

What is compressed is streamed once per machine into the store and mapped from there; what is not, in an `.npz` too, is
mapped where it lies. Nothing is ever unpickled: an array of objects is refused by its header, before any of it is read.

    images = mapped(Path("bloodmnist_224.npz"), "train_images")     uint8 (11959, 224, 224, 3), read-only, 0 bytes read
"""

import contextlib
import gzip
import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from datasets.dataset import content_digest
from datasets.errors import InputError
from datasets.stores import release, stored_array

CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 64 << 20
"""How much of a map is touched before its pages are given back."""
SMALL_ROW_BYTES = 1 << 15
"""Below it a thread takes longer to start than to hash."""
DEFLATE_RATIO = 1032
"""Deflate cannot make anything smaller than by this factor: a header that promises more does not tell the truth."""
NAMES_TOLD = 8
"""Of arrays, in a message."""
IDX_UNSIGNED_BYTES = b"\x00\x00\x08"
"""How an idx file of unsigned bytes begins; then the number of axes, then their lengths, big-endian."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of an array say about the rest."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns_first: bool
    """Fortran's order."""
    offset: int
    """Of the first element, in bytes."""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def mapped(file: Path, member: str | None = None) -> np.ndarray:
    """The array of an `.npy` or idx file, or of that member of an `.npz`: a read-only memory map.

    Raises `InputError` where the file is none, is cut short, is broken, or holds Python objects.
    """
    return _mapped(*_identity(file), member)


def names(file: Path) -> list[str]:
    """The names of the arrays of an `.npz`, from its table of contents alone."""
    with _legible(file), _archive(file) as archive:
        return _names(archive)


def members(file: Path) -> dict[str, Header]:
    """The arrays of an `.npz` by name, from their headers alone."""
    with _legible(file), _archive(file) as archive:
        found = {}
        for name in _names(archive):
            with _member(file, archive, name) as (stream, most):
                found[name] = _checked_header(file, name, stream, most)
        return found


def header(file: Path, member: str | None = None) -> Header:
    """Shape and type of an array, without reading it; checked against the size of the file."""
    with _legible(file), _stream(file, member) as (stream, most):
        return _checked_header(file, member, stream, most)


def decode_row(row: dict[str, Any]) -> np.ndarray:
    """The decoder of images in arrays: row `array_row` of array `array_member` ("" for none) of file `array_file`."""
    image = mapped(Path(row["array_file"]), row["array_member"] or None)[row["array_row"]]
    return np.asarray(image if image.ndim == 3 else image[:, :, None])


def row_digests(array: np.ndarray) -> list[str]:
    """The identity of every row of an array: the SHA-256 of its bytes, hexadecimal."""

    def of_row(row: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(row).data).hexdigest()

    found: list[str] = []
    rows = max(BLOCK_BYTES // max(array[:1].nbytes, 1), 1)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        each = map if array[:1].nbytes < SMALL_ROW_BYTES else threads.map
        for start in range(0, len(array), rows):
            found += each(of_row, array[start : start + rows])
            _release(array)
    return found


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; computed once per process for a file that stays as it is."""
    return _file_digest(*_identity(file))


def _identity(file: Path) -> tuple[Path, int, int]:
    """The path, and what changes when the file does."""
    try:
        stat = file.stat()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    return file.absolute(), stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _file_digest(file: Path, size: int, changed_ns: int) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _mapped(file: Path, size: int, changed_ns: int, member: str | None) -> np.ndarray:
    found = header(file, member)
    if not found.bytes:
        flat: np.ndarray = np.empty(0, np.uint8)
    elif member is None and not _is_gzip(file):
        flat = np.memmap(file, np.uint8, "r", found.offset, (found.bytes,))
    elif member is not None and (start := _where_it_lies(file, member)) is not None:
        flat = np.memmap(file, np.uint8, "r", start + found.offset, (found.bytes,))
    else:

        def fill(array: np.ndarray) -> None:
            with _legible(file), _stream(file, member) as (stream, _):
                stream.read(found.offset)
                _copy(stream, array, _named(file, member))

        key = content_digest(["array", _file_digest(file, size, changed_ns), member or ""])
        flat = stored_array(f"array-{key}", (found.bytes,), np.uint8, fill)
    array = flat.view(found.dtype)
    array = array.reshape(found.shape[::-1]).T if found.columns_first else array.reshape(found.shape)
    array.setflags(write=False)
    return array


def _where_it_lies(file: Path, member: str) -> int | None:
    """Where the bytes of a member begin that is in the `.npz` as it is; None where it is compressed."""
    with _legible(file), _archive(file) as archive:
        info = archive.getinfo(f"{member}.npy")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return None
        with file.open("rb") as handle:
            handle.seek(info.header_offset)
            local = handle.read(30)  # the last two numbers of it: the lengths of the name and of what follows it
        start = info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:], "little")
        if start + info.file_size > file.stat().st_size:
            raise InputError(f"{file}, {member}: ends before the {info.file_size:,} bytes that its archive promises")
        return start


def _release(array: np.ndarray) -> None:
    """Takes the pages of the map that an array is a view of out of this process's memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    release(array)


def _copy(stream: IO[bytes], flat: np.ndarray, name: str) -> None:
    """Fills uint8 (bytes,); raises where the stream holds less or more."""
    done, target = 0, flat.data
    while done < len(target):
        chunk = stream.read(min(CHUNK_BYTES, len(target) - done))
        if not chunk:
            raise InputError(f"{name}: ends after {done:,} of the {len(target):,} bytes that its header promises")
        target[done : done + len(chunk)] = chunk
        done += len(chunk)
        if done % BLOCK_BYTES < CHUNK_BYTES:
            release(flat)
    if stream.read(1):  # to the end, so that the checksum behind it is checked as well
        raise InputError(f"{name}: holds more than the {len(target):,} bytes that its header promises")


@contextlib.contextmanager
def _stream(file: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of an array from its header on, and how many there can be at most."""
    size = file.stat().st_size
    if member is not None:
        with _archive(file) as archive, _member(file, archive, member) as found:
            yield found
    elif _is_gzip(file):
        with gzip.open(file) as unpacked:
            yield cast(IO[bytes], unpacked), DEFLATE_RATIO * size  # gzip's own word for the size is modulo 4 GB
    else:
        with file.open("rb") as stream:
            yield stream, size


@contextlib.contextmanager
def _member(file: Path, archive: zipfile.ZipFile, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The same of one in an `.npz`."""
    try:
        info = archive.getinfo(f"{member}.npy")
    except KeyError:
        held = ", ".join(sorted(_names(archive))[:NAMES_TOLD]) or "nothing"
        raise InputError(f"{file}: has no array {member!r}; it holds: {held}") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{file}: {member} is compressed in a way that numpy does not write")
    with archive.open(info) as stream:
        yield stream, min(info.file_size, DEFLATE_RATIO * file.stat().st_size)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _checked_header(file: Path, member: str | None, stream: IO[bytes], most: int) -> Header:
    found = _header(stream)
    if found.offset + found.bytes > most:
        raise InputError(f"{_named(file, member)}: ends before the {found.bytes:,} bytes that its header promises")
    return found


def _header(stream: IO[bytes]) -> Header:
    start = stream.read(4)
    if start.startswith(IDX_UNSIGNED_BYTES) and len(start) > 3:
        axes = start[3]
        lengths = stream.read(4 * axes)
        if len(lengths) < 4 * axes or not axes:
            raise ValueError("it ends in its header")
        return Header(tuple(np.frombuffer(lengths, ">u4").tolist()), np.dtype(np.uint8), False, stream.tell())
    if not np.lib.format.MAGIC_PREFIX.startswith(start) or len(start) < 4:
        raise ValueError("neither .npy, .npz nor an idx file of unsigned bytes")
    stream.seek(0)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a later version of .npy, which holds structures and no numbers")
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise InputError("holds Python objects, which could run code when read; save it with a numeric type")
    if dtype.fields or dtype.subdtype or not dtype.itemsize or any(length < 0 for length in shape):
        raise ValueError(f"type {dtype} of shape {shape}")
    return Header(tuple(shape), dtype, columns_first, stream.tell())


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def _archive(file: Path) -> Iterator[zipfile.ZipFile]:
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: not an .npz file (a zip of arrays)")
    with zipfile.ZipFile(file) as archive:
        yield archive


@contextlib.contextmanager
def _legible(file: Path) -> Iterator[None]:
    """Whatever a broken file makes the readers raise, in one line."""
    try:
        yield
    except InputError as error:
        raise error if str(error).startswith(str(file)) else InputError(f"{file}: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except (ValueError, IndexError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as bad:
        # RuntimeError: an encrypted member
        raise InputError(
            f"{file}: not an array that can be read: {str(bad).splitlines()[0] if str(bad) else bad!r}"
        ) from None


def _named(file: Path, member: str | None) -> str:
    return f"{file}, {member}" if member else str(file)
