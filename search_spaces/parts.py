"""Parts that search spaces share. Each asks the trial for its parameters and returns arguments of `TrialConfig`."""

from typing import Any, get_args

from trainables.config import USUAL_AUGMENTATION, Balance


def optimisation(trial: Any, lowest_rate: float, highest_rate: float, batch_sizes: tuple[int, ...]) -> dict[str, Any]:
    """Learning rate, batch size, optimizer, weight decay, schedule and warm-up."""
    optimizer = trial.suggest_categorical("optimizer", ("adam", "adamw"))
    return {
        "learning_rate": trial.suggest_float("learning_rate", lowest_rate, highest_rate, log=True),
        "batch_size": trial.suggest_categorical("batch_size", batch_sizes),
        "optimizer": optimizer,
        # Adam's weight decay is an L2 penalty and not the same thing; the reports used none.
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True) if optimizer == "adamw" else 0.0,
        "schedule": trial.suggest_categorical("schedule", ("constant", "cosine", "plateau")),
        "warmup_epochs": float(trial.suggest_int("warmup_epochs", 0, 2)),
    }


def dense_head(trial: Any, most_layers: int, widths: tuple[int, int]) -> dict[str, Any]:
    """Dense layers, their widths, batch norm and dropout."""
    layers = trial.suggest_int("dense_layers", 0, most_layers)
    return {
        "dense_widths": [trial.suggest_int(f"dense_width_{i + 1}", *widths, log=True) for i in range(layers)],
        "dense_batch_norm": trial.suggest_categorical("dense_batch_norm", (False, True)) if layers else False,
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
    }


def unfrozen(trial: Any, most_layers: int) -> dict[str, Any]:
    """How much of a backbone is trained: nothing, or its last 1 to `most_layers` layers, few as likely as many."""
    if not trial.suggest_categorical("fine_tune", (False, True)):
        return {"unfrozen_layers": 0}
    return {"unfrozen_layers": trial.suggest_int("unfrozen_layers", 1, most_layers, log=True)}


def body(trial: Any, own: tuple[str, ...], backbones: dict[str, int]) -> dict[str, Any]:
    """The model, and of a backbone its pooling and how much of it is trained.

    own: files of `trainables/models/`. backbones: models of timm, and how many parametrised layers they have.
    """
    model = trial.suggest_categorical("model", (*own, *backbones))
    if model in own:
        return {"model": model}
    pooling = trial.suggest_categorical("pooling", ("avg", "max"))
    return {"model": model, "pooling": pooling, **unfrozen(trial, most_layers=backbones[model])}


def small_cnn(trial: Any, image_size_px: int) -> dict[str, Any]:
    """`digits_cnn` for tens of thousands of small images: all but the augmentation."""
    return {
        "model": "digits_cnn",
        "image_size_px": image_size_px,
        "patience": 9,
        **optimisation(trial, 1e-4, 3e-2, batch_sizes=(64, 128, 256)),
        **dense_head(trial, most_layers=2, widths=(32, 512)),
    }


def augmentation(trial: Any, usual: dict[str, Any] = USUAL_AUGMENTATION) -> dict[str, Any]:
    """That of svendsen2025, or what is `usual` for such images; or none."""
    return dict(usual) if trial.suggest_categorical("augment", (False, True)) else {}


def balance_and_augmentation(trial: Any, oversample_to: tuple[int | None, ...] = (None,)) -> dict[str, Any]:
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
    return asked | (dict(USUAL_AUGMENTATION) if balance == "augmented_oversample" else augmentation(trial))
