"""The figures of what mattered, by plotly: scores along parameters and pairs of them, and trials as lines across all.

All scored trials count for medians; of very many, as many points are drawn as a page can carry.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from analysis.axes import NOT_ASKED, aside, jitter, scaled, shown_range, ticks_words
from analysis.effects import Effects, along, by_value, cells, edges, measured_effects, pairs
from analysis.figures import MARKERS
from analysis.looks import BAND, BLUE, GREY, GRID, VERMILLION, plain, styled
from analysis.results import Results, Unavailable
from analysis.searched import Parameter
from analysis.trials import best, ranked
from analysis.words import metric_words

DRAWN, PANELS = 400, 8
"""Points per panel and panels at most, so that a figure stays small; the most important parameters have theirs."""
LINES, AXES = 150, 10
"""Trials and parameters that can be told apart as lines."""
TOP_SHARE = 0.1
"""Of the trials are good ones among the lines, five at least."""
WORDS = 0.36
"""What the words below an axis take of the way to the next."""


def marginal_effects(results: Results, table: pl.DataFrame) -> go.Figure:
    """The score of each trial against each of the most important parameters, with running median and quartiles."""
    found = measured_effects(results, table)
    shown = found.parameters[:PANELS]
    drawn_T = _drawn(found, DRAWN)
    rows = -(-len(shown) // 2)
    figure = make_subplots(
        rows=rows, cols=2, shared_yaxes=True, horizontal_spacing=0.06, vertical_spacing=0.34 / max(rows, 2)
    )
    for place, parameter in enumerate(shown):
        row, col = place // 2 + 1, place % 2 + 1
        _trend(figure, parameter, found, row, col)
        for state, marker in MARKERS.items():
            of_state_T = drawn_T & (found.trials["state"] == state).to_numpy() & ~np.isnan(parameter.position_T)
            if of_state_T.any():
                figure.add_scatter(
                    **_points(found, parameter, of_state_T),
                    name=state,
                    legendgroup=state,
                    marker={**marker, "size": 5, "opacity": 0.75},
                    row=row,
                    col=col,
                )
        ticks, words = ticks_words(parameter)
        figure.update_xaxes(
            title_text=plain(parameter.name),
            tickvals=ticks,
            ticktext=words,
            range=shown_range(parameter),
            row=row,
            col=col,
        )
    for state in {trace.name for trace in figure.data}:  # in the legend once, from whichever panel has it first
        next(trace for trace in figure.data if trace.name == state).showlegend = True
    low, high = _visible(found)
    figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title_text=metric_words(results.experiment["metric"]), col=1)
    return _legend_above(styled(figure, height=90 + 230 * rows), found, drawn_T)


def pair_effects(results: Results, table: pl.DataFrame) -> go.Figure:
    """The trials over pairs of the most important parameters, coloured by their scores, over the medians of cells."""
    found = measured_effects(results, table)
    shown, mode = pairs(found), results.experiment["mode"]
    if not shown:
        raise Unavailable("No two parameters were asked of enough trials together.")
    drawn_T = _drawn(found, DRAWN)
    low, high = _visible(found)
    metric = metric_words(results.experiment["metric"])
    figure = make_subplots(rows=len(shown), cols=1, vertical_spacing=0.32 / max(len(shown), 2))
    for row, (first, second) in enumerate(shown, start=1):
        of_cells = cells(first, second, found.score_T)
        medians = np.full((len(edges(second)) - 1, len(edges(first)) - 1), np.nan)
        for (x, y), scores in of_cells.items():
            medians[y, x] = np.median(scores)
        figure.add_heatmap(
            x=edges(first), y=edges(second), z=medians, coloraxis="coloraxis", opacity=0.45, hoverinfo="skip",
            xgap=1, ygap=1, row=row, col=1,
        )  # fmt: skip
        inside_T = drawn_T & ~np.isnan(first.position_T + second.position_T)
        figure.add_scatter(
            **_points(found, first, inside_T)
            | {"y": (second.position_T + jitter(second, found.number_T, golden=0.754878))[inside_T].astype(np.float32)},
            marker={
                "size": 7,
                "color": found.score_T[inside_T].astype(np.float32),
                "coloraxis": "coloraxis",
                "line": {"width": 0.7, "color": "#ffffff"},
                "symbol": np.where((found.trials["state"] == "stopped").to_numpy()[inside_T], "circle", "diamond"),
            },
            name="",
            row=row,
            col=1,
        )
        for update, parameter in ((figure.update_xaxes, first), (figure.update_yaxes, second)):
            ticks, words = ticks_words(parameter)
            update(
                title_text=plain(parameter.name), tickvals=ticks, ticktext=words, range=shown_range(parameter),
                showgrid=False, row=row, col=1,
            )  # fmt: skip
    colours = {
        "cmin": low,
        "cmax": high,
        "colorscale": "Viridis",
        "reversescale": mode == "min",
        "colorbar": {"title": {"text": metric, "side": "right"}, "thickness": 10, "len": 0.9},
    }
    return styled(figure, height=70 + 260 * len(shown)).update_layout(coloraxis=colours, showlegend=False)


def parallel_coordinates(results: Results, table: pl.DataFrame) -> go.Figure:
    """Each trial a line down the most important parameters, one axis below the other: the best tenth stands out."""
    found, mode = measured_effects(results, table), results.experiment["mode"]
    shown = found.parameters[:AXES]
    if len(shown) < 2:
        raise Unavailable("Only one parameter varies: its effect says all.")
    place_AT = np.stack([scaled(one, one.position_T) + aside(one, found.number_T) for one in shown])
    winner = best(found.trials, mode)
    assert winner is not None
    top = max(5, round(TOP_SHARE * found.trials.height))
    good = set(ranked(found.trials, mode)["number"].head(top)) - {winner["number"]}
    drawn_T = _drawn(found, LINES)
    figure = go.Figure()
    numbers = found.trials["number"].to_list()
    kind_T = np.array([2 if number == winner["number"] else int(number in good) for number in numbers])
    kinds = [
        ("the others", "rgba(139, 146, 156, 0.28)", 1.0),
        (f"the best {top:,}", "rgba(42, 127, 184, 0.65)", 1.4),
        (f"the best of all, trial {winner['number']}", VERMILLION, 2.6),
    ]
    # Down through the words below an axis and only then aside. A gap between two trials, or the line would go back up.
    y_L = np.r_[np.stack([-np.arange(len(shown)), -np.arange(len(shown)) - WORDS], axis=1).ravel()[:-1], np.nan]
    for kind, (name, colour, width) in enumerate(kinds):
        place_AK = place_AT[:, drawn_T & (kind_T == kind)]
        x_LK = np.concatenate([np.repeat(place_AK, 2, axis=0)[:-1], np.full((1, place_AK.shape[1]), np.nan)])
        figure.add_scatter(
            x=x_LK.T.ravel().astype(np.float32),
            y=np.tile(y_L, place_AK.shape[1]).astype(np.float32),
            mode="lines",
            line={"color": colour, "width": width},
            name=name,
            hoverinfo="skip",
        )
    for row, parameter in enumerate(shown):
        ticks, words = ticks_words(parameter)
        figure.add_scatter(
            x=[scaled(parameter, np.array([tick])).item() for tick in ticks],
            y=[-row] * len(ticks),
            mode="lines+markers+text",
            line={"color": GREY, "width": 1},
            marker={"symbol": "line-ns", "size": 7, "line": {"width": 1, "color": GREY}},
            text=words,
            textposition=[*["bottom right"] * (len(ticks) - 1), "bottom left"]
            if by_value(parameter)
            else "bottom center",
            textfont={"size": 11},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    at_best = numbers.index(winner["number"])
    figure.add_scatter(
        x=place_AT[:, at_best],
        y=-np.arange(len(shown)),
        mode="markers",
        marker={"color": VERMILLION, "size": 7},
        text=[plain(f"{one.name}: {one.words(one.position_T[at_best])}") for one in shown],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    skipped = any(np.isnan(one.position_T).any() for one in shown)
    figure.update_xaxes(
        range=[-0.19 if skipped else -0.06, 1.06], showgrid=False, ticks="", side="top",
        tickvals=[NOT_ASKED] if skipped else [], ticktext=["not asked"], tickangle=0,
    )  # fmt: skip
    names = [f"{plain(one.name)}  " for one in shown]
    figure.update_yaxes(
        range=[-len(shown) + 0.4, 0.35], gridcolor=GRID, tickvals=[-row for row in range(len(shown))], ticktext=names
    )
    return _legend_above(styled(figure, height=120 + 62 * len(shown)), found, drawn_T)


PAGE: tuple[Callable[[Results, pl.DataFrame], go.Figure], ...] = (marginal_effects, pair_effects, parallel_coordinates)


def _trend(figure: go.Figure, parameter: Parameter, found: Effects, row: int, col: int) -> None:
    """The median as a line within a band of the quartiles; of choices a bar for each, with whiskers."""
    told = along(parameter, found.score_T)
    x = np.array([position for position, _, _ in told])
    low, median, high = np.array([scores for _, _, scores in told]).reshape(-1, 3).T
    legend = {"legendgroup": "median", "name": "median and quartiles", "showlegend": False, "hoverinfo": "skip"}
    at = {"row": row, "col": col}
    if by_value(parameter):
        figure.add_scatter(
            x=x, y=median, mode="markers", **legend, **at,
            marker={"symbol": "line-ew", "size": 34, "line": {"width": 2.5, "color": BLUE}},
            error_y={"symmetric": False, "array": high - median, "arrayminus": median - low, "color": BLUE, "width": 8},
        )  # fmt: skip
        return
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": "median"}
    figure.add_scatter(x=x, y=low, name="", **edge, **at)
    figure.add_scatter(x=x, y=high, name="", fill="tonexty", fillcolor=BAND, **edge, **at)
    figure.add_scatter(x=x, y=median, mode="lines", line={"color": BLUE, "width": 2.5}, **legend, **at)


def _points(found: Effects, parameter: Parameter, of_T: np.ndarray) -> dict[str, Any]:
    """A scatter of scores along a parameter. Scores far below the others stand at the edge; the text tells them."""
    low, high = _visible(found)
    values_T = 10**parameter.position_T if parameter.log else parameter.position_T
    spread_T = found.trials["score_std"].to_numpy()
    told_T4 = np.stack([found.number_T, found.score_T, spread_T, values_T], axis=1)
    value = "" if parameter.choices else f"<br>{plain(parameter.name)} %{{customdata[3]:.3~g}}"
    return {
        "x": (parameter.position_T + jitter(parameter, found.number_T))[of_T].astype(np.float32),
        "y": np.clip(found.score_T, low, high)[of_T].astype(np.float32),
        "customdata": told_T4[of_T].astype(np.float32),
        "mode": "markers",
        "showlegend": False,
        "hovertemplate": "trial %{customdata[0]}: %{customdata[1]:.3f} ± %{customdata[2]:.3f}"
        + value
        + "<extra></extra>",
    }


def _drawn(found: Effects, count: int) -> np.ndarray:
    """Which trials have points, bool (T,): all, or the best eighth of so many and others evenly over the search."""
    total = found.trials.height
    if total <= count:
        return np.ones(total, dtype=bool)
    worst_first = np.argsort(found.score_T if found.mode == "max" else -found.score_T, kind="stable")
    drawn_T = np.zeros(total, dtype=bool)
    drawn_T[worst_first[-(count // 8) :]] = True
    others = np.flatnonzero(~drawn_T)
    drawn_T[others[np.linspace(0, len(others) - 1, count - count // 8).round().astype(int)]] = True
    return drawn_T


def _visible(found: Effects) -> tuple[float, float]:
    """The scores that an axis shows: all, unless the worst twentieth would take more than half of it."""
    score_T = found.score_T if found.mode == "max" else -found.score_T
    low, twentieth, high = np.quantile(score_T, (0, 0.05, 1))
    if high - twentieth < (high - low) / 2:
        low = twentieth
    margin = 0.04 * (high - low) or 0.01
    shown = (low - margin, high + margin)
    return shown if found.mode == "max" else (-shown[1], -shown[0])


def _legend_above(figure: go.Figure, found: Effects, drawn_T: np.ndarray) -> go.Figure:
    """Above the panels, with how many trials are drawn where not all are."""
    figure.update_layout(legend={"yref": "container", "y": 1, "yanchor": "top"})
    if not drawn_T.all():
        told = f"{int(drawn_T.sum()):,} of {len(drawn_T):,} trials drawn, all counted"
        figure.update_layout(legend_title={"text": told, "font": {"size": 12}})
    return figure
