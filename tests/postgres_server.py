"""A PostgreSQL server of the tests' own on a free port of loopback, with one user who has a password."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "searcher", "a secret/with@signs"
QUOTED_PASSWORD = "a%20secret%2Fwith%40signs"


def _programs() -> Path | None:
    """Where Debian puts initdb and postgres (the newest version), or where the path finds them."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: int(file.parts[-3]))
    found = shutil.which("postgres")
    return versions[-1].parent if versions else Path(found).resolve().parent if found else None


PROGRAMS = _programs()


@dataclass
class PostgresServer:
    folder: Path
    port: int
    account: str | None
    """Of the system, whose processes they are; None: ours. PostgreSQL refuses to be root's."""
    process: subprocess.Popen | None = None

    def url(self, database: str = "postgres", password: str | None = QUOTED_PASSWORD) -> str:
        secret = "" if password is None else f":{password}"
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"port={self.port}", "max_connections=100"]
        settings += [f"unix_socket_directories={self.folder}", "shared_buffers=16MB", "autovacuum=off"]
        arguments = [argument for setting in settings for argument in ("-c", setting)]
        assert PROGRAMS is not None
        with (self.folder / "log.txt").open("w") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
                user=self.account,
            )
        until = time.monotonic() + 60
        while "ready to accept connections" not in (self.folder / "log.txt").read_text():
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
            self.process = None

    def create(self, database: str) -> str:
        """An empty database; returns its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    assert PROGRAMS is not None
    account = pwd.getpwnam("nobody").pw_name if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        folder = Path(temporary)
        if account is not None:
            os.chown(folder, pwd.getpwnam(account).pw_uid, -1)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        command = [PROGRAMS / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "-E", "UTF8"]
        command += ["--no-sync", "--locale=C", f"--pwfile={folder / 'password'}"]
        subprocess.run(command, check=True, capture_output=True, user=account, cwd=folder)
        server = PostgresServer(folder, port, account)
        server.start()
        try:
            yield server
        finally:
            server.stop()
