"""How often the shortcut test warns: with the label burnt into a corner of nine films in ten, and without.

    python -m benchmarks.shortcuts --record     half an hour on one CPU core; adds its rows to shortcuts.md

Phantoms of a task, each draw with a seed of its own, are cross-validated as in a demonstration: `test_resnet` from
the weights that come with this program, its last two blocks trained. Then the test of `trainables.shortcuts` is made on
some of the images with the networks that have not seen them.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import datasets
from benchmarks.measurement import record
from datasets.folds import make_folds
from trainables.config import TrialConfig
from trainables.ensemble import Ensemble
from trainables.lockstep import Lockstep
from trainables.out_of_fold import OutOfFold, in_each_fold, some_images
from trainables.protocol import Protocol
from trainables.shortcuts import attention, probed, warnings

DRAWS = 20
FIRST_SEED = 500
"""The thresholds were chosen on other draws, see shortcuts.md."""
PLANTED: dict[str, tuple[str, ...]] = {"nothing": (), "text": ("text",), "source": ("source",)}


@dataclass(frozen=True)
class Setting:
    images: int
    size_px: int
    batch_size: int


SETTINGS = {"covid": Setting(324, 112, 16), "fashion_mnist": Setting(500, 32, 16)}


def looked(task: str, plant: tuple[str, ...], seed: int, images: int) -> dict[str, Any]:
    """One cross-validation and its test. images: how many are looked at."""
    setting = SETTINGS[task]
    request = datasets.Request(demonstration=True, seed=seed, images=setting.images, plant=plant)
    dataset = datasets.load_all(task, request).part("development")
    folds = make_folds(dataset, 3, seed)
    config = TrialConfig(
        model="test_resnet",
        image_size_px=setting.size_px,
        learning_rate=1e-2,
        batch_size=setting.batch_size,
        schedule="cosine",
        unfrozen_layers=14,
        dense_widths=(64,),
        dense_batch_norm=True,
        dropout=0.2,
    )
    protocol = Protocol(metric="auroc", max_epochs=3, seed=seed, weights="phantoms", precision="float32")
    trial = Lockstep(config, dataset, folds, protocol)
    while not trial.finished:
        trial.advance()
    with tempfile.TemporaryDirectory() as folder:
        trial.save(Path(folder))
        ensemble = Ensemble.of_trial(Path(folder), config, dataset, folds, protocol)
    began = time.perf_counter()
    sample, unseen = some_images(ensemble, dataset, folds, images), OutOfFold(ensemble)
    probabilities_NC, maps_NHW, _ = in_each_fold(unseen, sample)
    assert maps_NHW is not None, "a convolutional network keeps maps"
    found = probed(sample, unseen.predict, probabilities_NC)
    shares = attention(maps_NHW, sample.targets_N, sample.groups_N, dataset.classes)["by_class"]
    return {
        "warns": bool(warnings(found)),
        "auroc": trial.report()["auroc"],
        "corners": found["corners_exchanged"]["fall"],
        "corners_errors": found["corners_exchanged"]["standard_errors"],
        "border": found["border_exchanged"]["fall"],
        "border_errors": found["border_exchanged"]["standard_errors"],
        "only_corners": found["only_corners"]["mean"],
        "only_border": found["only_border"]["mean"],
        "outside": float(np.mean([entry["outside_share"] for entry in shares])),
        "seconds": time.perf_counter() - began,
    }


def summed_up(task: str, planted: str, images: int, draws: list[dict[str, Any]]) -> dict[str, str | int]:
    """A row of the table."""

    def spread(name: str) -> str:
        values = [draw[name] for draw in draws]
        return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    return {
        "task": task,
        "planted": planted,
        "looked_at": images,
        "warned": f"{sum(draw['warns'] for draw in draws)} of {len(draws)}",
        **{name: spread(name) for name in draws[0] if name not in ("warns", "seconds")},
        "seconds": f"{np.median([draw['seconds'] for draw in draws]):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SETTINGS, help="one of the tasks only")
    parser.add_argument("--planted", choices=PLANTED, help="one of the pitfalls only")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--images", type=int, default=300, help="how many are looked at")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in [options.task] if options.task else SETTINGS:
        for planted in [options.planted] if options.planted else PLANTED:
            draws = []
            for seed in range(options.first_seed, options.first_seed + options.draws):
                draws.append(looked(task, PLANTED[planted], seed, options.images))
                print(task, planted, seed, {name: round(value, 3) for name, value in draws[-1].items()}, flush=True)
            row = summed_up(task, planted, options.images, draws)
            print(row, flush=True)
            if options.record:
                record("shortcuts", row)


if __name__ == "__main__":
    main()
