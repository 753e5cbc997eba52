"""Numbers and configurations in short words, the same in the terminal and in the report."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from analysis.results import Experiment, Reported
from trainables.metrics import STUDY

METRIC_WORDS = {"auroc": "AUROC", "f1": "F1", "cohen_kappa": "Cohen's kappa", "dice": "Dice", "iou": "IoU"}
PARAMETER = "param."

UNUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "momentum": ("optimizer", ("adam", "adamw")),
    "gamma": ("schedule", ("constant", "cosine")),
    "decay_epochs": ("schedule", ("constant", "cosine")),
    "head_learning_rate": ("head_epochs", (0,)),
    "head_batch_size": ("head_epochs", (0,)),
}
"""Parameters that do nothing where another one has one of these values."""


def metric_words(metric: str) -> str:
    """`balanced accuracy`, that of one of several targets `balanced accuracy of side`, `accuracy over studies`."""
    name, _, target = metric.partition(":")
    own = name.removeprefix(STUDY)
    words = METRIC_WORDS.get(own, own.replace("_", " ")) + (" over studies" if own != name else "")
    return f"{words} of {target}" if target else words


def folds_words(experiment: Experiment) -> str:
    """`5 folds`, `3 × 5 folds`, `5 folds, one per source`: over what a mean and a standard deviation are."""
    data = experiment["data"]
    repeats = f"{data['repeats']} × " if data["repeats"] > 1 else ""
    return f"{repeats}{experiment['folds']} folds" + (", one per source" if data["leave_source_out"] else "")


def score_words(mean: float | None, std: float | None) -> str:
    """`0.953 ± 0.012`: a score is never printed without its spread."""
    if mean is None:
        return "no score"
    spread = "unknown" if std is None else f"{std:.3f}"
    return f"{mean:.3f} ± {spread}"


def interval_words(value: float, low: float, high: float) -> str:
    """`0.921 (0.887 to 0.950)`: an estimate with its interval."""
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def difference_words(value: float, low: float, high: float) -> str:
    """`+0.021 (-0.004 to +0.046)`"""
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def share_words(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`88 % (84 to 91)`: a share of images with its interval."""
    if value is None:
        return "–"
    return (
        _percent(value)
        + " %"
        + (f" ({_percent(low)} to {_percent(high)})" if low is not None and high is not None else "")
    )


def _percent(share: float) -> str:
    """Whole, but never 0 or 100 where it is not quite."""
    return f"{100 * share:.1f}" if 0 < share < 0.005 or 0.995 < share < 1 else f"{100 * share:.0f}"


def rule_words(rule: str) -> str:
    """How a threshold was chosen: `sensitivity 0.95` is `at least 95 % sensitivity`."""
    name, _, least = rule.partition(" ")
    if name == "sensitivity" and least:
        return f"at least {float(least):.0%} sensitivity".replace("%", "\u00a0%")
    return "highest balanced accuracy (Youden)" if rule == "youden" else rule


def reported_words(value: float | None, images: int | None = None) -> str:
    """`0.815 on 81 images`: the figure of a report, which has no spread, with what tells how sure it can be."""
    if value is None:
        return "no figure"
    return f"{value:.3f}" + (f" on {images:,} images" if images is not None else "")


def source_words(reported: Reported) -> str:
    """What its authors say of a figure: `the 25 % held out; 331 epochs; last epoch. 0.3333 is 8 of 24`."""
    said = [reported["split"], f"{reported['epochs']:,} epochs" if reported["epochs"] else "", reported.get("how", "")]
    note = reported["note"][:1].upper() + reported["note"][1:]
    return ". ".join(sentence for sentence in ("; ".join(filter(None, said)), note) if sentence)


def published_words(name: str, width: int) -> str:
    """The name of a published configuration; of one that is wider, its author and year stand on a line of their own."""
    author, dash, called = name.partition("-")
    return f"{author}{dash}\n{called}" if len(name) > width and called else name


def time_words(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"


def energy_words(joules: float | None) -> str:
    """`12 Wh`, `1.4 kWh`: what an electricity bill is in."""
    if joules is None:
        return "–"
    hours = joules / 3600
    return f"{hours / 1000:.1f} kWh" if hours >= 999.5 else f"{hours:.1f} Wh" if hours < 9.95 else f"{hours:.0f} Wh"


MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;"} | {mark: f"\\{mark}" for mark in "\\`*[]|"})


def no_markdown(text: object) -> str:
    """Text on one line that is no link, picture, HTML or end of a table's cell in Markdown: names come from anybody."""
    return " ".join(str(text).split()).translate(MARKUP)


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
    """The other parameters, with the values that they have in all trials, as far as they are switched on."""
    known = trials.filter(pl.col("param.model").is_not_null())
    params = params_of(known.row(0, named=True)) if known.height else {}
    differing = telling(trials)
    equal = {name: value for name, value in params.items() if name not in differing}
    return {name: value for name, value in equal.items() if _word(name, value) and not _unused(name, equal)}


def configuration_words(params: dict[str, Any], names: Sequence[str]) -> str:
    """`mobilenetv2_100, lr 1e-4, dense 128, last 20 layers`: the named parameters, as far as they are switched on."""
    if all(value is None for value in params.values()):
        return "not known yet"
    shown = [name for name in names if name in params and not _unused(name, params)]
    return ", ".join(word for name in shown if (word := _word(name, params[name])))


def _unused(name: str, params: dict[str, Any]) -> bool:
    other, values = UNUSED.get(name, ("", ()))
    return other in params and params[other] in values


def _word(name: str, value: Any) -> str:
    """Empty where a parameter is switched off, or at the value that it had before it could be chosen."""
    match name, value:
        case "unfrozen_layers", None:
            return "all layers"
        case _, None:
            return ""
        case "balance", "none":
            return ""
        case ("activation", "relu") | ("defaults", "torch") | ("pooling", "avg"):
            return ""
        case (("accumulate" | "auxiliary_weight" | "body_rate"), 1) | ("momentum", 0.9):
            return ""
        case ("gamma", 0.5) | ("decay_epochs", 3) | ("views", 8):
            return ""
        case (
            (
                "weight_decay"
                | "warmup_epochs"
                | "head_epochs"
                | "label_smoothing"
                | "mixup"
                | "cutmix"
                | "ema"
                | "dropout"
                | "body_dropout"
                | "rotation_deg"
                | "zoom"
                | "brightness"
                | "contrast"
                | "noise"
                | "intensity_percentile"
            ),
            0,
        ):
            return ""
        case (("model" | "optimizer"), _):
            return str(value)
        case "image_size_px", _:
            return f"{value} px"
        case "learning_rate", _:
            return f"lr {_short(value)}"
        case "batch_size", _:
            return f"batch {value}"
        case "accumulate", _:
            return f"in {value} parts"
        case "views", _:
            return f"{value} augmented views" if value else "every batch augmented anew"
        case "weight_decay", _:
            return f"decay {_short(value)}"
        case "schedule", _:
            return f"{value} rate"
        case "gamma", _:
            return f"rate × {_short(value)}"
        case "decay_epochs", _:
            return f"every {value} epochs" if value > 1 else "every epoch"
        case "warmup_epochs", _:
            return f"warm-up {_short(value)}"
        case "epochs", _:
            return f"{value} epochs at most"
        case "head_epochs", _:
            return f"head alone for {value} epoch{'s' * (value > 1)}"
        case "head_learning_rate", _:
            return f"at lr {_short(value)}"
        case "head_batch_size", _:
            return f"with batch {value}"
        case "body_rate", _:
            return f"rate × {_short(value)} in the body"
        case "ema", _:
            return f"averaged weights {value}"
        case "dense_widths", _:
            return f"dense {'-'.join(map(str, value))}" if len(value) else "no dense layer"
        case "dense_batch_norm", _:
            return "batch norm" if value else ""
        case "last_dropout", _:
            return f"last dropout {_short(value)}"
        case "pooling", "flatten":
            return "flattened"
        case "pooling", _:
            return f"{value} pool"
        case "unfrozen_layers", 0:
            return "head only"
        case "unfrozen_layers", _:
            return f"last {value} layers" if value > 1 else "last layer"
        case "batch_norm", _:
            return "batch norm in the body" if value else ""
        case "body_dropout", _:
            return f"dropout {_short(value)} in the body"
        case "activation", _:
            return f"{value} in the body"
        case "defaults", _:
            return f"{value.capitalize()}' defaults"
        case "rotation_deg", _:
            return f"rotate ±{_short(value)}°"
        case (("zoom" | "brightness" | "contrast"), _):
            return f"{name} ±{_short(value)}"
        case "noise", _:
            return f"noise to {_short(value)}"
        case "intensity_percentile", _:
            return f"stretch from {_short(value)} %"
        case "balance", _:
            return value.replace("_", " ")
        case "oversample_to", _:
            return f"to {value} per class"
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
