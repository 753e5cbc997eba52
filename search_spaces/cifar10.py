"""CIFAR-10: a small CNN, or a residual network, at 32 pixels.

    python -m search cifar10 --data DIR                   40 trials, 5 folds of the 50,000
    python -m search cifar10 --demo --images 3000         10 trials, 3 folds, on 3,000 phantoms
    python -m search cifar10 --demo                       the same on 50,000 phantoms

On one CPU core an epoch of one fold takes 4 ms per image (measured): with 3,000 phantoms about seven minutes on two
cores, with all of them about two hours. No result on the real photographs is known here; published is an accuracy of
about 0.71 on the 10,000. On the phantoms no observer exceeds an accuracy of 0.95.
"""

from typing import Any

from search_spaces import Experiment, Published, parts

EXPERIMENT = Experiment(metric="accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="accuracy", folds=3, trials=10, max_epochs=3, models=("digits_cnn", "asproudis_cnn"))


def search_space(trial: Any) -> dict[str, Any]:
    usual = {"flip": True, "rotation_deg": 10.0, "zoom": 0.1}
    asked = parts.small_cnn(trial, image_size_px=32, own=("digits_cnn", "asproudis_cnn", "residual"))
    return asked | parts.augmentation(trial, usual)


PUBLISHED = (
    Published(
        name="asproudis2025-cifar",
        summary="CNN of three blocks with batch norm",
        params={
            "model": "asproudis_cnn",
            "body_dropout": 0.4,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "batch_size": 128,
            "schedule": "constant",
            "warmup_epochs": 0,
            "dense_layers": 1,
            "dense_width_1": 256,
            "dense_batch_norm": False,
            "dropout": 0.5,
            "regularisation": "none",
            "augment": False,
        },
        fixed={"defaults": "keras", "patience": 3},
        metric="accuracy",
        reported=0.71,
        images=10_000,
        split="the test images",
        epochs=30,
        how="best weights by validation loss, patience 3",
        note='"about 0.71", from 10 to 30 epochs; its notebook has 0.786',
    ),
)
