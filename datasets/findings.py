"""What a finding of the audit is, and what every check is given to look at."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from datasets.dataset import ImageDataset
from datasets.duplicates import Clusters
from datasets.facts import Facts
from datasets.remedies import contaminants, contradictions

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know about the images before anything is trained on them."""

    check: str
    """What was looked for: a stable name."""
    severity: Severity
    title: str
    """What was found, in one or two sentences with its numbers."""
    remedy: str
    """What can be done: an option of the command line, or a sentence."""
    images: tuple[str, ...] = ()
    """The `image_id` of all images concerned; copies of one another stand side by side."""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """A data set as it was read, and what was measured on it."""

    dataset: ImageDataset
    facts: Facts
    copies: Clusters

    @cached_property
    def jokes(self) -> list[np.ndarray]:
        return contaminants(self.dataset, self.facts, self.copies)

    @cached_property
    def contradictions(self) -> list[np.ndarray]:
        return contradictions(self.dataset, self.facts, self.copies)

    @cached_property
    def originals(self) -> np.ndarray:
        """Row numbers of what a statistic may count: it decodes, shows something, and is no copy and no contaminant."""
        kept = self.facts.sound & ~self.facts.blank & (self.copies.near == np.arange(len(self.dataset)))
        for rows in self.jokes:
            kept[rows] = False
        return np.flatnonzero(kept)

    @cached_property
    def in_test(self) -> np.ndarray:
        """bool (images,)."""
        if "split" not in self.dataset.table.columns:
            return np.zeros(len(self.dataset), bool)
        return (self.dataset.table["split"] == "test").to_numpy()

    def ids(self, rows: Iterable[int] | np.ndarray) -> tuple[str, ...]:
        return tuple(self.dataset.table["image_id"][np.asarray(rows, np.int64)].to_list())


def counted(count: int, thing: str, things: str | None = None) -> str:
    """`1 image`, `1,600 images`."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def percent(part: float) -> str:
    return f"{100 * part:.1f} %".replace(".0 %", " %")
