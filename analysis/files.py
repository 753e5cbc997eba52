"""`write_figures`: the figures of a report as SVG, PNG or PDF files, for papers and slides."""

import warnings
from pathlib import Path
from typing import Any

from analysis.all_figures import all_figures
from analysis.results import Results, Unavailable
from analysis.trials import trials
from datasets import InputError, nearest

FORMATS = ("svg", "png", "pdf")
WIDTH_PX = 900
PNG_SCALE = 2
"""Pixels of a PNG per pixel of the figure: sharp in print."""


def figure_formats(text: str) -> list[str]:
    """The formats of `svg,png`; an `InputError` names the one that is not known."""
    formats = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--figures {name!r} is no format{nearest(name, FORMATS)} Known: {', '.join(FORMATS)}")
    if not formats:
        raise InputError(f"--figures needs a format: {', '.join(FORMATS)}")
    return list(dict.fromkeys(formats))


def write_figures(folder: Path, formats: list[str]) -> tuple[list[Path], dict[str, str]]:
    """Writes figures/<name>.<format> into a results folder: the files, and why a figure has none.

    Drawn by a Chrome or Chromium of this machine, through Kaleido; an `InputError` where there is none.
    """
    import plotly.io
    from choreographer.errors import ChromeNotFoundError  # what Kaleido opens browsers with

    results, table = Results.open(folder), trials(folder)
    drawn: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, draw in all_figures(results, table).items():
        try:
            drawn[name] = draw().update_layout(paper_bgcolor="white")
        except Unavailable as reason:
            missing[name] = str(reason)
    written = [folder / "figures" / f"{name}.{suffix}" for suffix in formats for name in drawn]
    if not written:
        return [], missing
    try:
        (folder / "figures").mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Kaleido's own threads and loops
            plotly.io.write_images(
                [*drawn.values()] * len(formats),
                written,
                # Kaleido takes no size from a layout that sizes itself.
                width=[WIDTH_PX] * len(written),
                height=[figure.layout.height for figure in drawn.values()] * len(formats),
                scale=[PNG_SCALE if suffix == "png" else 1 for suffix in formats for _ in drawn],
            )
    except ChromeNotFoundError:
        raise InputError(
            "--figures needs Chrome or Chromium, and none was found: install one (apt install chromium), or set "
            "BROWSER_PATH to the program; the figures of report.html have no need of it"
        ) from None
    except PermissionError:
        raise InputError(f"{folder / 'figures'} cannot be written: no permission") from None
    return written, missing
