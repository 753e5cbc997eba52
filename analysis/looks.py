"""How all figures look: colours, axes, legends.

Backgrounds are transparent and the ink is a middle grey that can be read on light and dark pages; a page may give texts
and grid other colours by CSS. Colours are Okabe and Ito's, told apart by colour-blind readers, and never the only sign.
Names come from users, and plotly reads HTML: they pass through `plain`.
"""

from html import escape

import plotly.graph_objects as go

INK, GRID = "#6b7280", "rgba(127, 127, 127, 0.22)"
BLUE, VERMILLION, GREEN, GREY = "#2a7fb8", "#d55e00", "#009e73", "#8b929c"
BAND, THIN = "rgba(42, 127, 184, 0.18)", "rgba(42, 127, 184, 0.6)"
VERMILLION_BAND = "rgba(213, 94, 0, 0.16)"


def plain(name: str) -> str:
    return escape(name, quote=False)


def styled(figure: go.Figure, height: int) -> go.Figure:
    axes = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "title": {"standoff": 10, "font": {"size": 13}},
        "automargin": True,
    }
    figure.update_xaxes(**axes, fixedrange=True)
    figure.update_yaxes(**axes, fixedrange=True)
    return figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": INK, "size": 13, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        margin={"l": 56, "r": 14, "t": 16, "b": 48},
        legend={"orientation": "h", "x": 0, "y": -62 / (height - 130), "yanchor": "top", "bgcolor": "rgba(0, 0, 0, 0)"},
        hoverlabel={"bgcolor": "#1f2937", "bordercolor": "#1f2937", "font": {"color": "#ffffff"}},
    )
