"""Folders that are not files of this machine: a bucket (`s3://…`, `gs://…`), or whatever else pyarrow or fsspec opens.

A bucket has no folders and no renaming: a file is there as a whole or not at all, and its name is all of its path.
"""

import functools
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import InputError

AT_A_TIME = 16
"""Files that are on their way together: each waits for the network most of its time."""


def is_url(text: str) -> bool:
    """Whether a text names a remote folder and not a path; `ray://` and databases are the caller's to know."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """A folder by its URL; opened when it is first used, in every process by itself, so that it can be pickled."""

    url: str

    def __str__(self) -> str:
        """Without what may be secret: a user, a password, options."""
        return re.sub(r"//[^/]*@", "//", self.url.partition("?")[0])

    def below(self, name: str) -> "RemoteFolder":
        """A folder of this folder."""
        path, question, options = self.url.partition("?")
        return RemoteFolder(f"{path.rstrip('/')}/{name}{question}{options}")

    @property
    def filesystem(self) -> Any:
        """A `pyarrow.fs.FileSystem`, as Ray takes it. Raises `InputError` where nothing opens such a URL."""
        return _opened(self.url)[0]

    @property
    def path(self) -> str:
        """Within `filesystem`, without a slash at its end."""
        return _opened(self.url)[1].rstrip("/")

    def files(self) -> dict[str, int]:
        """Path below this folder, with forward slashes, to bytes, of every file; {} where there is nothing."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = self._said(lambda: self.filesystem.get_file_info(selector))
        return {entry.path[len(self.path) + 1 :]: entry.size for entry in found if entry.type == fs.FileType.File}

    def read(self, name: str) -> bytes:
        """Raises `FileNotFoundError`."""

        def read() -> bytes:
            with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
                return bytes(stream.read())

        return self._said(read)

    def write(self, name: str, content: bytes) -> None:
        """The whole file; where a folder is one of files, its folder is made."""

        def write() -> None:
            path = f"{self.path}/{name}"
            if self._has_folders:
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(content)

        self._said(write)

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Files to the same paths below a folder of this machine, each of them whole or not at all."""

        def fetch(name: str) -> None:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.part")
            with (
                self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream,
                part.open("wb") as written,
            ):
                while block := stream.read(2**22):
                    written.write(block)
            part.replace(file)

        self._all(fetch, names)

    def send(self, names: Iterable[str], folder: Path) -> None:
        """Files below a folder of this machine to the same paths."""
        self._all(lambda name: self.write(name, (folder / name).read_bytes()), names)

    def remove(self, names: Iterable[str]) -> None:
        """Files; none that is not there is missed."""

        def remove(name: str) -> None:
            try:
                self.filesystem.delete_file(f"{self.path}/{name}")
            except FileNotFoundError:
                return

        self._all(remove, names)

    @property
    def _has_folders(self) -> bool:
        return self.filesystem.type_name in ("local", "hdfs") or self.filesystem.type_name.startswith("py::")

    def _all(self, do: Any, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for _ in self._said(lambda: list(threads.map(do, names))):
                pass

    def _said(self, do: Any) -> Any:
        """What `do` returns. Raises `InputError`, in one line, where a server refuses or does not answer."""
        try:
            return do()
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"{self}: {reason}; check the URL, the network and the credentials") from error


@functools.cache
def _opened(url: str) -> tuple[Any, str]:
    """pyarrow's own file systems first, then those of fsspec."""
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(url)
    except (ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
    try:
        import fsspec  # comes with torch

        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError, TypeError) as error:
        scheme = url.partition("://")[0]
        known = ("s3", "gs", "hdfs", "file")
        why = reason if scheme in known else str(error).strip().partition("\n")[0]
        raise InputError(
            f"{RemoteFolder(url)}: cannot be opened ({why}); use {', '.join(f'{name}://' for name in known)} or what "
            f"an installed fsspec package opens"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
