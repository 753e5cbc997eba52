"""Glands: a small encoder and decoder at 128 pixels, with or without batch norm.

    python -m search warwick --data DIR         40 trials, 5 folds
    python -m search warwick --demo             10 trials, 3 folds, on 85 phantoms and 60 held out

On one CPU core an epoch of one fold takes 13 ms per image (measured): the demonstration about two minutes on two
cores. No result on the real tissue is known here; published are 0.66 to 0.88 on 60 images that were also used to
choose. On the phantoms no observer exceeds a mean Dice of 0.951.
"""

from typing import Any

from search_spaces import Experiment, parts

EXPERIMENT = Experiment(metric="dice", folds=5, trials=40, max_epochs=81)
DEMO = Experiment(metric="dice", folds=3, trials=10, max_epochs=9)


def search_space(trial: Any) -> dict[str, Any]:
    return {
        "model": "encoder_decoder",
        "image_size_px": 128,
        "patience": 30,
        "batch_norm": trial.suggest_categorical("batch_norm", (False, True)),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        **parts.optimisation(trial, 1e-4, 3e-2, batch_sizes=(8, 16, 32)),
        **parts.augmentation(trial),
    }
