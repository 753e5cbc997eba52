"""The report of a finished, interrupted or running search, or several beside each other. python -m analysis covid"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from analysis.compare import compare, write_comparison
from analysis.fetched import Place, placed
from analysis.files import figure_formats, write_figures
from analysis.report import REPORT_FILES, write_report
from analysis.results import Results
from analysis.serve import serve
from analysis.summary import summary
from analysis.terminal import best_trials_table, comparison_tables, headline, published_table
from analysis.trials import trials
from datasets import InputError, interruption

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Experiments below the results, paths, or URLs; several are compared."),
    ],
    results: Annotated[str, typer.Option(help="Where the experiments are; may be a URL.")] = "results",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures of the report as JSON, and write nothing.")
    ] = False,
    figures: Annotated[
        str | None,
        typer.Option(metavar="svg,png,pdf", help="Write the figures as files too; needs Chrome or Chromium."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What several experiments are compared by; else what all of them searched by.")
    ] = None,
    serve_page: Annotated[bool, typer.Option("--serve", help="Serve the page on this machine until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0 takes a free one.")] = 0,
) -> None:
    """Print the best trials of an experiment and write its report; of several experiments a comparison."""
    console = Console()
    try:
        interruption.started()
        places = [placed(name, results) for name in dict.fromkeys(names)]
        formats = figure_formats(figures) if figures is not None else []
        if len(places) > 1:
            if formats:
                raise InputError("--figures is of one experiment: name one")
            files = _compared(places, metric, as_json, console)
        else:
            if metric is not None:
                raise InputError("--metric is for comparing several experiments; one is told by what it searched by")
            files = _reported(places[0], as_json, formats, console)
        if serve_page and files:
            serve(files, port, lambda address: console.print(f"Serving {address} until Ctrl-C", highlight=False))
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted.", err=True)
        raise typer.Exit(130) from None


def _reported(place: Place, as_json: bool, formats: list[str], console: Console) -> list[Path]:
    """Prints the report of one experiment, and returns its files, the page first."""
    folder = place.folder
    if as_json:
        _echo_json(summary(folder))
        return []
    report = write_report(folder)
    told, experiment = (
        json.loads((folder / "summary.json").read_text(encoding="utf-8")),
        Results.open(folder).experiment,
    )
    if experiment["demonstration"]:
        console.print("DEMONSTRATION DATA: drawn by a program; the scores say nothing about patients.", style="yellow")
    console.print(headline(told))
    console.print(best_trials_table(trials(folder), experiment))
    if (published := published_table(told)) is not None:
        console.print()
        console.print(published)
    console.print(f"\nReport: {report}", soft_wrap=True, markup=False, highlight=False)
    if (stored := place.send(*REPORT_FILES)) is not None:
        console.print(f"Stored: {stored}", soft_wrap=True, markup=False, highlight=False)
    if formats:
        written, missing = write_figures(folder, formats)
        said = f"Figures: {len(written)} files in {folder / 'figures'}"
        console.print(said, soft_wrap=True, markup=False, highlight=False)
        place.send("figures")
        for name, reason in missing.items():
            console.print(f"No {name}: {reason}", soft_wrap=True, markup=False, highlight=False)
    return [folder / name for name in REPORT_FILES]


def _compared(places: list[Place], metric: str | None, as_json: bool, console: Console) -> list[Path]:
    """Prints a comparison, and returns its page."""
    compared = compare([place.folder for place in places], metric)
    if as_json:
        _echo_json(compared)
        return []
    page = write_comparison(compared, places[0].folder.parent)
    for table in comparison_tables(compared):
        console.print(table)
        console.print()
    console.print(f"Comparison: {page}", soft_wrap=True, markup=False, highlight=False)
    if (stored := places[0].above.send(page.name)) is not None:
        console.print(f"Stored:     {stored}", soft_wrap=True, markup=False, highlight=False)
    return [page]


def _echo_json(told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    app()
