"""Findings on labels, groups and splits: what a score can mean on these data, and what gives the label away."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from datasets.confounding import facts_probes, text_probe
from datasets.findings import Evidence, Finding, counted, percent
from datasets.remedies import labels_of

TINY = 10
"""Images (or groups) of a class below which five folds have less than two each."""
IMBALANCED = 3.0
SUPPOSED_ACCURACY = 0.9
SMALLEST_DIFFERENCE = 0.03
"""Two models that differ by less should still be told apart, or the set is called small."""
LEAST_SKILL = {"size": 0.15, "format": 0.15, "frame": 0.15, "source": 0.15, "brightness": 0.7, "text": 0.7}
"""How far from guessing (0) to always right (1) something alone must tell the class to be a finding. Brightness belongs
to what many images show, so that it must tell nearly everything."""
OVER_CONTROL = 0.05
"""So much better must corners tell it than what lies beside them."""
MOST_SHOWN = 24
ALONE = {
    "size": "The size of an image",
    "format": "The format of a file (its ending and colour mode)",
    "frame": "The frame around an image (its even rim)",
    "source": "The source of an image",
    "brightness": "The brightness of an image, without anything that it shows,",
    "text": "What is written in the corners of an image",
}
REMEDY = {
    "size": "Crop all images to one shape, and ask why the classes differ; --leave-source-out if sources are known.",
    "format": "Save all images in one format, and ask why the classes differ.",
    "frame": "Cut the frames off.",
    "source": "Validate on a source that was not trained on: --leave-source-out",
    "brightness": "Ask whether that is the disease or the device. Augmentation with contrast makes it harder to use.",
    "text": "Cover or cut off the corners, and look at what a network looks at.",
}


def label_findings(evidence: Evidence) -> Iterator[Finding]:
    yield from _constant_targets(evidence)
    yield from _groups(evidence)
    if evidence.dataset.kind != "segmentation":
        yield from _class_sizes(evidence)
        yield from _majority(evidence)
    yield from _few_images(evidence)


def _constant_targets(evidence: Evidence) -> Iterator[Finding]:
    dataset = evidence.dataset
    if dataset.kind == "segmentation":
        return
    development = dataset.table.filter(~evidence.in_test)
    targets = [(dataset.target_name, "target", dataset.classes)]
    targets += [(target.name, target.column, target.classes) for target in dataset.further]
    for name, column, classes in targets:
        present = development[column].unique().sort().to_list()
        if len(present) == 1:
            yield Finding(
                "constant_target",
                "error",
                f"The target {name!r} is always {classes[present[0]]}: a network that learns nothing is always right.",
                "See how the labels were read, for instance whether names are spelt as expected.",
                numbers={"target": name, "always": classes[present[0]]},
            )
    absent = [label for label, count in dataset.rows(~evidence.in_test).counts.items() if not count]
    if absent and len(absent) < len(dataset.classes) - 1:
        yield Finding(
            "empty_class",
            "error",
            f"There is no image of {' and '.join(absent)} to train on.",
            "Add images, or leave the class out.",
            numbers={"classes": absent},
        )


def _groups(evidence: Evidence) -> Iterator[Finding]:
    dataset = evidence.dataset
    labels = labels_of(dataset, evidence.facts) if dataset.kind != "segmentation" else dataset.table["target"]
    table = dataset.table.select("group", "image_id", "target").with_columns(
        test=pl.Series(evidence.in_test), label=labels, row=pl.int_range(pl.len())
    )
    in_both = table.filter((pl.col("test").n_unique() > 1).over("group")).sort("group", "row")
    if in_both.height:
        several = in_both["group"].n_unique()
        in_test = int(in_both["test"].sum())
        yield Finding(
            "group_in_both_splits",
            "error",
            f"{counted(several, 'patient or group stands', 'patients or groups stand')} on both sides of the official "
            f"split: {in_test:,} of {int(evidence.in_test.sum()):,} test images are of patients that the network knows "
            f"from training, and the test score is too good.",
            "--pool puts the test part into the folds, where a group is never divided.",
            tuple(in_both["image_id"]),
            {"groups": several, "test_images": in_test},
        )
    if dataset.kind != "segmentation":
        mixed = table.filter((pl.col("target").n_unique() > 1).over("group"))
        if mixed.height:
            several = mixed["group"].n_unique()
            yield Finding(
                "groups_with_several_labels",
                "note",
                f"{counted(several, 'patient or group has', 'patients or groups have')} images of more than one class "
                f"({counted(mixed.height, 'image')}). That may be so (two studies, two sides) or be a wrong label.",
                "Nothing has to be done: a group is kept together whatever its labels.",
                tuple(mixed.sort("group", "row")["image_id"]),
                {"groups": several},
            )
    if "part" in dataset.table.columns:
        parts = dataset.table.select("group", "image_id", "part")
        spread = parts.filter((pl.col("part").n_unique() > 1).over("group"))
        if spread.height:
            several = spread["group"].n_unique()
            yield Finding(
                "groups_under_several_parts",
                "note",
                f"{counted(several, 'patient stands', 'patients stand')} under more than one part of the body "
                f"({counted(spread.height, 'image')}).",
                "Groups are patients and not patients within a part, so that folds keep them together. Do the same "
                "elsewhere.",
                tuple(spread.sort("group")["image_id"]),
                {"groups": several},
            )


def _class_sizes(evidence: Evidence) -> Iterator[Finding]:
    dataset = evidence.dataset.rows(evidence.originals[~evidence.in_test[evidence.originals]])
    counts = {label: count for label, count in dataset.counts.items() if count}
    groups = dataset.table.group_by("target").agg(pl.col("group").n_unique())
    groups_of = {dataset.classes[target]: several for target, several in groups.iter_rows()}
    tiny = [label for label in counts if min(counts[label], groups_of[label]) < TINY]
    for label in tiny:
        of = (
            ""
            if groups_of[label] == counts[label]
            else f" of {counted(groups_of[label], 'patient or group', 'groups')}"
        )
        yield Finding(
            "tiny_class",
            "warning",
            f"The class {label} has only {counted(counts[label], 'image')}{of}: too few to learn it, and to judge "
            f"whether it was learned.",
            "Add images, or join the class with another one.",
            evidence.ids(np.flatnonzero(evidence.dataset.targets == evidence.dataset.classes.index(label))),
            {"class": label, "images": counts[label], "groups": groups_of[label]},
        )
    if len(counts) > 1:
        most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        ratio = counts[most] / counts[least]
        if ratio >= IMBALANCED:
            yield Finding(
                "imbalance",
                "warning",
                f"{most} has {ratio:.1f} times as many images as {least} ({counts[most]:,} and {counts[least]:,}): "
                f"plain accuracy hardly notices when {least} is never recognised.",
                "Judge by balanced accuracy or AUROC; class weights and oversampling are searched where a search space "
                "asks for `balance`.",
                numbers={"ratio": ratio, "most": most, "least": least},
            )


def _majority(evidence: Evidence) -> Iterator[Finding]:
    dataset = evidence.dataset
    shares = {}
    for split, rows in (("development", ~evidence.in_test), ("test", evidence.in_test)):
        counts = dataset.rows(rows).counts
        if sum(counts.values()):
            label = max(counts, key=lambda name: counts[name])
            shares[split] = (label, counts[label] / sum(counts.values()))
    if not shares:
        return
    said = [
        f"always saying {label} is right for {percent(share)} of the {split} images"
        for split, (label, share) in shares.items()
    ]
    yield Finding(
        "majority",
        "note",
        f"The score to beat: {'; '.join(said)}.",
        "A network whose accuracy ends exactly there has learned nothing.",
        numbers={split: {"class": label, "share": share} for split, (label, share) in shares.items()},
    )


def _few_images(evidence: Evidence) -> Iterator[Finding]:
    groups = evidence.dataset.table["group"].to_numpy()
    for rows, check, severity, what in (
        (evidence.originals[evidence.in_test[evidence.originals]], "small_test", "warning", "The test part"),
        (evidence.originals[~evidence.in_test[evidence.originals]], "small_set", "note", "The development part"),
    ):
        count = len(np.unique(groups[rows]))
        if not count:
            continue
        error = (SUPPOSED_ACCURACY * (1 - SUPPOSED_ACCURACY) / count) ** 0.5
        difference = 1.96 * 2**0.5 * error
        if difference <= SMALLEST_DIFFERENCE:
            continue
        of = counted(len(rows), "image") + (
            f" of {counted(count, 'patient or group', 'groups')}" if count < len(rows) else ""
        )
        yield Finding(
            check,
            severity,  # type: ignore[arg-type]
            f"{what} has {of}. There an accuracy of {percent(SUPPOSED_ACCURACY)} has a standard error of "
            f"{100 * error:.1f} points, and two models must differ by about {100 * difference:.0f} points before one "
            f"can be called better.",
            "Report the interval, compare models on the same folds, and do not choose by small differences.",
            numbers={"images": len(rows), "groups": count, "standard_error": error, "difference": difference},
        )


def confounding_findings(evidence: Evidence) -> Iterator[Finding]:
    """What gives the class away, by trial of small programs: seconds per data set, where the others take none."""
    dataset, rows = evidence.dataset, evidence.originals
    if dataset.kind == "segmentation" or not len(rows):
        return
    with threadpool_limits(1, "blas"):  # small systems: with threads, on shared cores, they took seven times as long
        probes = facts_probes(dataset, evidence.facts, rows)
        text = text_probe(dataset, evidence.facts, rows)
    if text is not None and text.corners.skill >= text.beside.skill + OVER_CONTROL:
        probes["text"] = text.corners
    shown = {"text": evidence.ids(text.rows[:MOST_SHOWN]) if text is not None else ()}
    framed = (
        evidence.facts.table.select(pl.sum_horizontal(pl.col("^frame_.*$").fill_null(0)) > 0).to_series().to_numpy()
    )
    shown["frame"] = evidence.ids(np.flatnonzero(framed))
    for name, told in probes.items():
        if told.exceeds(LEAST_SKILL[name]):
            of = "" if len(dataset.classes) == 2 else ", on average over all pairs of classes"
            yield Finding(
                f"class_by_{name}",
                "warning",
                f"{ALONE[name]} gives the class away: from that alone a simple program tells two classes apart in "
                f"{percent(told.accuracy)} of cases{of} (guessing: 50 %; with shuffled labels: "
                f"{percent(told.shuffled_mean)} ± {100 * told.shuffled_std:.1f}).",
                REMEDY[name],
                shown.get(name, ()),
                numbers={
                    "balanced_accuracy": told.accuracy,
                    "shuffled_mean": told.shuffled_mean,
                    "shuffled_std": told.shuffled_std,
                    "images": told.images,
                },
            )
