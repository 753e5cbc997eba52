"""Numbers and configurations in short words, the same in the terminal and in the report."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from analysis.results import Experiment

METRIC_WORDS = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "dice": "Dice",
    "iou": "IoU",
    "log_loss": "log loss",
}
PARAMETER = "param."


def metric_words(metric: str) -> str:
    """`balanced accuracy`, and that of one of several targets `balanced accuracy of side`."""
    name, _, target = metric.partition(":")
    words = METRIC_WORDS.get(name, name.replace("_", " "))
    return f"{words} of {target}" if target else words


def folds_words(experiment: Experiment) -> str:
    """`5 folds`, `3 × 5 folds`, `5 folds, one per source`: over what a mean and a standard deviation are."""
    data = experiment["data"]
    repeats = f"{data['repeats']} × " if data["repeats"] > 1 else ""
    return f"{repeats}{experiment['folds']} folds" + (", one per source" if data["leave_source_out"] else "")


def score_words(mean: float | None, std: float | None, sign: bool = False) -> str:
    """`0.953 ± 0.012`: a score is never printed without its spread."""
    if mean is None:
        return "no score"
    spread = "unknown" if std is None else f"{std:.3f}"
    return f"{mean:+.3f} ± {spread}" if sign else f"{mean:.3f} ± {spread}"


def time_words(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"


def params_of(row: dict[str, Any]) -> dict[str, Any]:
    """The parameters of one row of the trials table."""
    return {name.removeprefix(PARAMETER): value for name, value in row.items() if name.startswith(PARAMETER)}


def telling(trials: pl.DataFrame) -> list[str]:
    """The parameters in which the trials differ, which tell one configuration from another; of equal ones the model."""
    known = trials.filter(pl.col("param.model").is_not_null())
    names = [name for name in trials.columns if name.startswith(PARAMETER)]
    differing = [name.removeprefix(PARAMETER) for name in names if known[name].n_unique() > 1]
    return differing or ["model"]


def same(trials: pl.DataFrame) -> dict[str, Any]:
    """The other parameters, with the values that they have in all trials."""
    known = trials.filter(pl.col("param.model").is_not_null())
    params = params_of(known.row(0, named=True)) if known.height else {}
    differing = telling(trials)
    return {name: value for name, value in params.items() if name not in differing}


def configuration_words(params: dict[str, Any], names: Sequence[str]) -> str:
    """`mobilenetv2_100, lr 1e-4, dense 128, last 20 layers`: the named parameters, as far as they are switched on."""
    if all(value is None for value in params.values()):
        return "not known yet"
    return ", ".join(word for name in names if name in params and (word := _word(name, params[name])))


def _word(name: str, value: Any) -> str:
    match name, value:
        case "unfrozen_layers", None:
            return "all layers"
        case _, None:
            return ""
        case (("model" | "optimizer"), _):
            return str(value)
        case "image_size_px", _:
            return f"{value} px"
        case "learning_rate", _:
            return f"lr {_short(value)}"
        case "weight_decay", _:
            return f"decay {_short(value)}" if value else ""
        case "batch_size", _:
            return f"batch {value}"
        case "warmup_epochs", _:
            return f"warm-up {_short(value)}" if value else ""
        case "schedule", _:
            return f"{value} rate"
        case "dense_widths", _:
            return f"dense {'-'.join(map(str, value))}" if len(value) else "no dense layer"
        case "dense_batch_norm", _:
            return "batch norm" if value else ""
        case "batch_norm", _:
            return "batch norm in the body" if value else ""
        case "balance", _:
            return "" if value == "none" else value.replace("_", " ")
        case "oversample_to", _:
            return f"to {value} per class"
        case "auxiliary_weight", 1:
            return ""
        case "pooling", _:
            return f"{value} pool"
        case "unfrozen_layers", 0:
            return "head only"
        case "unfrozen_layers", _:
            return f"last {value} layers" if value > 1 else "last layer"
        case "rotation_deg", _:
            return f"rotate ±{_short(value)}°" if value else ""
        case (("zoom" | "contrast"), _):
            return f"{name} ±{_short(value)}" if value else ""
        case _, bool():
            return name.replace("_", " ") if value else ""
        case _, float():
            return f"{name.replace('_', ' ')} {_short(value)}"
    return f"{name.replace('_', ' ')} {value}"


def _short(value: float) -> str:
    """Two digits: 0.3, 1.5, 1e-4, 3.2e-5."""
    text = f"{value:.2g}"
    mantissa, e, exponent = text.partition("e")
    if not e and 0 < abs(value) < 0.0095:
        mantissa, e, exponent = f"{value:.1e}".partition("e")
        mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if e else mantissa
