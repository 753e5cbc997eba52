"""`python -m datasets TASK`: the audit, before anything is trained."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import datasets
from datasets import ImageDataset, InputError, Request, interruption
from datasets.audit import Audit, audit
from datasets.audit_page import audit_page
from datasets.fetching import root_of, source_of
from datasets.findings import counted, percent
from datasets.folders import PARTS, find_images
from datasets.images import from_class_folders
from datasets.remedies import DEFAULT_DROP, REMEDIES, Embed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
VERSIONS = 7
"""Augmented versions that the page shows."""
IMAGES_NAMED = 3
CLASSES_TOLD = 30


@app.command(no_args_is_help=True)
def main(
    task: Annotated[str, typer.Argument(help="Whose images: see python -m search --list.")],
    data: Annotated[str | None, typer.Option(help="Folder of the images, or an archive of it; or its URL.")] = None,
    table: Annotated[Path | None, typer.Option(help="Labels of `images`: a csv or parquet file.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Draw demonstration data (phantoms).")] = False,
    plant: Annotated[str | None, typer.Option(help="Pitfalls to plant among the phantoms: a,b.")] = None,
    images: Annotated[int | None, typer.Option(help="Development images to draw; a test part comes on top.")] = None,
    seed: Annotated[int, typer.Option(help="Of the phantoms.")] = 0,
    pool: Annotated[bool, typer.Option("--pool", help="Look at both splits as one.")] = False,
    drop: Annotated[
        str | None,
        typer.Option(
            help=f"What would be left out: {','.join(REMEDIES)}; or none. [default: {','.join(DEFAULT_DROP)}]"
        ),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="What would be left out with this image (its id or row): all alike.")
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Compare images by the features of a network, too.")] = False,
    weights: Annotated[str, typer.Option(help="For --embed: imagenet, none or FILE.safetensors.")] = "imagenet",
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there is an error among the findings.")
    ] = False,
) -> None:
    """What is in a set of images, and what is wrong with it."""
    console = Console(highlight=False)
    try:
        interruption.started()
        asked = Request(
            root=None if data is None else root_of(data),
            table=table,
            demonstration=demo,
            seed=seed,
            images=images,
            plant=_names(plant) if plant else (),
            pool=pool,
        )
        title = datasets.task(task).TITLE
        dataset = _loaded(task, asked)
        dropped = DEFAULT_DROP if drop is None else () if drop == "none" else _names(drop)
        features = _features(weights) if embed else None
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            looking = bar.add_task("looking at every image", total=len(dataset))
            found = audit(
                dataset,
                dropped,
                tuple(like or ()),
                features,
                lambda done, of: bar.update(looking, completed=done, total=of),
            )
        if html is not None:
            _write(html, audit_page(found, title, _augmented))
        if as_json:
            typer.echo(json.dumps(found.json(), indent=1, ensure_ascii=False, allow_nan=False))
        else:
            _print(console, found, title)
            if html is not None:
                console.print(f"\nPage: {html}", soft_wrap=True, markup=False)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted.", err=True)
        raise typer.Exit(130) from None
    if strict and any(finding.severity == "error" for finding in found.findings):
        raise typer.Exit(1)


def _loaded(task: str, asked: Request) -> ImageDataset:
    """Also a folder of one class only: no search takes it, but it can be looked at, and why it is one class."""
    try:
        return datasets.load_all(task, asked)
    except InputError:
        if task != "images" or asked.root is None or asked.table is not None or asked.demonstration:
            raise
        source = source_of(asked.root)
        root = asked.root if source is None else source.folder
        assert isinstance(root, Path)
        names = {path.parent.name for path in find_images(root)[0] if path.parent != root}
        if len(names) != 1 or not PARTS.keys().isdisjoint(map(str.casefold, names)):
            raise
        dataset = from_class_folders("images", root, tuple(names))
    table = dataset.table.drop("split", strict=False) if asked.pool else dataset.table
    return dataclasses.replace(dataset, table=table, origin=str(asked.root))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,\s]+", text) if name)


def _write(file: Path, html: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"--html {file}: cannot be written: {error.strerror}") from None


def _print(console: Console, found: Audit, title: str) -> None:
    dataset = found.dataset
    if dataset.demonstration:
        console.print("DEMONSTRATION DATA: drawn by a program; it says nothing about patients.", style="yellow")
    parts = ", ".join(
        f"{counted(number, 'image')} in {counted(found.groups[split], 'group')} ({split})"
        for split, number in found.splits.items()
    )
    console.print(Text(f"{title}: {parts}; {dataset.origin}"), soft_wrap=True)
    for target, classes in found.counts.items():
        console.print(_counts(target, classes, found.splits))
    heatmap = found.parts
    if heatmap is not None:
        for split in found.splits:
            console.print(_heatmap(heatmap, split))
    if found.sources:
        console.print(_counts("source", found.sources, {}))
    sizes, kinds = found.sizes, ", ".join(f"{kind} ({number:,})" for kind, number in list(found.kinds.items())[:6])
    told = ", ".join(f"{size['width_px']} × {size['height_px']} ({size['images']:,})" for size in sizes[:4])
    more = f" and {len(sizes) - 4:,} other sizes" if len(sizes) > 4 else ""
    console.print(Text(f"\nSizes: {told}{more}\nFiles: {kinds}"), soft_wrap=True)
    console.print()
    for finding in found.findings:
        words = Text(f"{finding.severity:<8}", style=COLOURS[finding.severity])
        words += Text(f"{finding.title}", style="default")
        words += Text(f" [{finding.check}]", style="dim")
        console.print(words, soft_wrap=True)
        console.print(Text(f"        {finding.remedy}", style="dim"), soft_wrap=True)
        if finding.images:
            more = f", … ({len(finding.images):,} in all: --json)" if len(finding.images) > IMAGES_NAMED else ""
            console.print(
                Text(f"        {', '.join(finding.images[:IMAGES_NAMED])}{more}", style="dim"), soft_wrap=True
            )
    if found.refusal:
        console.print(Text(f"\nA search would refuse these images: {found.refusal}", style="red"), soft_wrap=True)
    else:
        console.print(
            f"\nA search uses {counted(found.remaining or 0, 'image')} and leaves {len(found.dropped):,} out."
        )


def _plain(title: str) -> Table:
    return Table(title=Text(f"\n{title}"), box=None, pad_edge=False, title_justify="left", header_style="bold")


def _counts(target: str, classes: dict[str, dict[str, int]], splits: dict[str, int]) -> Table:
    table = _plain(target)
    table.add_column("")
    columns = list(splits) or list(next(iter(classes.values())))
    for column in columns:
        table.add_column(Text(column), justify="right")
    for label, numbers in list(classes.items())[:CLASSES_TOLD]:
        cells = [
            f"{numbers[column]:,}" + (f" ({percent(numbers[column] / splits[column])})" if splits else "")
            for column in columns
        ]
        table.add_row(Text(label), *cells)
    if len(classes) > CLASSES_TOLD:
        table.add_row(f"… {len(classes) - CLASSES_TOLD:,} more")
    return table


def _heatmap(heatmap: dict[str, Any], split: str) -> Table:
    table = _plain(f"class by part, {split}")
    table.add_column("")
    what = [name for name in ("images", "studies") if name in heatmap]
    for name in what:
        for label in heatmap["classes"]:
            table.add_column(Text(f"{label}, {name}"), justify="right")
    for row, part in enumerate(heatmap["parts"]):
        table.add_row(Text(part), *(f"{number:,}" for name in what for number in heatmap[name][split][row]))
    return table


def _features(weights: str) -> Embed:
    from trainables.embedding import embedding  # imports torch and timm, which takes seconds

    return embedding(weights)


def _augmented(pixels_HWC: np.ndarray) -> list[np.ndarray]:
    """Versions of an image with the usual augmentation of the search spaces."""
    import torch

    from trainables.augmentation import augmentation
    from trainables.config import USUAL_AUGMENTATION, TrialConfig

    height, width = pixels_HWC.shape[:2]
    config = TrialConfig(model="", image_size_px=height, learning_rate=1.0, batch_size=1, **USUAL_AUGMENTATION)
    augment = augmentation(config)
    assert augment is not None
    image_CHW = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1).float() / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        versions = augment(image_CHW.expand(VERSIONS, -1, height, width))
    return list((versions * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    app(prog_name="python -m datasets")
