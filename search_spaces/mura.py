"""MURA: a small CNN from scratch, or a backbone with a searched head and depth; the part of the body trained along.

Folds keep patients together and have equal shares of every part and label, as far as patients allow. The score is over
images. How much the part counts in the loss is searched, from nothing to as much as the label.

    python -m search mura --data DIR                    40 trials, 5 folds: a search for GPUs
    python -m search mura --demo --images 600           8 trials, 3 folds, on 600 phantoms and 52 held out
    python -m search mura --demo                        the same on 36,808 phantoms: for a GPU, too

On one CPU core an image takes 26 ms to train on with the small CNN, 80 ms with a whole MobileNet and 490 ms with a
whole DenseNet-169. By that, 600 phantoms take a quarter of an hour to two hours on two cores, depending on what is
drawn, and all of them days. Results on the real films are not known here. On the phantoms no observer exceeds an
accuracy of 0.919.
"""

from typing import Any

from search_spaces import Experiment, parts

EXPERIMENT = Experiment(metric="auroc", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="auroc", folds=3, trials=8, max_epochs=3)

BACKBONES = {"mobilenetv2_100": 104, "densenet169": 337}
"""Backbones of timm and how many parametrised layers they have. DenseNet-169 is that of the MURA paper."""


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("svendsen_cnn",), BACKBONES),
        "image_size_px": 224,
        "patience": 9,
        "auxiliary_weight": trial.suggest_categorical("auxiliary_weight", (0.0, 0.1, 1.0)),
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(32, 64, 128)),
        **parts.dense_head(trial, most_layers=2, widths=(32, 512)),
        **parts.balance_and_augmentation(trial),
    }
