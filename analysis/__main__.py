"""The report of a finished, interrupted or running search. python -m analysis covid"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from analysis.report import write_report
from analysis.results import Results
from analysis.summary import summary
from analysis.terminal import best_trials_table, published_table
from analysis.trials import trials
from datasets import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="An experiment below the results folder, or the path of its folder.")],
    results: Annotated[Path, typer.Option(help="Where the experiments are.")] = Path("results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures of the report as JSON, and write nothing.")
    ] = False,
) -> None:
    """Print the best trials of an experiment and write its report."""
    folder = results / name
    if not (folder / "experiment.json").exists() and (Path(name) / "experiment.json").exists():
        folder = Path(name)
    try:
        if as_json:
            typer.echo(json.dumps(summary(folder), indent=2, ensure_ascii=False, allow_nan=False))
            return
        report = write_report(folder)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    experiment = Results.open(folder).experiment
    console = Console()
    if experiment["demonstration"]:
        console.print("DEMONSTRATION DATA: drawn by a program; the scores say nothing about patients.", style="yellow")
    console.print(best_trials_table(trials(folder), experiment))
    if (published := published_table(summary(folder))) is not None:
        console.print()
        console.print(published)
    console.print(f"\nReport: {report}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    app()
