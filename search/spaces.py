"""What is done to a search space before it is searched: parameters fixed, a grid laid."""

import contextlib
import math
import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from datasets import InputError, nearest
from search_spaces import Published, Space
from trainables.config import TrialConfig

GRID_LEVELS = 3
"""Points that a grid takes of every numeric parameter: both ends and the middle of its scale."""
MOST_GRID_POINTS = 2000
MOST_COUNTED = 20_000


@dataclass(frozen=True)
class FixedSpace:
    """A search space some of whose parameters are given. A class, so that Ray can pickle it."""

    space: Space
    fixed: dict[str, Any]
    """Answers to questions of the space."""
    overriding: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrialConfig` that the space does not ask for."""
    models: tuple[str, ...] = ()
    """To which the choice of the model is narrowed; (): all."""

    def __call__(self, trial: Any) -> dict[str, Any]:
        return self.space(_Answering(trial, self.fixed, self.models)) | self.overriding


class _Answering:
    """Answers for the fixed parameters and passes the other questions on to the trial."""

    def __init__(self, trial: Any, fixed: dict[str, Any], models: tuple[str, ...] = ()):
        self._trial = trial
        self._fixed = fixed
        self._models = models
        self.used: set[str] = set()
        """Fixed parameters that were asked for."""

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        if name not in self._fixed:
            return self._trial.suggest_float(name, low, high, **options)
        self.used.add(name)
        return float(_within(name, self._fixed[name], low, high, (int, float)))

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        if name not in self._fixed:
            return self._trial.suggest_int(name, low, high, **options)
        self.used.add(name)
        return int(_within(name, self._fixed[name], low, high, (int,)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name == "model" and self._models:
            choices = tuple(choice for choice in choices if choice in self._models)
        if name not in self._fixed:
            return choices[0] if len(choices) == 1 else self._trial.suggest_categorical(name, choices)
        self.used.add(name)
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


class _Silent:
    """A trial that has no answer."""

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        raise InputError(f"{name} is left open: give a value from {low:g} to {high:g}")

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        raise InputError(f"{name} is left open: give a value from {low} to {high}")

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        raise InputError(f"{name} is left open: choose one of {', '.join(map(str, choices))}")


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
            f"--set NAME=VALUE (searched are: {', '.join(parameters(space))}), or use tpe, gp or random"
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


def fixed_space(space: Space, fixed: dict[str, Any], chosen: Sequence[str] = ()) -> FixedSpace:
    """The space with some parameters given, and with the chosen of its models, where any are.

    A parameter that the space asks for is answered; any other field of `TrialConfig` takes the place of what the space
    returns. Raises `InputError` for an unknown parameter or model and for an impossible value.
    """
    names, fields = parameters(space), get_type_hints(TrialConfig)
    for name in fixed:
        if name not in names and name not in fields:
            near = nearest(name, [*names, *fields])
            raise InputError(f"--set {name}: no such parameter{near} Searched are: {', '.join(names)}")
    overriding = {name: _of_field(fields[name], value) for name, value in fixed.items() if name not in names}
    answers = {name: value for name, value in fixed.items() if name in names}
    narrowed = FixedSpace(space, answers, overriding, _known_models(space, chosen))
    used: set[str] = set()
    for choices in _branches(narrowed):  # asks every question, so that an impossible value is found now
        trial = _Answering(_Exploring(choices), answers, narrowed.models)
        made = space(trial) | overriding
        used |= trial.used
        if chosen and made["model"] not in chosen:
            raise InputError(f"--models {','.join(chosen)}: the space holds the model fixed to {made['model']}")
        if overriding:
            _check_overriding(made, overriding)
    for name, value in answers.items():
        if name not in used:
            raise InputError(f"--set {name}={value}: changes nothing beside the rest of --set and --models")
    return narrowed


def check_space(space: Space, file: Path) -> None:
    """Raises `InputError` where the space of a user's file returns what is no configuration."""
    try:
        for choices in _branches(space):
            made = space(_Exploring(choices))
            if not isinstance(made, dict):
                raise InputError(f"search_space returns {type(made).__name__}, not a dict of parameters")
            TrialConfig.of(made)
    except InputError as error:
        raise InputError(f"--space {file}: {error}") from None
    except Exception as error:  # whatever the user's Python does
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(file.absolute())]
        told = str(error).removeprefix("TrialConfig.__init__() ")
        said = f", line {lines[-1]}: {type(error).__name__}: {told}" if lines else f": {told}"
        raise InputError(f"--space {file}{said}") from error


def _known_models(space: Space, chosen: Sequence[str]) -> tuple[str, ...]:
    known = models(space) if chosen else []
    for model in chosen:
        if model not in known:
            raise InputError(
                f"--models {model}: no model of this space{nearest(model, known)} Its models are: {', '.join(known)}"
            )
    return tuple(chosen)


def _of_field(expected: Any, value: Any) -> Any:
    """What was typed, as a field of `TrialConfig` wants it: `none`, and one number where there may be several."""
    if value == "none" and type(None) in get_args(expected):
        return None
    if get_origin(expected) is tuple and not isinstance(value, tuple):
        return () if value == "none" else (value,)
    return value


def _check_overriding(made: dict[str, Any], overriding: dict[str, Any]) -> None:
    try:
        TrialConfig.of(made)
    except InputError as error:
        told = ", ".join(f"{name}={value}" for name, value in overriding.items())
        raise InputError(f"--set {told}: not possible in this space: {error}") from None


def published_config(space: Space, entry: Published) -> TrialConfig:
    """What a published configuration is in a space. Raises `InputError` where it leaves a question open or gives an
    answer that the space does not have."""
    made = space(_Answering(_Silent(), entry.params)) | entry.unasked
    return TrialConfig.of(made | (space.overriding if isinstance(space, FixedSpace) else {}))


def agreeing(published: Sequence[Published], space: Space, narrowed: Space) -> list[Published]:
    """Published configurations of a space, less those that the narrowed space does not have or makes others."""
    kept = []
    for entry in published:
        try:
            config = published_config(space, entry)
        except InputError as error:
            raise InputError(f"published configuration {entry.name}: {error}") from None
        with contextlib.suppress(InputError):
            if published_config(narrowed, entry) == config:
                kept.append(entry)
    return kept


def possible_points(points: Sequence[dict[str, Any]], space: FixedSpace) -> list[dict[str, Any]]:
    """Those of the whole space that are the same configurations in this one."""
    kept = []
    for point in points:
        trial = _Answering(_Silent(), point)
        with contextlib.suppress(InputError):
            if space(trial) == space.space(trial):
                kept.append(point)
    return kept


def models(space: Space) -> list[str]:
    """Every model that the space may choose, sorted."""
    return sorted({space(_Exploring(choices))["model"] for choices in _branches(space)})


def one_of_each_model(space: Space) -> list[TrialConfig]:
    """A configuration of the space with each of its models."""
    first: dict[str, TrialConfig] = {}
    for choices in _branches(space):
        config = TrialConfig.of(space(_Exploring(choices)))
        first.setdefault(config.model, config)
    return list(first.values())


def image_sizes(space: Space) -> list[int]:
    """Every size to which the space may squeeze images, in px, ascending."""
    return sorted({space(_Exploring(choices))["image_size_px"] for choices in _branches(space)})


def parameters(space: Space) -> list[str]:
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
