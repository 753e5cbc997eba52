"""Images that lie in a bucket or in an archive: fetched or unpacked once per node, into the store.

A data set read from such files carries its `Source`, by which every other node finds them for itself, wherever its
store is: `on_this_node`. What is fetched is named by a digest of the URL and of what the server lists there, so an
object that has changed since is another data set.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl
from filelock import FileLock

from datasets.archives import is_archive, touch, unpack_whole, unpacked
from datasets.dataset import ImageDataset, Source, content_digest
from datasets.errors import InputError
from datasets.folders import is_junk
from datasets.remote import RemoteFolder, is_url, without_secrets
from datasets.stores import NoRoomError, make_room, store_folder

Root = Path | RemoteFolder
"""What `--data` names: a folder or an archive, of this machine or by its URL."""
Progress = Callable[[int, int], None]
"""Called with the files that have come and all that there are."""
PATH_COLUMNS = ("path", "mask_path", "array_file", "batch_file")
"""Of a data set's table, with files below its folder."""
TOGETHER = 256
"""Files that are fetched before progress is told."""
_TELLING = ("ETag", "LastModified", "created", "etag", "generation", "md5Hash", "updated")
"""Under which names the file systems of fsspec tell what changes with a file."""


def root_of(given: str | Path | RemoteFolder) -> Root:
    """A URL as one (`pathlib` would make one slash of two), anything else as a path."""
    if isinstance(given, RemoteFolder | Path):
        return given
    return RemoteFolder(given) if is_url(given) else Path(given)


def recorded(root: Root) -> str:
    """By what the same place is found again, from any folder, without what is secret."""
    return str(root.absolute()) if isinstance(root, Path) else without_secrets(root.url)


def source_of(root: Root, progress: Progress | None = None) -> Source | None:
    """The images of a URL, which are fetched, or of an archive, which is unpacked; None of a folder, or of a file that
    is read as it is. Raises `InputError` where there is nothing, or no room for it."""
    if isinstance(root, RemoteFolder):
        return _fetched(root, progress)
    if not root.exists():
        raise InputError(f"--data {root}: no such file or folder")
    return _source(root, unpacked(root)) if root.is_file() and is_archive(root) else None


def on_this_node(dataset: ImageDataset) -> ImageDataset:
    """The same data set with the paths of this node, where its files are fetched or unpacked if they have not been yet.
    Raises `InputError` where that cannot be, or where there is something else now."""
    source = dataset.source
    if source is None:
        return dataset
    here = store_folder().absolute() / source.place
    if here.exists():
        touch(here)
    elif (found := source_of(source.root)) is None or found.place != source.place:
        raise InputError(
            f"--data {source.root}: has changed since the search began; search again, under another --name"
        )
    if here == source.folder:
        return dataset
    before = str(source.folder)

    def moved(column: str) -> pl.Expr:
        below = pl.col(column).str.starts_with(before)
        return pl.when(below).then(pl.lit(str(here)) + pl.col(column).str.slice(len(before))).otherwise(pl.col(column))

    columns = {name: moved(name) for name in PATH_COLUMNS if name in dataset.table.columns}
    return dataclasses.replace(
        dataset, table=dataset.table.with_columns(**columns), source=dataclasses.replace(source, folder=here)
    )


def _source(root: Root, folder: Path) -> Source:
    folder = folder.absolute()
    root = root.absolute() if isinstance(root, Path) else root  # other processes have other working folders
    return Source(root, folder.relative_to(store_folder().absolute()).as_posix(), folder)


@dataclass(frozen=True)
class _Listing:
    remote: RemoteFolder
    """The folder that all of it lies in."""
    files: dict[str, int]
    """Path below that folder to bytes."""
    alone: bool
    """Whether the URL names a file, and no folder."""
    digest: str


def _listing(remote: RemoteFolder) -> _Listing:
    if not remote.exists():
        raise InputError(f"--data {remote}: nothing is there; check the name of the bucket and of the folder in it")
    itself = remote.filesystem.get_file_info(remote.path)
    if itself.is_file:
        path, question, options = remote.url.partition("?")
        above, _, name = path.rpartition("/")
        told = [f"{itself.size} {itself.mtime_ns}", *_further_told(remote)]
        digest = content_digest([remote.url, *told])
        return _Listing(RemoteFolder(f"{above}{question}{options}"), {name: itself.size}, True, digest)
    found = remote.listed()
    for name in found:  # an object may be called anything, also what leads out of a folder
        odd = {"", ".", ".."} & set(name.split("/")) or "\0" in name
        if odd or any(str(above) in found for above in PurePosixPath(name).parents):
            raise InputError(f"--data {remote}: the object {name!r} cannot be a file of a folder; rename or remove it")
    read = {name: file for name, file in sorted(found.items()) if not any(map(is_junk, name.split("/")))}
    if not read:
        raise InputError(f"--data {remote}: there are no files in it")
    told = [f"{name} {file.size_bytes} {file.changed_ns}" for name, file in read.items()]
    sizes = {name: file.size_bytes for name, file in read.items()}
    return _Listing(remote, sizes, False, content_digest([remote.url, *told, *_further_told(remote)]))


def _further_told(remote: RemoteFolder) -> list[str]:
    """What the file systems of fsspec tell beyond a time, which not all of them do under the same name."""
    handler = getattr(remote.filesystem, "handler", None)
    found = {} if handler is None else handler.fs.find(remote.path, detail=True)
    return [
        " ".join([name, *(str(info[telling]) for telling in _TELLING if telling in info)])
        for name, info in sorted(found.items())
    ]


def _fetched(remote: RemoteFolder, progress: Progress | None) -> Source:
    listing = _listing(remote)
    folder = store_folder() / "data" / listing.digest
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Not beside it, where what is old is cleared away.
            with FileLock(store_folder() / f"data-{listing.digest}.lock"):
                if not folder.is_dir():
                    _fetch_whole(listing, folder, progress)
    except NoRoomError as reason:
        raise InputError(
            f"--data {remote}: no room for it in {store_folder()}: {reason}; raise IMAGE_SEARCH_STORE_GB, or set "
            f"IMAGE_SEARCH_STORE to a folder of a larger disk"
        ) from None
    except OSError as error:
        raise InputError(
            f"--data {remote}: cannot be fetched into {store_folder()}: {error.strerror or error}; set "
            f"IMAGE_SEARCH_STORE to a folder that can be written"
        ) from None
    touch(folder)
    # A file that is read as it is (.npz) lies in a folder of its own.
    only = folder / next(iter(listing.files)) if listing.alone else folder
    return _source(remote, only if only.is_file() else folder)


def _fetch_whole(listing: _Listing, folder: Path, progress: Progress | None) -> None:
    """All of it or nothing, for who holds the lock; what came before an interruption is kept and not fetched again."""
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(exist_ok=True)
    os.utime(part)  # in use, and not to be cleared away, however old what came before is
    missing = _missing(listing, listing.files, part)
    make_room(sum(listing.files[name] for name in missing))
    done = len(listing.files) - len(missing)
    for start in range(0, len(missing), TOGETHER):
        some = missing[start : start + TOGETHER]
        try:
            listing.remote.fetch(some, part)
        except FileNotFoundError:
            raise InputError(f"--data {listing.remote}: files went while they were fetched; call again") from None
        os.utime(part)
        _check_whole(listing, some, part)
        done += len(some)
        if progress is not None:
            progress(done, len(listing.files))
    _check_whole(listing, listing.files, part)
    alone = part / next(iter(listing.files)) if listing.alone else None
    if alone is not None and is_archive(alone):
        try:
            unpack_whole(alone, folder)
        except InputError as error:  # names what the user gave, and not where in the store that lies
            raise InputError(str(error).replace(str(alone), f"{listing.remote}/{alone.name}")) from None
        shutil.rmtree(part, ignore_errors=True)
        return
    os.sync()  # a rename may reach the disk before what it names
    part.rename(folder)


def _missing(listing: _Listing, names: Iterable[str], part: Path) -> list[str]:
    """Files that have not come, or not whole."""
    return [name for name in names if _bytes(part / name) != listing.files[name]]


def _check_whole(listing: _Listing, names: Iterable[str], part: Path) -> None:
    if missing := _missing(listing, names, part):
        raise InputError(f"--data {listing.remote}: {missing[0]} has changed while it was fetched; call again")


def _bytes(file: Path) -> int | None:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return None
