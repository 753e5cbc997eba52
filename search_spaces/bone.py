"""Atypical and normal femoral fractures: a small CNN from scratch, or a backbone with a searched head and depth.

    python -m search bone --data DIR         40 trials, 5 folds
    python -m search bone --demo             10 trials, 3 folds, on 1,112 phantoms and 96 held out

At 128 pixels as most of the reports. On one CPU core an image takes 7 ms to train on with the small CNN and about 25 ms
with a whole MobileNet. By that, the demonstration takes about ten minutes on two cores. No result on the real films is
known here. On the phantoms no observer exceeds an accuracy of 0.959.
"""

from typing import Any

from search_spaces import Experiment, parts
from search_spaces.covid import BACKBONES

EXPERIMENT = Experiment(metric="auroc", folds=5, trials=40, max_epochs=81)
DEMO = Experiment(metric="auroc", folds=3, trials=10, max_epochs=3)


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("svendsen_cnn",), BACKBONES),
        "image_size_px": 128,
        "patience": 30,
        **parts.optimisation(trial, 1e-6, 1e-2, batch_sizes=(8, 16, 32, 64)),
        **parts.dense_head(trial, most_layers=2, widths=(32, 512)),
        **parts.balance_and_augmentation(trial),
    }
