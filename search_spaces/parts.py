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


def augmentation(trial: Any) -> dict[str, Any]:
    """The augmentation of svendsen2025 or none."""
    return dict(USUAL_AUGMENTATION) if trial.suggest_categorical("augment", (False, True)) else {}


def balance(trial: Any, oversample_to: int | None = None) -> dict[str, Any]:
    """What is done about classes of unequal size; `oversample_to` images of each, where they are oversampled."""
    chosen = trial.suggest_categorical("balance", get_args(Balance))
    return {"balance": chosen, "oversample_to": oversample_to if "oversample" in chosen else None}
