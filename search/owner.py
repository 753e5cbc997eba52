"""One search at a time for a remote folder: whoever searches there says so in a file, again and again.

A folder of this machine is locked by the operating system, which knows when a process has died (`records.alone_in`). A
bucket knows nothing of processes, so its owner gives a sign of life, and is taken for dead without one.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import InputError
from datasets.remote import RemoteFolder
from search.study_address import OF_ITS_OWN

FILE = "owner.json"
BEAT_S = 20.0
STALE_S = 90.0
"""Without a sign of life for so long, by the clock of the server, an owner is dead."""
SURE_S = 2 * BEAT_S
"""For how long an owner that has looked is one still: nobody else has taken it for dead meanwhile."""


class Owner:
    """Of a remote folder, as long as it says so."""

    def __init__(self, remote: RemoteFolder, ask: Callable[[str], None] = lambda why: None):
        """ask: `Ending.ask`, which is called, from a thread, when somebody else has taken the folder."""
        self._remote, self._ask = remote, ask
        self._claim = {"id": secrets.token_hex(8), "host": socket.gethostname(), **_process()}
        self._has_claimed = False
        self._taken_by: str | None = None
        self._looked_s = 0.0
        """When it was last found not to be taken, in seconds since 1970: while a machine sleeps, this clock goes on."""
        self._ended = threading.Event()

    def claim(self) -> None:
        """Raises `InputError` where the folder cannot be written, or somebody else searches there."""
        probe = f".written-{self._claim['id']}"
        self._remote.write(probe, b"")
        now = self._remote.changed_ns(probe)
        self._remote.remove([probe])
        other = self._there()
        if other is not None and not _is_dead_here(other):
            silent_s = _silent_s(other, self._remote.changed_ns(FILE), now)
            if silent_s < STALE_S:
                raise InputError(
                    f"{self._remote}: {other.get('host', 'another machine')} is searching there, as it said "
                    f"{silent_s:.0f} s ago; wait for it, or, if it is dead, until {STALE_S:.0f} s have passed"
                    f"{OF_ITS_OWN}"
                )
        self._write()
        self._has_claimed = True

    def check(self) -> None:
        """Raises `InputError` where somebody else has taken the folder since, as after a long sleep of this machine, or
        where the server does not answer."""
        now_s = time.time()
        other = self._there()
        if other is None and self._has_claimed:  # another one has taken it, and is through
            other = {}
        if other is not None and other.get("id") != self._claim["id"]:
            self._taken_by = str(other.get("host", "another machine"))
        self._check_known()
        self._looked_s = now_s

    def check_lately(self) -> None:
        """As `check`, and asks the server only where that was long ago: this machine was asleep, or the server away."""
        self._check_known()
        if abs(time.time() - self._looked_s) > SURE_S:
            self.check()

    def _check_known(self) -> None:
        if self._taken_by is not None:
            raise InputError(
                f"{self._remote}: {self._taken_by} has gone on with this search; since then nothing is sent"
            )

    def keep(self) -> None:
        """Gives signs of life until `end`: for a thread."""
        while not self._ended.wait(BEAT_S):
            try:
                self.check()
                self._write()
            except Exception:  # whatever it was, an owner that gives no sign of life is taken for dead
                if self._taken_by is not None:
                    self._ask(f"{self._taken_by} has gone on with it")
                    return
                # The network; whoever sends results says so.

    def end(self) -> None:
        self._ended.set()

    def release(self) -> None:
        """Anybody may have it. Where that cannot be said, they will see it by the silence."""
        with contextlib.suppress(InputError, OSError):
            self.check()
            self._remote.remove([FILE])

    def _write(self) -> None:
        self._remote.write(FILE, json.dumps(self._claim | {"time_s": time.time()}).encode())

    def _there(self) -> dict[str, Any] | None:
        try:
            content = self._remote.read(FILE)
        except FileNotFoundError:
            return None
        try:
            told = json.loads(content)
        except ValueError:
            return None
        return told if isinstance(told, dict) else None


@contextlib.contextmanager
def alone_at(remote: RemoteFolder, ask: Callable[[str], None] = lambda why: None) -> Iterator[Owner]:
    """Nobody else searches there meanwhile. ask: see `Owner`. Raises `InputError` as `Owner.claim`."""
    owner = Owner(remote, ask)
    owner.claim()
    thread = threading.Thread(target=owner.keep, name="owner", daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        owner.end()
        thread.join(BEAT_S)  # it may be writing
        owner.release()


def _silent_s(other: dict[str, Any], changed_ns: int | None, now_ns: int | None) -> float:
    """By the clock of the server where it tells, else by those of the two machines."""
    if changed_ns is not None and now_ns is not None:
        return max(0.0, (now_ns - changed_ns) / 1e9)
    said = other.get("time_s")
    return max(0.0, time.time() - said) if isinstance(said, int | float) else STALE_S


def _process() -> dict[str, Any]:
    """This process, so that whoever sees the same processes knows whether it is alive."""
    return {"machine": _machine(), "pid": os.getpid(), "begun": _begun(os.getpid())}


def _machine() -> str | None:
    """This boot and this table of processes: two containers of a machine have the first in common only."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _begun(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None where there is none, or it is dead and nobody has asked."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None


def _is_dead_here(other: dict[str, Any]) -> bool:
    """Whether it was a process of this machine, and is no more."""
    if other.get("machine") is None or other["machine"] != _machine() or not isinstance(other.get("pid"), int):
        return False
    return _begun(other["pid"]) != other.get("begun")
