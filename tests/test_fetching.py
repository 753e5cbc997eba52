"""Images in a bucket or an archive: fetched once per node, found by every node in its own store."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import datasets
from datasets import InputError, Request
from datasets.fetching import on_this_node, recorded, root_of, source_of
from datasets.remote import RemoteFolder
from search.records import request_record
from search.reopened import requested
from tests.s3_server import bucket  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Six small images of two classes."""
    for number in range(6):
        file = tmp_path / "films" / ("benign", "malignant")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(file)
    return tmp_path / "films"


def url_of(folder: Path) -> RemoteFolder:
    return RemoteFolder(folder.as_uri())


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were fetched."""
    fetched: list[str] = []
    fetch = RemoteFolder.fetch

    def counted(self, names, folder):
        fetched.extend(names)
        fetch(self, names, folder)

    monkeypatch.setattr(RemoteFolder, "fetch", counted)
    return fetched


def test_images_of_a_bucket_are_those_of_the_folder(bucket, films, empty_store):  # noqa: F811
    remote = RemoteFolder(bucket.url("data/films"))
    remote.send([str(file.relative_to(films)) for file in films.rglob("*.png")], films)
    fetched = datasets.load_all("images", Request(root=remote))
    assert fetched.digest == datasets.load_all("images", Request(root=films)).digest
    assert fetched.decode(5).tolist() == np.full((8, 8, 3), 200).tolist()
    assert all(Path(path).is_relative_to(empty_store / "data") for path in fetched.table["path"])
    assert fetched.origin == str(remote)
    assert "?" not in fetched.origin


def test_what_has_been_fetched_is_not_fetched_again(films, empty_store, fetches):
    remote = url_of(films)
    first = source_of(remote)
    assert len(fetches) == 6
    assert source_of(remote) == first
    assert len(fetches) == 6


def test_a_changed_object_is_another_data_set(films, empty_store):
    first = datasets.load_all("images", Request(root=url_of(films)))
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(films / "benign" / "0.png")
    second = datasets.load_all("images", Request(root=url_of(films)))
    assert second.source.place != first.source.place
    assert second.digest != first.digest
    shutil.rmtree(empty_store)
    with pytest.raises(InputError, match="has changed since the search began"):
        on_this_node(first)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("remote", [False, True])
def test_another_node_finds_the_files_in_its_own_store(films, empty_store, monkeypatch, tmp_path, archived, remote):
    root = films
    if archived:
        root = tmp_path / "films.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for file in films.rglob("*.png"):
                archive.write(file, file.relative_to(tmp_path))
    of_driver = datasets.load_all("images", Request(root=url_of(root) if remote else root))
    pixels = [of_driver.decode(row) for row in range(len(of_driver))]
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "of another node"))
    here = on_this_node(of_driver)
    assert (here is of_driver) == (not archived and not remote), "a folder is where it is"
    if empty_store.exists():
        empty_store.rename(tmp_path / "gone")
    assert [here.decode(row).tolist() for row in range(len(here))] == [image.tolist() for image in pixels]
    assert here.digest == of_driver.digest
    assert on_this_node(here) is here


def test_masks_and_arrays_move_as_well(films, empty_store, monkeypatch, tmp_path):
    dataset = datasets.load_all("images", Request(root=url_of(films)))
    columns = {name: pl.col("path") for name in ("mask_path", "array_file", "batch_file")}
    dataset = dataclasses.replace(dataset, table=dataset.table.with_columns(**columns))
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "of another node"))
    table = on_this_node(dataset).table
    for name in ("path", *columns):
        assert all(Path(path).is_relative_to(tmp_path / "of another node") for path in table[name])


def test_a_single_file_that_is_no_archive_is_read_as_it_is(tmp_path, empty_store):
    np.savez(tmp_path / "mnist.npz", x=np.arange(4))
    source = source_of(url_of(tmp_path / "mnist.npz"))
    assert source.folder.name == "mnist.npz"
    assert source.folder.read_bytes() == (tmp_path / "mnist.npz").read_bytes()


FETCH = """
import sys
from datasets.fetching import source_of
from datasets.remote import RemoteFolder
fetch = RemoteFolder.fetch
def slow(self, names, folder):
    fetch(self, names[:4], folder)
    print("four", flush=True)
    sys.stdin.read()
RemoteFolder.fetch = slow
source_of(RemoteFolder(sys.argv[1]))
"""


def test_a_killed_download_goes_on_where_it_was(films, empty_store, fetches):
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, films.as_uri()], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as fetching:
        assert fetching.stdout.readline() == b"four\n"
        fetching.send_signal(signal.SIGKILL)
    assert not [path for path in (empty_store / "data").iterdir() if path.suffix != ".part"]
    assert len(datasets.load_all("images", Request(root=url_of(films)))) == 6
    assert len(fetches) == 2


def test_an_old_part_of_a_download_does_not_go_to_make_room_for_the_rest(films, empty_store, monkeypatch, fetches):
    remote = url_of(films)
    fetch = RemoteFolder.fetch
    with monkeypatch.context() as patched:
        patched.setattr(RemoteFolder, "fetch", lambda self, names, folder: fetch(self, names[:4], folder))
        with pytest.raises(InputError, match="has changed while it was fetched"):
            source_of(remote)
    (part,) = (empty_store / "data").iterdir()
    os.utime(part, (0, 0))
    needed = sum(file.stat().st_size for file in films.rglob("*.png"))
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", str(1.1 * needed / 1e9))
    other = empty_store / "archives" / "large"
    other.mkdir(parents=True)
    (other / "film.png").write_bytes(bytes(needed // 2))
    os.utime(other, (1, 1))
    assert len(datasets.load_all("images", Request(root=remote))) == 6
    assert len(fetches) == 6, "four and two"
    assert not other.exists()


def test_what_goes_while_the_rest_is_fetched_does_not_count_as_there(films, empty_store, monkeypatch):
    fetch = RemoteFolder.fetch

    def and_clear(self, names, folder):
        fetch(self, names, folder)
        for file in folder.rglob("*.png"):
            if file.relative_to(folder).as_posix() not in names:
                file.unlink()

    monkeypatch.setattr("datasets.fetching.TOGETHER", 3)
    monkeypatch.setattr(RemoteFolder, "fetch", and_clear)
    with pytest.raises(InputError, match="call again"):
        source_of(url_of(films))
    monkeypatch.setattr(RemoteFolder, "fetch", fetch)
    assert len(list(source_of(url_of(films)).folder.rglob("*.png"))) == 6


def test_a_full_disk_of_this_machine_is_not_blamed_on_the_server(films, empty_store, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"cannot be fetched into .*: No space left on device; set IMAGE_SEARCH_STORE"):
        source_of(url_of(films))


def test_data_without_room_is_refused_and_leaves_nothing(films, empty_store, monkeypatch):
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.0000001")
    with pytest.raises(InputError, match=r"--data file://.*no room for it .* exceed the budget .* raise IMAGE_SEARCH"):
        source_of(url_of(films))
    assert not list((empty_store / "data").rglob("*.png"))


def test_data_that_nobody_has_used_for_a_day_makes_room(films, empty_store, monkeypatch):
    first = source_of(url_of(films))
    needed = sum(file.stat().st_size for file in films.rglob("*.png"))
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", str(1.5 * needed / 1e9))
    other = films.with_name("others")
    shutil.copytree(films, other)
    with pytest.raises(InputError, match="in use"):
        source_of(url_of(other))
    os.utime(first.folder, (0, 0))
    assert source_of(url_of(other)).folder.is_dir()
    assert not first.folder.exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///no/such/folder", "--data file:///no/such/folder: nothing is there"),
        ("nosuch://bucket/x", "nosuch://bucket/x: cannot be opened"),
    ],
)
def test_a_url_with_nothing_behind_it_is_told_in_one_line(url, says, empty_store):
    with pytest.raises(InputError, match=says) as told:
        source_of(RemoteFolder(url))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["benign/../../evil.png", "a//b.png"])
def test_objects_that_lead_out_of_the_folder_are_refused(name, films, empty_store, monkeypatch):
    listed = RemoteFolder.listed
    monkeypatch.setattr(RemoteFolder, "listed", lambda self: dict.fromkeys([name], next(iter(listed(self).values()))))
    with pytest.raises(InputError, match="cannot be a file of a folder"):
        source_of(url_of(films))
    assert not list(empty_store.parent.rglob("evil.png"))


def test_the_record_names_the_place_and_no_secret(films):
    url = "s3://KEY:SECRET@bucket/films?region=eu-north-1&account_key=SECRET"
    told = request_record(Request(root=root_of(url)))
    assert told["root"] == "s3://bucket/films?region=eu-north-1"
    assert "SECRET" not in json.dumps(told)
    again = requested(told, Path("results/x"))
    assert again.root == RemoteFolder("s3://bucket/films?region=eu-north-1")
    assert recorded(again.root) == told["root"]


def test_a_table_may_lie_among_the_images_of_a_url(films, empty_store):
    (films / "labels.csv").write_text("image,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(6)))
    asked = Request(root=url_of(films), table=Path("labels.csv"))
    dataset = datasets.load_all("images", asked)
    assert dataset.counts == {"a": 3, "b": 3}
    again = requested(request_record(asked), Path("results/x"))
    assert datasets.load_all("images", again).digest == dataset.digest
