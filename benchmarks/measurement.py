"""What every benchmark needs: a side measured in a process of its own, and a row that says when and where."""

import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    result: Any
    seconds: float
    private_bytes: int
    """Largest memory that is the process's own and that of its children, together."""
    mapped_bytes: int
    """What was resident beside that at most: pages of mapped files, which the system may take back at any time."""


def measured(side: Callable[..., Any], *arguments: Any) -> Measured:
    """Calls an importable function in a fresh process. What its module imports counts for memory, not for time."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, side, arguments))
    process.start()
    sender.close()
    try:
        outcome = Measured(*receiver.recv())
    except EOFError:
        process.join()
        raise RuntimeError(f"{side.__name__} ended with status {process.exitcode}") from None
    process.join()
    return outcome


def _measure(sender: Connection, side: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    private, mapped, ended = [0], [0], threading.Event()

    def watch() -> None:
        took = 0.0
        while not ended.wait(max(0.05, 10 * took)):  # many processes are not looked at as often
            began = time.perf_counter()
            everybody = used(psutil.Process())
            took = time.perf_counter() - began
            private.append(sum(member.private_bytes for member in everybody))
            mapped.append(max(member.mapped_bytes for member in everybody))

    watching = threading.Thread(target=watch, daemon=True)  # an error of the side ends the process
    watching.start()
    began = time.perf_counter()
    result = side(*arguments)
    seconds = time.perf_counter() - began
    ended.set()
    watching.join()
    sender.send((result, seconds, max(private), max(mapped)))


@dataclass(frozen=True)
class Used:
    """Of one process, until now."""

    process: psutil.Process
    private_bytes: int
    mapped_bytes: int
    cpu_s: float
    """User and system time."""


def used(process: psutil.Process) -> list[Used]:
    """Of a process and all that it has started, as far as they have not just ended."""
    found: list[Used] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess), member.oneshot():
                memory, times = member.memory_info(), member.cpu_times()
                found.append(Used(member, memory.rss - memory.shared, memory.shared, times.user + times.system))
    return found


def machine() -> str:
    """In words for a table: processor, cores, system."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"


def record(name: str, row: dict[str, Any], note: str = "") -> None:
    """Appends to `<name>.json` (one object per line) and to the table at the end of `<name>.md`; `row` gives a figure
    per column of that table, beside date and machine."""
    date = datetime.datetime.now().astimezone().date().isoformat()
    with (HERE / f"{name}.json").open("a") as file:
        file.write(json.dumps({"date": date, "machine": machine(), **row, "note": note}) + "\n")
    cells = " | ".join("–" if value is None else str(value) for value in (date, *row.values(), machine(), note))
    with (HERE / f"{name}.md").open("a") as file:
        file.write(f"| {cells} |\n")


def show(row: dict[str, Any]) -> None:
    """A figure a line."""
    width = max(map(len, row)) + 2
    print(*(f"{name:<{width}}{value}" for name, value in row.items()), "", sep="\n", flush=True)


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []
