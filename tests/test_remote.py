"""Remote folders: a bucket of an S3 server on loopback, a folder by its URL, a file system of fsspec."""

import pickle
import time
from pathlib import Path

import pytest

from datasets import InputError
from datasets.remote import NoAnswerError, RemoteFolder, is_url, patiently, without_secrets
from tests.s3_server import Bucket, bucket  # noqa: F401

SECRET = "s3://KEY:hidden@images/of/leaves?region=eu-north-1&access_token=hidden&endpoint_override=http%3A%2F%2Fhere"


@pytest.fixture(params=["s3", "file", "memory"])
def remote(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path) -> RemoteFolder:  # noqa: F811
    name = request.node.name.replace("[", "-").replace("]", "")
    urls = {"s3": bucket.url(name), "file": f"file://{tmp_path}/there", "memory": f"memory://{name}"}
    return RemoteFolder(urls[request.param])


@pytest.mark.parametrize("name", ["../elsewhere", "a/../../elsewhere", "/elsewhere"])
def test_no_name_leads_out_of_the_folder_that_files_are_brought_to(remote, tmp_path, name):
    with pytest.raises(InputError, match="would lead out of"):
        remote.fetch([name], tmp_path / "here")
    assert not (tmp_path / "elsewhere").exists()


def test_files_come_back_as_they_were_sent(remote, tmp_path):
    assert remote.files() == {}
    assert not remote.exists()
    here, back = tmp_path / "here", tmp_path / "back"
    content = {"a.txt": b"a", "deep/er/b.bin": bytes(range(256)) * 5000, "deep/none": b""}
    for name, written in content.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(written)
    remote.send(content, here)
    assert remote.exists()
    assert remote.files() == {name: len(written) for name, written in content.items()}
    assert remote.files("deep") == {name: len(content[name]) for name in ("deep/er/b.bin", "deep/none")}
    remote.fetch(content, back)
    assert {name: (back / name).read_bytes() for name in content} == content
    assert not list(back.rglob("*.part"))
    assert remote.read_all(["a.txt", "deep/none"]) == {"a.txt": b"a", "deep/none": b""}
    assert remote.below("deep").read("er/b.bin") == content["deep/er/b.bin"]


def test_what_is_not_there_is_said_and_not_missed_when_it_is_to_go(remote, tmp_path):
    remote.write("kept", b"1")
    remote.write("gone", b"2")
    remote.remove(["gone", "never there"])
    assert remote.files() == {"kept": 1}
    with pytest.raises(FileNotFoundError):
        remote.read("gone")
    with pytest.raises(FileNotFoundError):
        remote.fetch(["gone"], tmp_path)
    assert not (tmp_path / "gone").exists()


def test_a_file_is_replaced_whole_and_its_time_says_so(remote):
    remote.write("file", b"long, long ago")
    before = remote.changed_ns("file")
    remote.write("file", b"now")
    assert remote.read("file") == b"now"
    assert remote.listed()["file"].size_bytes == 3
    if before is not None:  # fsspec's file system in memory does not say
        assert remote.listed()["file"].changed_ns == remote.changed_ns("file") >= before
        assert abs(time.time() - before / 1e9) < 60
    assert remote.changed_ns("no such file") is None


def test_it_travels_to_other_processes(remote):
    remote.write("file", b"x")
    assert pickle.loads(pickle.dumps(remote)).read("file") == b"x"


def test_secrets_of_a_url_are_written_nowhere():
    folder = RemoteFolder(SECRET)
    assert str(folder) == "s3://images/of/leaves"
    assert repr(folder.below("2")) == "RemoteFolder('s3://images/of/leaves/2')"
    public = "s3://images/of/leaves?region=eu-north-1&endpoint_override=http%3A%2F%2Fhere"
    assert without_secrets(SECRET) == public
    assert without_secrets("no URL? of=x@y") == "no URL? of=x@y"


@pytest.mark.parametrize(
    "url", ["s3://KEY:hid den@x/y", "s3://KEY:hidden@x/y?whatever=hidden", "nosuch://KEY:hidden@x/y"]
)
def test_a_url_that_cannot_be_opened_is_told_without_its_secrets(url):
    with pytest.raises(InputError, match="cannot be opened") as raised:
        RemoteFolder(url).files()
    assert "hid" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bucket_that_is_not_there_is_told_in_a_line(bucket):  # noqa: F811
    folder = RemoteFolder(bucket.url("x", bucket="no-such-bucket"))
    with pytest.raises(InputError, match=r"^s3://no-such-bucket/x: .*bucket does not exist; check") as raised:
        folder.write("file", b"")
    assert "\n" not in str(raised.value)


def test_parts_of_a_url():
    folder = RemoteFolder("s3://b/some/where/?region=x")
    assert folder.name == "where"
    assert folder.above.url == "s3://b/some?region=x"
    assert folder.below("er").url == "s3://b/some/where/er?region=x"
    assert [is_url(text) for text in ("s3://b", "file:///x", "s3:/b", "/a//b", "c:\\x", "a/b://c")] == [
        *(True, True),
        *(False, False, False, False),
    ]


def test_a_server_that_does_not_answer_is_asked_again_until_patience_ends(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pauses.append(seconds))
    pauses: list[float] = []
    answers = iter([NoAnswerError("1"), NoAnswerError("2"), None])

    def ask() -> None:
        if (error := next(answers)) is not None:
            raise error

    patiently(ask)
    assert pauses == [1.0, 2.0]
    with pytest.raises(NoAnswerError, match="never"):
        patiently(lambda: (_ for _ in ()).throw(NoAnswerError("never")), seconds=0)


class PackagesError(Exception):
    """As azure.core.exceptions and aiohttp.ClientError, which are no `OSError`."""


def test_errors_of_packages_for_fsspec_are_those_of_a_server(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def fails(*_: object, **__: object) -> None:
        raise PackagesError("no route\nand so on")

    folder = RemoteFolder("memory://of-a-package")
    folder.write("file", b"x")
    monkeypatch.setattr(MemoryFileSystem, "_open", fails)
    with pytest.raises(NoAnswerError, match=r"^memory://of-a-package: no route; check the URL"):
        folder.read("file")
    with pytest.raises(NoAnswerError, match="no route"):
        folder.write("file", b"y")


def test_a_file_is_sent_in_blocks(remote, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.remote.BLOCK_BYTES", 1000)
    content = bytes(range(250)) * 30
    (tmp_path / "large").write_bytes(content)
    sent: list[int] = []
    write = RemoteFolder._write

    def noted(self, name, blocks):
        write(self, name, (sent.append(len(block)) or block for block in blocks))

    monkeypatch.setattr(RemoteFolder, "_write", noted)
    remote.send(["large"], tmp_path)
    assert sent == [1000] * 7 + [500]
    assert remote.read("large") == content
    with pytest.raises(FileNotFoundError):
        remote.send(["none"], tmp_path)
    assert remote.files() == {"large": len(content)}


def test_google_is_not_waited_for_longer_than_others():
    from pyarrow import fs

    from datasets.remote import _with_options

    for url in ("gs://anonymous@b/x", "gcs://anonymous@b/x?scheme=http"):
        asked = _with_options(url)
        assert asked == f"{url}{'&' if '?' in url else '?'}retry_limit_seconds=30"
        limited, path = fs.FileSystem.from_uri(asked)
        assert path == "b/x"
        assert limited != fs.FileSystem.from_uri(url)[0], "the option is one that it knows"
    assert _with_options("gs://b/x?retry_limit_seconds=5") == "gs://b/x?retry_limit_seconds=5"
