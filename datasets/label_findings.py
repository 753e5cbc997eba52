"""Findings on labels, groups and splits: what a score can mean on these data, and what gives the label away."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from datasets.confounding import Probe, facts_probes, source_probes, stratum_probe, text_probe
from datasets.findings import Evidence, Finding, counted, percent
from datasets.remedies import labels_of

TINY = 10
"""Images (or groups) of a class below which five folds have less than two each."""
IMBALANCED = 3.0
SUPPOSED_ACCURACY = 0.9
SUPPOSED_SPREAD = 0.2
"""Standard deviation of Dice between images."""
SMALLEST_DIFFERENCE = 0.03
"""Two models that differ by less should still be told apart, or the set is called small."""
LEAST_SKILL = {"size": 0.15, "format": 0.15, "frame": 0.15, "source": 0.15, "brightness": 0.7, "text": 0.7}
"""How far from guessing (0) to always right (1) something alone must tell the class to be a finding. Brightness belongs
to what many images show, so that it must tell nearly everything."""
OVER_CONTROL = 0.05
"""So much better must corners tell it than what lies beside them."""
MOST_SHOWN = 24
NAMED = 8
"""Tiny classes that are named; more are counted."""
ALONE = {
    "size": "The size of an image",
    "format": "The format of a file (its ending and colour mode)",
    "frame": "The frame around an image (its even rim)",
    "source": "The source of an image",
    "brightness": "The brightness of an image, without anything that it shows,",
    "text": "What is written in the corners of an image",
}
LOOKS = {"size": "size", "format": "file format", "frame": "an even rim", "brightness": "brightness"}
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
    if evidence.dataset.kind == "segmentation":
        yield from _labels_beside_masks(evidence)
    else:
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
                f"The target {name!r} is always {classes[present[0]]}: a network that learns nothing is always right"
                + (", and a search refuses these images." if column == "target" else "."),
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
        # One image under several labels is told of as such, and its copies share a group by themselves.
        told = np.concatenate([*evidence.jokes, *evidence.contradictions, np.zeros(0, np.int64)])
        others = table.filter(~pl.col("row").is_in(told))
        mixed = others.filter((pl.col("target").n_unique() > 1).over("group"))
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


def _labels_beside_masks(evidence: Evidence) -> Iterator[Finding]:
    """Whoever gives both may want the label predicted, too."""
    if "stratum" not in evidence.dataset.table.columns:
        return
    several = len(np.unique(evidence.dataset.strata))
    yield Finding(
        "label_only_stratifies",
        "note",
        f"These images have masks and a label ({counted(several, 'value')}): the masks are predicted, the label is "
        f"not; it only keeps its shares the same in all folds.",
        "To have the label predicted, search again with a table that has no column mask.",
        numbers={"labels": several},
    )


def _class_sizes(evidence: Evidence) -> Iterator[Finding]:
    dataset = evidence.dataset.rows(evidence.originals[~evidence.in_test[evidence.originals]])
    counts = {label: count for label, count in dataset.counts.items() if count}
    groups = dataset.table.group_by("target").agg(pl.col("group").n_unique())
    groups_of = {dataset.classes[target]: several for target, several in groups.iter_rows()}
    tiny = [label for label in counts if min(counts[label], groups_of[label]) < TINY]
    if tiny:
        said = [
            f"{label} ({counted(counts[label], 'image')}"
            + ("" if groups_of[label] == counts[label] else f" of {counted(groups_of[label], 'group')}")
            + ")"
            for label in sorted(tiny, key=lambda label: counts[label])
        ]
        more = [counted(len(said) - NAMED, "other")] if len(said) > NAMED else []
        named = [*said[:NAMED], *more]
        listed = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
        of_tiny = np.isin(evidence.dataset.targets, [evidence.dataset.classes.index(label) for label in tiny])
        yield Finding(
            "tiny_class",
            "warning",
            f"Too few images to learn a class, and to judge whether it was learned: {listed}.",
            "Add images, or join the class with another one.",
            evidence.ids(np.flatnonzero(of_tiny & ~evidence.in_test)),
            {"classes": {label: {"images": counts[label], "groups": groups_of[label]} for label in tiny}},
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
    groups, of_masks = evidence.dataset.table["group"].to_numpy(), evidence.dataset.kind == "segmentation"
    for rows, check, severity, what in (
        (evidence.originals[evidence.in_test[evidence.originals]], "small_test", "warning", "The test part"),
        (evidence.originals[~evidence.in_test[evidence.originals]], "small_set", "note", "The development part"),
    ):
        count = len(np.unique(groups[rows]))
        if not count:
            continue
        if of_masks:
            error, score = SUPPOSED_SPREAD / count**0.5, "a mean Dice"
            supposed = f", if images differ in it by {SUPPOSED_SPREAD} (standard deviation)"
        else:
            error, score = (SUPPOSED_ACCURACY * (1 - SUPPOSED_ACCURACY) / count) ** 0.5, "an accuracy"
            score, supposed = f"{score} of {percent(SUPPOSED_ACCURACY)}", ""
        difference = 1.96 * 2**0.5 * error
        if difference <= SMALLEST_DIFFERENCE:
            continue
        of = counted(len(rows), "image") + (
            f" of {counted(count, 'patient or group', 'groups')}" if count < len(rows) else ""
        )
        yield Finding(
            check,
            severity,  # type: ignore[arg-type]
            f"{what} has {of}. There {score} has a standard error of {100 * error:.1f} points{supposed}, and two "
            f"models must differ by about {100 * difference:.0f} points before one can be called better.",
            "Report the interval, compare models on the same folds, and do not choose by small differences.",
            numbers={"images": len(rows), "groups": count, "standard_error": error, "difference": difference},
        )


def confounding_findings(evidence: Evidence) -> Iterator[Finding]:
    """What gives the class away, by trial of small programs: seconds per data set, where the others take none."""
    dataset, rows = evidence.dataset, evidence.originals
    if not len(rows):
        return
    if dataset.kind == "segmentation":
        yield from _sources_of_masks(evidence)
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
                numbers=_told(told),
            )


def _sources_of_masks(evidence: Evidence) -> Iterator[Finding]:
    """Masks have no class that could be given away, but whatever tells the sources apart a network may rely on."""
    dataset, rows = evidence.dataset, evidence.originals
    if "source" not in dataset.table.columns:
        return
    with threadpool_limits(1, "blas"):  # as above
        probes = source_probes(dataset, evidence.facts, rows)
        stratum = stratum_probe(dataset, rows)
    probes = {name: told for name, told in probes.items() if told.exceeds(LEAST_SKILL[name])}
    if probes:
        said = [f"{LOOKS[name]} ({percent(told.accuracy)})" for name, told in probes.items()]
        yield Finding(
            "sources_differ",
            "warning",
            f"The sources differ visibly: a simple program tells two of them apart (guessing: 50 %) by "
            f"{' or by '.join(said)}. How well masks are found in one source says little of another.",
            REMEDY["source"],
            evidence.ids(_in_turn(dataset.table["source"].to_numpy(), rows)[:MOST_SHOWN]),
            {name: _told(told) for name, told in probes.items()},
        )
    if stratum is not None and stratum.exceeds(LEAST_SKILL["source"]):
        yield Finding(
            "label_by_source",
            "warning",
            f"The source of an image gives its label away: from that alone a simple program tells two labels apart in "
            f"{percent(stratum.accuracy)} of cases (guessing: 50 %). What is easy or hard about a label may be that of "
            f"its source.",
            REMEDY["source"],
            numbers=_told(stratum),
        )


def _in_turn(kinds: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows, so that every kind comes first once, then every kind again."""
    place = np.empty(len(rows), np.int64)
    for kind in np.unique(kinds[rows]):
        of_kind = np.flatnonzero(kinds[rows] == kind)
        place[of_kind] = np.arange(len(of_kind))
    turned: np.ndarray = rows[np.argsort(place, kind="stable")]
    return turned


def _told(probe: Probe) -> dict[str, float | int]:
    return {
        "balanced_accuracy": probe.accuracy,
        "shuffled_mean": probe.shuffled_mean,
        "shuffled_std": probe.shuffled_std,
        "images": probe.images,
    }
