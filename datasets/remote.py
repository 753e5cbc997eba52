"""Folders that are not files of this machine: a bucket (`s3://…`, `gs://…`), or whatever else pyarrow or fsspec opens.

A bucket has no folders and no renaming: a file is there as a whole or not at all, and its name is all of its path.
"""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.errors import InputError

AT_A_TIME = 16
"""Files that are on their way together: each waits for the network most of its time."""

PATIENCE_S = 600.0
"""How long a trial waits for a server that does not answer, before what it has trained is lost."""

BLOCK_BYTES = 2**22
"""Of a file that is on its way: it need not fit into memory."""

GIVE_UP_S = 30
"""After which pyarrow tells that Google's server does not answer, in place of 15 minutes: whoever asks tries again."""

HARMLESS = ("region", "endpoint_override", "scheme", "force_virtual_addressing", "tls_ca_file_path", "project_id")
"""Options of a URL that say where a server is; any other may be a secret, and is written nowhere."""


def is_url(text: str) -> bool:
    """Whether a text names a remote folder and not a path; `ray://` and databases are the caller's to know."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


class NoAnswerError(InputError):
    """A server refuses, or cannot be reached: it may be otherwise later."""


def without_secrets(url: str) -> str:
    """A URL that names the same folder to whoever has credentials of their own: without user, password and options that
    may be secret. What is no URL stays as it is."""
    if not is_url(url):
        return url
    place, _, options = url.partition("?")
    kept = "&".join(option for option in options.split("&") if option.partition("=")[0] in HARMLESS)
    return re.sub(r"//[^/]*@", "//", place) + (f"?{kept}" if kept else "")


@dataclass(frozen=True)
class Listed:
    """A file of a remote folder, as its server lists it."""

    size_bytes: int
    changed_ns: int | None
    """When, by the server's clock, in nanoseconds since 1970; None where it does not say."""


@dataclass(frozen=True, repr=False)
class RemoteFolder:
    """A folder by its URL; opened when it is first used, in every process by itself, so that it can be pickled."""

    url: str

    def __str__(self) -> str:
        """Without what may be secret, and without all other options: what people read."""
        return without_secrets(self.url).partition("?")[0]

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self)!r})"

    def below(self, name: str) -> "RemoteFolder":
        """A folder of this folder."""
        path, question, options = self.url.partition("?")
        return RemoteFolder(f"{path.rstrip('/')}/{name}{question}{options}")

    @property
    def above(self) -> "RemoteFolder":
        """The folder that this one is in."""
        path, question, options = self.url.partition("?")
        return RemoteFolder(f"{path.rstrip('/').rpartition('/')[0]}{question}{options}")

    @property
    def name(self) -> str:
        return self.url.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def filesystem(self) -> Any:
        """A `pyarrow.fs.FileSystem`, as Ray takes it. Raises `InputError` where nothing opens such a URL."""
        return _opened(self.url)[0]

    @property
    def path(self) -> str:
        """Within `filesystem`, without a slash at its end."""
        return _opened(self.url)[1].rstrip("/")

    def files(self, within: str = "") -> dict[str, int]:
        """As `listed`, to bytes."""
        return {name: file.size_bytes for name, file in self.listed(within).items()}

    def listed(self, within: str = "") -> dict[str, Listed]:
        """Every file, or those within one of its folders, by its path below this one, with forward slashes; {} where
        there is nothing."""
        from pyarrow import fs

        selector = fs.FileSelector(f"{self.path}/{within}".rstrip("/"), allow_not_found=True, recursive=True)
        found = self._said(lambda: self.filesystem.get_file_info(selector))
        # fsspec gives paths with a slash before them for some file systems, and takes them without.
        start = len(self.path.strip("/")) + 1
        return {
            entry.path.lstrip("/")[start:]: Listed(entry.size, entry.mtime_ns or None)
            for entry in found
            if entry.type == fs.FileType.File
        }

    def changed_ns(self, name: str) -> int | None:
        """When a file was written, by the server's clock, in nanoseconds since 1970; None where it is not there, or
        where that is not known."""
        info = self._said(lambda: self.filesystem.get_file_info(f"{self.path}/{name}"))
        return info.mtime_ns or None

    def exists(self) -> bool:
        """Whether there is a file or a folder with files. Raises `InputError` where that cannot be told."""
        from pyarrow import fs

        return self._said(lambda: self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """Raises `FileNotFoundError`."""

        def read() -> bytes:
            with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
                return bytes(stream.read())

        return self._said(read)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Files by their paths, side by side. Raises `FileNotFoundError`."""
        content: dict[str, bytes] = {}
        self._all(lambda name: content.update({name: self.read(name)}), names)
        return content

    def write(self, name: str, content: bytes) -> None:
        """The whole file; where a folder is one of files, its folder is made."""
        self._write(name, [content])

    def _write(self, name: str, blocks: Iterable[bytes]) -> None:
        def write() -> None:
            path = f"{self.path}/{name}"
            if self._has_folders:
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            written = f"{path}.part" if self.filesystem.type_name == "local" else path  # others show whole files only
            with self.filesystem.open_output_stream(written, compression=None) as stream:
                for block in blocks:
                    stream.write(block)
            if written != path:
                self.filesystem.move(written, path)

        self._said(write)

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Files to the same paths below a folder of this machine, each of them whole or not at all. Raises `InputError`
        for a name that leads out of it, as a bucket takes any, and `OSError` where this machine's disk refuses."""

        def fetch(name: str) -> None:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise InputError(f"{self}: a file there is named {name!r}, which would lead out of {folder}")
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.part")
            path = f"{self.path}/{name}"
            with (
                self._said(lambda: self.filesystem.open_input_stream(path, compression=None)) as stream,
                part.open("wb") as written,
            ):
                while block := self._said(lambda: stream.read(BLOCK_BYTES)):
                    written.write(block)
            part.replace(file)

        self._all(fetch, names)

    def send(self, names: Iterable[str], folder: Path) -> None:
        """Files below a folder of this machine to the same paths, a block of each in memory at a time."""

        def send(name: str) -> None:
            with (folder / name).open("rb") as file:  # before anything is written there
                self._write(name, iter(lambda: file.read(BLOCK_BYTES), b""))

        self._all(send, names)

    def remove(self, names: Iterable[str]) -> None:
        """Files; none that is not there is missed."""

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._said(lambda: self.filesystem.delete_file(f"{self.path}/{name}"))

        self._all(remove, names)

    @property
    def _has_folders(self) -> bool:
        return self.filesystem.type_name in ("local", "hdfs") or self.filesystem.type_name.startswith("py::")

    def _all(self, do: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for _ in threads.map(do, names):
                pass

    def _said(self, do: Callable[[], Any]) -> Any:
        """What `do` returns. Raises `NoAnswerError`, in one line, where a server refuses or does not answer."""
        try:
            return do()
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:
            # Packages for fsspec have errors of their own, as azure.core.exceptions and aiohttp.ClientError.
            if not (isinstance(error, OSError) or self.filesystem.type_name.startswith("py::")):
                raise
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            reason = re.sub(r" \(Request ID: [^)]*\)", "", told)
            raise NoAnswerError(f"{self}: {reason}; check the URL, the network and the credentials") from error


def patiently(do: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Again and again while a server does not answer, from every second to twice a minute; then its `NoAnswerError`."""
    until, pause_s = time.monotonic() + seconds, 1.0
    while True:
        try:
            do()
            return
        except NoAnswerError:
            if time.monotonic() + pause_s > until:
                raise
        time.sleep(pause_s)
        pause_s = min(30.0, 2 * pause_s)


def _with_options(url: str) -> str:
    """As pyarrow is asked for it."""
    scheme, _, rest = url.partition("://")
    option = None
    if scheme == "s3":
        option = "allow_delayed_open=true"  # a small file is one request and not three
    elif scheme in ("gs", "gcs") and "retry_limit_seconds=" not in rest:
        option = f"retry_limit_seconds={GIVE_UP_S}"
    return url if option is None else f"{url}{'&' if '?' in url else '?'}{option}"


@functools.cache
def _opened(url: str) -> tuple[Any, str]:
    """pyarrow's own file systems first, then those of fsspec."""
    from pyarrow import fs

    asked = _with_options(url)

    def reason_of(error: Exception) -> str:
        """Whoever refuses a URL may repeat it, with its secrets."""
        shown = str(RemoteFolder(url))
        return str(error).strip().partition("\n")[0].replace(asked, shown).replace(url, shown)

    try:
        return fs.FileSystem.from_uri(asked)
    except (ValueError, OSError) as error:
        reason = reason_of(error)
    try:
        import fsspec  # type: ignore[import-untyped]  # comes with torch

        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError, TypeError) as error:
        scheme = url.partition("://")[0]
        known = ("s3", "gs", "hdfs", "file")
        why = reason if scheme in known else reason_of(error)
        raise InputError(
            f"{RemoteFolder(url)}: cannot be opened ({why}); use {', '.join(f'{name}://' for name in known)} or what "
            f"an installed fsspec package opens"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
