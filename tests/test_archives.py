"""Archives unpack once, inside the store, and those that want to write elsewhere or without end are refused."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets
from datasets import InputError, archives
from datasets.archives import is_archive, touch, unpacked
from datasets.stores import store_folder


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


FILES = {"films/NORMAL/1.png": b"one", "films/COVID/2.png": b"two" * 1000, "films/empty.png": b""}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in others:
            archive.addfile(info)
    return path


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def nothing_is_left(tmp_path: Path) -> bool:
    return not [path for path in store_folder().rglob("*") if path.suffix != ".lock" and path.name != "archives"] and {
        path.name for path in tmp_path.iterdir()
    } <= {"store", "x.zip", "x.tar", "x.tar.gz"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_every_form_unpacks_into_the_store_once(tmp_path: Path, own_store: Path, name: str) -> None:
    path = (zipped if name == "x.zip" else tarred)(tmp_path / name, FILES)
    folder = unpacked(path)
    assert folder.is_relative_to(own_store / "archives")
    assert {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")} == FILES
    (folder / "films/empty.png").write_bytes(b"as it was left")
    assert unpacked(path) == folder
    assert (folder / "films/empty.png").read_bytes() == b"as it was left"
    assert sorted(file.name for file in (own_store / "archives").iterdir()) == [folder.name]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_an_archive_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    path = (zipped if name == "x.zip" else tarred)(tmp_path / name, FILES)
    assert is_archive(path)
    assert is_archive(path.rename(tmp_path / "download"))


def test_arrays_and_other_files_are_no_archives_and_broken_archives_are(tmp_path: Path) -> None:
    idx = b"\0\0\x08\x01\0\0\0\x01\x07"
    with io.BytesIO() as npy:
        np.save(npy, np.arange(3))
        files = {"a-idx1-ubyte": idx, "b.gz": gzip.compress(idx), "c.npy": npy.getvalue(), "d.bz2": bz2.compress(idx)}
        files |= {"e.npy.xz": lzma.compress(npy.getvalue()), "f.png": b"\x89PNG", "g": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert not is_archive(tmp_path / name), name
    np.savez(tmp_path / "cells.npz", images=np.arange(3))
    assert not is_archive(tmp_path / "cells.npz")
    for name, data in {
        "a.tar": b"text",
        "b.zip": b"",
        "c.tar.gz": b"\x1f\x8b",
        "d.tar.xz": lzma.compress(b"x")[:9],
    }.items():
        (tmp_path / name).write_bytes(data)
        assert is_archive(tmp_path / name), name
    with pytest.raises(InputError, match="No such file"):
        is_archive(tmp_path / "gone.zip")


def test_an_archive_whose_files_are_in_use_is_as_good_as_new(tmp_path: Path) -> None:
    folder = unpacked(zipped(tmp_path / "x.zip", FILES))
    os.utime(folder, (1, 1))
    touch(tmp_path / "x.zip")
    touch(folder.parent / "gone/x.png")
    assert folder.stat().st_mtime == 1
    touch(folder / "films/NORMAL/1.png")
    assert folder.stat().st_mtime > 1e9


def test_another_archive_of_the_same_name_is_another_folder(tmp_path: Path) -> None:
    first = unpacked(zipped(tmp_path / "x.zip", FILES))
    second = unpacked(zipped(tmp_path / "x.zip", {"other.png": b"1"}))
    assert first != second
    assert [file.name for file in second.rglob("*")] == ["other.png"]


def test_what_a_dead_process_left_is_cleared_away(tmp_path: Path, own_store: Path) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    name = unpacked(path).name
    (own_store / "archives" / name).rename(own_store / "archives" / f"{name}.99999.part")
    unpacked(path)
    assert not list((own_store / "archives").glob("*.part"))


def test_names_that_windows_wrote_are_folders(tmp_path: Path) -> None:
    folder = unpacked(zipped(tmp_path / "x.zip", {"COVID\\1.png": b"1", "./NORMAL//2.png": b"2"}))
    assert (folder / "COVID/1.png").read_bytes() == b"1"
    assert (folder / "NORMAL/2.png").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/tmp/evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("form", ["x.zip", "x.tar"])
def test_names_that_lead_out_are_refused(tmp_path: Path, form: str, name: str) -> None:
    if form == "x.tar" and "\\" in name and not name.startswith("C:"):
        pytest.skip("a backslash is a letter in a tar archive")
    path = (zipped if form == "x.zip" else tarred)(tmp_path / form, {"good.png": b"1", name: b"evil"})
    with pytest.raises(InputError, match="leads out of it: refused") as error:
        unpacked(path)
    assert "\n" not in str(error.value)
    assert nothing_is_left(tmp_path)


def test_links_that_lead_out_are_refused_and_nothing_is_written_through_one(tmp_path: Path) -> None:
    outside = tmp_path / "store" / "outside"
    chained = (entry("a", tarfile.SYMTYPE, "b"), entry("b", tarfile.SYMTYPE, ".."))
    through = (entry("way", tarfile.SYMTYPE, str(outside)), entry("way/x.png", tarfile.REGTYPE))
    again = (entry("same.png", tarfile.LNKTYPE, "../../outside"),)
    for links in (chained, through, again, (entry("up", tarfile.SYMTYPE, "../../x"),)):
        with pytest.raises(InputError, match=r"leads out of it|cannot be unpacked"):
            unpacked(tarred(tmp_path / "x.tar", {}, *links))
        assert nothing_is_left(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(InputError, match=r"its link link\.png -> /etc/hostname leads out"):
        unpacked(tmp_path / "x.zip")


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    links = (entry("COVID/b.png", tarfile.SYMTYPE, "../NORMAL/a.png"), entry("c.png", tarfile.LNKTYPE, "NORMAL/a.png"))
    folder = unpacked(tarred(tmp_path / "x.tar", {"NORMAL/a.png": b"film"}, *links))
    assert (folder / "COVID/b.png").read_bytes() == (folder / "c.png").read_bytes() == b"film"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match="'pipe' is a device: refused"):
        unpacked(tarred(tmp_path / "x.tar", {"a.png": b"1"}, entry("pipe", kind)))
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("form", ["x.zip", "x.tar.gz"])
def test_bomb_is_refused_by_its_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    path = (zipped if form == "x.zip" else tarred)(tmp_path / form, {"bomb.bmp": bytes(4 << 20)})
    with pytest.raises(InputError, match="would take more than 200 times its own size: refused"):
        unpacked(path)
    assert nothing_is_left(tmp_path)


def test_bomb_that_lies_about_its_size_is_refused_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip entry that says 1 byte: zipfile stops there, and its checksum does not fit."""
    path = zipped(tmp_path / "x.zip", {"bomb.bmp": bytes(4 << 20)})
    data = path.read_bytes()
    path.write_bytes(data.replace((4 << 20).to_bytes(4, "little"), (1).to_bytes(4, "little")))
    with pytest.raises(InputError, match="broken archive"):
        unpacked(path)
    assert nothing_is_left(tmp_path)


def test_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 5000
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free})())
    with pytest.raises(InputError, match=r"more than the 0\.0 GB that are free"):
        unpacked(zipped(tmp_path / "x.zip", {"a.png": os.urandom(3000)}))
    assert nothing_is_left(tmp_path)


def test_many_empty_files_are_a_bomb_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1000)
    monkeypatch.setattr(archives, "MOST_GROWTH", 5)
    with pytest.raises(InputError, match="would take more than"):
        unpacked(tarred(tmp_path / "x.tar.gz", {f"{i}.png": b"" for i in range(500)}))


def test_header_that_asks_for_all_memory_is_refused(tmp_path: Path) -> None:
    long_name = tarfile.TarInfo("x")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "x.tar").write_bytes(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=r"x\.tar"):
        unpacked(tmp_path / "x.tar")


@pytest.mark.parametrize("kept", [0, 10, 200, -30])
@pytest.mark.parametrize("form", ["x.zip", "x.tar.gz"])
def test_broken_archive_is_one_clear_line(tmp_path: Path, form: str, kept: int) -> None:
    path = (zipped if form == "x.zip" else tarred)(tmp_path / form, {"a.png": os.urandom(3000)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"broken|cannot be unpacked") as error:
        unpacked(path)
    assert "\n" not in str(error.value)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("blocks", [2, 3])
def test_tar_that_ends_between_two_files_or_in_a_header_is_broken(tmp_path: Path, blocks: int) -> None:
    path = tarred(tmp_path / "x.tar", {"a.png": b"1", "b.png": b"2"})
    path.write_bytes(path.read_bytes()[: blocks * 512 + 7 * (blocks - 2)])
    with pytest.raises(InputError, match=r"broken archive: (it ends too early|unexpected end)"):
        unpacked(path)


def test_what_is_no_archive_or_is_encrypted_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("patient;label" * 100)
    with pytest.raises(InputError, match="neither a zip nor a tar archive"):
        unpacked(tmp_path / "x.tar")
    path = zipped(tmp_path / "x.zip", {"a.png": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted; unpack it yourself"):
        unpacked(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_read_as_the_folder_that_it_holds(ending, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "films" / label).mkdir(parents=True)
        for i in range(2):
            noise = np.random.default_rng([i, ord(label)]).integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "films" / label / f"{i}.png")
    archive = tmp_path / f"films.{ending}"
    with tarfile.open(archive, f"w:{ending.partition('.')[2]}") as tar:
        tar.add(tmp_path / "films", "films")
    dataset = datasets.load("images", archive)
    assert dataset.counts == {"a": 2, "b": 2}
    assert dataset.origin == str(archive)


@pytest.mark.parametrize("store", ["store", "here"])
@pytest.mark.parametrize("files", [{"notes.txt": b"1"}, {"films/a/1.png": b"1"}])
def test_what_is_wrong_with_the_contents_names_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, files: dict[str, bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / store) if store == "store" else store)
    path = zipped(tmp_path / "x.zip", files)
    with pytest.raises(InputError) as error:
        datasets.load("images", path)
    assert str(error.value).startswith(str(path))
    assert str(store_folder()) not in str(error.value)


def test_a_path_in_full_names_the_archive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGE_SEARCH_STORE", "here")
    path = zipped(tmp_path / "x.zip", {f"FashionMNIST/{part}/0/1.png": b"1" for part in ("train", "test")})
    with pytest.raises(InputError) as error:
        datasets.load("mnist", path)
    assert str(error.value).startswith(f"{path}/FashionMNIST/")


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    (tmp_path / "afile").touch()
    (tmp_path / "astore").mkdir()
    (tmp_path / "astore/archives").touch()
    for store in ("afile", "afile/below", "astore"):
        monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / store))
        with pytest.raises(InputError, match="set IMAGE_SEARCH_STORE to a folder that can be written") as error:
            unpacked(path)
        assert f"into {tmp_path / store / 'archives'}: " in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_store_without_permission_is_one_clear_line(
    tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As the operating system refuses whoever is not root."""
    path, allowed = zipped(tmp_path / "x.zip", FILES), getattr(os, call)

    def refused(name: object, *args: object, **kwargs: object) -> object:
        if str(name).startswith(str(own_store)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return allowed(name, *args, **kwargs)

    if call == "open":
        own_store.mkdir()
    monkeypatch.setattr(os, call, refused)
    with pytest.raises(InputError, match=r"archives: Permission denied; set IMAGE_SEARCH_STORE"):
        unpacked(path)


def test_what_is_unpacked_serves_where_the_store_can_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    folder = unpacked(path)

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for call in ("mkdir", "open", "utime"):
        monkeypatch.setattr(os, call, refused)
    assert unpacked(path) == folder
    touch(folder / "films/NORMAL/1.png")
