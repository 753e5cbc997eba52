"""What is done to a search space before it is searched: parameters fixed, a grid laid."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets import InputError, nearest
from search_spaces import Published, Space

GRID_LEVELS = 3
"""Points that a grid takes of every numeric parameter: both ends and the middle of its scale."""
MOST_GRID_POINTS = 2000
MOST_COUNTED = 100_000


@dataclass(frozen=True)
class FixedSpace:
    """A search space some of whose parameters are given. A class, so that Ray can pickle it."""

    space: Space
    fixed: dict[str, Any]

    def __call__(self, trial: Any) -> dict[str, Any]:
        return self.space(_Answering(trial, self.fixed))


class _Answering:
    """Answers for the fixed parameters and passes the other questions on to the trial."""

    def __init__(self, trial: Any, fixed: dict[str, Any]):
        self._trial = trial
        self._fixed = fixed

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        if name not in self._fixed:
            return self._trial.suggest_float(name, low, high, **options)
        return float(_within(name, self._fixed[name], low, high, (int, float)))

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        if name not in self._fixed:
            return self._trial.suggest_int(name, low, high, **options)
        return int(_within(name, self._fixed[name], low, high, (int,)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self._fixed:
            return self._trial.suggest_categorical(name, choices)
        value = self._fixed[name]
        if value == "none" and None in choices and "none" not in choices:
            return None
        if not any(value == choice and type(value) is type(choice) for choice in choices):  # True == 1 == 1.0
            raise InputError(f"--set {name}={value}: choose one of {', '.join(map(str, choices))}")
        return value


def _within(name: str, value: Any, low: float, high: float, kinds: tuple[type, ...]) -> Any:
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        raise InputError(f"--set {name}={value}: choose a value from {low:g} to {high:g}")
    return value


@dataclass(frozen=True)
class _Question:
    name: str
    values: list[Any]
    choice: int


class _Exploring:
    """A trial that answers from a list of choices, and by the first value beyond it; writes down what it was asked."""

    def __init__(self, choices: Sequence[int] = ()):
        self._choices = choices
        self.asked: list[_Question] = []

    def suggest_float(self, name: str, low: float, high: float, log: bool = False, **_: Any) -> float:
        return self._answer(name, _levels(low, high, log))

    def suggest_int(self, name: str, low: int, high: int, log: bool = False, **_: Any) -> int:
        return self._answer(name, sorted({round(level) for level in _levels(low, high, log)}))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, list(choices))

    def _answer(self, name: str, values: list[Any]) -> Any:
        at = len(self.asked)
        choice = self._choices[at] % len(values) if at < len(self._choices) else 0
        self.asked.append(_Question(name, values, choice))
        return values[self.asked[-1].choice]


def grid(space: Space, most: int = MOST_GRID_POINTS) -> list[dict[str, Any]]:
    """Every point of the grid over a define-by-run space, as the parameters to suggest, depth first: the last question
    asked is the first to be answered otherwise. Raises `InputError` beyond `most` points."""
    points: list[dict[str, Any]] = []
    choices: list[int] | None = []
    while choices is not None:
        asked = _asked(space, choices)
        points.append({question.name: question.values[question.choice] for question in asked})
        if len(points) > MOST_COUNTED:
            break
        open_ones = [at for at, question in enumerate(asked) if question.choice + 1 < len(question.values)]
        choices = [question.choice for question in asked[: open_ones[-1] + 1]] if open_ones else None
        if choices:
            choices[-1] += 1
    if len(points) > most:
        count = f"{len(points):,}" if len(points) <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"
        raise InputError(
            f"--searcher grid: the grid has {count} points and {most:,} are the most; fix parameters with "
            f"--set NAME=VALUE (searched are: {', '.join(_parameters(space))}), or use tpe, gp or random"
        )
    return points


def _asked(space: Space, choices: Sequence[int]) -> list[_Question]:
    trial = _Exploring(choices)
    space(trial)
    return trial.asked


def _levels(low: float, high: float, log: bool) -> list[float]:
    if log:
        return [low, math.sqrt(low * high), high]
    return np.linspace(low, high, GRID_LEVELS).tolist()


def fixed_space(space: Space, fixed: dict[str, Any]) -> Space:
    """The space with some parameters given. Raises `InputError` for an unknown parameter or an impossible value."""
    names = _parameters(space)
    for name in fixed:
        if name not in names:
            raise InputError(f"--set {name}: no such parameter{nearest(name, names)} Searched are: {', '.join(names)}")
    narrowed = FixedSpace(space, fixed)
    _parameters(narrowed)  # asks every question, so that an impossible value is found now
    return narrowed


def agreeing(published: Sequence[Published], fixed: dict[str, Any]) -> list[Published]:
    """Published configurations, less those that would need another value of a fixed parameter."""
    return [
        entry for entry in published if all(entry.params.get(name, value) == value for name, value in fixed.items())
    ]


def models(space: Space) -> list[str]:
    """Every model that the space may choose, sorted."""
    return sorted({space(_Exploring(choices))["model"] for choices in _branches(space)})


def image_sizes(space: Space) -> list[int]:
    """Every size to which the space may squeeze images, in px, ascending."""
    return sorted({space(_Exploring(choices))["image_size_px"] for choices in _branches(space)})


def _parameters(space: Space) -> list[str]:
    """Every parameter that the space may ask for, in the order of asking."""
    asked = (question.name for choices in _branches(space) for question in _asked(space, choices))
    return list(dict.fromkeys(asked))


def _branches(space: Space) -> list[list[int]]:
    """Lists of answers that together meet every question: each new question, by name and values, is answered in every
    way in the first branch that asks it. Random answers on top, for questions that hang on two independent ones."""
    branches: list[list[int]] = []
    ahead: list[list[int]] = [[]]
    seen: set[tuple[str, ...]] = set()
    while ahead:
        branches.append(ahead.pop(0))
        asked = _asked(space, branches[-1])
        for at, question in enumerate(asked):
            key = (question.name, *map(repr, question.values))
            if key not in seen:
                seen.add(key)
                before = [earlier.choice for earlier in asked[:at]]
                ahead += [[*before, choice] for choice in range(1, len(question.values))]
    rng = random.Random(0)
    return branches + [[rng.randrange(10**6) for _ in range(64)] for _ in range(100)]
