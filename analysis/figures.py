"""The figures of the search, by plotly: one function each. Those of predictions are in `prediction_figures.py`."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from analysis.budget import by_rung
from analysis.importance import importances
from analysis.looks import BLUE, GREY, THIN, VERMILLION, plain, styled
from analysis.results import Results, Unavailable
from analysis.words import metric_words, time_words

TRAINING_LOSS = {
    "segmentation": "log loss plus one minus soft Dice",
    "multitask": "all targets, also those not scored",
}
"""Of a kind, where it is more than the log loss that is drawn beside it."""
BALANCED_LOSS = {
    "class_weights": "rare classes weigh more",
    "sample_weights": "images of rare classes weigh more",
    "oversample": "with the repeats of rare classes",
    "augmented_oversample": "with the augmented repeats of rare classes",
}
"""Of a balance, where the loss in training is not over the images as they are, as the log loss beside it is."""

HARDENED_LOSS = {
    "label_smoothing": "against smoothed labels",
    "mixup": "of mixed images",
    "cutmix": "of mixed images",
    "ema": "of weights before they are averaged",
}
"""Of a parameter that is switched on, where the loss in training is not that of what is validated."""

MARKERS: dict[str, dict[str, Any]] = {
    "finished": {"symbol": "circle", "color": BLUE, "size": 8},
    "stopped": {"symbol": "circle-open", "color": GREY, "size": 7, "line": {"width": 1.5}},
    "running": {"symbol": "triangle-up-open", "color": GREY, "size": 9},
}
"""Of a trial with a score, by its state."""


def learning_curves(results: Results, number: int, best_epoch: int) -> go.Figure:
    """Losses and score of one trial per epoch: each fold thin, the mean over folds thick, its best epoch marked."""
    curves, metric = results.curves(number), results.experiment["metric"]
    rows = [name for name in dict.fromkeys(("log_loss", metric)) if name in curves.columns]
    if curves.is_empty() or not rows:
        raise Unavailable(f"Trial {number} has reported no epoch yet.")
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.09)
    mode = "lines" if curves["epoch"].n_unique() > 12 else "lines+markers"
    for row, name in enumerate(rows, start=1):
        drawn = [(name, "mean over folds, validation", BLUE, "solid", 2.5)]
        if name == "log_loss" and "train_loss" in curves.columns:
            drawn.append(("train_loss", f"mean over folds, {_training(results, number)}", VERMILLION, "dash", 2))
        for drawn_before, fold in enumerate(curves["fold"].unique().sort()):
            one = curves.filter(pl.col("fold") == fold)
            figure.add_scatter(
                x=one["epoch"],
                y=one[name],
                mode=mode,
                line={"color": THIN, "width": 1},
                marker={"size": 4},
                name="each fold, validation",
                legendgroup="fold",
                showlegend=row == 1 and not drawn_before,
                hovertemplate=f"{plain(results.fold_names[fold])}: %{{y:.3f}}<extra></extra>",
                row=row,
                col=1,
            )
        for column, label, colour, dash, width in drawn:
            # Where a fold diverged there is no mean that could be compared.
            mean = curves.group_by("epoch").agg(pl.col(column).mean(), gaps=pl.col(column).null_count()).sort("epoch")
            mean = mean.filter(pl.col("gaps") == 0)
            figure.add_scatter(
                x=mean["epoch"],
                y=mean[column],
                mode=mode,
                line={"color": colour, "width": width, "dash": dash},
                marker={"size": 6},
                name=label,
                legendgroup=column if column == "train_loss" else "mean",
                showlegend=row == 1,
                hovertemplate=f"{label}: %{{y:.3f}}<extra></extra>",
                row=row,
                col=1,
            )
        figure.update_yaxes(title_text=metric_words(name), row=row, col=1)
    figure.add_vline(x=best_epoch, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="epoch", rangemode="tozero", row=len(rows), col=1)
    if mode == "lines+markers":
        figure.update_xaxes(dtick=1)
    return styled(figure, height=260 + 170 * len(rows)).update_layout(hovermode="x")


def optimization_history(results: Results, trials: pl.DataFrame) -> go.Figure:
    """The score of every trial in the order of their numbers, and the best so far."""
    mode, metric = results.experiment["mode"], metric_words(results.experiment["metric"])
    scored = trials.filter(pl.col("score").is_not_null())
    if scored.height < 2:
        raise Unavailable("A history needs at least two trials with a score.")
    best = scored["score"].cum_max() if mode == "max" else scored["score"].cum_min()
    until = [*scored["number"], trials["number"].max()]
    figure = go.Figure()
    figure.add_scatter(
        x=_compact(until),
        y=_compact([*best, best[-1]]),
        name="best so far",
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        hovertemplate="best so far: %{y:.3f}<extra></extra>",
    )
    searched = scored.filter(pl.col("published").is_null())
    for state, marker in MARKERS.items():
        _points(figure, searched.filter(pl.col("state") == state), state, marker)
    published = scored.filter(pl.col("published").is_not_null())
    for letter, row in zip(_letters(published.height), published.iter_slices(1), strict=True):
        symbol = "diamond" if row["state"].item() == "finished" else "diamond-open"
        marker = {"symbol": symbol, "color": VERMILLION, "size": 11, "line": {"width": 1.5, "color": VERMILLION}}
        _points(figure, row, f"{letter}  published: {plain(row['published'].item())}", marker, letter)
    failed = trials.filter(pl.col("state") == "failed")
    if not failed.is_empty():  # without a score they have no height: a row of crosses on the floor
        figure.add_scatter(
            x=failed["number"],
            y=[0.02] * failed.height,
            yaxis="y2",
            name="failed",
            mode="markers",
            marker={"symbol": "x-thin", "color": VERMILLION, "size": 8, "line": {"width": 2, "color": VERMILLION}},
            hovertemplate="trial %{x}: failed<extra></extra>",
        )
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    figure.update_xaxes(title_text="trial")
    figure.update_layout(yaxis={"title": {"text": f"{metric}, mean over folds"}})
    return styled(figure, height=430 + 11 * published.height)


def budget_by_rung(results: Results, trials: pl.DataFrame) -> go.Figure:
    """Seconds that were trained towards each rung: of trials that went on to their ends, and of the others."""
    rungs = by_rung(results, trials)
    if not rungs["seconds"].sum():
        raise Unavailable("No trial has reported how long it took.")
    figure = go.Figure()
    parts = {
        "trials stopped or failed, here or later": (rungs["ended"], GREY),
        "finished or running": (rungs["seconds"] - rungs["ended"], BLUE),
    }
    words = [f"epoch {epoch} " for epoch in rungs["epoch"]]
    reached = rungs["trials"].to_list()
    for name, (seconds, colour) in reversed(parts.items()):
        figure.add_bar(
            y=words,
            x=seconds.to_list(),
            orientation="h",
            name=name,
            marker={"color": colour},
            text=[time_words(value) for value in seconds],
            customdata=reached,
            hovertemplate=f"%{{y}}: %{{text}}, {name}<br>reached by %{{customdata}} trials<extra></extra>",
            textposition="none",
        )
    totals = [
        f" {time_words(seconds)}, {count:,} trial{'s' * (count != 1)}"
        for seconds, count in rungs.select("seconds", "trials").iter_rows()
    ]
    figure.add_scatter(
        y=words, x=rungs["seconds"].to_list(), mode="text", text=totals, textposition="middle right",
        cliponaxis=False, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    longest = float(rungs["seconds"].max())  # type: ignore[arg-type]
    figure.update_xaxes(title_text="seconds of training, all trials", range=[0, longest * 1.65])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return styled(figure, height=150 + 34 * rungs.height).update_layout(barmode="stack", bargap=0.35)


def parameter_importances(results: Results, trials: pl.DataFrame) -> go.Figure:
    """Share of each searched parameter in what separates the good trials from all."""
    shares = importances(results, trials).share
    names, values = list(shares), list(shares.values())
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[f"{plain(name)} " for name in names],
            orientation="h",
            marker={"color": BLUE},
            text=[f"{value:.0%}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(tickformat=".0%", title_text="share of the importance", range=[0, max(values) * 1.15])
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, ticks="")
    return styled(figure, height=110 + 27 * len(names)).update_layout(bargap=0.35)


def _training(results: Results, number: int) -> str:
    """What the loss in training is, in words: not always the one that is validated."""
    kind, params = results.experiment["data"]["kind"], results.params(number)
    told = [
        words[key] for words, key in ((TRAINING_LOSS, kind), (BALANCED_LOSS, params.get("balance"))) if key in words
    ]
    told += dict.fromkeys(words for name, words in HARDENED_LOSS.items() if params.get(name))
    return f"training ({'; '.join(told)})" if told else "training"


def _points(figure: go.Figure, rows: pl.DataFrame, name: str, marker: dict[str, object], letter: str = "") -> None:
    if rows.is_empty():
        return
    known = rows["score_std"].null_count() == 0
    spread = "%{customdata:.3f}" if known else "unknown"
    figure.add_scatter(
        x=_compact(rows["number"]),
        y=_compact(rows["score"]),
        name=name,
        marker=marker,
        mode="markers+text" if letter else "markers",
        text=[letter] * rows.height if letter else None,
        textposition="top center",
        customdata=_compact(rows["score_std"]) if known else None,
        hovertemplate=f"trial %{{x}}, {name}<br>%{{y:.3f}} ± {spread}<extra></extra>",
    )


def _compact(numbers: Any) -> np.ndarray:
    """Four bytes each or fewer, which plotly packs: the text of ten thousand trials would be a megabyte."""
    packed = np.asarray(numbers)
    return packed if packed.dtype.kind == "i" else packed.astype(np.float32)


def _letters(count: int) -> list[str]:
    """A, B, … Z, A2, B2, …"""
    return [chr(ord("A") + i % 26) + (str(i // 26 + 1) if i >= 26 else "") for i in range(count)]
