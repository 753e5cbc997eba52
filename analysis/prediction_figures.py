"""The figures of out-of-fold predictions, by plotly: one function each. `target` counts the targets from 0.

Those of probabilities as such are in `probability_figures.py`, those of masks in `mask_figures.py`.
"""

import numpy as np
import plotly.graph_objects as go

from analysis.looks import BAND, BLUE, THIN, plain, styled
from analysis.predictions import (
    FPR_GRID,
    RECALL_GRID,
    FoldCurves,
    Ranked,
    confusion_CC,
    guessed_precision,
    out_of_fold,
)
from analysis.probability_figures import band, guessing
from analysis.results import Results, Unavailable
from analysis.trials import mean_std
from analysis.words import score_words

LETTERED = 25
"""Classes up to which the cells of a confusion matrix have room for a number."""


def confusion_matrix(results: Results, number: int, target: int = 0) -> go.Figure:
    """Images per true and predicted class, with their share of the true class, which is also the shade."""
    own = out_of_fold(results, number)[target]
    counts_CC = confusion_CC(own.targets_N, own.probabilities_NC)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    names, few = [plain(name) for name in own.classes], len(own.classes) <= 4
    text = [
        [f"{n:,}<br>{share:.0%}" if few else f"{n:,}" if n else "" for n, share in zip(*row, strict=True)]
        for row in zip(counts_CC, shares_CC, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shares_CC,
            zmin=0,
            zmax=1,
            x=names,
            y=names,
            text=text,
            customdata=counts_CC,
            texttemplate="%{text}" if len(names) <= LETTERED else None,
            # No darker than this, so that the page's ink can be read on every cell, on light and dark pages.
            colorscale=[[0, "rgba(42, 127, 184, 0.05)"], [1, "rgba(42, 127, 184, 0.6)"]],
            showscale=False,
            xgap=3 if len(names) <= LETTERED else 0,
            ygap=3 if len(names) <= LETTERED else 0,
            textfont={"size": 17 if few else 13, "color": "#1f2937"},
            hovertemplate="%{customdata:,} images of %{y} (%{z:.1%}),<br>predicted %{x}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="predicted", showgrid=False, automargin=True, type="category", zeroline=False)
    figure.update_yaxes(
        title_text="true", showgrid=False, automargin=True, type="category", autorange="reversed", zeroline=False
    )
    return styled(figure, height=200 + min(max(4, len(names)) * (56 if len(names) <= 6 else 38), 800))


def roc(results: Results, number: int, target: int = 0) -> go.Figure:
    """The ROC curve of each fold, their mean and a band of one standard deviation."""
    own = out_of_fold(results, number)[target]
    figure = go.Figure()
    guessing(figure, [0, 1], [0, 1])
    _fold_curves(figure, results, Ranked.of(*own.arrays).roc, FPR_GRID, starts_at_zero=True)
    figure.update_xaxes(title_text="false-positive rate", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="true-positive rate", range=[-0.01, 1.02])
    return styled(figure, height=470)


def precision_recall(results: Results, number: int, target: int = 0) -> go.Figure:
    """Precision against recall of each fold, their mean and a band of one standard deviation."""
    own = out_of_fold(results, number)[target]
    figure = go.Figure()
    guessing(figure, [0, 1], [guessed_precision(own)] * 2)
    _fold_curves(figure, results, Ranked.of(*own.arrays).precision_recall, RECALL_GRID, starts_at_zero=False)
    figure.update_xaxes(title_text="recall (sensitivity)", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="precision (positive predictive value)", range=[-0.01, 1.02])
    return styled(figure, height=470)


def _fold_curves(
    figure: go.Figure, results: Results, curves: FoldCurves, grid: np.ndarray, *, starts_at_zero: bool
) -> None:
    """Each fold thin, their mean thick, and the band between."""
    if not curves.areas:
        raise Unavailable("No fold holds images of two classes, so there is no curve.")
    band(figure, grid, curves.values_FG, BAND, "mean ± standard deviation", showlegend=True)
    start = [0.0] if starts_at_zero else []
    for drawn_before, (fold, curve, area) in enumerate(zip(curves.folds, curves.values_FG, curves.areas, strict=True)):
        figure.add_scatter(
            x=np.append(start, grid),
            y=np.append(start, curve),
            mode="lines",
            line={"color": THIN, "width": 1},
            name="each fold",
            legendgroup="fold",
            showlegend=not drawn_before,
            hovertemplate=f"{plain(results.fold_names[fold])}, area {area:.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=np.append(start, grid),
        y=np.append(start, curves.values_FG.mean(0)),
        mode="lines",
        line={"color": BLUE, "width": 2.5},
        name=f"mean, area {score_words(*mean_std(curves.areas))}",
        hovertemplate="%{y:.3f} at %{x:.2f}<extra></extra>",
    )
