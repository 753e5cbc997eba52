"""What a proposal of TPE takes after so many trials, and whether it proposes worse where it looks at fewer of them.

    python -m benchmarks.proposals --record  both, in a quarter of an hour on two cores; adds to proposals.md
    python -m benchmarks.proposals --quick   a minute: fewer trials and seeds

No training and no Ray: a study in memory, a cost that is known. *Time* is that of one proposal, in the search space of
the chest films, after so many trials. *Quality* is a search of 1,000 trials with so many of them at a time under way,
as on a cluster; its result is the lowest cost that it has found, in three landscapes, paired by seed with that of a TPE
which looks at all trials.
"""

import argparse
import functools
import heapq
import itertools
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import optuna

from benchmarks.measurement import record
from benchmarks.overhead import search_space
from search.searchers import sampler
from search.tpe import LOOKED_AT, BoundedTPE

ALL = 10**9
SIDE_BY_SIDE = 64


def films(trial: optuna.Trial) -> float:
    """The questions of the chest films; each answer costs by its distance from a right one, some more than others, and
    some only together."""
    search_space(trial)
    far = {}
    for name, distribution in trial.distributions.items():
        right, weight = _right(name)
        value = distribution.to_internal_repr(trial.params[name])
        if isinstance(distribution, optuna.distributions.CategoricalDistribution):
            far[name] = weight * 0.5 * (int(value) != int(right * len(distribution.choices)))
        else:
            low, high, at = distribution.low, distribution.high, value
            if distribution.log:
                low, high, at = math.log(low), math.log(high), math.log(at)
            far[name] = weight * ((at - low) / (high - low) - right) ** 2
    together = far.get("learning_rate", 0.0) * far.get("weight_decay", 0.0)
    return sum(far.values()) + 4 * together


@functools.cache
def _right(name: str) -> tuple[float, float]:
    draw = np.random.default_rng(list(name.encode()))
    return float(draw.uniform(0.1, 0.9)), float(draw.exponential())


def rosenbrock(trial: optuna.Trial) -> float:
    """A bent valley in six parameters (Rosenbrock 1960)."""
    x = [trial.suggest_float(f"x{i}", -2, 2) for i in range(6)]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))


def ackley(trial: optuna.Trial) -> float:
    """Many local optima in ten parameters (Ackley 1987)."""
    x = np.array([trial.suggest_float(f"x{i}", -20, 30) for i in range(10)])
    return float(-20 * np.exp(-0.2 * np.sqrt(np.mean(x**2))) - np.exp(np.mean(np.cos(2 * np.pi * x))) + 20 + math.e)


LANDSCAPES: dict[str, Callable[[optuna.Trial], float]] = {"films": films, "Rosenbrock": rosenbrock, "Ackley": ackley}


def study_of(looked_at: int, seed: int, trials: int) -> optuna.Study:
    """With the sampler of a search, but for what it looks at."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tpe = sampler("tpe", seed, trials)
    assert isinstance(tpe, BoundedTPE)
    tpe.looked_at = looked_at
    return optuna.create_study(sampler=tpe)


def lowest(landscape: str, looked_at: int, trials: int, seed: int) -> float:
    """Of a search, whose trials end in another order than they began."""
    score = LANDSCAPES[landscape]
    study, draw = study_of(looked_at, seed, trials), np.random.default_rng(seed)
    under_way: list[tuple[float, int, optuna.Trial, float]] = []
    now = 0.0
    for _ in range(trials):
        if len(under_way) == SIDE_BY_SIDE:
            now, _, ended, found = heapq.heappop(under_way)
            study.tell(ended, found)
        trial = study.ask()
        heapq.heappush(under_way, (now + draw.uniform(0.5, 1.5), trial.number, trial, score(trial)))
    for _, _, ended, found in under_way:
        study.tell(ended, found)
    return study.best_value


def proposal_s(looked_at: int, trials: int, seed: int = 0, repeats: int = 7) -> float:
    """Of one proposal after so many finished trials, all questions of the chest films answered; median."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(trials):
        trial = drawn.ask()
        drawn.tell(trial, films(trial))
    study = study_of(looked_at, seed, trials)
    study.add_trials(drawn.get_trials(deepcopy=False))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        trial = study.ask()
        search_space(trial)
        times.append(time.perf_counter() - began)
        study.tell(trial, 1.0)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: 1 or more")
    row: dict[str, Any]
    for trials in (300, 1000) if options.quick else (300, 1000, 3000, 10_000):
        for looked_at in (ALL, LOOKED_AT):
            row = {"what": "time", "trials": trials, "looked at": _words(looked_at)}
            row |= {"result": f"{1000 * proposal_s(looked_at, trials):.0f} ms", "beside all": ""}
            _say(row, options)
    trials, seeds = (400, 2) if options.quick else (1000, options.seeds)
    with ProcessPoolExecutor() as pool:
        for landscape in LANDSCAPES:
            of_all: list[float] = []
            for looked_at in (ALL, LOOKED_AT, LOOKED_AT // 3):
                found = list(pool.map(functools.partial(lowest, landscape, looked_at, trials), range(seeds)))
                of_all = of_all or found
                fewer = [a - b for a, b in zip(found, of_all, strict=True)]
                error = statistics.stdev(fewer) / math.sqrt(seeds) if seeds > 1 else float("nan")
                row = {"what": f"cost, {landscape}", "trials": trials, "looked at": _words(looked_at)}
                row |= {"result": f"{statistics.mean(found):.3g}"}
                row |= {"beside all": "" if looked_at == ALL else f"{statistics.mean(fewer):+.2g} ± {error:.2g}"}
                _say(row, options)


def _words(looked_at: int) -> str:
    return "all" if looked_at == ALL else str(looked_at)


def _say(row: dict[str, Any], options: argparse.Namespace) -> None:
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if options.record:
        record("proposals", row, options.note)


if __name__ == "__main__":
    main()
