"""Scores: known values, and what happens at the edges."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from datasets import InputError, mura
from datasets.folds import Folds, make_folds
from tests.small import small_config, small_dataset, small_multitask
from trainables.metrics import (
    BINS,
    METRICS,
    NEEDS_EVERY_CLASS,
    OF_CLASSES,
    check_metric,
    check_scorable,
    metrics_of,
    scores,
)
from trainables.objectives import objective


def drawn(classes: int, images: int, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities, float32 as networks give them; of few steps many are equal, and some are 0 and 1."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, steps + 1, (images, classes)) + 1e-3 * (steps > 5)
    weights[weights.sum(1) == 0] = 1
    probabilities = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return rng.integers(0, classes, images), probabilities


def test_binary_scores_of_a_known_case():
    targets = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.6, 0.4, 0.9], np.float32)
    found = scores(targets, np.stack([1 - positive, positive], 1))
    assert found["auroc"] == pytest.approx(0.75)
    assert found["accuracy"] == 0.5
    assert found["f1"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean(), rel=1e-5)


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 10**6), st.sampled_from([1, 3, 1000]))
def test_scores_are_those_of_scikit_learn(classes, images, seed, steps):
    targets, probabilities = drawn(classes, images, seed, steps)
    found, predicted, labels = scores(targets, probabilities), probabilities.argmax(1), np.arange(classes)
    sums_to_1 = probabilities.astype(np.float64) / probabilities.sum(1, dtype=np.float64, keepdims=True)
    given = {"labels": labels, "average": "binary" if classes == 2 else "macro", "zero_division": 0}
    there = np.unique(targets)
    expected = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "balanced_accuracy": sk.recall_score(targets, predicted, average="macro", labels=there, zero_division=0),
        "precision": sk.precision_score(targets, predicted, **given),
        "recall": sk.recall_score(targets, predicted, **given),
        "f1": sk.f1_score(targets, predicted, **given),
        "log_loss": sk.log_loss(targets, sums_to_1, labels=labels),
    }
    if len(set(targets) | set(predicted)) > 1:
        expected["cohen_kappa"] = sk.cohen_kappa_score(targets, predicted)
    if len(there) == classes:
        rest = slice(1, 2) if classes == 2 else slice(None)  # of several, each class against the rest
        truth = np.eye(classes)[targets][:, rest]
        expected["auroc"] = sk.roc_auc_score(truth, probabilities[:, rest], average="macro")
        expected["average_precision"] = sk.average_precision_score(truth, probabilities[:, rest], average="macro")
    for name in OF_CLASSES:
        if name in expected:
            assert found[name] == pytest.approx(expected[name], abs=1e-6), name
        elif name != "calibration_error":
            assert math.isnan(found[name]), name


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 10**6), st.sampled_from([1, 3, 1000]))
def test_the_calibration_error_weighs_the_bins_of_scikit_learn_by_their_images(classes, images, seed, steps):
    targets, probabilities = drawn(classes, images, seed, steps)
    confidence = probabilities.max(1).astype(np.float64)
    accuracies, confidences = calibration_curve(probabilities.argmax(1) == targets, confidence, n_bins=BINS)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence))
    expected = np.abs(accuracies - confidences) @ counts[counts > 0] / images
    assert scores(targets, probabilities)["calibration_error"] == pytest.approx(expected, abs=1e-9)


def test_who_is_right_as_often_as_said_is_calibrated_and_who_boasts_is_not():
    targets, first = np.array([0, 0, 0, 1] * 5), np.array([[1.0, 0.0]] * 20)
    assert scores(targets, np.tile([0.75, 0.25], (20, 1)))["calibration_error"] == pytest.approx(0)
    assert scores(targets, first)["calibration_error"] == pytest.approx(0.25)
    assert scores(targets, first[:, ::-1])["calibration_error"] == pytest.approx(0.75)


def test_of_two_classes_precision_and_recall_are_those_of_the_second():
    targets, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = scores(targets, np.eye(2)[predicted])
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["recall"] == pytest.approx(1 / 2)
    three = scores(targets, np.eye(3)[predicted])
    assert three["recall"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3), "of several a mean over all"


def test_kappa_is_what_guessing_the_larger_class_does_not_give():
    targets = np.array([0] * 9 + [1])
    guessing = scores(targets, np.tile([1.0, 0.0], (10, 1)))
    assert (guessing["accuracy"], guessing["cohen_kappa"]) == (0.9, 0)


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


def test_some_metrics_need_every_class_and_the_others_do_not():
    found = scores(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]], np.float32))
    assert {name for name, value in found.items() if math.isnan(value)} == set(NEEDS_EVERY_CLASS)
    assert found["accuracy"] == 1
    dataset = small_dataset()
    once = dataclasses.replace(dataset, table=dataset.table.with_columns(target=pl.Series([1] + [0] * 46 + [1])))
    folds = Folds(np.array([[i % 3 for i in range(48)]]))  # fold 1 validates no image of class b
    for metric in OF_CLASSES:
        if metric in NEEDS_EVERY_CLASS:
            with pytest.raises(InputError, match=f"metric '{metric}': fold 1 validates no image of label 'b'"):
                check_scorable(metric, once, folds)
        else:
            check_scorable(metric, once, folds)


# --- studies


def with_studies(dataset, study: list):
    return dataclasses.replace(dataset, table=dataset.table.with_columns(study=pl.Series(study)))


def test_a_study_is_scored_by_the_mean_probability_of_its_images():
    dataset = with_studies(small_dataset(6), ["x", "y", "x", "z", "x", "y"])  # classes a b a b a b
    found = objective(dataset, small_config())
    positive = np.array([0.9, 0.9, 0.2, 0.3, 0.1, 0.3], np.float32)  # x 0.4, y 0.6, z 0.3
    told = found.scores(np.arange(6), np.stack([1 - positive, positive], 1))
    assert tuple(told) == found.metrics
    assert told["accuracy"] == pytest.approx(3 / 6)
    assert told["study_accuracy"] == pytest.approx(2 / 3)
    assert told["study_auroc"] == pytest.approx(0.5), "y above x, z below it"
    assert told["study_log_loss"] == pytest.approx(-np.log([0.6, 0.6, 0.3]).mean(), rel=1e-6)
    without_z = found.scores(np.array([0, 1, 2, 4, 5]), np.stack([1 - positive, positive], 1)[[0, 1, 2, 4, 5]])
    assert without_z["study_accuracy"] == 1


def test_images_of_one_study_with_other_labels_are_another_study():
    dataset = with_studies(small_dataset(4), ["x"] * 4)  # classes a b a b
    told = objective(dataset, small_config()).scores(np.arange(4), np.array([[0.9, 0.1], [0.4, 0.6]] * 2))
    assert told["study_accuracy"] == 1
    assert told["study_recall"] == 1


def test_studies_of_several_targets_have_the_mean_of_the_scored_ones_alone():
    dataset = with_studies(small_multitask(), list(range(48)))
    found = objective(dataset, small_config())
    probabilities = np.random.default_rng(0).random((48, 7)).astype(np.float32)
    told = found.scores(np.arange(48), probabilities)
    assert tuple(told) == found.metrics
    for metric in OF_CLASSES:
        assert told[f"study_{metric}"] == pytest.approx(told[metric]), "every image is a study"
        assert f"study_{metric}:side" not in told


def test_a_metric_of_studies_needs_studies_that_stay_in_one_fold():
    folds = Folds(np.array([[i % 3 for i in range(48)], [i // 16 for i in range(48)]]))
    with pytest.raises(InputError, match=r"metric 'study_auroc': 'small' does not say.*choose 'auroc'"):
        check_scorable("study_auroc", small_dataset(), folds)
    apart = with_studies(small_dataset(), [i % 3 for i in range(48)])  # whole in the first repeat, not in the second
    with pytest.raises(InputError, match=r"metric 'study_auroc': the images of study \d are .* several folds"):
        check_scorable("study_auroc", apart, folds)
    check_scorable("auroc", apart, folds)
    check_scorable("study_auroc", apart, Folds(folds.validated_in[:1]))


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


def test_the_studies_of_mura_stay_in_one_fold_each():
    films = mura.phantoms(images=300).part("development")
    check_scorable("study_cohen_kappa", films, make_folds(films, 3, seed=0, repeats=2))
