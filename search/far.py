"""`--address ray://HOST:PORT`: a search on a cluster that this machine is no part of.

Ray Client sends every call of a driver over the network, and Tune is not made for that. So the search itself, driver
and all, is started on the cluster's head, in a copy of this code; here its lines are shown as they come, and Ctrl-C or
SIGTERM is handed on to it. A connection that is lost is a crash of the search: `--resume` goes on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from datasets import InputError
from datasets.remote import is_url
from search.options import Options
from search.ray_session import ROOT, check_listening, excludes, one_line, set_environment

SCHEME = "ray://"
HEAD = "node:__internal_head__"
"""Ray's name of a resource that only the head has."""
WAIT_S = 0.5
"""For lines; a signal is handed on as late as that."""
SPACE = "search_space_given.py"
"""Where the file of `--space`, which lies here, is put there."""


def is_far(address: str | None) -> bool:
    """Also where Ray's own variable says so: `auto` asks it first."""
    said = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    return said is not None and said.startswith(SCHEME)


def check_far(options: Options) -> None:
    """Raises `InputError` for what would be lost, or is not there, once the search is on another machine."""
    if options.storage is None and not options.results.is_absolute():
        raise InputError(
            f"--results {options.results}: with {SCHEME} it is a folder of the cluster; give an absolute one that its "
            f"nodes share, or --storage URL"
        )
    for name, path in (("--data", options.data), ("--weights", options.weights)):
        words = path in (None, "imagenet", "none", "phantoms")
        if not words and not is_url(str(path)) and not Path(str(path)).is_absolute():
            raise InputError(
                f"{name} {path}: with {SCHEME} it is a path of the cluster's nodes; give an absolute one, or a URL"
            )
    if options.table is not None and not options.table.is_absolute() and not is_url(str(options.data)):
        raise InputError(f"--table {options.table}: with {SCHEME} give an absolute path of the cluster, or --data URL")


def search_from_afar(options: Options, arguments: Sequence[str]) -> int:
    """Searches on the cluster of `options.address`; returns the exit status of the search there.

    arguments: of the command line. Raises `InputError` where the cluster cannot be joined or the versions differ.
    """
    assert options.address is not None
    check_far(options)
    check_listening(options.address)
    set_environment(options.address)
    import ray

    space = None if options.space is None else options.space.read_bytes()
    _connect(options.address)
    try:
        # On the head, which may have no CPU to give; without this, a process there would see no GPU.
        there = {"num_cpus": 0, "resources": {HEAD: 0.001}, "max_restarts": 0}
        environment = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
        driver = ray.remote(**there, runtime_env=environment)(FarSearch).remote(_there(arguments), space)
        with _noted_signals() as noted:
            handed_on = 0
            while True:
                lines, status = ray.get(driver.lines.remote())
                for is_error, line in lines:
                    print(line, end="", file=sys.stderr if is_error else sys.stdout, flush=True)
                if status is not None:
                    return status
                for number in noted[handed_on:]:
                    driver.send.remote(number)
                handed_on = len(noted)
    except KeyboardInterrupt:
        print("Left before the search there had ended; go on with --resume.", file=sys.stderr)  # noqa: T201
        return 128 + signal.SIGINT
    except ray.exceptions.RayError as error:
        raise InputError(
            f"--address {options.address}: the search there has ended, as its process or the connection is gone "
            f"({one_line(error)}); go on with --resume"
        ) from None
    except ConnectionError as error:
        raise InputError(
            f"--address {options.address}: the connection is lost ({one_line(error)}); once the search there has "
            f"ended, go on with --resume"
        ) from None
    finally:
        with contextlib.suppress(Exception):  # the connection may be what is gone
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    shipped: dict[str, Any] = {"working_dir": str(ROOT), "excludes": excludes(ROOT, ())}
    try:
        ray.init(address, runtime_env=shipped, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = str(error)
        if "ersion" in said and "mismatch" in said.lower():
            raise InputError(
                f"--address {address}: this machine and the cluster have different versions ({one_line(error)}); "
                f"install those of requirements.lock on both"
            ) from None
        raise InputError(
            f"--address {address}: no Ray cluster could be joined ({one_line(error)}); where it asks for a token, that "
            f"lies in ~/.ray/auth_token and RAY_AUTH_MODE=token is set; start a cluster with `ray up cluster.yaml`"
        ) from None


def _there(arguments: Sequence[str]) -> list[str]:
    """The arguments of the search there: without the address, and with the file of the space where it will be."""
    kept, rest = list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name in ("--address", "--space"):
            value = value if equals else rest.pop(0)
            kept += ["--space", SPACE] if name == "--space" else []
        else:
            kept.append(argument)
    return kept


class FarSearch:
    """An actor on the head of a cluster that holds a search, and ends with it."""

    def __init__(self, arguments: Sequence[str], space: bytes | None) -> None:
        import ray

        if space is not None:
            Path(SPACE).write_bytes(space)
        command = [sys.executable, "-m", "search", *arguments, "--address", ray.get_runtime_context().gcs_address]
        blocked = signal.pthread_sigmask(
            signal.SIG_SETMASK, ()
        )  # in Ray's processes SIGINT is, and children inherit it
        try:
            self._search = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                text=True,
                errors="replace",
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._lines: list[tuple[bool, str]] = []
        self._changed = threading.Condition()
        pipes = ((False, self._search.stdout), (True, self._search.stderr))
        self._readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def _read(self, is_error: bool, pipe: IO[str]) -> None:
        for line in pipe:
            with self._changed:
                self._lines.append((is_error, line))
                self._changed.notify_all()

    def lines(self) -> tuple[list[tuple[bool, str]], int | None]:
        """What has been said since, (whether as an error, line), waiting a moment for it; and the exit status once all
        is said, as shells have it."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines, timeout=WAIT_S)
        status = self._search.poll()
        if status is not None:
            for reader in self._readers:
                reader.join(timeout=5.0)  # Ray's processes may hold the other end of the pipes
        with self._changed:
            said, self._lines = self._lines, []
        return said, None if status is None else status if status >= 0 else 128 - status

    def send(self, number: int) -> None:
        """A signal to the search."""
        if self._search.poll() is None:
            self._search.send_signal(number)


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """The signals to be handed on, in place of what they do here; a third one ends this program all the same."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
