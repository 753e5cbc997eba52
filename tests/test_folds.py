"""Folds: every image validated once per repeat, groups kept together, classes spread as evenly as can be."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets import ImageDataset, InputError, Target
from datasets.folds import Folds, leave_one_source_out, make_folds
from tests.small import small_dataset


def labelled(targets: list[int], groups: list[str] | None = None, **columns: list) -> ImageDataset:
    """A small data set with these classes, and groups if any."""
    dataset = small_dataset(images=len(targets), classes=max(targets) + 1)
    given = {"target": pl.Series(targets), **{name: pl.Series(values) for name, values in columns.items()}}
    if groups is not None:
        given["group"] = pl.Series(groups)
    return dataclasses.replace(dataset, table=dataset.table.with_columns(**given))


@st.composite
def datasets_and_k(draw: st.DrawFn):
    k = draw(st.integers(2, 6))
    classes = draw(st.integers(2, 4))
    per_class = draw(st.lists(st.integers(k, 3 * k), min_size=classes, max_size=classes))
    targets = [c for c, count in enumerate(per_class) for _ in range(count)]
    return labelled(targets), k


@given(datasets_and_k(), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_image_is_validated_once_per_repeat_and_classes_are_even(case, seed, repeats):
    dataset, k = case
    assume(repeats < 3 or list(dataset.counts.values()) != [2, 2])  # which two folds can share in two ways only
    folds = make_folds(dataset, k, seed, repeats)
    splits = list(folds)
    assert (folds.k, folds.repeats, len(splits)) == (k, repeats, k * repeats)
    for start in range(0, len(splits), k):
        seen = np.concatenate([validated for _, validated in splits[start : start + k]])
        assert sorted(seen) == list(range(len(dataset)))
    for train, validated in splits:
        assert not set(train) & set(validated)
        assert len(train) + len(validated) == len(dataset)
        for target, total in enumerate(dataset.counts.values()):
            assert abs((dataset.targets[validated] == target).sum() - total / k) < 1


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), min_size=4, max_size=7), st.integers(2, 3), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_class_shares_are_within_one_image_of_what_the_groups_allow(sizes_classes, k, mixed):
    """Against the best of all ways to deal out the groups."""
    groups = [str(group) for group, (size, _) in enumerate(sizes_classes) for _ in range(size)]
    if mixed:
        targets = [(int(group) * 7 + row) % 2 for row, group in enumerate(groups)]
    else:
        targets = [target for size, target in sizes_classes for _ in range(size)]
    targets = np.unique(targets, return_inverse=True)[1].tolist()
    if max(targets) == 0:
        return
    held = np.zeros((len(sizes_classes), max(targets) + 1))
    np.add.at(held, (np.array(groups, int), targets), 1)

    def off(fold_of_group: tuple[int, ...]) -> float:
        shares = np.zeros((k, held.shape[1]))
        np.add.at(shares, list(fold_of_group), held)
        return float(np.abs(shares - held.sum(0) / k).max())

    def possible(fold_of_group: tuple[int, ...]) -> bool:
        shares = np.zeros((k, held.shape[1]))
        np.add.at(shares, list(fold_of_group), held)
        return bool(((shares > 0) & (shares < held.sum(0))).all())

    every_deal = [dealt for dealt in itertools.product(range(k), repeat=len(held)) if possible(dealt)]
    try:
        folds = make_folds(labelled(targets, groups), k, 0)
    except InputError:
        assert not every_deal
        return
    best = min(map(off, every_deal))
    ours = off(tuple(int(folds.validated_in[0][groups.index(str(group))]) for group in range(len(held))))
    assert ours <= best + 1


@given(st.lists(st.integers(1, 4), min_size=24, max_size=40), st.integers(2, 4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_no_group_stands_in_two_folds(group_sizes, k, seed):
    groups = [str(g) for g, size in enumerate(group_sizes) for _ in range(size)]
    # The class belongs to the group here, as with patients, and both classes have enough groups.
    folds = make_folds(labelled([int(g) % 2 for g in groups], groups), k, seed, repeats=2)
    for validated_in in folds.validated_in:
        of_group = pl.DataFrame({"group": groups, "fold": validated_in}).group_by("group").n_unique()
        assert of_group["fold"].max() == 1


FINGERPRINT = """
from tests.test_folds import labelled
from datasets.folds import make_folds
import random
draw = random.Random(5)
groups = [str(draw.randrange(60)) for _ in range(150)]
print(make_folds(labelled([int(g) % 3 for g in groups], groups), 4, 7, 2).digest)
"""


def test_the_same_seed_gives_the_same_folds_on_every_machine():
    dataset = small_dataset(images=30)
    assert make_folds(dataset, 3, 0).digest == make_folds(dataset, 3, 0).digest == "b8b33142813fe6c1"
    assert make_folds(dataset, 3, 1).digest != make_folds(dataset, 3, 0).digest
    done = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "76bb155a7d874b15"


def test_repeats_differ_and_the_first_is_that_of_one_repeat():
    dataset = small_dataset(images=30)
    folds = make_folds(dataset, 3, 0, repeats=3)
    assert (folds.validated_in[0] == make_folds(dataset, 3, 0).validated_in[0]).all()
    assert len({repeat.tobytes() for repeat in folds.validated_in}) == 3
    table = folds.table(dataset)
    assert table.height == 90
    assert table["fold"].n_unique() == 9
    assert table.group_by("fold").agg(pl.col("repeat").n_unique())["repeat"].max() == 1


def test_folds_are_stratified_by_the_stratum_where_there_is_one():
    dataset = labelled([row % 2 for row in range(60)], stratum=[row // 15 for row in range(60)])
    for _, validated in make_folds(dataset, 3, 0):
        assert np.bincount(np.array(dataset.table["stratum"])[validated]).tolist() == [5] * 4


@pytest.mark.parametrize("k", [-1, 0, 1, 21])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(InputError, match="choose from 2 to 20"):
        make_folds(small_dataset(), k, 0)


def test_a_class_smaller_than_k_is_named():
    with pytest.raises(InputError, match="class b has 2 images, fewer than 3 folds"):
        make_folds(labelled([1, 1] + [0] * 8), 3, 0)


def test_a_class_with_fewer_groups_than_k_is_named():
    dataset = small_dataset(images=20)
    table = dataset.table.with_columns(
        group=pl.when(pl.col("target") == 1).then(pl.lit("one")).otherwise(pl.col("group"))
    )
    with pytest.raises(InputError, match="class b has 10 images but only 1 group "):
        make_folds(dataclasses.replace(dataset, table=table), 3, 0)


@given(st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_groups_of_mixed_class_leave_every_class_on_both_sides_or_are_refused(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 8, 24)
    targets = (rng.random(24) < 0.25).astype(int)
    if len(set(targets)) < 2:
        return
    try:
        folds = make_folds(labelled(targets.tolist(), groups.astype(str).tolist()), 3, seed)
    except InputError:
        return
    for train, validated in folds:
        assert set(targets[train]) == set(targets[validated]) == {0, 1}
        assert not set(groups[train]) & set(groups[validated])


def sources(names: str, targets: list[int], groups: list[str] | None = None) -> ImageDataset:
    return labelled(targets, groups, source=list(names))


def test_one_source_is_left_out_at_a_time():
    dataset = sources("baabccbc", [0, 1, 0, 1, 0, 1, 0, 1])
    folds = leave_one_source_out(dataset)
    assert folds.k == 3
    assert [sorted(set(dataset.table["source"].to_numpy()[validated])) for _, validated in folds] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    assert set(folds.table(dataset).columns) >= {"source", "fold", "repeat"}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (small_dataset(), "name no sources"),
        (sources("aaaa", [0, 1, 0, 1]), "name no sources, or one only"),
        (sources("aabb", [0, 0, 0, 1]), "source a has no image of class b: the class goes with the source"),
        (sources("aabb", [0, 1, 0, 1], ["1", "2", "2", "3"]), "1 groups .* stand in several sources, 2 for one"),
    ],
)
def test_sources_that_cannot_be_left_out_are_refused(dataset, message):
    with pytest.raises(InputError, match=message):
        leave_one_source_out(dataset)


def test_any_number_of_repeats_will_do_within_reason():
    with pytest.raises(InputError, match="0 repeats: choose from 1 to 100"):
        make_folds(small_dataset(), 3, 0, repeats=0)
    assert isinstance(make_folds(small_dataset(), 3, 0, repeats=100), Folds)


def test_no_two_repeats_are_the_same_split():
    groups = [str(row // 4) for row in range(24)]
    dataset = labelled([row % 2 for row in range(24)], groups)
    repeats = make_folds(dataset, 3, 0, repeats=8).validated_in
    splits = {frozenset(frozenset(np.flatnonzero(repeat == fold)) for fold in range(3)) for repeat in repeats}
    assert len(splits) == 8
    with pytest.raises(InputError, match="--repeats 2: only 1 different way was found"):
        make_folds(dataset, 6, 0, repeats=2)


@given(st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_every_fold_has_the_classes_of_all_scored_targets_where_that_can_be(seed):
    rng = np.random.default_rng(seed)
    rare = np.zeros(120, int)
    rare[rng.choice(120, 6, replace=False)] = 1
    dataset = labelled([row % 2 for row in range(120)], target_rare=rare.tolist())
    dataset = dataclasses.replace(dataset, further=(Target("rare", ("no", "yes")),))
    for _, validated in make_folds(dataset, 3, seed):
        assert set(rare[validated]) == {0, 1}
