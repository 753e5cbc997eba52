"""Blood cells: a CNN or a U-Net from scratch, or a backbone with a searched head and depth, at 96 pixels.

96 pixels is the size of AN2DL; BloodMNIST and PBC are brought to it. How unequal classes are balanced is searched,
inside the training folds: with weights, or with as many images of every class as the largest has, or with 1,500 of each
as kamaneh2024 had of the four smallest (classes 0, 2, 4 and 5, the only ones with fewer; it is not said whether before
the split, so that what is reported may be inflated).

    python -m search blood --data FILE                  40 trials, 5 folds
    python -m search blood --demo --images 1000         10 trials, 3 folds, on 1,000 phantoms
    python -m search blood --demo                       the same on 11,959 phantoms
    python -m search blood --data FILE --published-only the fourteen of kamaneh2024: for a GPU

On one CPU core an image takes 4 ms to train on with the small CNN and 15 ms with a whole MobileNet. By that, 1,000
phantoms take ten to thirty minutes on two cores, since 1,500 of each class are there every phantom ten times, which one
trial in five asks for; all of them take one to two hours. No result on the real cells is known here. On the phantoms no
observer exceeds an accuracy of 0.970.
"""

from typing import Any

from search_spaces import Experiment, Published, parts
from trainables.config import USUAL_AUGMENTATION

EXPERIMENT = Experiment(metric="balanced_accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(
    metric="balanced_accuracy",
    folds=3,
    trials=10,
    max_epochs=3,
    models=("svendsen_cnn", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100"),
)

BACKBONES = {
    "mobilenetv1_100": 54,
    "mobilenetv2_100": 104,
    "mobilenetv3_small_100": 87,
    "vgg16": 13,
    "vgg19": 16,
    "inception_v3": 188,
    "resnet50": 106,
    "efficientnet_b0": 130,
}
"""Backbones of timm and how many parametrised layers they have. The first is kamaneh2024's best."""

AUGMENTATION = USUAL_AUGMENTATION | {"vertical_flip": True}
"""Cells have no upper side."""


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("svendsen_cnn", "unet_classifier"), BACKBONES),
        "image_size_px": 96,
        "patience": 9,
        **parts.optimisation(trial, 1e-5, 1e-2, batch_sizes=(32, 64, 128)),
        **parts.dense_head(trial, most_layers=2, widths=(64, 2048)),
        **parts.regularisation(trial),
        **parts.balance_and_augmentation(trial, oversample_to=(None, 1500), usual=AUGMENTATION),
    }


_HEAD_EPOCHS = 10
"""Of what is fine-tuned; the report does not say."""


def _kamaneh(
    name: str, summary: str, reported: float | None, note: str, last_dropout: float | None = None, **params: Any
) -> Published:
    """Tables of the report; accuracies there stand in per cent."""
    common = {
        "optimizer": "adam",
        "schedule": "constant",
        "warmup_epochs": 0,
        "regularisation": "none",
        "balance": "augmented_oversample",
        "oversample_to": 1500,
        "magnitude": 1.0,
    }
    fixed: dict[str, Any] = {"defaults": "keras"}
    if last_dropout is not None:
        fixed["last_dropout"] = last_dropout
    return Published(
        name=f"kamaneh2024-{name}",
        summary=summary,
        params=common | params,
        fixed=fixed,
        metric="accuracy",
        reported=reported,
        images=None,
        split="a local test part, from 14,180 images after augmentation",
        epochs=None,
        note=note,
    )


def _transferred(
    name: str, title: str, model: str, features: int, unfrozen: int, frozen: float, tuned: float, note: str = ""
) -> tuple[Published, Published]:
    """With its body frozen, and then with its last layers trained.

    features: of its pooled output, as wide as the text wants the first dense layer at least. unfrozen: of our layers,
    as many as are in the last layers of Keras that the report counts.
    """
    head: dict[str, Any] = {
        "model": model,
        "pooling": "avg",
        "dense_layers": 1,
        "dense_width_1": features,
        "dense_batch_norm": False,
        "dropout": 0.3,
    }
    unsaid = "epochs are not stated; the dense layer is as wide as the features, the least that the text allows"
    return (
        _kamaneh(
            f"{name}-frozen",
            f"{title}, frozen",
            frozen,
            f"{unsaid}{note}",
            learning_rate=1e-4,
            batch_size=128,
            fine_tune=False,
            **head,
        ),
        _kamaneh(
            f"{name}-finetuned",
            f"{title}, its last layers trained after the head",
            tuned,
            f"{unsaid}; {_HEAD_EPOCHS} of them are given to the head{note}",
            learning_rate=1e-5,
            batch_size=64,
            fine_tune=True,
            unfrozen_layers=unfrozen,
            body_rate=1.0,
            head_first=True,
            head_epochs=_HEAD_EPOCHS,
            head_learning_rate=1e-4,
            head_batch_size=128,
            **head,
        ),
    )


_OTHER_PIXELS = "; in the report it most likely saw pixels from 0 to 1, for which its weights are not meant"

PUBLISHED = (
    *_transferred("mobilenet", "MobileNet", "mobilenetv1_100", 1024, 26, 0.9532, 0.9707),
    _kamaneh(
        "mobilenet-tuned",
        "MobileNet, frozen, with the head that three searches found",
        None,
        "its figure is not given on its own, and neither batch size nor epochs; 1,124,232 parameters are trained",
        model="mobilenetv1_100",
        pooling="avg",
        fine_tune=False,
        learning_rate=1e-4,
        batch_size=128,
        dense_layers=2,
        dense_width_1=832,
        dense_width_2=320,
        dense_batch_norm=True,
        dropout=0.3,
        last_dropout=0.1,
    ),
    _kamaneh(
        "unet",
        "U-Net as a classifier, from scratch",
        0.9783,
        "rate, batch size and epochs are not stated; hidden test, of transformed images: at most 0.30",
        model="unet_classifier",
        width=64,
        learning_rate=1e-4,
        batch_size=64,
        dense_layers=0,
        dropout=0.0,
    ),
    *_transferred("vgg16", "VGG16", "vgg16", 512, 7, 0.7692, 0.9532),
    *_transferred("vgg19", "VGG19", "vgg19", 512, 12, 0.7542, 0.9397),
    *_transferred("inceptionv3", "InceptionV3", "inception_v3", 2048, 19, 0.8372, 0.9514),
    *_transferred("resnet50", "ResNet50", "resnet50", 2048, 45, 0.2803, 0.5042, _OTHER_PIXELS),
    *_transferred("efficientnetb0", "EfficientNetB0", "efficientnet_b0", 1280, 42, 0.2671, 0.4833, _OTHER_PIXELS),
)
