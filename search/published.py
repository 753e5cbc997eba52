"""`python -m search --published TASK`: what was published for a task, with the size of every network."""

from typing import Any

import optuna
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

import datasets
import search_spaces
from analysis.words import configuration_words
from trainables.config import TrialConfig
from trainables.network import network_size


def published(task: str) -> list[dict[str, Any]]:
    """One entry per published configuration of a task, ready for JSON."""
    space, module = search_spaces.space_of(task), datasets.task(task)
    entries = []
    for entry in getattr(space, "PUBLISHED", ()):
        config = TrialConfig.of(space.search_space(optuna.trial.FixedTrial(entry.params)))
        further = [len(target.classes) for target in getattr(module, "FURTHER", ())]
        trainable, total = network_size(config, module.CHANNELS, len(module.CLASSES), further)
        entries.append(
            {
                "name": entry.name,
                "summary": entry.summary,
                "model": config.model,
                "trainable_parameters": trainable,
                "total_parameters": total,
                "params": config.params(),
                "metric": entry.metric,
                "reported": entry.reported,
                "images": entry.images,
                "split": entry.split,
                "epochs": entry.epochs,
                "note": entry.note,
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
            f"{words}; {entry['epochs']} epochs",
            f"reported {entry['metric']} {entry['reported']:.4f} on {entry['images']} images, {entry['split']}",
            entry["note"],
        ):
            if line:
                console.print(Padding(escape(line), (0, 0, 0, 4)), highlight=False)
