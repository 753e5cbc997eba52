"""`python -m search --published TASK`: what was published for a task, with the size of every network."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

import datasets
import search_spaces
from analysis.words import configuration_words, metric_words
from datasets import InputError
from search.records import published_record
from search.spaces import published_config
from trainables.network import network_size

APART = ("model", "epochs")
"""Parameters that have a line, or a place in it, of their own."""


def published(task: str, file: Path | None = None) -> list[dict[str, Any]]:
    """One entry per published configuration of a task, or of the user's file for it, ready for JSON."""
    module = datasets.task(task)
    space = search_spaces.space_of(task).search_space if file is None else search_spaces.space_in(file).search_space
    entries = []
    for entry in search_spaces.published_of(task, file=file):
        try:
            config = published_config(space, entry)
        except InputError as error:
            raise InputError(f"published configuration {entry.name}: {error}") from None
        further = [len(target.classes) for target in getattr(module, "FURTHER", ())]
        trainable, total = network_size(config, module.CHANNELS, len(module.CLASSES), further)
        entries.append(
            published_record(entry)
            | {
                "model": config.model,
                "trainable_parameters": trainable,
                "total_parameters": total,
                "params": config.params(),
            }
        )
    return entries


def print_published(entries: list[dict[str, Any]], console: Console) -> None:
    """A paragraph for each."""
    for entry in entries:
        words = configuration_words(entry["params"], [name for name in entry["params"] if name not in APART])
        sizes = f"{entry['trainable_parameters']:,} of {entry['total_parameters']:,} parameters trained"
        console.print(f"[bold]{entry['name']}[/bold]  {escape(entry['summary'])}", highlight=False)
        for line in (
            f"{entry['model']}: {sizes}",
            f"{words}; {_or_unknown(entry['epochs'])} epochs",
            _reported_words(entry),
            entry["note"],
        ):
            if line:
                console.print(Padding(escape(line), (0, 0, 0, 4), expand=False), highlight=False)


def _reported_words(entry: dict[str, Any]) -> str:
    if entry["reported"] is None:
        return ""  # the note says so
    figure = f"{metric_words(entry['metric'])} {entry['reported']:.4f}"
    how = f", {entry['how']}" if entry["how"] else ""
    return f"reported {figure} on {_or_unknown(entry['images'])} images, {entry['split']}{how}"


def _or_unknown(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
