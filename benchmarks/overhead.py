"""What a trial costs above its own training: this program, Ray Tune by its defaults, Optuna alone in one process.

    python -m benchmarks.overhead --quick    a minute and a half on two cores: 40 trials a side, 8 of the slowest
    python -m benchmarks.overhead --record   100 trials a side; adds rows to overhead.md
    python -m benchmarks.overhead --only "ours, random" --trials 1000    what the driver's memory does

A trial reports at three rungs (epochs 1, 3, 9) and saves a checkpoint at each; an epoch waits for 10 ms and computes
next to nothing; two trials run side by side. The search space asks for up to 22 parameters. Ours is the search itself
(`search_trials`), with the study in SQLite and nothing left out but the training; Ray Tune has its default loggers and
`OptunaSearch`, with the study in memory; Optuna asks, reports and tells, study in SQLite, and waits for nothing.

Milliseconds per trial: the time from the completion of the fifth trial to that of the last, by trials, less a trial's
own training by the number of trials side by side. So the start of a process counts only where every trial starts one.
"""

import argparse
import contextlib
import io
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measurement import measured, record
from search_spaces import parts

EPOCH_S = 0.01
RUNGS = (1, 3, 9)
SIDE_BY_SIDE = 2
WARM = 5
"""Trials that are not counted: processes start, modules are imported."""


def search_space(trial: Any) -> dict[str, Any]:
    """All questions of the chest films; the answers that would take time to train with are not used."""
    parts.body(trial, ("svendsen_cnn",), {"mobilenetv2_100": 104, "mobilenetv3_small_100": 87})
    parts.regularisation(trial)
    parts.augmentation(trial)
    return {
        "model": "digits_cnn",
        "image_size_px": 8,
        "patience": 30,
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(16, 32, 64)),
        **parts.dense_head(trial, most_layers=2, widths=(32, 512)),
    }


@dataclass(frozen=True)
class Outcome:
    """Of one side."""

    completed: list[float]
    """When each trial had completed, seconds since the epoch, ascending."""
    training_s: float
    """Of all trials, as they measured it themselves."""
    samples: list[tuple[float, int]]
    """Seconds since the epoch and resident bytes of the driver."""
    peak_bytes: int
    """Of the driver."""
    driver_cpu_s: float
    """Of the driver, user and system, beginning to end."""

    @property
    def trial_ms(self) -> float:
        """Wall time per trial, above its own training."""
        counted = len(self.completed) - WARM
        wall = (self.completed[-1] - self.completed[WARM - 1]) / counted
        return 1000 * (wall - self.training_s / len(self.completed) / SIDE_BY_SIDE)

    @property
    def growth_bytes(self) -> float:
        """Of the driver's resident memory, per trial, over the second half of the trials."""
        half = len(self.completed) // 2
        return (self._resident(self.completed[-1]) - self._resident(self.completed[half])) / (
            len(self.completed) - 1 - half
        )

    def _resident(self, when: float) -> int:
        return min(self.samples, key=lambda sample: abs(sample[0] - when))[1]


@contextlib.contextmanager
def _watched() -> Iterator[list[tuple[float, int]]]:
    samples: list[tuple[float, int]] = []
    ended, own = threading.Event(), psutil.Process()

    def watch() -> None:
        while not ended.wait(0.1):
            samples.append((time.time(), own.memory_info().rss))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield samples
    finally:
        ended.set()
        watching.join()


def _outcome(completed: list[float], training_s: float, samples: list[tuple[float, int]], cpu_before: float) -> Outcome:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Outcome(sorted(completed), training_s, samples, peak, time.process_time() - cpu_before)


def ours(trials: int, searcher: str, folder: Path) -> Outcome:
    from search.ray_session import ray_session, set_environment

    set_environment(address=None)  # before Ray is imported
    import optuna
    from rich.console import Console

    import search.tuning
    from analysis.results import reports, trial_folder
    from benchmarks.waiting import WaitingCrossValidation
    from search.options import Options
    from search.plan import make_plan
    from search.ray_session import Share
    from search.records import make_record, write_record

    vars(search.tuning)["CrossValidation"] = WaitingCrossValidation
    options = Options(
        task="covid",
        demo=True,
        images=96,
        trials=trials,
        folds=3,
        max_epochs=RUNGS[-1],
        searcher=searcher,  # type: ignore[arg-type]
        scheduler="none",
        space=Path(__file__),
        results=folder,
    )
    plan = make_plan(options)
    options.folder.mkdir(parents=True)
    noted = make_record(plan)
    write_record(plan, noted)
    with ray_session(address=None), _watched() as samples:
        before = time.process_time()
        share = Share(cpus=1, gpus=0.0, side_by_side=SIDE_BY_SIDE)
        assert search.tuning.search_trials(plan, noted, share, Console(file=io.StringIO()))
    study = optuna.load_study(study_name=noted["name"], storage=f"sqlite:///{options.folder / 'study.db'}")
    ends = [reports(trial_folder(options.folder, number) / "reports.jsonl") for number in range(trials)]
    assert all([report["epoch"] for report in end] == list(RUNGS) for end in ends)
    completed = [trial.datetime_complete.timestamp() for trial in study.trials if trial.datetime_complete]
    return _outcome(completed, sum(end[-1]["seconds"] for end in ends), samples, before)


def ray_tune(trials: int, reuse: bool, folder: Path) -> Outcome:
    from search.ray_session import ON_THIS_MACHINE

    os.environ.update(ON_THIS_MACHINE)  # nobody else reaches it; all else by Ray's defaults
    import ray
    import torch
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    class Waiting(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.rung = 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.rung = 0
            return True

        def step(self) -> dict[str, Any]:
            before = RUNGS[self.rung - 1] if self.rung else 0
            time.sleep(EPOCH_S * (RUNGS[self.rung] - before))
            self.rung += 1
            return {"auroc": self.config["dropout"], "epoch": RUNGS[self.rung - 1], "done": self.rung == len(RUNGS)}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            torch.save({"rung": self.rung, "weights": torch.zeros(3, 3, 16384)}, Path(checkpoint_dir, "state.pt"))

    class Completions(tune.Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.times.append(time.time())

    _silenced()
    ray.init(address="local", include_dashboard=False)
    completions = Completions()
    with _watched() as samples:
        before = time.process_time()
        tune.Tuner(
            Waiting,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(search_space, metric="auroc", mode="max"),
                num_samples=trials,
                max_concurrent_trials=SIDE_BY_SIDE,
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
                callbacks=[completions],
            ),
        ).fit()
    ray.shutdown()
    assert len(completions.times) == trials
    return _outcome(completions.times, trials * RUNGS[-1] * EPOCH_S, samples, before)


def optuna_alone(trials: int, searcher: str, folder: Path) -> Outcome:
    import optuna

    from search.searchers import sampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}", sampler=sampler(searcher, 0, trials), direction="maximize"
    )
    completed = []
    with _watched() as samples:
        before = time.process_time()
        for _ in range(trials):
            trial = study.ask()
            search_space(trial)
            for epoch in RUNGS:
                trial.report(trial.params["dropout"], epoch)
            study.tell(trial, trial.params["dropout"])
            completed.append(time.time())
    return _outcome(completed, 0.0, samples, before)


def _silenced() -> None:
    """What Tune prints every few seconds is part of its defaults; nobody reads it here."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


SIDES: dict[str, tuple[Any, Any, float]] = {
    "ours, random": (ours, "random", 1),
    "ours, tpe": (ours, "tpe", 1),
    "Ray Tune, actors reused": (ray_tune, True, 1),
    "Ray Tune, defaults": (ray_tune, False, 0.2),
    "Optuna alone, random": (optuna_alone, "random", 1),
    "Optuna alone, tpe": (optuna_alone, "tpe", 1),
}
"""The side, its second argument, and of how many trials, by those of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--only", choices=SIDES, action="append", help="one side; may be given several times")
    parser.add_argument("--quick", action="store_true", help="40 trials a side")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    for name in options.only or SIDES:
        side, argument, part = SIDES[name]
        trials = max(WARM + 3, int((40 if options.quick else options.trials) * part))
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["IMAGE_SEARCH_STORE"] = str(Path(temporary, "store"))
            outcome = measured(side, trials, argument, Path(temporary)).result
        row = {
            "side": name,
            "trials": trials,
            "trial_ms": round(outcome.trial_ms, 1),
            "report_ms": round(outcome.trial_ms / len(RUNGS), 1),
            "driver_cpu_ms": round(1000 * outcome.driver_cpu_s / trials, 1),
            "driver_peak_MB": outcome.peak_bytes // 10**6,
            "driver_growth_MB_per_1000": round(outcome.growth_bytes * 1000 / 1e6, 1),
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if options.record:
            record("overhead", row)


if __name__ == "__main__":
    main()
