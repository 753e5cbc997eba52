"""From the command to the first epoch: what a search takes before anything is trained, and how fast a mistake is told.

    python -m benchmarks.startup            median of five, about three minutes on two cores
    python -m benchmarks.startup --record   adds the row to startup.md

A search is called as a user would, in a process group of its own, and followed from outside: the first epoch began when
the first report was there, less the seconds of training that it tells. Images are drawn, or read, into an empty store
once and are in it from then on. CPU seconds are those of all its processes until then.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measurement import record, show, used

ROOT = Path(__file__).parent.parent
SEARCHES = {
    "digits": ("digits", "--trials", "2"),
    "covid": ("covid", "--demo", "--trials", "2"),
}
"""By the names of the columns; the second one draws its images."""
MISTAKES = {
    "option": ("covid", "--demo", "--searcher", "bayes"),
    "parameter": ("covid", "--demo", "--set", "lr=1"),
    "address": ("digits", "--address", "127.0.0.1:9"),
}
POLL_S = 0.02
LONGEST_S = 300.0


@dataclass(frozen=True)
class Started:
    wall_s: float
    cpu_s: float
    private_bytes: int
    """Of all processes together, at the first report."""


def until_first_epoch(arguments: tuple[str, ...], store: Path) -> Started:
    with tempfile.TemporaryDirectory() as results:
        began = time.time()
        with _searching(arguments, Path(results), store) as process:
            while (first := _first_report(Path(results))) is None:
                if process.poll() is not None or time.time() - began > LONGEST_S:
                    raise RuntimeError(f"{' '.join(arguments)}: no report, exit status {process.poll()}")
                time.sleep(POLL_S)
            reported = time.time()
            trained_s = float(first["seconds"])
            everybody = used(process)
            cpu_s, private = (sum(getattr(each, name) for each in everybody) for name in ("cpu_s", "private_bytes"))
    return Started(reported - began - trained_s, cpu_s - trained_s, private)


def until_refused(arguments: tuple[str, ...]) -> float:
    """Wall-clock seconds of a command that ends with status 2."""
    with tempfile.TemporaryDirectory() as results:
        began = time.perf_counter()
        done = subprocess.run(_command(arguments, Path(results)), cwd=ROOT, capture_output=True)
        seconds = time.perf_counter() - began
    if done.returncode != 2:
        raise RuntimeError(f"{' '.join(arguments)}: exit status {done.returncode}, not 2")
    return seconds


def _command(arguments: tuple[str, ...], results: Path) -> list[str]:
    return [sys.executable, "-m", "search", *arguments, "--results", str(results)]


@contextlib.contextmanager
def _searching(arguments: tuple[str, ...], results: Path, store: Path) -> Iterator[psutil.Popen]:
    """A search, ended with all its processes."""
    process = psutil.Popen(
        _command(arguments, results),
        cwd=ROOT,
        env=os.environ | {"IMAGE_SEARCH_STORE": str(store)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        family = [member.process for member in used(process)]
        for member in reversed(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=10)


def _first_report(results: Path) -> dict[str, float] | None:
    for file in results.glob("*/trials/*/reports.jsonl"):
        line, end, _ = file.read_text().partition("\n")
        if end:
            report: dict[str, float] = json.loads(line)
            return report
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    row: dict[str, object] = {"times": options.times}
    with tempfile.TemporaryDirectory() as temporary:
        for name, arguments in SEARCHES.items():
            store = Path(temporary, name)
            row[f"{name}_empty_store_s"] = round(until_first_epoch(arguments, store).wall_s, 1)
            started = [until_first_epoch(arguments, store) for _ in range(options.times)]
            row[f"{name}_s"] = round(statistics.median(one.wall_s for one in started), 1)
            row[f"{name}_cpu_s"] = round(statistics.median(one.cpu_s for one in started), 1)
            row[f"{name}_private_MB"] = max(one.private_bytes for one in started) // 10**6
    for name, arguments in MISTAKES.items():
        seconds = [until_refused(arguments) for _ in range(options.times)]
        row[f"{name}_refused_s"] = round(statistics.median(seconds), 1)
    show(row)
    if options.record:
        record("startup", row)


if __name__ == "__main__":
    main()
