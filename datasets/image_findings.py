"""Findings on the images themselves: copies, contaminants, what does not decode, what shows nothing."""

from collections.abc import Iterator

import numpy as np

from datasets.findings import Evidence, Finding, counted
from datasets.remedies import SEVERAL_COPIES, label_words, labels_of, members, under_words

ALL_OF_IT = 0.995
"""Part of a mask from which on it says as little as an empty one."""


def image_findings(evidence: Evidence) -> Iterator[Finding]:
    yield from _corrupt(evidence)
    yield from _blank(evidence)
    yield from _contaminants(evidence)
    yield from _copies(evidence)
    yield from _constant_channels(evidence)
    yield from _empty_masks(evidence)


def _corrupt(evidence: Evidence) -> Iterator[Finding]:
    rows = np.flatnonzero(~evidence.facts.sound)
    if len(rows):
        first = f"{evidence.ids(rows[:1])[0]}: {evidence.facts.table['error'][int(rows[0])]}"
        yield Finding(
            "corrupt",
            "warning",
            f"{counted(len(rows), 'image')} cannot be opened ({first}).",
            "They are left out by default (--drop corrupt). Fetch them again if they should be there.",
            evidence.ids(rows),
        )


def _blank(evidence: Evidence) -> Iterator[Finding]:
    rows = np.flatnonzero(evidence.facts.blank)
    if len(rows):
        yield Finding(
            "blank",
            "warning",
            f"{counted(len(rows), 'image shows', 'images show')} nothing: one single gray value.",
            "Remove the files, or see how they were exported.",
            evidence.ids(rows),
        )


def _contaminants(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.jokes:
        return
    labels = labels_of(evidence.dataset, evidence.facts)
    each = []
    for rows in evidence.jokes[:3]:
        each.append(f"{len(rows):,} times under {under_words(evidence.dataset, labels, rows)}")
    more = f", and {len(evidence.jokes) - 3} more" if len(evidence.jokes) > 3 else ""
    rows = np.concatenate(evidence.jokes)
    firsts = [int(joke[0]) for joke in evidence.jokes]
    yield Finding(
        "contaminants",
        "error",
        f"{counted(len(evidence.jokes), 'picture does', 'pictures do')} not belong here: the same one "
        f"{'; another '.join(each)}{more}. That is {counted(len(rows), 'image')}.",
        "They are left out by default (--drop contaminants). What only resembles them: --like IMAGE.",
        evidence.ids([*firsts, *np.setdiff1d(rows, firsts)]),
        {"pictures": len(evidence.jokes), "images": len(rows)},
    )


def _copies(evidence: Evidence) -> Iterator[Finding]:
    dataset, copies = evidence.dataset, evidence.copies
    labels = labels_of(dataset, evidence.facts).to_numpy()
    groups = dataset.table["group"].to_numpy()
    rest = np.ones(len(dataset), bool)
    if evidence.jokes:
        rest[np.concatenate(evidence.jokes)] = False
    own = np.arange(len(dataset))
    exact = members(np.where(rest, copies.exact, own))
    near = [rows for rows in members(np.where(rest, copies.near, own)) if len(np.unique(copies.exact[rows])) > 1]
    contradicting = evidence.contradictions
    of_masks = dataset.kind == "segmentation"

    def said(sets: list[np.ndarray]) -> tuple[tuple[str, ...], dict[str, int]]:
        rows = np.concatenate(sets)
        return evidence.ids(rows), {"sets": len(sets), "images": len(rows)}

    if contradicting:
        ids, numbers = said(contradicting)
        under = "different masks" if of_masks else "different labels"
        yield Finding(
            "contradictions",
            "error",
            f"{counted(len(contradicting), 'image stands', 'images stand')} here several times under {under}: "
            f"{counted(numbers['images'], 'row')} of which at least half must be wrong, for instance {ids[0]} and "
            f"{ids[1]}.",
            "All copies are left out by default (--drop contradictions). Better: find out which label is right.",
            ids,
            numbers,
        )
    agreeing = [rows for rows in exact if len(np.unique(labels[rows])) == 1]
    often = sorted((rows for rows in agreeing if len(rows) >= SEVERAL_COPIES), key=len, reverse=True)
    if often:
        ids, numbers = said(often)
        yield Finding(
            "many_copies",
            "warning",
            f"{counted(len(often), 'picture is', 'pictures are')} there {SEVERAL_COPIES} times and more under the same "
            f"{'mask' if of_masks else 'label'}; {ids[0]} {len(often[0]):,} times, under "
            f"{label_words(dataset, int(often[0][0]))}.",
            "Look whether it belongs here: --like IMAGE leaves it out with all its copies. Where images were repeated "
            "on purpose, --drop duplicates keeps one of each.",
            ids,
            numbers | {"most_copies": len(often[0])},
        )
    if agreeing:
        ids, numbers = said(agreeing)
        yield Finding(
            "duplicates",
            "note",
            f"{counted(len(agreeing), 'image is', 'images are')} there more than once, byte by byte the same and under "
            f"the same {'mask' if of_masks else 'label'}: {counted(numbers['images'], 'row')} in all.",
            "Copies share a group, so that none is validated on what its copy was trained on. To keep one of each: "
            "--drop duplicates",
            ids,
            numbers,
        )
    alike = [rows for rows in near if of_masks or len(np.unique(labels[rows])) == 1]
    if alike:
        ids, numbers = said(alike)
        across = sum(len(np.unique(groups[rows])) > 1 for rows in alike)
        yield Finding(
            "near_duplicates",
            "warning" if across else "note",
            f"{counted(len(alike), 'picture is', 'pictures are')} there in several versions (saved again, brightened, "
            f"resized or cropped): {counted(numbers['images'], 'image')}"
            + (f"; {counted(across, 'of them stands', 'of them stand')} in several groups." if across else "."),
            "Their groups are joined, so that none is validated on what its copy was trained on. To keep one of each: "
            "--drop duplicates",
            ids,
            numbers | {"across_groups": across},
        )
    doubtful = [rows for rows in near if not of_masks and len(np.unique(labels[rows])) > 1]
    doubtful = [rows for rows in doubtful if not any(np.isin(rows, sure).all() for sure in contradicting)]
    if doubtful:
        ids, numbers = said(doubtful)
        yield Finding(
            "near_contradictions",
            "warning",
            f"{counted(len(doubtful), 'picture seems', 'pictures seem')} to stand here in several versions under "
            f"different labels: {counted(numbers['images'], 'image')}.",
            "Look at them: they stay, in one group. Correct the label or remove the file where they show the same.",
            ids,
            numbers,
        )
    across_splits = [
        rows for rows in members(np.where(rest, copies.near, own)) if 0 < evidence.in_test[rows].sum() < len(rows)
    ]
    if across_splits:
        ids, numbers = said(across_splits)
        in_test = sum(int(evidence.in_test[rows].sum()) for rows in across_splits)
        yield Finding(
            "copies_in_both_splits",
            "error",
            f"{counted(in_test, 'test image has a copy', 'test images have copies')} among the development images: "
            f"there a network can remember the answer, and the test score is too good.",
            "--drop duplicates, which keeps the first of each; or --pool, which puts the test part into the folds, "
            "where copies stay together.",
            ids,
            numbers | {"test_images": in_test},
        )


def _constant_channels(evidence: Evidence) -> Iterator[Finding]:
    bits = evidence.facts.table["constant_channels"].to_numpy()[evidence.originals].astype(int)
    for channel in range(evidence.dataset.channels):
        if len(bits) and (bits >> channel & 1).all():
            yield Finding(
                "constant_channel",
                "warning",
                f"Channel {channel + 1} of {evidence.dataset.channels} has a single value in every image: it says "
                f"nothing.",
                "Read the images with fewer channels, or see how they were exported.",
                numbers={"channel": channel},
            )


def _empty_masks(evidence: Evidence) -> Iterator[Finding]:
    if evidence.dataset.kind != "segmentation":
        return
    share = evidence.facts.table["mask_share"].fill_null(0.5).to_numpy()
    for rows, what in (
        (np.flatnonzero(share == 0), "nothing is marked"),
        (np.flatnonzero(share > ALL_OF_IT), "everything is marked"),
    ):
        if len(rows):
            yield Finding(
                "empty_masks",
                "warning",
                f"{counted(len(rows), 'mask says', 'masks say')} that {what}.",
                "Look at them: if the object was only not drawn, a network that finds it is counted as wrong.",
                evidence.ids(rows),
            )
