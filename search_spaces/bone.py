"""Atypical and normal femoral fractures: the networks of KTH's laboratory and others from scratch, or a backbone with a
searched head and depth.

    python -m search bone --data DIR         40 trials, 5 folds
    python -m search bone --demo             10 trials, 3 folds, on 1,112 phantoms and 96 held out
    python -m search bone --data DIR --published-only      the four of cm2003lab3, up to 150 epochs: for a GPU

At 128 pixels, VGG16 at 224, as in the report. On one CPU core an image takes 7 ms to train on with the small CNN and
about 25 ms with a whole MobileNet. By that, the demonstration takes about ten minutes on two cores. No result on the
real films is known here. On the phantoms no observer exceeds an accuracy of 0.959.
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
    return {**kth.search_space(trial), **parts.balance_and_augmentation(trial, usual=kth.AUGMENTATION)}


PUBLISHED = (
    kth.published(
        "5-bone",
        "VGG of width 64, augmented",
        0.75,
        96,
        80,
        note="that it was augmented is inferred",
        widths=(64, 64, 64),
        model="kth_vgg",
        width=64,
        learning_rate=1e-5,
        dropout=0.2,
        balance="none",
        **kth.AUGMENTED,
    ),
    kth.published(
        "6-bone",
        "VGG16's features, one dense layer",
        1.0,
        96,
        150,
        note="text in the corners gives the class away. Its pixels were from 0 to 1, for which VGG16 is not meant",
        widths=(128,),
        model=kth.VGG16,
        learning_rate=1e-5,
        dropout=0.5,
        fine_tune=False,
        balance="none",
    ),
    kth.published(
        "8",
        "VGG of width 8, for class activation maps",
        0.4375,
        96,
        80,
        note="in colour and with two outputs there, gray and with one here; dropout is not stated, here that of task 5",
        widths=(64, 64, 64),
        model="kth_vgg",
        width=8,
        learning_rate=1e-5,
        dropout=0.2,
        balance="none",
    ),
    kth.published(
        "bonus",
        "residual network, class weights, falling rate, augmented",
        0.6746,
        None,
        None,
        split="the mean of 4 folds (standard deviation 0.0788) of films, probably these",
        note="network, rate, its schedule and epochs are not stated: here the smallest of He et al. 2016, 1e-3, halved "
        "on plateaus",
        model="residual",
        width=16,
        depth=3,
        learning_rate=1e-3,
        schedule="plateau",
        dropout=0.0,
        balance="class_weights",
        **kth.AUGMENTED,
    ),
)
