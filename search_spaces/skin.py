"""Melanomas and naevi: the networks of KTH's laboratory and others from scratch, or a backbone with a searched head
and depth, at 128 pixels (VGG16 at 224).

    python -m search skin --data DIR         40 trials, 5 folds
    python -m search skin --demo             10 trials, 3 folds, on 1,000 phantoms and 200 held out
    python -m search skin --data DIR --published-only      the fifteen of cm2003lab3, up to 250 epochs: for a GPU

On one CPU core an image takes 7 ms to train on with the small CNN and about 25 ms with a whole MobileNet. By that, the
demonstration takes about ten minutes on two cores. No result on the real images is known here. On the phantoms no
observer exceeds an accuracy of 0.900.
"""

from typing import Any

from search_spaces import Experiment, covid, kth, parts

EXPERIMENT = Experiment(metric="auroc", folds=5, trials=40, max_epochs=81)
DEMO = Experiment(
    metric="auroc",
    folds=3,
    trials=10,
    max_epochs=3,
    models=("svendsen_cnn", "kth_alexnet", *covid.BACKBONES),
)


def search_space(trial: Any) -> dict[str, Any]:
    return {**kth.search_space(trial), **parts.augmentation(trial, kth.AUGMENTATION)}


_LONGER = "the configuration of {}, for longer"

PUBLISHED = (
    kth.alexnet("1a", "AlexNet of width 8", 0.785, 50, learning_rate=1e-4),
    kth.alexnet("1a-dropout", "the same with dropout", 0.83, 50, learning_rate=1e-4, dropout=0.4),
    kth.alexnet("1b", "the same with batch norm", 0.795, 50, learning_rate=1e-4, batch_norm=True),
    kth.alexnet(
        "1b-dropout", "with batch norm and dropout", 0.79, 50, learning_rate=1e-4, batch_norm=True, dropout=0.4
    ),
    kth.alexnet("1c-batchnorm", "at a tenth of the rate", 0.83, 80, learning_rate=1e-5, batch_norm=True, dropout=0.4),
    kth.alexnet("1c", "without batch norm", 0.795, 80, learning_rate=1e-5, dropout=0.4),
    kth.alexnet(
        "1d-batchnorm",
        "1c-batchnorm for longer",
        0.81,
        150,
        _LONGER.format("1c-batchnorm"),
        learning_rate=1e-5,
        batch_norm=True,
        dropout=0.4,
    ),
    kth.alexnet("1d", "1c for longer", 0.785, 150, _LONGER.format("1c"), learning_rate=1e-5, dropout=0.4),
    kth.alexnet(
        "2a-spatial",
        "AlexNet of width 32, spatial dropout",
        0.81,
        150,
        learning_rate=1e-5,
        width=32,
        dropout=0.4,
        body_dropout=0.1,
    ),
    kth.alexnet("2a", "AlexNet of width 32", 0.83, 150, learning_rate=1e-5, width=32, dropout=0.4),
    kth.alexnet(
        "2b-spatial",
        "2a-spatial for longer",
        0.80,
        250,
        _LONGER.format("2a-spatial"),
        learning_rate=1e-5,
        width=32,
        dropout=0.4,
        body_dropout=0.1,
    ),
    kth.alexnet("2b", "2a for longer", 0.815, 250, _LONGER.format("2a"), learning_rate=1e-5, width=32, dropout=0.4),
    kth.alexnet(
        "4",
        "AlexNet of width 64 with batch norm, augmented",
        0.825,
        80,
        "batch norm and dense widths are those of the laboratory's text",
        (128, 64),
        learning_rate=1e-5,
        width=64,
        batch_norm=True,
        dropout=0.4,
        **kth.AUGMENTED,
    ),
    kth.published(
        "5-skin",
        "VGG of width 16, augmented",
        0.3333,
        200,
        80,
        note="no multiple of 1/200 but 8 of 24: too few steps per epoch; that it was augmented is inferred",
        widths=(64, 64, 64),
        model="kth_vgg",
        width=16,
        learning_rate=1e-5,
        dropout=0.2,
        **kth.AUGMENTED,
    ),
    kth.published(
        "6-skin",
        "VGG16's features, one dense layer",
        None,
        200,
        150,
        note="no figure is given; others report 0.835 and 0.870. Pixels were from 0 to 1, for which VGG16 is not meant",
        widths=(128,),
        model=kth.VGG16,
        learning_rate=1e-5,
        dropout=0.5,
        fine_tune=False,
    ),
)
"""In the report, tasks 1 to 4 see gray images; here they have the three colours of the files."""
