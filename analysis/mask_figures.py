"""The figures of out-of-fold predictions of masks, by plotly: one function each."""

import numpy as np
import plotly.graph_objects as go

from analysis.looks import BLUE, THIN, VERMILLION, plain, styled
from analysis.mask_failures import areas
from analysis.predictions import EDGES, distribution
from analysis.results import Results, Unavailable

POINTS = 2000
"""Of images, beyond which a sample of them is drawn."""


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


def dice_by_area(results: Results, number: int) -> go.Figure:
    """The Dice of each image against the share of it that its mask covers, and the running median."""
    area_N, dice_N = areas(results, number), results.predictions(number, ["dice"])[:, 0]
    there = np.flatnonzero(area_N > 0)
    if len(there) < 2:
        raise Unavailable("No two images have a mask, so Dice cannot be held against its area.")
    order = there[np.argsort(area_N[there], kind="stable")]
    shown = np.sort(np.random.default_rng(0).choice(order, min(POINTS, len(order)), replace=False))
    figure = go.Figure()
    figure.add_scatter(
        x=area_N[shown],
        y=dice_N[shown],
        mode="markers",
        marker={"color": THIN, "size": 6},
        name=f"{len(shown):,} of {len(order):,} images" if len(shown) < len(order) else "each image",
        text=[plain(name) for name in results.folds["image_id"].gather(shown)],
        hovertemplate="%{text}<br>Dice %{y:.3f}, mask covers %{x:.2%}<extra></extra>",
    )
    parts = np.array_split(order, min(20, max(1, len(order) // 15)))
    figure.add_scatter(
        x=[float(np.median(area_N[part])) for part in parts],
        y=[float(np.median(dice_N[part])) for part in parts],
        mode="lines+markers",
        line={"color": VERMILLION, "width": 2.5},
        name="running median",
        hovertemplate="median Dice %{y:.3f} around %{x:.2%}<extra></extra>",
    )
    figure.update_xaxes(title_text="share of the image that the mask covers", type="log", tickformat=".2~%")
    figure.update_yaxes(title_text="Dice of an image", range=[-0.02, 1.02])
    return styled(figure, height=430)
