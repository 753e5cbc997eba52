"""Axes of searched parameters for figures: positions in place of values, so that logarithmic scales and choices are
ordinary axes with ticks of their own."""

import numpy as np

from analysis.effects import by_value
from analysis.looks import plain
from analysis.searched import Parameter

NOT_ASKED = -0.12
"""Where an axis from 0 to 1 has the trials that were not asked."""
LONGEST = 16
"""Characters that an axis has room for of each of four choices."""


def limits(parameter: Parameter) -> tuple[float, float]:
    if parameter.choices:
        return 0, len(parameter.choices) - 1
    return float(np.nanmin(parameter.position_T)), float(np.nanmax(parameter.position_T))


def shown_range(parameter: Parameter) -> list[float]:
    low, high = limits(parameter)
    margin = 0.5 if by_value(parameter) else 0.04 * (high - low) or 0.5
    return [low - margin, high + margin]


def ticks_words(parameter: Parameter) -> tuple[list[float], list[str]]:
    """At most five, of choices all: round values within the limits, or these where there are no two."""
    if parameter.choices:
        longest = max(5, LONGEST * 4 // len(parameter.choices))
        words = [word if len(word) <= longest else f"{word[: longest - 1]}…" for word in parameter.choices]
        return [float(place) for place in range(len(words))], [plain(word) for word in words]
    low, high = limits(parameter)
    if parameter.log:
        decades = np.arange(np.floor(low), np.ceil(high) + 1)
        fine = (1, 2, 5) if high - low < 2 else (1,)
        found = np.sort(np.concatenate([decades + np.log10(digit) for digit in fine]))
    elif high > low:
        step = (high - low) / 3
        magnitude = 10.0 ** np.floor(np.log10(step))
        step = magnitude * max(digit for digit in (1, 2, 5) if digit * magnitude <= step)
        step = max(step, 1.0) if parameter.whole else step
        found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    else:
        found = np.array([low])
    inside = found[(found >= low - 1e-9) & (found <= high + 1e-9)]
    if len(inside) < 2:
        inside = np.unique([low, high])
    inside = inside[:: -(-len(inside) // 5)]
    return inside.tolist(), [parameter.words(position) for position in inside]


def scaled(parameter: Parameter, position: np.ndarray) -> np.ndarray:
    """From 0 to 1 along a parameter; what was not asked lies before."""
    low, high = limits(parameter)
    return np.where(np.isnan(position), NOT_ASKED, (position - low) / ((high - low) or 1))


def jitter(parameter: Parameter, number_T: np.ndarray, golden: float = 0.618034) -> np.ndarray:
    """So that trials of the same choice do not hide each other: within a quarter of the way to the next, by number."""
    if not by_value(parameter):
        return np.zeros(len(number_T))
    return (number_T * golden % 1 - 0.5) * 0.5


def aside(parameter: Parameter, number_T: np.ndarray) -> np.ndarray:
    """Trials of the same value as a bundle beside it, on the side where its word is not."""
    if not by_value(parameter):
        return np.zeros(len(number_T))
    last_T = parameter.position_T == limits(parameter)[1]
    return np.where(last_T, 0.02, -0.02) + 0.06 * jitter(parameter, number_T)
