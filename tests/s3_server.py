"""A server of the S3 protocol on loopback (moto), with one empty bucket, for one test module.

from tests.s3_server import bucket  # noqa: F401

def test_x(bucket):
    folder = RemoteFolder(bucket.url("some/prefix"))
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

ACCESS = {
    "AWS_ACCESS_KEY_ID": "of-a-test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What every process that uses the bucket has in its environment; the fixture puts it into that of the tests."""

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
"""A process of its own, so that nothing that a test does holds it up; it ends with whoever has started it."""


@dataclass(frozen=True)
class Bucket:
    """Of a server that keeps what it is given in memory."""

    port: int
    name: str

    def url(self, path: str, bucket: str | None = None) -> str:
        """Of a folder in this bucket, or in another."""
        endpoint = quote(f"http://127.0.0.1:{self.port}", safe="")
        return f"s3://{bucket or self.name}/{path}?endpoint_override={endpoint}&region=us-east-1"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    pytest.importorskip("moto", reason="needs moto's S3 server")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in ACCESS.items():
            monkeypatch.setenv(name, value)
        with subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | ACCESS,
        ) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                _create(port, "searches")
                yield Bucket(port, "searches")
            finally:
                server.kill()


def _create(port: int, name: str) -> None:
    """moto asks for no signature."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT"), timeout=30
            ).close()
            return
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.1)
