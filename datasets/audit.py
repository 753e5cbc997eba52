"""The audit: what is in a data set, and what is wrong with it, before any computer is paid for training on it.

python -m datasets covid --data DIR --html audit.html
"""

import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, Skipped, check_searchable
from datasets.duplicates import clusters
from datasets.errors import InputError
from datasets.facts import Facts, Progress, facts
from datasets.file_findings import file_findings
from datasets.findings import SEVERITIES, Evidence, Finding, counted
from datasets.image_findings import image_findings
from datasets.label_findings import confounding_findings, label_findings
from datasets.remedies import DEFAULT_DROP, Embed, check_known, remedied, resembling

ALIKE = 0.95
"""Cosine similarity of features from which on two images are pointed out."""
MOST_ALIKE = 0.2
"""Part of the images that may be pointed out: more, and the features do not tell these images apart."""
SIZES_TOLD = 12


@dataclass(frozen=True)
class Audit:
    dataset: ImageDataset
    """As it was read."""
    facts: Facts
    findings: tuple[Finding, ...]
    """The most severe first."""
    dropped: tuple[Skipped, ...]
    """What a search leaves out, by the remedies that were asked for."""
    remaining: int | None
    """Images that a search has then, test part included; None where it would refuse, and `refusal` says why."""
    refusal: str | None

    @property
    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Images by target, class and split."""
        table, dataset = self.dataset.table.with_columns(split=self._split()), self.dataset
        targets = [] if dataset.kind == "segmentation" else [(dataset.target_name, "target", dataset.classes)]
        targets += [(target.name, target.column, target.classes) for target in dataset.further]
        counted_by: dict[str, dict[str, dict[str, int]]] = {}
        for name, column, classes in targets:
            by = Counter(table.select(column, "split").iter_rows())
            counted_by[name] = {
                label: {split: by[number, split] for split in self.splits} for number, label in enumerate(classes)
            }
        return counted_by

    @property
    def splits(self) -> dict[str, int]:
        return {split: number for split, number in self.dataset.splits.items() if number}

    @property
    def groups(self) -> dict[str, int]:
        """Groups (patients, sets of copies) per split."""
        table = self.dataset.table.select("group", split=self._split())
        return {split: table.filter(pl.col("split") == split)["group"].n_unique() for split in self.splits}

    @property
    def sources(self) -> dict[str, dict[str, int]] | None:
        """Images by source and class."""
        return self._by("source")

    @property
    def parts(self) -> dict[str, Any] | None:
        """Images, and studies where they are known, by split, part of the body and class."""
        if "part" not in self.dataset.table.columns:
            return None
        table = self.dataset.table.with_columns(split=self._split())
        heatmap: dict[str, Any] = {"parts": sorted(table["part"].unique()), "classes": list(self.dataset.classes)}
        what = {"images": pl.len()}
        if "study" in table.columns:
            what["studies"] = pl.col("study").n_unique()
        for name, number in what.items():
            cells = {key[:3]: key[3] for key in table.group_by("split", "part", "target").agg(number).iter_rows()}
            heatmap[name] = {
                split: [
                    [cells.get((split, part, target), 0) for target in range(len(self.dataset.classes))]
                    for part in heatmap["parts"]
                ]
                for split in self.splits
            }
        return heatmap

    @property
    def sizes(self) -> list[dict[str, int]]:
        """Widths and heights, the most frequent first."""
        known = self.facts.table.drop_nulls("width_px")
        by = known.group_by("width_px", "height_px").agg(images=pl.len())
        return by.sort(["images", "width_px", "height_px"], descending=[True, False, False]).to_dicts()

    @property
    def kinds(self) -> dict[str, int]:
        """File formats and colour modes."""
        known = self.facts.table.drop_nulls("mode")
        return dict(
            Counter(f"{form} {mode}" for form, mode in known.select("format", "mode").iter_rows()).most_common()
        )

    def json(self) -> dict[str, Any]:
        """Everything, ready for JSON; of the images one list per fact, in the order of their rows."""
        dataset = self.dataset
        told = [
            name for name in ("target", "group", "split", "source", "part", "study") if name in dataset.table.columns
        ]
        images = dataset.table.select("image_id", *told).hstack(self.facts.table)
        return {
            "task": dataset.name,
            "origin": dataset.origin,
            "demonstration": dataset.demonstration,
            "kind": dataset.kind,
            "classes": list(dataset.classes),
            "images": len(dataset),
            "splits": self.splits,
            "groups": self.groups,
            "counts": self.counts,
            "sources": self.sources,
            "parts": self.parts,
            "sizes": self.sizes,
            "kinds": self.kinds,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "dropped": [dataclasses.asdict(dropped) for dropped in self.dropped],
            "skipped": [dataclasses.asdict(skipped) for skipped in dataset.skipped],
            "remaining": self.remaining,
            "refusal": self.refusal,
            "files": images.drop("image", "mask").to_dict(as_series=False),
        }

    def _by(self, column: str) -> dict[str, dict[str, int]] | None:
        if column not in self.dataset.table.columns:
            return None
        by = Counter(self.dataset.table.select(column, "target").iter_rows())
        return {
            name: {label: by[name, number] for number, label in enumerate(self.dataset.classes)}
            for name in self.dataset.table[column].unique().sort()
        }

    def _split(self) -> pl.Expr:
        return pl.col("split") if "split" in self.dataset.table.columns else pl.lit("development")


def quick_findings(dataset: ImageDataset) -> tuple[Finding, ...]:
    """What a search says of its images by the way: all but what takes seconds. The most severe first."""
    found = facts(dataset)
    return tuple(sorted(_quick(Evidence(dataset, found, clusters(dataset, found))), key=_severity))


def _quick(evidence: Evidence) -> list[Finding]:
    return [*image_findings(evidence), *label_findings(evidence), *file_findings(evidence)]


def _severity(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def audit(
    dataset: ImageDataset,
    drop: Collection[str] = DEFAULT_DROP,
    like: Collection[str] = (),
    embed: Embed | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Looks at every image of a data set as it was read.

    `drop` and `like` as in `remedied`: what would be left out. `embed`: features of every image, for what a program
    that compares pixels does not see.
    """
    check_known(drop)
    found = facts(dataset, progress)
    evidence = Evidence(dataset, found, clusters(dataset, found))
    findings = [*_quick(evidence), *confounding_findings(evidence)]
    if like:
        rows = sorted(resembling(dataset, found, evidence.copies, like, embed))
        findings.append(
            Finding(
                "like",
                "error",
                f"{counted(len(rows), 'image resembles', 'images resemble')} {', '.join(like)}, itself included.",
                "They are left out with the same --like.",
                evidence.ids(rows),
                {"images": len(rows)},
            )
        )
    if embed is not None:
        findings += _alike(evidence, embed)
    findings.sort(key=_severity)
    dropped: tuple[Skipped, ...] = ()
    try:
        kept = remedied(dataset, drop, like, embed)
        dropped = kept.dropped
        check_searchable(kept.part("development"))
    except InputError as refusal:
        return Audit(dataset, found, tuple(findings), dropped, None, str(refusal))
    return Audit(dataset, found, tuple(findings), dropped, len(kept), None)


def _alike(evidence: Evidence, embed: Embed) -> list[Finding]:
    """Pairs that features call nearly the same and pixels do not."""
    rows = evidence.originals
    features = embed(evidence.dataset.rows(rows)).astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    pairs: list[tuple[float, int, int]] = []
    involved = np.zeros(len(rows), bool)
    for start in range(0, len(rows), 512):
        cosines = features[start : start + 512] @ features.T
        left, right = np.nonzero(np.triu(cosines > ALIKE, start + 1))
        involved[start + left] = involved[right] = True
        if involved.mean() > MOST_ALIKE:
            break
        pairs += zip(cosines[left, right].tolist(), (start + left).tolist(), right.tolist(), strict=True)
    if not involved.any():
        return []
    if involved.mean() > MOST_ALIKE:
        return [
            Finding(
                "alike",
                "note",
                f"To this network more than {MOST_ALIKE:.0%} of the images are nearly the same as another one: it does "
                f"not tell these images apart, and nothing follows from it.",
                "Use weights that were trained on images like these.",
            )
        ]
    pairs.sort(reverse=True)
    ids = evidence.ids([rows[one] for _, *pair in pairs for one in pair])
    return [
        Finding(
            "alike",
            "note",
            f"{counted(len(pairs), 'pair')} of images that are no copies of each other look nearly the same to a "
            f"network (cosine similarity of features above {ALIKE}).",
            "Look at them: two views of one patient should share a group.",
            ids,
            {"pairs": len(pairs)},
        )
    ]
