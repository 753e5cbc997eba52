"""Scores of many samples at once are those of repeated images; the estimate undoes what choosing the best adds."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.estimate import corrected_score, estimate, interval
from analysis.results import Results, Unavailable
from analysis.scoring import Scoring, numbered, samples, weighted
from analysis.selection import choice, epochs_optimism, over_folds
from analysis.trials import ranked, trials
from tests.results_folder import Wanted, build
from trainables.metrics import OF_CLASSES, scores, study_means


@st.composite
def weighted_predictions(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images, classes = draw(st.integers(1, 30)), draw(st.integers(2, 4))
    coarse = draw(st.sampled_from([2, 5, 1000]))  # steps: few make equal scores
    raw = rng.integers(1, coarse + 1, (images, classes)) + 0.0
    return rng.integers(classes, size=images), raw / raw.sum(1, keepdims=True), rng.integers(0, 4, (images, 5))


@settings(max_examples=60, deadline=None)
@given(weighted_predictions())
def test_a_weight_counts_as_that_many_images(drawn):
    targets, probabilities, weights = drawn
    for sample in range(weights.shape[1]):
        rows = np.repeat(np.arange(len(targets)), weights[:, sample])
        expected = scores(targets[rows], probabilities[rows]) if len(rows) else dict.fromkeys(OF_CLASSES, np.nan)
        for metric in OF_CLASSES:
            found = weighted(metric, targets, probabilities, weights.astype(np.float32))[sample]
            assert found == pytest.approx(expected[metric], abs=1e-5, nan_ok=True), metric


@settings(max_examples=10, deadline=None)
@given(weighted_predictions(), st.sampled_from(["accuracy", "auroc", "log_loss"]))
def test_studies_are_scored_by_their_mean_probability(drawn, metric):
    targets, probabilities, weights = drawn
    study = np.arange(len(targets)) // 2 * 2
    targets = targets[study]  # images of a study have one truth
    weights = weights[study].astype(np.float32)
    scoring = Scoring(f"study_{metric}", (), targets[:, None], (probabilities.shape[1],), targets * 0, study)
    mean_targets, mean_probabilities = study_means(study, targets[:, None], probabilities)
    expected = weighted(metric, mean_targets[:, 0], mean_probabilities, weights[np.unique(study)])
    assert scoring.of_folds(probabilities, weights)[0] == pytest.approx(expected, nan_ok=True)


def test_a_sample_draws_groups_as_a_whole_and_keeps_the_number_of_each_class():
    group, stratum = numbered([f"patient{i // 3}" for i in range(60)]), np.repeat([0, 1], [21, 39])
    weights = samples(group, stratum, 50, seed=0)
    assert (weights.reshape(20, 3, 50) == weights.reshape(20, 3, 50)[:, :1]).all()
    assert (weights[:21].sum(0) == 21).all()
    assert (weights[21:].sum(0) == 39).all()
    assert 0.3 < (weights == 0).mean() < 0.43


# --- the estimate of a results folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("results"))


def estimated(folder: Path) -> dict:
    return estimate(Results.open(folder), trials(folder))


def test_the_headline_of_a_search_lies_below_the_best_score_and_inside_its_interval(built):
    found, table = estimated(built), trials(built)
    assert found["naive"] == table["score"].max()
    assert found["low"] < found["corrected"] < found["naive"]
    assert found["corrected"] < found["high"] < 1
    assert found["optimism"] == pytest.approx(found["naive"] - found["corrected"])
    assert found["optimism"] == pytest.approx(found["optimism_of_trials"] + found["optimism_of_epochs"])
    assert (found["trials"], found["images"], found["groups"]) == (7, 120, 60)
    assert found["stopped"] == (table["state"] == "stopped").sum() > 0
    assert "stopped early" in found["how"]
    json.dumps(found)
    assert estimated(built) == found


def test_of_one_trial_no_choice_of_a_trial_is_corrected(tmp_path):
    found = estimated(build(tmp_path, Wanted(trials=1, failed=0, published=0)))
    assert (found["optimism_of_trials"], found["candidates"]) == (0, 1)
    assert found["how"].startswith("One trial alone")


def test_a_damaged_trial_cannot_be_chosen_and_a_damaged_winner_has_no_estimate(built, tmp_path):
    folder = Path(shutil.copytree(built, tmp_path / built.name))
    winner, second = ranked(trials(folder), "max")["number"][:2]
    for number, error in ((second, None), (winner, Unavailable)):
        for file in (folder / "trials" / f"{number:04d}").glob("checkpoint_*/predictions.parquet"):
            file.write_bytes(b"x" * file.stat().st_size)
        if error is None:
            found = estimated(folder)
            assert found["unreadable"] == 1
            assert "cannot be read" in found["how"]
        else:
            with pytest.raises(error):
                estimated(folder)


def test_without_a_score_there_is_nothing_to_estimate(tmp_path):
    with pytest.raises(Unavailable, match="No trial has a score"):
        estimated(build(tmp_path, Wanted(trials=1, failed=1)))


# --- its statistics


def noise(images: int, count: int, seed: int, signal: float = 0.0) -> tuple[Scoring, list]:
    """Trials whose predictions are noise around `signal`, best first."""
    rng, targets = np.random.default_rng(seed), np.arange(images) % 2
    scoring = Scoring("accuracy", (), targets[:, None], (2,), np.arange(images) // 2 % 3)
    logits = rng.normal(size=(count, images)) + signal * (2 * targets - 1)
    predictions = np.stack([-logits, logits], axis=2)
    scored = [float(scoring.of_folds(each, np.ones((images, 1), np.float32)).mean()) for each in predictions]
    best_first = sorted(range(count), key=lambda number: (-scored[number], number))
    return scoring, [(number, scored[number], predictions[number]) for number in best_first]


def test_of_forty_guesses_the_best_is_a_guess():
    found = [
        corrected_score(scoring, "max", np.arange(60), offered)
        for scoring, offered in map(partial(noise, 60, 40), range(12))
    ]
    assert np.mean([each["naive"] for each in found]) > 0.6
    assert np.mean([each["corrected"] for each in found]) == pytest.approx(0.5, abs=0.03)  # standard error 0.01
    assert np.mean([each["low"] <= 0.5 <= each["high"] for each in found]) >= 0.8


def test_a_loss_is_corrected_upwards():
    scoring, offered = noise(60, 20, seed=0)
    scoring = dataclasses.replace(scoring, metric="log_loss")
    softened = [(number, 0.5 + 0.5 / (1 + np.exp(-each)) - 0.25) for number, _, each in offered]
    ones = np.ones((60, 1), np.float32)
    scored = [(number, float(scoring.of_folds(each, ones).mean()), each) for number, each in softened]
    found = corrected_score(scoring, "min", np.arange(60), sorted(scored, key=lambda trial: trial[1]))
    assert found["corrected"] == pytest.approx(found["naive"] + found["optimism"])
    assert found["optimism"] > 0


def test_trials_that_are_not_compared_would_not_have_been_chosen():
    scoring, near = noise(300, 15, seed=0, signal=1.0)
    _, far = noise(300, 60, seed=1, signal=-0.5)
    offered = [*near, *((number + 100, score, predictions) for number, score, predictions in far)]
    weights = samples(np.arange(300), scoring.targets_NT[:, 0], 300, seed=0)
    found = choice(scoring, "max", weights, offered)
    assert len(near) <= found.candidates < len(offered)
    scores = np.stack([over_folds(scoring.of_folds(predictions, weights)) for _, _, predictions in offered])
    numbers = np.array([number for number, _, _ in offered])
    ties = np.where(scores == scores.max(0), numbers[:, None], 10**9)
    assert found.chosen == dict(
        zip(*(each.tolist() for each in np.unique(ties.min(0), return_counts=True)), strict=True)
    )


def test_an_epoch_that_is_best_by_chance_is_paid_for():
    scores = np.array([[0.9, 0.5, 0.5], [0.5, 0.8, 0.5], [0.6, 0.6, 0.6]])  # each fold has its lucky epoch
    losses = 1 - scores
    # Best of all: 0, mean 0.63. Without fold 0: epoch 1, which gives it 0.5; without 1: 0 (0.5); without 2: 0 (0.5).
    gap = epochs_optimism("max", 1, [{7: 10}, {7: 10}, {7: 10}], lambda number: (scores, scores, losses))
    assert gap == pytest.approx((0.9 - 0.5) / 3)
    assert epochs_optimism("max", 1, [{7: 10}] * 3, lambda number: None) == 0
    steady = np.linspace(0.5, 0.9, 5)[:, None] + np.zeros(3)
    assert epochs_optimism("max", 1, [{7: 10}] * 3, lambda number: (steady, steady, 1 - steady)) == 0
    chosen_by_another_metric = scores, steady[:3], losses
    assert epochs_optimism("max", 1, [{7: 10}] * 3, lambda number: chosen_by_another_metric) == 0


# --- the interval of one set of predictions


def test_copies_of_images_in_their_groups_say_nothing_new():
    scoring, offered = noise(120, 1, seed=3, signal=0.8)
    targets, predictions = scoring.targets_NT[:, 0], offered[0][2]
    alone = interval(targets, predictions, np.arange(120), "auroc")
    copied = interval(np.tile(targets, 3), np.tile(predictions, (3, 1)), np.tile(np.arange(120), 3), "auroc")
    independent = interval(np.tile(targets, 3), np.tile(predictions, (3, 1)), np.arange(360), "auroc")
    assert (alone["groups"], copied["groups"], copied["images"]) == (120, 120, 360)
    width = {name: each["high"] - each["low"] for name, each in (("1", alone), ("3", copied), ("9", independent))}
    assert width["3"] == pytest.approx(width["1"], rel=0.1)
    assert width["9"] == pytest.approx(width["1"] / np.sqrt(3), rel=0.15)


def test_the_interval_of_an_accuracy_is_nearly_wilsons_and_does_not_vanish_where_all_is_right():
    targets = np.arange(100) % 2
    for wrong, low, high in ((0, 0.963, 1.0), (10, 0.826, 0.945)):  # Wilson 1927; class sizes are held fixed
        predicted = np.where(np.arange(100) < wrong, 1 - targets, targets)
        found = interval(targets, np.eye(2)[predicted], np.arange(100), "accuracy")
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.012)


def test_where_nothing_is_wrong_the_rare_class_says_how_sure_that_is():
    targets = np.repeat([0, 1], [1000, 10])
    few = interval(targets, np.eye(2)[targets], np.arange(1010), "auroc")
    balanced = interval(np.arange(1010) % 2, np.eye(2)[np.arange(1010) % 2], np.arange(1010), "auroc")
    assert (few["low"], few["high"]) == pytest.approx((0.912, 1.0), abs=0.001)  # Wilson 1927 for 4 / (1/1000 + 1/10)
    assert balanced["low"] > 0.996
    assert interval(targets, np.eye(2)[targets], np.arange(1010), "accuracy")["low"] > 0.996


@pytest.mark.parametrize("metric", ["f1", "recall", "precision"])
def test_a_perfect_score_of_very_few_images_has_an_interval(metric):
    """In some samples the fold has no positive image, and these scores are 0 then."""
    scoring = Scoring(metric, (), (np.arange(12) % 2)[:, None], (2,), np.arange(12) // 4)
    predictions = np.eye(2)[np.arange(12) % 2]
    found = corrected_score(scoring, "max", np.arange(12), [(0, 1.0, predictions)])
    assert 0.5 < found["low"] < 0.9
    assert found["high"] == 1


def test_a_loss_is_not_below_nothing():
    targets = np.arange(8) % 2
    sure = np.where(np.eye(2)[targets] == 1, 0.999, 0.001)
    sure[0] = 0.3, 0.7
    assert interval(targets, sure, np.arange(8), "log_loss")["low"] == 0


def test_masks_are_scored_by_what_each_image_got():
    dice = np.random.default_rng(0).uniform(0.7, 0.9, 200)
    found = interval(np.zeros(200), dice, np.arange(200), "dice")
    assert found["score"] == pytest.approx(dice.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * dice.std() / np.sqrt(200), rel=0.1)


def test_an_interval_says_what_is_missing():
    with pytest.raises(Unavailable, match="a class is missing"):
        interval(np.zeros(5, int), np.full((5, 2), 0.5), np.arange(5), "auroc")
