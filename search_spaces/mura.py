"""MURA: a CNN from scratch, or a backbone with a searched head and depth; the part of the body trained along.

Folds keep patients together and have equal shares of every part and label, as far as patients allow. The score is over
images, with `--metric study_auroc` over studies. How much the part counts in the loss is searched, from nothing to as
much as the label.

    python -m search mura --data DIR                    40 trials, 5 folds: a search for GPUs
    python -m search mura --data DIR --published-only   the three of asproudis2025
    python -m search mura --demo --images 600           8 trials, 3 folds, on 600 phantoms and 52 held out
    python -m search mura --demo                        the same on 36,808 phantoms: for a GPU, too

On one CPU core an image takes 26 ms to train on with the small CNN, 80 ms with a whole MobileNet and 490 ms with a
whole DenseNet-169, which a demonstration leaves out (`--models` has it back). By that, 600 phantoms take five to twenty
minutes on two cores, depending on what is drawn, and all of them days. Results on the real films are not known here. On
the phantoms no observer exceeds an accuracy of 0.919.
"""

from typing import Any

from search_spaces import Experiment, Published, parts
from trainables.config import USUAL_AUGMENTATION

EXPERIMENT = Experiment(metric="auroc", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(
    metric="auroc",
    folds=3,
    trials=8,
    max_epochs=3,
    models=("svendsen_cnn", "asproudis_mura_cnn", "mobilenetv2_100"),
)

BACKBONES = {"mobilenetv2_100": 104, "densenet169": 337, "efficientnet_b0": 130, "inception_v3": 188}
"""Backbones of timm and how many parametrised layers they have. DenseNet-169 is that of the MURA paper."""

AUGMENTATION = USUAL_AUGMENTATION | {"vertical_flip": True}
"""A limb may lie either way; asproudis2025 mirrors top to bottom, too."""


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("svendsen_cnn", "asproudis_mura_cnn"), BACKBONES),
        "image_size_px": 224,
        "patience": 9,
        "auxiliary_weight": trial.suggest_categorical("auxiliary_weight", (0.0, 0.1, 1.0)),
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(32, 64, 128)),
        **parts.dense_head(trial, most_layers=2, widths=(32, 512)),
        **parts.regularisation(trial),
        **parts.balance_and_augmentation(trial, usual=AUGMENTATION),
    }


def _asproudis(
    name: str, summary: str, reported: float | None, epochs: int | None, note: str, patience: int = 5, **params: Any
) -> Published:
    common = {
        "auxiliary_weight": 1.0,
        "optimizer": "adam",
        "schedule": "constant",
        "warmup_epochs": 0,
        "dense_layers": 1,
        "dense_width_1": 128,
        "dense_batch_norm": False,
        "regularisation": "none",
        "balance": "sample_weights",
        "augment": True,
        "magnitude": 1.0,
        "photometric": False,
        "mixing": "none",
    }
    return Published(
        name=f"asproudis2025-mura-{name}",
        summary=summary,
        params=common | params,
        fixed={"defaults": "keras", "patience": patience, "views": 0},
        metric="accuracy",
        reported=reported,
        images=3193,
        split="the images of `valid` less four: the first line of each list was lost",
        epochs=epochs,
        how="best weights by validation loss, on the same images" if epochs else "",
        note=note,
    )


PUBLISHED = (
    _asproudis(
        "cnn",
        "CNN of three blocks from scratch, with the part",
        0.649,
        50,
        "patience and rate by its notebook; its part was OTHER for every image, so the second head learnt a constant",
        model="asproudis_mura_cnn",
        body_dropout=0.4,
        learning_rate=1e-3,
        batch_size=64,
        schedule="plateau",
        dropout=0.0,
    ),
    _asproudis(
        "efficientnetb0",
        "EfficientNetB0, frozen",
        0.043,
        None,
        "of which output this accuracy is, is not said (0.35 in training); dense layer and epochs are not stated",
        model="efficientnet_b0",
        pooling="avg",
        fine_tune=False,
        learning_rate=1e-4,
        batch_size=32,
        dropout=0.3,
    ),
    _asproudis(
        "inceptionv3",
        "InceptionV3 with max pooling, the last third trained after the head",
        None,
        None,
        "unfinished, no figure; batch size, dense layer and epochs are not stated. Its cut, layer 150 of Keras, lies "
        "between branches: here as many layers are trained",
        model="inception_v3",
        pooling="max",
        fine_tune=True,
        unfrozen_layers=96,
        body_rate=1.0,
        head_first=True,
        head_epochs=10,
        head_learning_rate=1e-4,
        head_batch_size=32,
        learning_rate=1e-5,
        batch_size=32,
        dropout=0.3,
    ),
)
