"""What is done about images with a problem: some are left out, copies that stay share a group.

By default what does not decode goes, and what cannot be right: contaminants, as the two jokes in AN2DL's homework set,
and contradictions (the same image under two labels, as one pair of PBC). A picture is a contaminant

- under three labels and more, be it in exact or in near copies;
- under two labels in four exact copies and more: whoever was unsure of a label has two or three; so that a set of two
  classes has contaminants, too;
- in ten exact copies and more, whatever the label. Four to nine under one label are pointed out and stay: they may be
  images that somebody repeated to balance the classes.

With masks only the last holds: copies under two masks may be the work of several observers, and are contradictions.
Nothing goes silently: `ImageDataset.dropped` names every image with its reason.

Groups are joined where an image of one is a copy, exact or near, of an image of another, so that no copy is validated
on what its original was trained on. The split of a data set is left as it is, and the audit tells where a group stands
on both sides of it.
"""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np
import polars as pl

from datasets import nearest
from datasets.dataset import ImageDataset, Skipped
from datasets.duplicates import Clusters, clusters, first_of_each, joined
from datasets.errors import InputError
from datasets.facts import Facts, Progress, facts
from datasets.pixels import Interpolation

REMEDIES = ("corrupt", "contaminants", "duplicates", "contradictions")
DEFAULT_DROP = ("corrupt", "contaminants", "contradictions")

Embed = Callable[[ImageDataset], np.ndarray]
"""Features of every image of a data set, float of shape (images, features), in order."""

MANY_LABELS = 3
MANY_COPIES = 10
"""From so many labels, or so many copies on, one picture is a contaminant."""
SEVERAL_COPIES = 4
"""From so many copies on it is one under two labels, and is pointed out under one."""
ALIKE = 0.8
"""Cosine similarity of features above which an image resembles one that is named (kamaneh2024)."""


def remedied(
    dataset: ImageDataset,
    drop: Collection[str] = DEFAULT_DROP,
    like: Collection[str] = (),
    embed: Embed | None = None,
    progress: Progress | None = None,
    size_px: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> ImageDataset:
    """Without the images that `drop` and `like` speak of, and with copies in one group.

    `like`: images that do not belong here, by image_id or row number; they go, and so do their copies and, where
    features can be had, whatever is similar. `size_px`, `interpolation`: see `facts`. Raises `InputError` for
    what is unknown, and where no image would be left.
    """
    check_known(drop)
    found = facts(dataset, progress, size_px, interpolation)
    copies = clusters(dataset, found)
    reasons: dict[int, str] = {}

    def leave_out(rows: np.ndarray, reason: Callable[[int], str]) -> None:
        for row in rows.tolist():
            reasons.setdefault(row, reason(row))

    errors = found.table["error"]
    broken = np.flatnonzero(~found.sound)
    if len(broken) and "corrupt" not in drop:
        first = f"{dataset.table['image_id'][int(broken[0])]}: {errors[int(broken[0])]}"
        raise InputError(f"{_images(len(broken))} not decode ({first}): add corrupt to --drop, or mend them")
    if len(broken) == len(dataset):
        first = f"; the first one: {errors[0]}" if len(broken) else ""
        raise InputError(f"{dataset.origin}: none of its {len(dataset):,} images decodes{first}")
    leave_out(broken, lambda row: f"corrupt: {errors[row]}")
    for row, reason in resembling(dataset, found, copies, like, embed).items():
        reasons.setdefault(row, reason)
    image_ids, labels = dataset.table["image_id"], labels_of(dataset, found)
    jokes = contaminants(dataset, found, copies)
    if "contaminants" in drop:
        for cluster in jokes:
            under = under_words(dataset, labels, cluster)
            said = f"contaminant: the same picture {len(cluster):,} times under {under}"
            leave_out(cluster, lambda row, said=said: said)  # type: ignore[misc]
    if "contradictions" in drop:
        for cluster in contradictions(dataset, found, copies):
            leave_out(cluster, lambda row, cluster=cluster: _contradiction(dataset, row, cluster))  # type: ignore[misc]
    if "duplicates" in drop:
        staying = np.array([row for row in range(len(dataset)) if row not in reasons], np.int64)
        first = staying[first_of_each(pl.Series(copies.near[staying]))]
        original = dict(zip(staying.tolist(), first.tolist(), strict=True))
        again = staying[first != staying]
        leave_out(again, lambda row: _duplicate(dataset, labels, copies, row, original[row]))

    keep = np.ones(len(dataset), bool)
    keep[list(reasons)] = False
    if not keep.any():
        raise InputError(f"{dataset.origin}: no image is left; the first one: {reasons[0]}; see --drop and --like")
    dropped = [Skipped(image_ids[row], reason) for row, reason in sorted(reasons.items())]
    kept = dataset if keep.all() else dataset.rows(keep)
    return dataclasses.replace(
        kept, dropped=(*dataset.dropped, *dropped), table=_grouped(kept.table, copies.near[keep])
    )


def check_known(drop: Collection[str]) -> None:
    """Raises `InputError` for a remedy that there is not."""
    for name in drop:
        if name not in REMEDIES:
            raise InputError(f"--drop {name}: unknown{nearest(name, REMEDIES)} Known: {', '.join(REMEDIES)}, or none")


def labels_of(dataset: ImageDataset, found: Facts) -> pl.Series:
    """What an image is said to be, all targets together: the same for two images only if they agree in everything."""
    if dataset.kind == "segmentation":
        return found.table["mask"].fill_null("")
    return dataset.table.select(
        pl.concat_str([pl.col("target"), *(target.column for target in dataset.further)], separator="/")
    ).to_series()


def label_words(dataset: ImageDataset, row: int) -> str:
    """`the label monocyte`, or `the labels normal and WRIST`."""
    if dataset.kind == "segmentation":
        return "one mask"
    words = labels_in_words(dataset, row)
    return f"the label{'s' * (len(words) > 1)} {' and '.join(words)}"


def labels_in_words(dataset: ImageDataset, row: int) -> list[str]:
    """The class of every target."""
    further = [target.classes[dataset.table[target.column][row]] for target in dataset.further]
    return [dataset.classes[dataset.table["target"][row]], *further]


def under_words(dataset: ImageDataset, labels: pl.Series, rows: np.ndarray) -> str:
    """What copies stand under: `8 labels`, or `the label monocyte`."""
    several = labels[rows].n_unique()
    what = "masks" if dataset.kind == "segmentation" else "labels"
    return f"{several} {what}" if several > 1 else label_words(dataset, int(rows[0]))


def contaminants(dataset: ImageDataset, found: Facts, copies: Clusters) -> list[np.ndarray]:
    """Rows of every picture that stands under too many labels, or too often: the rule above. Many near copies under one
    label, or under two, may be the frames of a film, and are none."""
    labels = labels_of(dataset, found)
    of_masks = dataset.kind == "segmentation"  # near copies differ in the rim of their masks
    found_rows: list[np.ndarray] = []
    taken = np.zeros(len(dataset), bool)
    for numbers, exact in ((copies.exact, True), (copies.near, False)):
        for rows in members(np.where(found.sound & ~taken, numbers, np.arange(len(dataset)))):
            several = 1 if of_masks else labels[rows].n_unique()
            if several >= MANY_LABELS or (exact and len(rows) >= (SEVERAL_COPIES if several > 1 else MANY_COPIES)):
                found_rows.append(rows)
                taken[rows] = True
    return found_rows


def contradictions(dataset: ImageDataset, found: Facts, copies: Clusters) -> list[np.ndarray]:
    """Rows of every image that stands, byte by byte the same, under two labels; contaminants left aside."""
    labels = labels_of(dataset, found)
    taken = np.concatenate([*contaminants(dataset, found, copies), np.zeros(0, np.int64)])
    apart = ~found.sound
    apart[taken] = True
    clusters_of = members(np.where(apart, np.arange(len(dataset)), copies.exact))
    return [rows for rows in clusters_of if labels[rows].n_unique() > 1]


def members(numbers: np.ndarray) -> list[np.ndarray]:
    """The rows of every number that several rows have, ascending; in the order of their first rows."""
    order = np.argsort(numbers, kind="stable")
    clusters_of = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return sorted((rows for rows in clusters_of if len(rows) > 1), key=lambda rows: int(rows[0]))


def resembling(
    dataset: ImageDataset, found: Facts, copies: Clusters, like: Collection[str], embed: Embed | None
) -> dict[int, str]:
    """What resembles the named images, themselves included: row to reason."""
    if not like:
        return {}
    named = [_row_of(dataset, name) for name in like]
    reasons: dict[int, str] = {}
    sound = np.flatnonzero(found.sound)
    if embed is not None:
        features = embed(dataset.rows(sound)).astype(np.float32)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    for row in named:
        name = dataset.table["image_id"][row]
        reasons[row] = "contaminant: named by --like"
        for copy in np.flatnonzero((copies.near == copies.near[row]) & found.sound).tolist():
            reasons.setdefault(copy, f"contaminant: the same picture as {name}")
        if embed is not None and found.sound[row]:
            cosines = features @ features[np.searchsorted(sound, row)]
            for near in np.flatnonzero(cosines > ALIKE).tolist():
                said = f"contaminant: resembles {name} (cosine similarity {cosines[near]:.2f})"
                reasons.setdefault(int(sound[near]), said)
    if len(reasons) > len(dataset) / 2 and len(dataset) > len(named):
        raise InputError(
            f"--like {', '.join(like)}: {len(reasons):,} of {len(dataset):,} images resemble it, more than half; these "
            f"features do not tell the images apart: leave out --embed, or name another image"
        )
    return reasons


def _row_of(dataset: ImageDataset, name: str) -> int:
    image_ids = dataset.table["image_id"].to_list()
    if name in image_ids:
        return image_ids.index(name)
    if name.isdecimal() and int(name) < len(image_ids):
        return int(name)
    raise InputError(
        f"--like {name}: no such image{nearest(name, image_ids)} Name an image_id, such as {image_ids[0]}, or a row "
        f"number, 0 to {len(image_ids) - 1}"
    )


def _duplicate(dataset: ImageDataset, labels: pl.Series, copies: Clusters, row: int, original: int) -> str:
    """With what the one that stays is said to be, where that is something else."""
    name = dataset.table["image_id"][original]
    said = f"duplicate: a copy of {name}"
    if labels[row] == labels[original]:
        return said
    if dataset.kind != "segmentation":
        return f"{said}, but under {label_words(dataset, row)}; {name} stands under {label_words(dataset, original)}"
    # Near copies always differ in the rim of their masks.
    return f"{said}, with another mask" if copies.exact[row] == copies.exact[original] else said


def _contradiction(dataset: ImageDataset, row: int, cluster: np.ndarray) -> str:
    if dataset.kind == "segmentation":
        other = next(int(one) for one in cluster if one != row)
        return f"contradiction: the same image as {dataset.table['image_id'][other]}, with another mask"
    own = label_words(dataset, row)
    other = next(int(one) for one in cluster if label_words(dataset, int(one)) != own)
    return f"contradiction: the same image as {dataset.table['image_id'][other]}, under {label_words(dataset, other)}"


def _grouped(table: pl.DataFrame, near: np.ndarray) -> pl.DataFrame:
    """Groups that share a picture become one, under the name of the first."""
    component = joined(first_of_each(table["group"]), np.arange(len(near)), first_of_each(pl.Series(near)))
    return table.with_columns(group=table["group"][component])


def _images(count: int) -> str:
    return f"{count:,} image{'s do' if count > 1 else ' does'}"
