"""Parts that search spaces share. Each asks the trial for its parameters and returns arguments of `TrialConfig`.

What helps now and then stands behind one question (`regularisation`, `mixing`, `photometric`, `head_first`), at a usual
value, so that it costs a search one dimension and not three; `--set ema=0.999` and the like give other values.
"""

from typing import Any, get_args

from trainables.config import USUAL_AUGMENTATION, Balance

MIXING: dict[str, dict[str, float]] = {"none": {}, "mixup": {"mixup": 0.2}, "cutmix": {"cutmix": 1.0}}
"""At the values of their authors (Zhang et al. 2018, Yun et al. 2019)."""
REGULARISATION: dict[str, dict[str, float]] = {
    "none": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "ema": {"ema": 0.99},
}
"""0.1 is that of Szegedy et al. 2016; an average over a hundred steps suits some ten epochs of a few hundred images."""

PHOTOMETRIC: dict[str, Any] = {"brightness": 0.1, "noise": 0.05}

OPTIONS: dict[str, tuple[str, ...]] = {
    "asproudis_cnn": ("body_dropout",),
    "asproudis_mura_cnn": ("body_dropout",),
    "encoder_decoder": ("batch_norm",),
    "kth_alexnet": ("width", "batch_norm", "body_dropout"),
    "kth_vgg": ("width",),
    "residual": ("width", "depth"),
    "tsouderos_cnn": ("batch_norm",),
    "unet": ("width", "depth", "batch_norm"),
    "unet_classifier": ("width",),
}
"""What is searched of a body in `trainables/models/`; the others have nothing."""


def optimisation(
    trial: Any,
    lowest_rate: float,
    highest_rate: float,
    batch_sizes: tuple[int, ...],
    optimizers: tuple[str, ...] = ("adam", "adamw"),
) -> dict[str, Any]:
    """Learning rate, batch size, optimizer, weight decay, schedule and warm-up."""
    optimizer = trial.suggest_categorical("optimizer", optimizers)
    asked = {
        "learning_rate": trial.suggest_float("learning_rate", lowest_rate, highest_rate, log=True),
        "batch_size": trial.suggest_categorical("batch_size", batch_sizes),
        "optimizer": optimizer,
        # Adam's weight decay is an L2 penalty and not the same thing; the reports used none.
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True) if optimizer == "adamw" else 0.0,
        "schedule": trial.suggest_categorical("schedule", ("constant", "cosine", "plateau", "step")),
        "warmup_epochs": float(trial.suggest_int("warmup_epochs", 0, 2)),
    }
    if optimizer == "sgd":
        asked["momentum"] = trial.suggest_float("momentum", 0.0, 0.95)
    if asked["schedule"] == "step":
        asked["gamma"] = trial.suggest_float("gamma", 0.1, 0.7)
        asked["decay_epochs"] = trial.suggest_int("decay_epochs", 1, 30, log=True)
    return asked


def dense_head(trial: Any, most_layers: int, widths: tuple[int, int]) -> dict[str, Any]:
    """Dense layers, their widths, batch norm and dropout."""
    layers = trial.suggest_int("dense_layers", 0, most_layers)
    return {
        "dense_widths": [trial.suggest_int(f"dense_width_{i + 1}", *widths, log=True) for i in range(layers)],
        "dense_batch_norm": trial.suggest_categorical("dense_batch_norm", (False, True)) if layers else False,
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
    }


def unfrozen(trial: Any, most_layers: int) -> dict[str, Any]:
    """How much of a backbone is trained: nothing, or its last 1 to `most_layers` layers, few as likely as many; at
    rates that fall towards the first of them, and with the head or after it."""
    if not trial.suggest_categorical("fine_tune", (False, True)):
        return {"unfrozen_layers": 0}
    asked = {
        "unfrozen_layers": trial.suggest_int("unfrozen_layers", 1, most_layers, log=True),
        "body_rate": trial.suggest_float("body_rate", 0.01, 1.0, log=True),
    }
    if trial.suggest_categorical("head_first", (False, True)):
        # Fewer than a search has epochs, but for demonstrations: else the body would not be trained at all.
        asked["head_epochs"] = trial.suggest_int("head_epochs", 1, 10, log=True)
        asked["head_learning_rate"] = trial.suggest_float("head_learning_rate", 1e-5, 1e-2, log=True)
        asked["head_batch_size"] = trial.suggest_categorical("head_batch_size", (16, 32, 64, 128))
    return asked


def body(trial: Any, own: tuple[str, ...], backbones: dict[str, int]) -> dict[str, Any]:
    """The model, with its options; of a backbone its pooling and how much of it is trained.

    own: files of `trainables/models/`. backbones: models of timm, and how many parametrised layers they have.
    """
    model = trial.suggest_categorical("model", (*own, *backbones))
    if model in own:
        return {"model": model, **options(trial, model)}
    pooling = trial.suggest_categorical("pooling", ("avg", "max"))
    return {"model": model, "pooling": pooling, **unfrozen(trial, most_layers=backbones[model])}


def options(trial: Any, model: str) -> dict[str, Any]:
    """What a body of `trainables/models/` leaves open."""
    asked: dict[str, Any] = {}
    for option in OPTIONS.get(model, ()):
        match option:
            case "width":
                asked[option] = trial.suggest_int(option, 8, 64, log=True)
            case "depth":
                asked[option] = trial.suggest_int(option, 1, 4)
            case "body_dropout":
                asked[option] = trial.suggest_float(option, 0.0, 0.5)
            case _:
                asked[option] = trial.suggest_categorical(option, (False, True))
    return asked


def small_cnn(trial: Any, image_size_px: int, own: tuple[str, ...]) -> dict[str, Any]:
    """Bodies from scratch for tens of thousands of small images: all but the augmentation."""
    return {
        **body(trial, own, {}),
        "image_size_px": image_size_px,
        "patience": 9,
        **optimisation(trial, 1e-4, 3e-2, batch_sizes=(64, 128, 256), optimizers=("adam", "adamw", "sgd")),
        **dense_head(trial, most_layers=2, widths=(32, 512)),
        **regularisation(trial),
    }


def regularisation(trial: Any, choices: tuple[str, ...] = tuple(REGULARISATION)) -> dict[str, Any]:
    """One of `REGULARISATION`, beside dropout and weight decay."""
    return dict(REGULARISATION[trial.suggest_categorical("regularisation", choices)])


def augmentation(trial: Any, usual: dict[str, Any] = USUAL_AUGMENTATION, mixing: bool = True) -> dict[str, Any]:
    """That of svendsen2025, or what is `usual` for such images, and perhaps more; or none.

    mixing: whether images may be mixed with others; masks cannot.
    """
    if not trial.suggest_categorical("augment", (False, True)):
        return {}
    photometric = trial.suggest_categorical("photometric", (False, True))
    asked = _scaled(trial, usual | (PHOTOMETRIC if photometric else {}))
    return asked | (MIXING[trial.suggest_categorical("mixing", tuple(MIXING))] if mixing else {})


def balance_and_augmentation(
    trial: Any, oversample_to: tuple[int | None, ...] = (None,), usual: dict[str, Any] = USUAL_AUGMENTATION
) -> dict[str, Any]:
    """What is done about classes of unequal size, and whether images are augmented. For classes that are not equal: of
    equal ones there is nothing to repeat.

    `augmented_oversample` augments the repeats, and only they, so there `augment` (all images) is no question.
    oversample_to: how many images of each class, where they are oversampled; None: as many as the largest has.
    """
    balance = trial.suggest_categorical("balance", get_args(Balance))
    asked: dict[str, Any] = {"balance": balance}
    if "oversample" in balance:
        several = len(oversample_to) > 1
        asked["oversample_to"] = (
            trial.suggest_categorical("oversample_to", oversample_to) if several else oversample_to[0]
        )
    return asked | (_scaled(trial, usual) if balance == "augmented_oversample" else augmentation(trial, usual))


def _scaled(trial: Any, usual: dict[str, Any]) -> dict[str, Any]:
    """All ranges times one searched magnitude: one for all does as well as one for each (Cubuk et al. 2020)."""
    magnitude = trial.suggest_float("magnitude", 0.25, 2.0, log=True)
    return {name: value if isinstance(value, bool) else value * magnitude for name, value in usual.items()}
