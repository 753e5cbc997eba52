"""How the score goes with each searched parameter, and with pairs of them: medians and quartiles over the trials.

All scored trials count, stopped ones with the score at which they were stopped, as in `importance.py`. That is what the
search has seen and no experiment: a searcher tries more where it was good, so that other parameters differ too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analysis.experiment import Mode
from analysis.importance import FEWEST, importances
from analysis.results import Results, Unavailable
from analysis.searched import Parameter, parameters
from analysis.trials import best
from analysis.words import metric_words

PAIRED = 3
"""Parameters whose pairs are told: the most important ones."""
BINS = 5
"""Of a number, in a table of pairs: of equal width between its lowest and its highest value."""
PLACES = 25
"""At which the running median of a number is told, at most."""

FEWEST_NEAR = 8
"""Trials of which a running median is told."""


@dataclass(frozen=True)
class Effects:
    """T scored trials, in the order of their numbers."""

    trials: pl.DataFrame
    mode: Mode
    parameters: list[Parameter]
    """Most important first, where the importances are known; else by name."""
    share: dict[str, float]
    """Their importances; empty where they are not known."""

    @property
    def number_T(self) -> np.ndarray:
        return self.trials["number"].to_numpy()

    @property
    def score_T(self) -> np.ndarray:
        return self.trials["score"].to_numpy()


def measured_effects(results: Results, table: pl.DataFrame) -> Effects:
    """`Unavailable` where fewer than `FEWEST` trials have a score, nothing differs or the study is not there."""
    scored = table.filter(pl.col("score").is_not_null())
    if scored.height < FEWEST:
        raise Unavailable(f"{scored.height} scored trials: effects of parameters need at least {FEWEST}.")
    found = parameters(results, scored)
    try:
        share = importances(results, table).share
    except Unavailable:
        share = {}
    return Effects(
        scored, results.experiment["mode"], sorted(found, key=lambda one: (-share.get(one.name, 0.0), one.name)), share
    )


def effects(results: Results, table: pl.DataFrame) -> dict[str, Any]:
    """For JSON: `parameters` with the medians and quartiles of the score along them, `pairs` of the most important."""
    found = measured_effects(results, table)
    winner = best(table, results.experiment["mode"])
    assert winner is not None
    at_best = found.trials["number"].to_list().index(winner["number"])
    return {
        "metric": metric_words(results.experiment["metric"]),
        "scored": found.trials.height,
        "stopped": found.trials.filter(pl.col("state") == "stopped").height,
        "parameters": [
            {
                "name": one.name,
                "scale": "choice" if one.choices else "log" if one.log else "linear",
                "importance": found.share.get(one.name),
                "asked": int((~np.isnan(one.position_T)).sum()),
                "best": one.words(one.position_T[at_best]),
                "values": [
                    {"value": one.words(value), "trials": count} | _quartiles(*scores)
                    for value, count, scores in along(one, found.score_T)
                ],
            }
            for one in found.parameters
        ],
        "pairs": [_pair(found, first, second) for first, second in pairs(found)],
    }


def by_value(parameter: Parameter) -> bool:
    """Whether each value is told by itself: of a choice, and of an integer of few."""
    few = len(np.unique(parameter.position_T[~np.isnan(parameter.position_T)])) <= BINS
    return bool(parameter.choices) or (parameter.whole and not parameter.log and few)


def along(parameter: Parameter, score_T: np.ndarray) -> list[tuple[float, int, np.ndarray]]:
    """Positions on a parameter, how many trials tell of each, and the lower quartile, median and upper one of their
    scores.

    Of what is told `by_value`, each that was tried. Else the running median: at every place the nearest fifth of the
    trials, `FEWEST_NEAR` at least, by their order and not by their distance, so that each place is told by as many.
    """
    asked = ~np.isnan(parameter.position_T)
    order = np.argsort(parameter.position_T[asked], kind="stable")
    position_A, score_A = parameter.position_T[asked][order], score_T[asked][order]
    values = np.unique(position_A)
    if by_value(parameter):
        groups = [position_A == value for value in values]
        return [
            (float(value), int(group.sum()), _quartiles_3(score_A[group]))
            for value, group in zip(values, groups, strict=True)
        ]
    width = max(FEWEST_NEAR, len(order) // 5)
    if len(order) < width:
        return []
    starts = np.unique(np.linspace(0, len(order) - width, PLACES).round().astype(int))
    windows = [slice(start, start + width) for start in starts]
    return [(float(np.median(position_A[one])), width, _quartiles_3(score_A[one])) for one in windows]


def pairs(found: Effects) -> list[tuple[Parameter, Parameter]]:
    """Those of the `PAIRED` most important parameters that enough trials were asked together."""
    first = found.parameters[:PAIRED]
    return [
        (one, other)
        for place, one in enumerate(first)
        for other in first[place + 1 :]
        if (~np.isnan(one.position_T + other.position_T)).sum() >= FEWEST
    ]


def edges(parameter: Parameter) -> np.ndarray:
    """Of the cells that a parameter is cut into: one per choice, or per value of an integer of few, else `BINS`."""
    low, high = np.nanmin(parameter.position_T), np.nanmax(parameter.position_T)
    if parameter.choices:
        return np.arange(len(parameter.choices) + 1) - 0.5
    if parameter.whole and not parameter.log and high - low < BINS:
        return np.arange(low, high + 2) - 0.5
    return np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, high + 0.5])


def cells(first: Parameter, second: Parameter, score_T: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """The scores of the trials in each cell that has any, by its place on the first and on the second parameter."""
    both = ~np.isnan(first.position_T + second.position_T)
    place_P2 = [
        np.clip(np.searchsorted(edges(one), one.position_T[both], side="right") - 1, 0, len(edges(one)) - 2)
        for one in (first, second)
    ]
    found: dict[tuple[int, int], list[float]] = {}
    for x, y, score in zip(*(places.tolist() for places in place_P2), score_T[both].tolist(), strict=True):
        found.setdefault((x, y), []).append(score)
    return {cell: np.array(scores) for cell, scores in sorted(found.items())}


def _pair(found: Effects, first: Parameter, second: Parameter) -> dict[str, Any]:
    of_cells = cells(first, second, found.score_T)
    return {
        "first": first.name,
        "second": second.name,
        "cells": [
            {"first": _cell(first, x), "second": _cell(second, y), "trials": len(scores)}
            | _quartiles(*_quartiles_3(scores))
            for (x, y), scores in of_cells.items()
        ],
    }


def _cell(parameter: Parameter, place: int) -> str:
    """`cosine`, or `1e-4 to 1e-3`."""
    low, high = edges(parameter)[place : place + 2]
    if parameter.choices or (parameter.whole and not parameter.log and high - low == 1):
        return parameter.words((low + high) / 2)
    return f"{parameter.words(low)} to {parameter.words(high)}"


def _quartiles_3(scores: np.ndarray) -> np.ndarray:
    return np.quantile(scores, (0.25, 0.5, 0.75))


def _quartiles(low: float, median: float, high: float) -> dict[str, float]:
    return {"median": float(median), "low": float(low), "high": float(high)}
