"""Blood cells: a small CNN from scratch, or a MobileNet with a searched head and depth, at 96 pixels.

96 pixels is the size of AN2DL; BloodMNIST and PBC are brought to it. How unequal classes are balanced is searched,
inside the training folds: with weights, or with as many images of every class as the largest has, or with 1,500 of each
as kamaneh2024 had of the four smallest (`--set oversample_to=1500`; it is not said whether before the split).

    python -m search blood --data FILE                  40 trials, 5 folds
    python -m search blood --demo --images 1000         10 trials, 3 folds, on 1,000 phantoms
    python -m search blood --demo                       the same on 11,959 phantoms

On one CPU core an image takes 4 ms to train on with the small CNN and 15 ms with a whole MobileNet. By that, 1,000
phantoms take ten to thirty minutes on two cores, since 1,500 of each class are there every phantom ten times, which one
trial in five asks for; all of them take one to two hours. No result on the real cells is known here. On the phantoms no
observer exceeds an accuracy of 0.970.
"""

from typing import Any

from search_spaces import Experiment, parts

EXPERIMENT = Experiment(metric="balanced_accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="balanced_accuracy", folds=3, trials=10, max_epochs=3)

BACKBONES = {"mobilenetv1_100": 54, "mobilenetv2_100": 104, "mobilenetv3_small_100": 87}
"""Backbones of timm and how many parametrised layers they have. The first is kamaneh2024's best."""


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("svendsen_cnn",), BACKBONES),
        "image_size_px": 96,
        "patience": 9,
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(32, 64, 128)),
        **parts.dense_head(trial, most_layers=2, widths=(64, 1024)),
        **parts.balance_and_augmentation(trial, oversample_to=(None, 1500)),
    }
