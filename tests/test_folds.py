"""Folds: every image validated once, groups kept together, classes spread as evenly as can be."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import InputError
from datasets.folds import make_folds
from tests.small import small_dataset


@st.composite
def datasets_and_k(draw: st.DrawFn):
    k = draw(st.integers(2, 6))
    classes = draw(st.integers(2, 4))
    per_class = draw(st.lists(st.integers(k, 3 * k), min_size=classes, max_size=classes))
    targets = [c for c, count in enumerate(per_class) for _ in range(count)]
    base = small_dataset(images=len(targets), classes=classes)
    return dataclasses.replace(base, table=base.table.with_columns(target=pl.Series(targets))), k


@given(datasets_and_k(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_image_is_validated_once_and_classes_are_even(case, seed):
    dataset, k = case
    folds = make_folds(dataset, k, seed)
    seen = np.concatenate([validated for _, validated in folds])
    assert sorted(seen) == list(range(len(dataset)))
    for train, validated in folds:
        assert not set(train) & set(validated)
        assert len(train) + len(validated) == len(dataset)
        for target, total in enumerate(dataset.counts.values()):
            assert abs((dataset.targets[validated] == target).sum() - total / k) < 1


@given(st.lists(st.integers(1, 4), min_size=24, max_size=40), st.integers(2, 4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_no_group_stands_in_two_folds(group_sizes, k, seed):
    groups = [str(g) for g, size in enumerate(group_sizes) for _ in range(size)]
    dataset = small_dataset(images=len(groups))
    # The class belongs to the group here, as with patients, and both classes have enough groups.
    targets = [int(g) % 2 for g in groups]
    table = dataset.table.with_columns(group=pl.Series(groups), target=pl.Series(targets))
    folds = make_folds(dataclasses.replace(dataset, table=table), k, seed)
    of_group = pl.DataFrame({"group": groups, "fold": folds.validated_in}).group_by("group").n_unique()
    assert of_group["fold"].max() == 1


def test_the_same_seed_gives_the_same_folds_on_every_machine():
    dataset = small_dataset(images=30)
    assert make_folds(dataset, 3, 0).digest == make_folds(dataset, 3, 0).digest == "d1a411348eacb9de"
    assert make_folds(dataset, 3, 1).digest != make_folds(dataset, 3, 0).digest


@pytest.mark.parametrize("k", [-1, 0, 1, 21])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(InputError, match="choose from 2 to 20"):
        make_folds(small_dataset(), k, 0)


def test_a_class_smaller_than_k_is_named():
    dataset = small_dataset(images=10)
    table = dataset.table.with_columns(target=pl.Series([1, 1] + [0] * 8))
    with pytest.raises(InputError, match="class b has 2 images, fewer than 3 folds"):
        make_folds(dataclasses.replace(dataset, table=table), 3, 0)


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
    dataset = small_dataset(images=24)
    table = dataset.table.with_columns(group=pl.Series(groups.astype(str)), target=pl.Series(targets))
    try:
        folds = make_folds(dataclasses.replace(dataset, table=table), 3, seed)
    except InputError:
        return
    for train, validated in folds:
        assert set(targets[train]) == set(targets[validated]) == {0, 1}
        assert not set(groups[train]) & set(groups[validated])
