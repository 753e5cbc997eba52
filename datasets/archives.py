"""Archives as they were downloaded: unpacked once per machine into the store, and nowhere else.

An archive is a program for writing files, written by a stranger. Names that lead out of its folder, links that do and
devices are refused, and so is what would grow beyond reason: that is counted while it is written, because a header may
say anything. Links are made last, so that nothing is ever written through one.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from filelock import FileLock

from datasets.arrays import IDX_UNSIGNED_BYTES, file_digest
from datasets.errors import InputError
from datasets.stores import store_folder

MOST_BYTES = 200 * 10**9
MOST_GROWTH = 200
"""Times the archive; images hardly shrink, and masks not by as much."""
SMALL_BYTES = 16 << 20
"""Up to which size nothing is a bomb."""
DISK_SHARE = 0.9
"""Of the free disk that an archive may fill."""
BLOCK_BYTES = 4096
"""What the smallest file takes: a million empty ones are a bomb as well."""
CHUNK_BYTES = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
"""How gzip, bzip2 and xz begin."""
_LONGEST_READ_BYTES = 64 << 20
"""tarfile reads long names at once, however long their header says they are."""


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: Literal["file", "folder", "link", "same file"]
    size: int
    open: Callable[[], IO[bytes]] | None = None
    target: str = ""
    """Where a link leads; for the same file again (a hard link) the name of the first."""


def unpacked(path: Path) -> Path:
    """The folder with the contents of a zip or tar archive, unpacked if it has not been yet.

    Raises `InputError` where it is no archive, is broken or encrypted, would write outside of its folder, or would grow
    to more than `MOST_BYTES`, `MOST_GROWTH` times its size or `DISK_SHARE` of the free disk; nothing is left then. Also
    where the store cannot be written: an archive has nowhere else to go.
    """
    archives = store_folder() / "archives"
    folder = archives / file_digest(path)[:16]
    try:
        if not _is_folder(folder):  # what is unpacked serves also where the store can only be read
            archives.mkdir(parents=True, exist_ok=True)
            # Not beside it, where what is old is cleared away.
            with FileLock(store_folder() / f"archive-{folder.name}.lock"):
                if not folder.is_dir():
                    unpack_whole(path, folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be unpacked into {archives}: {error.strerror or error}; set IMAGE_SEARCH_STORE to a "
            f"folder that can be written, or unpack it yourself and pass its folder"
        ) from None
    with contextlib.suppress(OSError):  # a store that others own
        os.utime(folder)  # the time of last use
    return folder


def _is_folder(path: Path) -> bool:
    """Not one where even that cannot be seen."""
    try:
        return path.is_dir()
    except OSError:
        return False


def unpack_whole(path: Path, folder: Path) -> None:
    """All of it into a new folder, or nothing; for who holds the lock. Raises as `unpacked` does."""
    for abandoned in folder.parent.glob(f"{folder.name}.*.part"):  # its writer held this lock and is dead
        shutil.rmtree(abandoned)
    part = folder.with_suffix(f".{os.getpid()}.part")
    try:
        _unpack(path, part)
        os.sync()  # a rename may reach the disk before what it names
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_archive(path: Path) -> bool:
    """Whether a file is one to be unpacked, by its first bytes: a zip, a tar, or whatever is compressed but an array.

    Arrays are read as they are: an `.npz`, which is a zip, and an idx or `.npy` file behind gzip.
    """
    if path.suffix.lower() == ".npz":
        return False
    try:
        with path.open("rb") as file:
            start = file.read(tarfile.BLOCKSIZE)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) or start[257:262] == b"ustar":
            return True
        if start.startswith(_COMPRESSED):
            with _decompressed(path) as stream:
                return not stream.read(6).startswith((IDX_UNSIGNED_BYTES, np.lib.format.MAGIC_PREFIX))
    except (EOFError, lzma.LZMAError, zlib.error):
        return True
    except OSError as error:
        if error.errno is None:  # broken, which `unpacked` tells
            return True
        raise InputError(f"{path}: {error.strerror}") from None
    return path.suffix.lower() in (".zip", ".tar")


def touch(path: Path) -> None:
    """Says that what was unpacked or fetched is in use, by one of its files, so that it is not cleared away; of files
    that lie elsewhere nothing."""
    for kept in ((store_folder() / name).absolute() for name in ("archives", "data")):
        if path.absolute().is_relative_to(kept) and path.absolute() != kept:
            with contextlib.suppress(OSError):  # it is gone, or others own it
                os.utime(kept / path.absolute().relative_to(kept).parts[0])


def _unpack(path: Path, folder: Path) -> None:
    folder.mkdir()
    room = _Room(path, shutil.disk_usage(folder).free)
    links: list[tuple[Path, str]] = []
    try:
        with _entries(path) as entries:
            for entry in entries:
                target = folder.joinpath(*_parts(path, entry.name))
                room.take(0)
                if entry.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if entry.kind == "link":
                    links.append((target, entry.target))
                elif entry.kind == "same file":
                    target.hardlink_to(folder.joinpath(*_parts(path, entry.target)))
                else:
                    room.check(entry.size)
                    _write(entry, target, room)
        for link, leads_to in links:
            link.symlink_to(leads_to)
        for link, leads_to in links:
            if not link.resolve().is_relative_to(folder.resolve()):
                raise InputError(
                    f"{path}: its link {link.relative_to(folder)} -> {leads_to} leads out of it: {_REFUSED}"
                )
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked: {error.strerror or error}") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise InputError(f"{path}: broken archive: {error}") from None
    except (NotImplementedError, RuntimeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}; unpack it yourself and pass its folder") from None


_REFUSED = "refused, nothing was unpacked; if you trust it, unpack it yourself and pass its folder"


def _write(entry: _Entry, target: Path, room: "_Room") -> None:
    assert entry.open is not None
    with entry.open() as source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            room.take(len(chunk))
            file.write(chunk)


class _Room:
    """How much an archive may still write."""

    def __init__(self, path: Path, free: int) -> None:
        self.path = path
        growth = max(MOST_GROWTH * path.stat().st_size, SMALL_BYTES)
        limits = {
            f"{MOST_GROWTH} times its own size": growth,
            f"{MOST_BYTES / 1e9:.0f} GB": MOST_BYTES,
            f"the {free / 1e9:.1f} GB that are free": int(DISK_SHARE * free),
        }
        self.limit = min(limits, key=limits.__getitem__)
        self.left = limits[self.limit]

    def check(self, size: int) -> None:
        if size > self.left:
            raise InputError(f"{self.path}: would take more than {self.limit}: {_REFUSED}")

    def take(self, size: int) -> None:
        """Of an entry (0), or of bytes in one."""
        self.check(size or BLOCK_BYTES)
        self.left -= size or BLOCK_BYTES


def _parts(path: Path, name: str) -> list[str]:
    """The folders and the name of an entry, or an `InputError` where they lead out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise InputError(f"{path}: its entry {name!r} leads out of it: {_REFUSED}")
    return parts


@contextlib.contextmanager
def _entries(path: Path) -> Iterator[Iterator[_Entry]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            yield _zip_entries(path, zipped)
    else:
        with _decompressed(path) as stream:
            counted = _ShortReads(stream)
            try:
                tar = tarfile.TarFile(fileobj=cast(IO[bytes], counted))
            except (tarfile.ReadError, EOFError, lzma.LZMAError, zlib.error, OSError):
                raise InputError(f"{path}: neither a zip nor a tar archive, or a broken one") from None
            yield _tar_entries(path, tar, counted)


def _zip_entries(path: Path, archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in archive.infolist():
        name, mode = info.filename.replace("\\", "/"), info.external_attr >> 16
        if info.flag_bits & 1:
            raise InputError(f"{path}: encrypted; unpack it yourself and pass its folder")
        if name.endswith("/"):
            yield _Entry(name, "folder", 0)
        elif stat.S_ISLNK(mode):
            with archive.open(info) as link:
                yield _Entry(name, "link", 0, target=os.fsdecode(link.read(BLOCK_BYTES)))
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise InputError(f"{path}: its entry {name!r} is a device: {_REFUSED}")
        else:

            def opened(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            yield _Entry(name, "file", info.file_size, opened)


def _tar_entries(path: Path, archive: tarfile.TarFile, stream: "_ShortReads") -> Iterator[_Entry]:
    while (info := archive.next()) is not None:
        cast(Any, archive).members = []  # else it keeps them all
        if info.isdir():
            yield _Entry(info.name, "folder", 0)
        elif info.issym():
            yield _Entry(info.name, "link", 0, target=info.linkname)
        elif info.islnk():
            yield _Entry(info.name, "same file", 0, target=info.linkname)
        elif not info.isreg():
            raise InputError(f"{path}: its entry {info.name!r} is a device: {_REFUSED}")
        else:

            def opened(info: tarfile.TarInfo = info) -> IO[bytes]:
                return cast(IO[bytes], archive.extractfile(info))

            yield _Entry(info.name, "file", info.size, opened)
    # tarfile takes whatever is no header for the end; the end is a block of zeros.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends too early")
    stream.read(CHUNK_BYTES)  # up to the checksum of the compression


def _decompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(6)
    for magic, opened in zip(_COMPRESSED, (gzip.open, bz2.open, lzma.open), strict=True):
        if start.startswith(magic):
            return cast(IO[bytes], cast(Any, opened)(path))
    return path.open("rb")


class _ShortReads:
    """A stream of which little can be asked for at once, and that remembers what it gave last."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _LONGEST_READ_BYTES:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        self.last = self._stream.read(count)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
