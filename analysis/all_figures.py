"""Every figure of a report by its name, for the page and for files."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.results import Results, Unavailable
from analysis.trials import best

if TYPE_CHECKING:
    import plotly.graph_objects as go


def all_figures(results: Results, table: pl.DataFrame) -> "dict[str, Callable[[], go.Figure]]":
    """What draws each figure; a call raises `Unavailable` where the trials do not tell it."""
    from analysis import effect_figures, figures, mask_figures, prediction_figures, probability_figures

    of_search = (
        figures.optimization_history,
        figures.parameter_importances,
        effect_figures.marginal_effects,
        effect_figures.pair_effects,
        effect_figures.parallel_coordinates,
        figures.budget_by_rung,
    )
    of_masks = (mask_figures.dice_distribution, mask_figures.dice_by_area)
    of_classes = (
        prediction_figures.confusion_matrix,
        prediction_figures.roc,
        prediction_figures.precision_recall,
        probability_figures.score_distribution,
        probability_figures.calibration,
        probability_figures.sensitivity_specificity,
    )
    drawing: dict[str, Callable[[], Any]] = {figure.__name__: partial(figure, results, table) for figure in of_search}
    winner = best(table, results.experiment["mode"])
    of_winner: dict[str, Callable[..., Any]] = {
        "learning_curves": partial(figures.learning_curves, best_epoch=winner["best_epoch"] if winner else 0),
        **{figure.__name__: figure for figure in (of_masks if results.has_masks else of_classes)},
    }
    for name, figure in of_winner.items():
        drawing[name] = partial(figure, results, winner["number"]) if winner else _no_score
    return drawing


def _no_score() -> Any:
    raise Unavailable("No trial has a score yet.")
