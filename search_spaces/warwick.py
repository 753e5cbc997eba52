"""Glands: a small encoder and decoder, or a U-Net, at 128 pixels, with or without batch norm.

    python -m search warwick --data DIR         40 trials, 5 folds
    python -m search warwick --demo             10 trials, 3 folds, on 85 phantoms and 60 held out

On one CPU core an epoch of one fold takes 13 ms per image (measured): the demonstration about two minutes on two
cores. No result on the real tissue is known here; published are 0.66 to 0.88 on 60 images that were also used to
choose. On the phantoms no observer exceeds a mean Dice of 0.951.
"""

from typing import Any

from search_spaces import Experiment, Published, parts
from trainables.config import USUAL_AUGMENTATION

EXPERIMENT = Experiment(metric="dice", folds=5, trials=40, max_epochs=81)
DEMO = Experiment(metric="dice", folds=3, trials=10, max_epochs=9, models=("encoder_decoder",))

AUGMENTATION = USUAL_AUGMENTATION | {"vertical_flip": True}
"""Tissue has no upper side."""


def search_space(trial: Any) -> dict[str, Any]:
    return {
        **parts.body(trial, ("encoder_decoder", "unet"), {}),
        "image_size_px": 128,
        "patience": 30,
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        **parts.optimisation(trial, 1e-4, 3e-2, batch_sizes=(8, 16, 32)),
        **parts.regularisation(trial, ("none", "ema")),
        **parts.augmentation(trial, AUGMENTATION, mixing=False),
    }


def _tsouderos(exercise: str, summary: str, reported: float, note: str = "", **params: Any) -> Published:
    """Exercise 2 of the report: 100 epochs at a rate of 0.01."""
    common = {
        "model": "encoder_decoder",
        "batch_norm": False,
        "optimizer": "adam",
        "learning_rate": 1e-2,
        "batch_size": 32,
        "schedule": "constant",
        "warmup_epochs": 0,
        "dropout": 0.0,
        "regularisation": "none",
        "augment": False,
    }
    return Published(
        name=f"tsouderos2024-{exercise}",
        summary=summary,
        params=common | params,
        fixed={"patience": 100},
        metric="dice",
        reported=reported,
        images=60,
        split="the test images, on which every choice was made",
        epochs=100,
        note="network and optimizer are not stated: here a network that fits the exercise, and Adam" + note,
    )


PUBLISHED = (
    _tsouderos("2.1", "encoder and decoder", 0.66),
    _tsouderos("2.2.1", "with batch norm", 0.82, batch_norm=True),
    _tsouderos("2.2.2", "with batch norm and smaller batches", 0.85, batch_norm=True, batch_size=16),
    _tsouderos(
        "2.2.3",
        "with batch norm, smaller batches and a falling rate",
        0.88,
        "; it had the steps at 5 epochs, then at 20, which are taken here",
        batch_norm=True,
        batch_size=16,
        schedule="step",
        gamma=0.2,
        decay_epochs=20,
    ),
)
