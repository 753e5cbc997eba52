"""The figures of probabilities of classes: calibration, how they are spread, and what thresholds make of them."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.failing_images import Rows
from analysis.looks import BAND, BLUE, GREY, THIN, VERMILLION, VERMILLION_BAND, plain, styled
from analysis.predictions import (
    CALIBRATION_EDGES,
    EDGES,
    THRESHOLD_GRID,
    OutOfFold,
    distribution,
    out_of_fold,
    rates_on_grid,
    reliability,
    thresholds_of,
)
from analysis.results import Results, Unavailable

BOXES = 30
"""Classes that have a box of their own, those with the lowest probabilities."""


def calibration(results: Results, number: int, target: int = 0) -> go.Figure:
    """What was promised against what happened, with 95 % intervals; below, how many images promise how much."""
    own, rows = out_of_fold(results, number)[target], Rows.of(results)
    two = len(own.classes) == 2
    probability_N = own.probabilities_NC[:, 1] if two else own.probabilities_NC.max(1)
    true_N = own.targets_N == 1 if two else own.predicted_N == own.targets_N
    bins = reliability(probability_N, true_N, rows.group_N, rows.repeats)
    observed = [one["observed"] for one in bins]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.05)
    guessing(figure, [0, 1], [0, 1], "perfectly calibrated")
    figure.add_scatter(
        x=[one["predicted"] for one in bins],
        y=[share["value"] for share in observed],
        error_y={
            "array": [share["high"] - share["value"] for share in observed],
            "arrayminus": [share["value"] - share["low"] for share in observed],
            "color": THIN,
            "width": 3,
        },
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 7},
        name="observed, with 95 % intervals",
        customdata=[one["images"] for one in bins],
        hovertemplate="promised %{x:.2f}, observed %{y:.2f}<br>%{customdata:,} images<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_bar(
        x=[(one["from"] + one["to"]) / 2 for one in bins],
        y=[one["images"] for one in bins],
        width=np.diff(CALIBRATION_EDGES)[0] * 0.96,
        marker={"color": GREY},
        showlegend=False,
        hovertemplate="%{y:,} images around %{x:.2f}<extra></extra>",
        row=2,
        col=1,
    )
    promised = f"probability of {plain(own.classes[1])}" if two else "probability of the predicted class"
    figure.update_xaxes(range=[-0.01, 1.01])
    figure.update_xaxes(title_text=promised, row=2, col=1)
    figure.update_yaxes(
        title_text=f"share of {plain(own.classes[1])}" if two else "share that is right",
        range=[-0.02, 1.04],
        row=1,
        col=1,
    )
    figure.update_yaxes(title_text="images", rangemode="tozero", nticks=4, row=2, col=1)
    return styled(figure, height=470)


def score_distribution(results: Results, number: int, target: int = 0) -> go.Figure:
    """Of two classes, how the probability of the second is spread over the images of each; of more, a box per class:
    the median, the middle half and the middle 90 % of the probability that its images give it."""
    own = out_of_fold(results, number)[target]
    return _two_distributions(own) if len(own.classes) == 2 else _boxes(own)


def sensitivity_specificity(results: Results, number: int, target: int = 0) -> go.Figure:
    """Both against the threshold from which on an image is called positive: means and standard deviations over
    folds."""
    own = out_of_fold(results, number)[target]
    if len(own.classes) != 2:
        raise Unavailable("A threshold is for two classes.")
    rates = rates_on_grid(own.targets_N == 1, own.probabilities_NC[:, 1], own.fold_N)
    if not len(rates[0]):
        raise Unavailable("No fold holds images of both classes.")
    figure = go.Figure()
    looks = (("sensitivity", BLUE, BAND, "solid"), ("specificity", VERMILLION, VERMILLION_BAND, "dash"))
    for values_FG, (name, colour, shade, dash) in zip(rates, looks, strict=True):
        band(figure, THRESHOLD_GRID, values_FG, shade, f"± standard deviation of {name}", showlegend=False)
        figure.add_scatter(
            x=THRESHOLD_GRID,
            y=values_FG.mean(0).round(5),
            mode="lines",
            line={"color": colour, "width": 2.5, "dash": dash},
            name=name,
            hovertemplate=f"{name} %{{y:.3f}} from %{{x:.2f}} on<extra></extra>",
        )
    figure.update_xaxes(title_text=f"threshold on the probability of {plain(own.classes[1])}", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="sensitivity, specificity", range=[-0.01, 1.02])
    return styled(figure, height=430)


def _two_distributions(own: OutOfFold) -> go.Figure:
    figure, middles = go.Figure(), (EDGES[:-1] + EDGES[1:]) / 2
    for c, colour, pattern in ((0, GREY, ""), (1, BLUE, "/")):
        counts = np.array(distribution(own.probabilities_NC[own.targets_N == c, 1]))
        figure.add_bar(
            x=middles,
            y=counts / max(counts.sum(), 1),
            width=np.diff(EDGES)[0],
            marker={"color": colour, "opacity": 0.65, "pattern": {"shape": pattern, "fillmode": "overlay", "size": 6}},
            name=f"images of {plain(own.classes[c])}",
            customdata=counts,
            hovertemplate=f"%{{customdata:,}} of {plain(own.classes[c])} (%{{y:.1%}}) around %{{x:.2f}}<extra></extra>",
        )
    drawn = [(0.5, "dot", "0.5")]
    if len(np.unique(own.targets_N)) == 2:
        youden = thresholds_of(own.targets_N == 1, own.probabilities_NC[:, 1])["youden"]
        drawn.append((youden, "dash", f"highest balanced accuracy {youden:.2f}"))
    for height, (threshold, dash, words) in enumerate(drawn):
        figure.add_vline(x=threshold, line={"color": VERMILLION, "width": 1.5, "dash": dash})
        figure.add_annotation(
            x=threshold, y=1 + 0.07 * height, yref="paper", yanchor="bottom", text=words, showarrow=False
        )
    figure.update_xaxes(title_text=f"probability of {plain(own.classes[1])}", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="share of the class", tickformat=".0%", rangemode="tozero")
    return styled(figure, height=400).update_layout(barmode="overlay", bargap=0, margin={"t": 50})


def _boxes(own: OutOfFold) -> go.Figure:
    quantiles = {
        name: np.quantile(own.probabilities_NC[own.targets_N == c, c], (0.05, 0.25, 0.5, 0.75, 0.95))
        for c, name in enumerate(own.classes)
        if (own.targets_N == c).any()
    }
    shown = sorted(quantiles, key=lambda name: float(quantiles[name][2]))[:BOXES]
    shown = [name for name in own.classes if name in shown]
    low, first, median, third, high = np.array([quantiles[name] for name in shown]).T
    figure = go.Figure(
        go.Box(
            y=[plain(name) for name in shown],
            orientation="h",
            lowerfence=low,
            q1=first,
            median=median,
            q3=third,
            upperfence=high,
            line={"color": BLUE, "width": 1.5},
            fillcolor=BAND,
            showlegend=False,
        )
    )
    few = "" if len(shown) == len(quantiles) else f" (the {BOXES} of {len(quantiles)} classes with the lowest medians)"
    figure.update_xaxes(title_text=f"probability of the true class{few}", range=[-0.01, 1.01])
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, title_text="true class")
    return styled(figure, height=130 + 30 * max(4, len(shown)))


def guessing(figure: go.Figure, x: list[float], y: list[float], name: str = "guessing") -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, name=name, hoverinfo="skip"
    )


def band(figure: go.Figure, x: np.ndarray, values_FG: np.ndarray, colour: str, name: str, showlegend: bool) -> None:
    """One standard deviation over the folds, on both sides of the mean."""
    mean, std = values_FG.mean(0), values_FG.std(0, ddof=1) if len(values_FG) > 1 else 0
    low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]).round(5),
        fill="toself",
        mode="lines",
        fillcolor=colour,
        line={"width": 0},
        name=name,
        showlegend=showlegend,
        hoverinfo="skip",
    )
