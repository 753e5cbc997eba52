"""Your own images: a MobileNet with a searched head and depth, from ImageNet weights; where a table has masks, a small
encoder and decoder or a U-Net from scratch.

    python -m search images --data DIR
    python -m search images --data DIR --table labels.csv

To search something else, copy this file, change it and give it with --space FILE.py.
"""

from typing import Any

from search_spaces import Experiment, parts, warwick
from search_spaces.covid import BACKBONES

EXPERIMENT = Experiment(metric="balanced_accuracy", folds=5, trials=40, max_epochs=81)
SEGMENTATION = warwick.EXPERIMENT


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, (), BACKBONES),
        "image_size_px": 224,
        "patience": 15,
        **parts.optimisation(trial, 1e-6, 1e-2, batch_sizes=(16, 32, 64)),
        **parts.dense_head(trial, most_layers=2, widths=(32, 512)),
        **parts.regularisation(trial),
        **parts.balance_and_augmentation(trial),
    }


def segmentation_space(trial: Any) -> dict[str, Any]:
    return warwick.search_space(trial) | {"image_size_px": 224}
