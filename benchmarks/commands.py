"""A whole command, measured from outside as its user would: seconds, processor time and memory of all its processes."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measurement import used

LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Called:
    seconds: float
    cpu_seconds: float
    """User and system time of all its processes, as far as they were seen: each may have had 0.2 s more."""
    private_bytes: int
    """Largest memory that its processes had for themselves, together."""
    mapped_bytes: int
    """What the largest of them had beside that: mapped files and shared memory."""
    began: float
    """Seconds since 1970."""


def called(
    command: list[str], environment: dict[str, str], output: Path, look: Callable[[], None] = lambda: None
) -> Called:
    """Calls a command and waits for it, and meanwhile calls `look` every `LOOK_EVERY_S`; `output` gets all that it
    prints. Raises `RuntimeError` where it fails."""
    began, started = time.time(), time.perf_counter()
    private, mapped = 0, 0
    cpu: dict[psutil.Process, float] = {}
    with output.open("w") as file:
        process = psutil.Popen(
            command, env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        while process.poll() is None:
            look()
            everybody = used(process)
            private = max(private, sum(member.private_bytes for member in everybody))
            mapped = max([mapped, *(member.mapped_bytes for member in everybody)])
            cpu |= {member.process: member.cpu_s for member in everybody}
            try:
                process.wait(LOOK_EVERY_S)
            except psutil.TimeoutExpired:
                continue
    seconds = time.perf_counter() - started
    if process.returncode:
        told = "\n".join(output.read_text().splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{told}")
    return Called(seconds, sum(cpu.values()), private, mapped, began)
