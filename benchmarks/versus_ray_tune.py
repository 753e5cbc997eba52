"""A whole search by this program and as the guides of Ray Tune and Optuna would have it written (`by_the_book`).

    python -m benchmarks.versus_ray_tune --quick     seven minutes on two cores
    python -m benchmarks.versus_ray_tune --record    an hour; adds its rows to versus_ray_tune.md

Three spaces: a frozen MobileNetV2, its last 0 to 40 layers trained, all of it trained. Both sides train the same
configurations in the same folds for the same epochs from the same weights, as many trials at a time as there are
cores, each on one; ours begins with an empty store. Whole commands are measured, from the call to the end. Theirs would
take hours, so only its first trials are called (`--theirs`); the others are taken to need as long, less what their
processes need to start. The scores must agree (`agreement`), or it fails.
"""

import argparse
import dataclasses
import os
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.agreement import Scores, differences
from benchmarks.comparison import (
    ByTheBook,
    Layers,
    Searched,
    Task,
    by_the_book,
    points,
    prepared,
    search,
    side_by_side,
    trained,
)
from benchmarks.measurement import record, show

BOTH = ("auto", "float32")
"""Ours as it comes, and in the precision of theirs."""


@dataclass(frozen=True)
class Size:
    images: int
    epochs: int
    trials: int
    theirs: int
    """Trials of theirs that are called."""
    seeds: int
    """With which the configurations of these trials are trained, to know what seeds make of a score."""
    precisions: tuple[str, ...] = BOTH


@dataclass(frozen=True)
class Space:
    layers: Layers
    target: float
    whole: Size
    quick: Size


SPACES = {
    "frozen": Space(0, 200, Size(324, 5, 40, theirs=4, seeds=3), Size(324, 5, 40, 2, 3, ("auto",))),
    "0-40 layers": Space((0, 40), 8, Size(324, 5, 40, theirs=4, seeds=2), Size(108, 2, 8, 2, 2, ("auto",))),
    "everything": Space(None, 1.5, Size(324, 5, 4, theirs=4, seeds=2), Size(108, 1, 2, 2, 2)),
}


def compared(name: str, size: Size, folder: Path, workers: int) -> list[dict[str, Any]]:
    """A row for each precision of ours. Raises `RuntimeError` where the scores do not agree."""
    task = Task(folder, SPACES[name].layers, size.epochs, points(size.trials, SPACES[name].layers))
    label = name.replace(" ", "-")
    ours = [search(task, f"{label}-{precision}", precision) for precision in size.precisions]
    if ours[0].precision == "float32":  # on this hardware that is what `auto` means
        del ours[1:]
    theirs = by_the_book(task, f"{label}-by-the-book", size.theirs, ours[0].fold_of, workers)
    of_seeds = spread(task, ours[0], list(theirs.scores), size.seeds, folder / f"{label}-auto" / "store")
    return [row(name, size, searched, theirs, of_seeds) for searched in ours]


def spread(task: Task, searched: Searched, rates: list[float], seeds: int, store: Path) -> list[list[Scores]]:
    """Scores of the configurations with these learning rates, of each with several seeds in the same folds. The first
    are those of the search itself."""
    os.environ |= {"IMAGE_SEARCH_STORE": str(store), "CUDA_VISIBLE_DEVICES": ""}
    wanted = [(task, searched.params[rate], searched.fold_of, seed) for rate in rates for seed in range(1, seeds)]
    with get_context("spawn").Pool(side_by_side()) as processes:
        further = processes.starmap(trained, wanted, chunksize=1)
    each = seeds - 1
    return [[searched.scores[rate], *further[i * each : (i + 1) * each]] for i, rate in enumerate(rates)]


def row(name: str, size: Size, ours: Searched, theirs: ByTheBook, of_seeds: list[list[Scores]]) -> dict[str, Any]:
    rates = list(theirs.scores)
    found = differences([ours.scores[rate] for rate in rates], [theirs.scores[rate] for rate in rates], of_seeds)
    for difference in found:
        print(f"{name}, {ours.precision}: {difference}", flush=True)
        if not difference.agrees:
            raise RuntimeError(f"{name}, {ours.precision}: the two do not agree in {difference}")
    theirs_s, trial_s = theirs.whole_s(size.trials), (ours.called.seconds - ours.start_up_s) / size.trials
    called = "" if size.theirs == size.trials else f", of which {size.theirs} were called"
    return {
        "space": name,
        "precision": ours.precision,
        "images, epochs": f"{size.images}, {size.epochs}",
        "trials": f"{size.trials}{called}",
        "theirs, s": f"{theirs_s:.0f}",
        "ours, s": f"{ours.called.seconds:.1f}",
        "ratio": f"{theirs_s / ours.called.seconds:.1f}",
        "target": SPACES[name].target,
        "start-up, s": f"{theirs.start_up_s:.0f}, {ours.start_up_s:.1f}",
        "per trial, s": f"{theirs.per_trial_s:.1f}, {trial_s:.2f}",
        "ratio per trial": f"{theirs.per_trial_s / trial_s:.1f}",
        "processor, s": f"{theirs.called.cpu_seconds:.0f}, {ours.called.cpu_seconds:.0f}",
        "private MB": f"{theirs.called.private_bytes // 10**6}, {ours.called.private_bytes // 10**6}",
        "mapped MB": f"{theirs.called.mapped_bytes // 10**6}, {ours.called.mapped_bytes // 10**6}",
        "AUROC, difference": f"{found[0].mean:+.3f} ± {found[0].mean_allowed:.3f}",
        "log loss, difference": f"{found[1].mean:+.3f} ± {found[1].mean_allowed:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images, epochs, trials and precisions")
    parser.add_argument("--space", choices=SPACES, action="append", help="one of the spaces only; may be repeated")
    parser.add_argument("--theirs", type=int, help="trials of theirs that are called; 40: all of them, many hours")
    parser.add_argument("--workers", type=int, default=2, help="of their DataLoaders, for each trial")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.space or SPACES:
            size = SPACES[name].quick if options.quick else SPACES[name].whole
            if options.theirs:
                size = dataclasses.replace(size, theirs=min(options.theirs, size.trials))
            folder = Path(temporary, str(size.images))
            if not folder.exists():
                prepared(folder, size.images)
            for measured in compared(name, size, folder, options.workers):
                show(measured)
                if options.record:
                    record("versus_ray_tune", measured, "quick" if options.quick else "")


if __name__ == "__main__":
    main()
