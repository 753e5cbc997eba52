"""Blood cells: a small CNN from scratch, or a MobileNet with a searched head and depth, at 96 pixels.

96 pixels is the size of AN2DL; BloodMNIST and PBC are brought to it. How unequal classes are balanced is searched,
inside the training folds: with weights, or with as many images of every class as the largest has. That is about what
kamaneh2024 did, who had 1,500 of each of the four smallest classes (it is not said whether before the split).

    python -m search blood --data FILE                  40 trials, 5 folds
    python -m search blood --demo --images 1000         10 trials, 3 folds, on 1,000 phantoms
    python -m search blood --demo                       the same on 11,959 phantoms

On one CPU core an image takes 4 ms to train on with the small CNN and 15 ms with a whole MobileNet. By that, 1,000
phantoms take five to ten minutes on two cores, and all of them one to two hours. No result on the real cells is known
here. On the phantoms no observer exceeds an accuracy of 0.970.
"""

from typing import Any

from search_spaces import Experiment, parts

EXPERIMENT = Experiment(metric="balanced_accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="balanced_accuracy", folds=3, trials=10, max_epochs=3)

BACKBONES = {"mobilenetv1_100": 54, "mobilenetv2_100": 104, "mobilenetv3_small_100": 87}
"""Backbones of timm and how many parametrised layers they have. The first is kamaneh2024's best."""


def search_space(trial: Any) -> dict[str, Any]:
    model = trial.suggest_categorical("model", ("svendsen_cnn", *BACKBONES))
    backbone = {}
    if model in BACKBONES:
        backbone = {"pooling": trial.suggest_categorical("pooling", ("avg", "max"))}
        backbone |= parts.unfrozen(trial, most_layers=BACKBONES[model])
    return {
        "model": model,
        "image_size_px": 96,
        "patience": 9,
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(32, 64, 128)),
        **parts.dense_head(trial, most_layers=2, widths=(64, 1024)),
        **parts.augmentation(trial),
        **parts.balance(trial),
        **backbone,
    }
