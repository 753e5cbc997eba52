"""The figures of out-of-fold predictions, by plotly: one function each."""

import numpy as np
import plotly.graph_objects as go

from analysis.looks import BAND, BLUE, GREY, THIN, VERMILLION, plain, styled
from analysis.predictions import EDGES, FPR_GRID, confusion_CC, distribution, roc_curves
from analysis.results import Results, Unavailable
from analysis.trials import mean_std
from analysis.words import score_words


def confusion_matrix(results: Results, number: int) -> go.Figure:
    """Images per true and predicted class; the shade is the share of the true class."""
    counts_CC = confusion_CC(results.targets, results.out_of_fold(number))
    shares_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    names = [plain(name) for name in results.classes]
    figure = go.Figure(
        go.Heatmap(
            z=shares_CC,
            zmin=0,
            zmax=1,
            x=names,
            y=names,
            text=counts_CC,
            texttemplate="%{text}",
            # No darker than this, so that the page's ink can be read on every cell, on light and dark pages.
            colorscale=[[0, "rgba(42, 127, 184, 0.05)"], [1, "rgba(42, 127, 184, 0.6)"]],
            showscale=False,
            xgap=3,
            ygap=3,
            textfont={"size": 18 if len(names) <= 4 else 13},
            hovertemplate="%{text} images of %{y},<br>predicted %{x}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="predicted", showgrid=False, automargin=True, type="category", zeroline=False)
    figure.update_yaxes(
        title_text="true", showgrid=False, automargin=True, type="category", autorange="reversed", zeroline=False
    )
    return styled(figure, height=200 + 56 * max(4, len(names)))


def roc(results: Results, number: int) -> go.Figure:
    """The ROC curve of each fold, their mean and a band of one standard deviation."""
    tpr, areas = roc_curves(results.targets, results.out_of_fold(number), results.validated_in)
    if not areas:
        raise Unavailable("No fold holds images of two classes, so there is no ROC curve.")
    mean, std = tpr.mean(0), tpr.std(0, ddof=1) if len(tpr) > 1 else 0
    low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "width": 1, "dash": "dot"},
        name="guessing",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=np.concatenate([FPR_GRID, FPR_GRID[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        mode="lines",
        fillcolor=BAND,
        line={"width": 0},
        name="mean ± standard deviation",
        hoverinfo="skip",
    )
    for fold, (curve, area) in enumerate(zip(tpr, areas, strict=True)):
        figure.add_scatter(
            x=np.append(0, FPR_GRID),
            y=np.append(0, curve),
            mode="lines",
            line={"color": THIN, "width": 1},
            name="each fold",
            legendgroup="fold",
            showlegend=fold == 0,
            hovertemplate=f"{plain(results.fold_names[fold])}, area {area:.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=np.append(0, FPR_GRID),
        y=np.append(0, mean),
        mode="lines",
        line={"color": BLUE, "width": 2.5},
        name=f"mean, area {score_words(*mean_std(areas))}",
        hovertemplate="%{y:.3f} at %{x:.2f}<extra></extra>",
    )
    figure.update_xaxes(title_text="false-positive rate", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="true-positive rate", range=[-0.01, 1.02])
    return styled(figure, height=470)


def dice_distribution(results: Results, number: int) -> go.Figure:
    """How many images have which Dice, and the median."""
    dice_N = results.predictions(number, ["dice"])[:, 0]
    median = float(np.median(dice_N))
    figure = go.Figure(
        go.Bar(
            x=(EDGES[:-1] + EDGES[1:]) / 2,
            y=distribution(dice_N),
            width=np.diff(EDGES),
            marker={"color": BLUE, "line": {"width": 1, "color": "rgba(127, 127, 127, 0.4)"}},
            customdata=np.stack([EDGES[:-1], EDGES[1:]], axis=1),
            hovertemplate="%{y} images from %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
        )
    )
    figure.add_vline(
        x=median,
        line={"color": VERMILLION, "width": 2, "dash": "dash"},
        annotation_text=f"median {median:.3f}",
        annotation_position="top left",
    )
    figure.update_xaxes(title_text="Dice of an image", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="images", rangemode="tozero")
    return styled(figure, height=380).update_layout(bargap=0, margin={"t": 34})
