"""MNIST: a small CNN or a perceptron at 28 pixels.

    python -m search mnist --data DIR                   40 trials, 5 folds of the 60,000
    python -m search mnist --demo --images 3000         10 trials, 3 folds, on 3,000 phantoms
    python -m search mnist --demo                       the same on 60,000 phantoms

On one CPU core an epoch of one fold takes 3 ms per image (measured): with 3,000 phantoms about five minutes on two
cores, with all of them more than an hour. No result on the real digits is known here; published are 0.9878 and 0.992
on the 10,000. On the phantoms no observer exceeds an accuracy of 0.995.

Digits are turned and stretched a little when augmented, and not mirrored: a mirrored 2 is none.
"""

from typing import Any

from search_spaces import Experiment, Published, parts

EXPERIMENT = Experiment(metric="accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="accuracy", folds=3, trials=10, max_epochs=3)


def search_space(trial: Any) -> dict[str, Any]:
    usual = {"rotation_deg": 12.0, "zoom": 0.1}
    asked = parts.small_cnn(trial, image_size_px=28, own=("digits_cnn", "tsouderos_cnn", "mlp"))
    return asked | parts.augmentation(trial, usual)


def _tsouderos(
    exercise: str,
    summary: str,
    reported: float | None,
    epochs: int | None,
    note: str = "",
    fixed: dict[str, Any] | None = None,
    **params: Any,
) -> Published:
    """The exercises of the report. Batches of 128 are stated for the first only."""
    common = {
        "model": "tsouderos_cnn",
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 128,
        "dense_layers": 0,
        "dropout": 0.0,
        "regularisation": "none",
        "augment": False,
        **({"batch_norm": False} if params.get("model") != "mlp" else {}),
    }
    return Published(
        name=f"tsouderos2024-{exercise}",
        summary=summary,
        params=common | params,
        fixed={"patience": epochs or 40} | (fixed or {}),
        metric="accuracy",
        reported=reported,
        images=10_000,
        split="the test images, on which every choice was made",
        epochs=epochs,
        note=note,
    )


_SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e-2, "momentum": 0.9}
_RATE_UNKNOWN = "rate and momentum are not stated: here 0.01 and 0.9"

PUBLISHED = (
    _tsouderos(
        "1.1",
        "perceptron with one hidden layer of 100",
        None,
        200,
        "no figure, but that it overfits; its rate is not stated: here Adam's usual one",
        model="mlp",
        optimizer="adam",
        learning_rate=1e-3,
        dense_layers=1,
        dense_width_1=100,
        dense_batch_norm=False,
    ),
    _tsouderos("1.2", "CNN, stochastic gradient descent", 0.9878, 40, _RATE_UNKNOWN, **_SGD),
    _tsouderos(
        "1.3a",
        "pooled before the ReLU",
        0.9857,
        40,
        f"{_RATE_UNKNOWN}; the same function as 1.2, the difference is noise",
        {"pool_first": True},
        **_SGD,
    ),
    _tsouderos(
        "1.3b",
        "pooled before a sigmoid",
        0.8517,
        None,
        f"exercises 1.3b and 1.3c; {_RATE_UNKNOWN}",
        {"pool_first": True, "activation": "sigmoid"},
        **_SGD,
    ),
    _tsouderos(
        "1.4",
        "CNN, Adam at a high rate",
        0.982,
        40,
        "its rate is above 1e-3 and not stated: here 1e-2",
        optimizer="adam",
        learning_rate=1e-2,
    ),
    _tsouderos("1.5.1", "CNN, Adam at a lower rate", 0.99, None, optimizer="adam", learning_rate=1e-3),
    _tsouderos(
        "1.5.2",
        "with batch norm",
        0.99,
        None,
        "printed as 99 %: a digit is lost",
        optimizer="adam",
        learning_rate=1e-3,
        batch_norm=True,
    ),
    _tsouderos(
        "1.5.3",
        "with batch norm and a falling rate",
        0.992,
        None,
        "how it falls is not stated: here halved after every 10 epochs",
        optimizer="adam",
        learning_rate=1e-3,
        batch_norm=True,
        schedule="step",
        gamma=0.5,
        decay_epochs=10,
    ),
)
