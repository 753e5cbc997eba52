"""Searches in processes of their own, for tests that end them in the middle."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def searching(command: list[str], terminal: Path) -> Iterator[subprocess.Popen]:
    """A command in a process group of its own, as a shell starts it; what it prints goes to a file. At the end it goes,
    with all that it has started."""
    with terminal.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests go on behind a shell
        )
    children: list[psutil.Process] = []
    try:
        yield process
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], *processes: subprocess.Popen, seconds: float) -> None:
    """Until something is so, while all of these go on."""
    until = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes), "a search ended too soon"
        assert time.monotonic() < until
        time.sleep(0.02)
