"""`python -m search.predict NAME IMAGE_OR_FOLDER…`: what a model says of image files, one row of a table for each.

    image                   the path, as it was given
    class                   what is decided for: of two classes by the threshold that was chosen out of fold
    probability             of that class, mean over the networks
    disagreement            standard deviation of that probability over the networks
    dissenting              how many of the networks decide otherwise
    probability_<class>     of every class

With several targets each has these, as `class_<target>` and so on. Images in folders of studies (`…/study1/image1.png`)
also have `study` and the mean over its images. Of masks: the share of the image that is marked, and disagreement is one
minus the mean Dice of each network's mask with that of all.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.progress import Progress

from analysis.fetched import placed
from analysis.results import experiments
from datasets import InputError, Skipped, interruption, nearest
from datasets.folders import find_images, printable
from datasets.remote import is_url
from search.predicted import batches, with_studies

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="An experiment, or a folder with model.json.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    csv: Annotated[Path | None, typer.Option(help="Write the table here; else it is printed.")] = None,
    saliency: Annotated[Path | None, typer.Option(help="Folder for pictures of where the networks look.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder for the masks, PNG, as large as the images.")] = None,
    results: Annotated[str, typer.Option(help="Where the experiments are; may be a URL.")] = "results",
) -> None:
    """What a model says of images."""
    console = Console(stderr=True)
    try:
        interruption.started()
        if csv is not None and (csv.is_dir() or not csv.parent.is_dir()):  # before hours of work
            raise InputError(f"--csv {csv}: {'is a folder' if csv.is_dir() else f'there is no folder {csv.parent}'}")
        table, skipped = _predicted(name, images, saliency, masks, results, console)
        table = no_formulas(table)
        if csv is None:
            typer.echo(table.write_csv(float_precision=6), nl=False)
        else:
            _write(table, csv)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted: nothing was written to the table.", err=True)
        raise typer.Exit(130) from None
    for file in skipped:
        typer.echo(f"skipped {file.path}: {file.reason}", err=True)
    if csv is not None:
        left_out = f", {len(skipped):,} file{'s' * (len(skipped) > 1)} skipped" if skipped else ""
        typer.echo(f"{table.height:,} image{'s' * (table.height != 1)}{left_out}: {csv}", err=True)


def _predicted(
    name: str, given: list[Path], saliency: Path | None, masks: Path | None, results: str, console: Console
) -> tuple[pl.DataFrame, list[Skipped]]:
    folder = model_folder(name, results)
    files, skipped = image_files(given)
    import torch

    from search.prediction_pictures import write_masks, write_saliency
    from trainables.ensemble import Ensemble

    ensemble = Ensemble.load(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    description = ensemble.description
    if masks is not None and description.kind != "segmentation":
        raise InputError(f"--masks {masks}: this model gives classes of images, no masks; leave it out")
    if saliency is not None and description.kind == "segmentation":
        raise InputError(f"--saliency {saliency}: this model gives masks, which show where it looks; use --masks DIR")
    if description.demonstration:
        console.print("DEMONSTRATION DATA: this model has seen phantoms only; it says nothing about real images.")
    place_of = dict(zip(files, _places(files), strict=True))
    rows: list[dict[str, Any]] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        progress = bar.add_task("images", total=len(files))
        for batch in batches(ensemble, files, skipped):
            rows += batch.rows(description)
            if masks is not None:
                write_masks(batch, masks, place_of)
            if saliency is not None:
                write_saliency(ensemble, batch, saliency, place_of)
            bar.update(progress, completed=batch.done)
    if not rows:
        raise InputError(
            f"none of {len(skipped):,} files is an image; the first: {skipped[0].path}: {skipped[0].reason}"
        )
    return with_studies(pl.DataFrame(rows, infer_schema_length=None), description), skipped


def model_folder(name: str, results: str | Path) -> Path:
    """That of an experiment's winner, or the folder with model.json that is named; one at a URL is brought here first.
    Raises `InputError` where there is none."""
    if is_url(name) or is_url(str(results)):
        place = placed(name, results)
        place.bring("best")
        name, results = place.folder.name, place.folder.parent
    results = Path(results)
    for folder in (results / name / "best", Path(name), Path(name) / "best"):
        if (folder / "model.json").is_file():
            return folder
    for experiment in (results / name, Path(name)):
        if (experiment / "experiment.json").is_file():
            raise InputError(f"{name}: its model has not been written yet: python -m search.explain {name}")
    known = experiments(results)
    there = f"Experiments there: {', '.join(known)}" if known else f"There are no experiments in {results}"
    raise InputError(f"{name}: no experiment, and no folder with model.json{nearest(name, known)} {there}")


def image_files(given: Iterable[Path]) -> tuple[list[Path], list[Skipped]]:
    """The files that are named, and all below folders that are, each once; and what lies there and is no image."""
    files: list[Path] = []
    skipped: list[Skipped] = []
    for path in given:
        if path.is_dir():
            found, others = find_images(path)
            files += found
            skipped += [Skipped(printable(str(path / other.path)), other.reason) for other in others]
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not files:
        raise InputError(f"{', '.join(map(str, given))}: no image files there")
    return list(dict.fromkeys(files)), skipped


def _places(files: list[Path]) -> list[Path]:
    """Where a picture of each file is to lie: its path below the folder that all are in, with another ending behind, so
    that no two are the same."""
    absolute = [Path(os.path.normpath(file.absolute())) for file in files]  # without `..`, which would lead out again
    above = Path(os.path.commonpath([file.parent for file in absolute]))
    return [Path(f"{file.relative_to(above)}.png") for file in absolute]


def no_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Names that a spreadsheet would compute (`=…`, `+…`, `-…`, `@…`) with an apostrophe before them, as spreadsheets
    write text: files and the classes of a model may come from anybody."""
    formula = "^[=+@\t\r-]"
    return table.with_columns(pl.col(pl.String).str.replace(f"({formula})", "'$1")).rename(
        {name: f"'{name}" for name in table.columns if re.match(formula, name)}
    )


def _write(table: pl.DataFrame, file: Path) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        table.write_csv(part, float_precision=6)
        part.replace(file)
    except OSError as error:
        raise InputError(f"--csv {file}: cannot be written ({error.strerror or error})") from None


if __name__ == "__main__":
    app(prog_name="python -m search.predict")
