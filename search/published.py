"""`python -m search --published TASK`: what was published for a task, with the size of every network."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

import datasets
import search_spaces
from analysis.words import configuration_words
from search.records import published_record
from search.spaces import published_config
from trainables.network import network_size


def published(task: str) -> list[dict[str, Any]]:
    """One entry per published configuration of a task, ready for JSON."""
    space, module = search_spaces.space_of(task).search_space, datasets.task(task)
    entries = []
    for entry in search_spaces.published_of(task):
        config = published_config(space, entry)
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
        words = configuration_words(entry["params"], [name for name in entry["params"] if name != "model"])
        sizes = f"{entry['trainable_parameters']:,} of {entry['total_parameters']:,} parameters trained"
        console.print(f"[bold]{entry['name']}[/bold]  {escape(entry['summary'])}", highlight=False)
        for line in (
            f"{entry['model']}: {sizes}",
            f"{words}; {_or_unknown(entry['epochs'])} epochs",
            _reported_words(entry),
            entry["note"],
        ):
            if line:
                console.print(Padding(escape(line), (0, 0, 0, 4)), highlight=False)


def _reported_words(entry: dict[str, Any]) -> str:
    figure = "no figure" if entry["reported"] is None else f"{entry['metric']} {entry['reported']:.4f}"
    how = f", {entry['how']}" if entry["how"] else ""
    return f"reported {figure} on {_or_unknown(entry['images'])} images, {entry['split']}{how}"


def _or_unknown(count: int | None) -> str:
    return "an unknown number of" if count is None else str(count)
