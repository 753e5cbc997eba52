"""What the driver of a search bears: the real orchestration on virtual GPUs, with trials that only wait.

    python -m benchmarks.scale --quick                1 and 8 virtual GPUs, 60 trials each: two minutes on two cores
    python -m benchmarks.scale --points 1,8 --record  1,000 trials each; adds rows to scale.md
    python -m benchmarks.scale --points 64 --waits 0  trials that take no time: what the driver can do at most
    python -m benchmarks.scale --points 8 --study     the study in a PostgreSQL server of its own, as with --study

The search is `search_trials` itself: Ray, searcher (TPE, 22 parameters), callbacks, study, reports, curves and
checkpoints, which are written straight to the results; no trial is stopped. A virtual GPU is a number that Ray counts;
there is a process for each, as there would be, and all of them are on this machine. So the driver, Ray's own processes
and as many workers as GPUs share its cores, and a point shows no more than a head node of its own would do.

*Idle* is the share of the GPUs' time in which none of their trials waits, from when all GPUs are in use until none is
left to begin. The demand is GPUs divided by seconds of a trial; where the driver cannot begin as many, the line bends.
"""

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measurement import record
from benchmarks.overhead import _watched

WAITED_S = "SCALE_WAITED_S"
"""In the environment: how long a trial takes."""
EPOCHS, RUNGS = 9, 3
WAITS = {1: 0.25, 8: 2.0, 64: 15.0, 128: 30.0, 256: 60.0}
"""Seconds of a trial by GPUs: so that 1,000 trials take minutes, and that there are 2 to 4 to begin each second."""
WORKER_BYTES = 95e6
"""Private memory of each, which imports Ray Tune, pyarrow and polars, and no torch."""
OTHERS_BYTES = 3e9
"""Of the driver, Ray and what else there is."""
STORE_BYTES = 200 * 10**6
"""Of Ray's object store, which holds the images once."""


@dataclass(frozen=True)
class Outcome:
    """Of one search on `gpus` virtual GPUs."""

    gpus: int
    trials: int
    waits_s: float
    start_s: float
    """From the start of the search until every GPU is in use."""
    reports_per_s: float
    idle: float
    """Of the GPUs' time between; NaN where trials take no time."""
    driver_cpu_ms: float
    """Per trial, user and system."""
    driver_bytes: int
    """Resident, at its end."""
    growth_bytes: float
    """Of it, per trial, over the second half of the trials."""
    worker_bytes: float
    """Private, of one worker."""
    ray_cpu_ms: float
    """Per trial, of Ray's own processes (GCS, raylet)."""
    stored_bytes: float
    """Per trial: study, reports, curves and checkpoint, without networks and predictions."""


def search(gpus: int, trials: int, waits_s: float, shared: bool, folder: Path) -> Outcome:
    from search.ray_session import ON_THIS_MACHINE, set_environment

    os.environ[WAITED_S] = str(waits_s)
    os.environ.update(RAY_memory_monitor_refresh_ms="0")  # it would end trials where memory is full and swap is not
    set_environment(address=None)  # before Ray is imported
    with contextlib.ExitStack() as stack:
        study = None
        if shared:
            from tests.postgres_server import postgres_server

            study = stack.enter_context(postgres_server()).url()
        import ray
        from rich.console import Console

        import search.tuning
        from benchmarks.scale_trial import WaitingTrial
        from search.options import Options
        from search.plan import make_plan
        from search.ray_session import Share
        from search.records import make_record, write_record
        from search.trial_processes import keep_processes

        vars(search.tuning)["CrossValidation"] = WaitingTrial
        options = Options(
            task="covid",
            demo=True,
            images=96,
            trials=trials,
            folds=3,
            max_epochs=EPOCHS,
            scheduler="none",
            space=Path(__file__).with_name("overhead.py"),
            results=folder,
            study=study,
        )
        plan = make_plan(options)
        options.folder.mkdir(parents=True)
        noted = make_record(plan)
        write_record(plan, noted)
        assert ON_THIS_MACHINE.items() <= os.environ.items()
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address="local", num_cpus=gpus, num_gpus=gpus, object_store_memory=STORE_BYTES, **quiet)
        stack.callback(ray.shutdown)
        keep_processes()
        samples = stack.enter_context(_watched())
        began, cpu_before, rays_before = time.time(), time.process_time(), _of_ray()
        share = Share(cpus=1, gpus=1.0, side_by_side=gpus)
        worker_bytes: list[float] = []
        assert search.tuning.search_trials(plan, noted, share, Console(file=io.StringIO()))
        cpu_s, rays_s = time.process_time() - cpu_before, _of_ray() - rays_before
        workers = [process for process in psutil.Process().children(recursive=True) if _is_worker(process)]
        for process in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker_bytes.append(process.memory_full_info().uss)
        times = sorted(_times(file) for file in options.folder.glob("trials/*/reports.jsonl"))
        assert len(times) == trials
        full, last = times[min(gpus, trials) - 1][0], times[-1][0]
        wall = max(1e-9, last - full)
        busy = sum(max(0.0, min(end, last) - max(start, full)) for start, end in times)
        ends = sorted(end for _, end in times)
        within = sum(full <= end <= last for end in ends)
        grown = _resident(samples, ends[-1]) - _resident(samples, ends[trials // 2])
        stored = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
        return Outcome(
            gpus=gpus,
            trials=trials,
            waits_s=waits_s,
            start_s=full - began,
            reports_per_s=RUNGS * within / wall,
            idle=1 - busy / (gpus * wall) if waits_s else float("nan"),
            driver_cpu_ms=1000 * cpu_s / trials,
            driver_bytes=samples[-1][1],
            growth_bytes=grown / (trials - trials // 2),
            worker_bytes=sum(worker_bytes) / max(1, len(worker_bytes)),
            ray_cpu_ms=1000 * rays_s / trials,
            stored_bytes=stored / trials,
        )


def _times(file: Path) -> tuple[float, float]:
    """When a trial began to wait and when it was through, seconds since the epoch."""
    reports = [json.loads(line) for line in file.read_text().splitlines()]
    assert [report["epoch"] for report in reports] == [1, 3, 9]
    return reports[0]["ended"] - reports[0]["seconds"], reports[-1]["ended"]


def _resident(samples: list[tuple[float, int]], when: float) -> int:
    return min(samples, key=lambda sample: abs(sample[0] - when))[1]


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(argument.startswith("ray::") for argument in process.cmdline()[:1])
    return False


def _of_ray() -> float:
    """CPU seconds until now of all processes that this one has started, workers left out."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in ("gcs_server", "raylet"):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="1,8,64,128,256", help="virtual GPUs: a,b")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--waits", type=float, help="seconds of a trial, for all points")
    parser.add_argument("--study", action="store_true", help="in PostgreSQL")
    parser.add_argument("--quick", action="store_true", help="points 1 and 8 unless given, 60 trials each")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    if not all(word.isdecimal() and int(word) for word in options.points.split(",")):
        parser.error(f"--points {options.points}: numbers of GPUs, as 1,8")
    if options.trials < 1:
        parser.error(f"--trials {options.trials}: 1 or more")
    if options.waits is not None and options.waits < 0:
        parser.error(f"--waits {options.waits:g}: seconds, 0 or more")
    points = [int(word) for word in options.points.split(",")]
    if options.quick and options.points == parser.get_default("points"):
        points = [1, 8]
    trials = 60 if options.quick else options.trials
    for gpus in points:
        needed = gpus * WORKER_BYTES + OTHERS_BYTES
        there = psutil.virtual_memory().available + psutil.swap_memory().free
        if needed > there:
            print(f"{gpus} GPUs: left out; so many processes take {needed / 1e9:.0f} GB, here are {there / 1e9:.0f}")
            continue
        waits_s = options.waits if options.waits is not None else WAITS.get(gpus, gpus / 4)
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["IMAGE_SEARCH_STORE"] = str(Path(temporary, "store"))
            # A fresh process, and nothing in it that watches: to look at so many processes takes CPU time, too.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                outcome = fresh.submit(search, gpus, trials, waits_s, options.study, Path(temporary)).result()
        row = {
            "GPUs": gpus,
            "trials": trials,
            "waits_s": waits_s,
            "study": "PostgreSQL" if options.study else "SQLite",
            "start_s": round(outcome.start_s, 1),
            "reports_per_s": round(outcome.reports_per_s, 2),
            "idle_percent": round(100 * outcome.idle, 1) if waits_s else None,
            "driver_cpu_ms": round(outcome.driver_cpu_ms, 1),
            "ray_cpu_ms": round(outcome.ray_cpu_ms, 1),
            "driver_MB": outcome.driver_bytes // 10**6,
            "driver_growth_MB_per_1000": round(outcome.growth_bytes * 1000 / 1e6, 1),
            "worker_MB": round(outcome.worker_bytes / 1e6),
            "stored_kB_per_trial": round(outcome.stored_bytes / 1e3, 1),
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if options.record:
            record("scale", row, options.note)


if __name__ == "__main__":
    main()
