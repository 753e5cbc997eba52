"""Scores: known values, and what happens at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import InputError
from trainables.metrics import METRICS, OF_CLASSES, check_metric, metrics_of, scores


def test_binary_scores_of_a_known_case():
    targets = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.6, 0.4, 0.9], np.float32)
    found = scores(targets, np.stack([1 - positive, positive], 1))
    assert found["auroc"] == pytest.approx(0.75)
    assert found["accuracy"] == 0.5
    assert found["f1"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean(), rel=1e-5)


def test_balanced_accuracy_is_the_mean_recall():
    targets = np.array([0, 0, 0, 1])
    always_first = np.tile(np.array([[0.9, 0.1]], np.float32), (4, 1))
    found = scores(targets, always_first)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.5


@given(st.integers(2, 5), st.integers(0, 5))
def test_a_perfect_observer_has_perfect_scores(classes, seed):
    targets = np.random.default_rng(seed).permutation(np.arange(20) % classes)
    found = scores(targets, np.eye(classes, dtype=np.float32)[targets])
    assert found["log_loss"] == pytest.approx(0, abs=1e-6)
    assert set(found) == set(OF_CLASSES)
    assert all(found[name] == 1 for name in OF_CLASSES if METRICS[name] == "max")


def test_probabilities_that_are_not_finite_have_no_score():
    assert all(math.isnan(value) for value in scores(np.array([0, 1]), np.full((2, 2), np.nan)).values())


def test_auroc_needs_every_class_and_the_others_do_not():
    found = scores(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]], np.float32))
    assert math.isnan(found["auroc"])
    assert found["accuracy"] == 1


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multitask", "segmentation"])
def test_every_kind_has_its_metrics_and_refuses_the_others_by_name(kind):
    for metric in METRICS:
        if metric in metrics_of(kind):
            check_metric(metric, kind)
        else:
            with pytest.raises(InputError, match=f"metric '{metric}': choose from") as error:
                check_metric(metric, kind)
            assert ", ".join(metrics_of(kind)) in str(error.value)
    assert "log_loss" in metrics_of(kind)  # ties, plateaus and divergence are told by it
