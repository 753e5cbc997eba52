"""How a trial fails: intervals, curves, calibration, thresholds, sources, groups, studies, single images, masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from analysis import mask_figures, prediction_figures, probability_figures
from analysis.failures import failures
from analysis.predictions import SENSITIVITIES, Ranked, thresholds_of
from analysis.results import Results, Unavailable
from analysis.shares import mean_interval, share
from tests.results_folder import write_checkpoint
from trainables.metrics import scores

SEED = st.integers(0, 10**6)


def opened(tmp_path: Path, columns: dict[str, np.ndarray], *, folds: dict[str, Any], **data: Any) -> Results:
    """Results of trial 0 with these predictions; `folds` are the columns of folds.parquet that matter."""
    trial = tmp_path / "trials" / "0000"
    trial.mkdir(parents=True)
    write_checkpoint(trial, 1, 1, {name: np.asarray(values) for name, values in columns.items()})
    rows = len(next(iter(columns.values())))
    repeats = data.get("repeats", 1)
    images = rows // repeats
    told = {
        "image_id": [f"image{row % images:05d}" for row in range(rows)],
        "target": np.zeros(rows, np.int64),
        "group": [f"group{row % images:05d}" for row in range(rows)],
        "fold": np.arange(rows) % 3 + 3 * (np.arange(rows) // images),
    }
    experiment = {
        "classes": ["NORMAL", "COVID"],
        "kind": "binary",
        "target_name": "label",
        "further": [],
        "repeats": 1,
        "leave_source_out": False,
    }
    return Results(tmp_path, {"data": experiment | data}, pl.DataFrame(told | folds))  # type: ignore[typeddict-item]


def binary(score: np.ndarray) -> dict[str, np.ndarray]:
    return {"NORMAL": 1 - score, "COVID": score}


def told_of(results: Results, target: int = 0) -> dict[str, Any]:
    told = failures(results, 0)
    json.dumps(told, allow_nan=False)
    own: dict[str, Any] = told["targets"][target]
    return own


# --- intervals


def wilson(p: float, n: float) -> tuple[float, float]:
    z = 1.959964
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def test_the_interval_of_independent_images_is_wilsons() -> None:
    found = share(np.arange(400) < 320, np.arange(400))
    assert (found["low"], found["high"]) == pytest.approx(wilson(0.8, 400), abs=2e-4)
    all_right = share(np.ones(60, bool), np.arange(60))
    assert (all_right["low"], all_right["high"]) == pytest.approx(wilson(1.0, 60))


def test_images_of_a_group_and_repeats_of_an_image_do_not_count_as_more() -> None:
    rng = np.random.default_rng(0)
    right, group = rng.random(100) < 0.7, np.arange(100)
    once = share(right, group)
    assert share(np.tile(right, 4), np.tile(group, 4), repeats=4) == pytest.approx(once)
    assert share(np.repeat(right, 4), np.repeat(group, 4)) == pytest.approx(once)
    assert share(right[:0], group[:0]) == {"value": None, "low": None, "high": None}


def test_the_intervals_of_shares_and_means_hold_the_truth_about_19_times_of_20() -> None:
    rng, held = np.random.default_rng(1), np.zeros(2)
    group = np.repeat(np.arange(60), 4)
    for _ in range(500):
        of_patient = rng.beta(4, 1, 60)[group]  # a patient's images fail together; 0.8 on average
        found = share(rng.random(240) < of_patient, group), mean_interval(of_patient, group)
        held += [one["low"] <= 0.8 <= one["high"] for one in found]
    assert (held / 500 > 0.92).all()
    assert (held / 500 < 0.98).all()


# --- curves


@settings(max_examples=15)  # scikit-learn takes its time
@given(st.integers(2, 4), SEED)
def test_areas_are_those_of_scikit_learn_and_a_fold_without_a_class_has_no_curve(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, fold = rng.integers(0, classes, 60), np.arange(60) % 3
    targets[fold == 1] = 0
    probabilities = rng.dirichlet(np.ones(classes), 60).round(2)
    ranked = Ranked.of(targets, probabilities, fold)
    assert ranked.roc.folds == ranked.precision_recall.folds == [0, 2]
    for f in (0, 2):
        for c in range(classes):
            positive, score = targets[fold == f] == c, probabilities[fold == f, c]
            if positive.any():
                assert ranked.auroc_FC[f, c] == pytest.approx(sk.roc_auc_score(positive, score))
                assert ranked.average_precision_FC[f, c] == pytest.approx(sk.average_precision_score(positive, score))
    assert np.isnan(ranked.auroc_FC[1]).all()


@given(SEED)
def test_the_precision_at_a_recall_is_that_of_the_first_threshold_that_reaches_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, score = rng.random(40) < 0.4, rng.random(40).round(1)
    positive[:2] = True, False
    curve = Ranked.of(positive.astype(int), np.stack([1 - score, score], 1), np.zeros(40)).precision_recall.values_FG[0]
    for recall in (0.01, 0.5, 0.77, 1.0):
        threshold = max(t for t in score if (score >= t)[positive].mean() >= recall - 1e-9)
        assert curve[round(recall * 100)] == pytest.approx(positive[score >= threshold].mean())


def test_curves_are_named_after_their_own_fold(tmp_path: Path) -> None:
    """A source of one class has no curve, and must not lend its name to the next one's."""
    sources = np.repeat(["Graz", "Lund <1>", "Uppsala"], 20)
    targets = np.where(sources == "Lund <1>", 0, np.arange(60) % 2)
    folds = {"target": targets, "source": sources, "fold": np.repeat([0, 1, 2], 20)}
    score = np.random.default_rng(0).random(60)
    results = opened(tmp_path, binary(score), folds=folds, leave_source_out=True)
    for figure in (prediction_figures.roc, prediction_figures.precision_recall):
        drawn = figure(results, 0).to_json()
        assert "Graz, area" in drawn
        assert "Uppsala, area" in drawn
        assert "Lund" not in drawn
    rows = told_of(results)["strata"][0]["rows"]
    assert {row["name"]: row["auroc"]["mean"] is None for row in rows}["Lund <1>"]
    assert [row["accuracy"]["value"] for row in rows] == sorted(row["accuracy"]["value"] for row in rows)


def test_without_two_classes_there_is_a_reason_and_no_curve(tmp_path: Path) -> None:
    results = opened(tmp_path, binary(np.linspace(0.1, 0.9, 30)), folds={})
    own = told_of(results)
    assert own["roc"] == own["precision_recall"] == {"note": "No fold holds images of two classes."}
    assert "note" in own["thresholds"]
    for figure in (
        prediction_figures.roc,
        prediction_figures.precision_recall,
        probability_figures.sensitivity_specificity,
    ):
        with pytest.raises(Unavailable):
            figure(results, 0)
    assert probability_figures.score_distribution(results, 0).data


# --- calibration and thresholds


def test_the_calibration_error_is_the_metric_and_stands_beside_what_chance_makes_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    honest = rng.random(3000)
    targets = (rng.random(3000) < honest).astype(int)
    sure = honest**3 / (honest**3 + (1 - honest) ** 3)
    told = [
        told_of(opened(tmp_path / name, binary(score), folds={"target": targets}))["calibration"]
        for name, score in (("honest", honest), ("sure", sure))
    ]
    fold = np.arange(3000) % 3
    expected = [
        scores(targets[fold == f], np.stack([1 - sure, sure], 1)[fold == f])["calibration_error"] for f in range(3)
    ]
    assert told[1]["calibration_error"]["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert told[0]["calibration_error"]["mean"] < 1.5 * told[0]["calibration_error_by_chance"]
    assert told[1]["calibration_error"]["mean"] > 3 * told[1]["calibration_error_by_chance"]
    assert told[1]["excess_confidence"]["mean"] > 0.05 > abs(told[0]["excess_confidence"]["mean"])
    assert told[0]["brier"]["mean"] == pytest.approx(np.mean((honest - targets) ** 2))
    assert told[0]["brier_of_shares"] == pytest.approx(0.25, abs=0.01)
    held = [b["observed"]["low"] <= b["predicted"] <= b["observed"]["high"] for b in told[0]["bins"]]
    assert sum(held) >= 8
    assert sum(b["images"] for b in told[0]["bins"]) == 3000


@given(SEED)
def test_thresholds_are_the_best_and_the_highest_that_reach_a_sensitivity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, score = rng.random(50) < 0.5, rng.random(50).round(1)
    positive[:2] = True, False
    found = thresholds_of(positive, score)

    def rates(threshold: float) -> tuple[float, float]:
        called = score >= threshold
        return called[positive].mean(), (~called)[~positive].mean()

    assert sum(rates(found["youden"])) == pytest.approx(max(sum(rates(t)) for t in score))
    for wanted in SENSITIVITIES:
        threshold = found[f"sensitivity {wanted}"]
        assert rates(threshold)[0] >= wanted - 1e-9
        higher = score[score >= threshold].min() + 1e-6
        assert rates(higher)[0] < wanted


@pytest.mark.parametrize("repeats", [1, 2])
def test_no_image_has_a_say_in_the_threshold_it_is_judged_by(tmp_path: Path, repeats: int) -> None:
    rng = np.random.default_rng(3)
    targets = np.tile(rng.integers(0, 2, 90), repeats)
    score = np.clip(0.3 * targets + rng.normal(0.35, 0.15, 90 * repeats), 0, 1).astype(np.float32).astype(float)
    results = opened(tmp_path, binary(score), folds={"target": targets}, repeats=repeats)
    rows = {row["rule"]: row for row in told_of(results)["thresholds"]["rows"]}
    fold, called = results.validated_in, np.zeros(90 * repeats, bool)
    for row in range(90 * repeats):
        others = (fold != fold[row]) & (fold // 3 == fold[row] // 3)
        called[row] = score[row] >= thresholds_of(targets[others] == 1, score[others])["youden"]
    youden = rows["youden"]
    assert youden["threshold"] == pytest.approx(thresholds_of(targets == 1, score)["youden"])
    assert youden["sensitivity"]["value"] == called[targets == 1].mean()
    assert youden["specificity"]["value"] == (~called)[targets == 0].mean()
    assert youden["ppv"]["value"] == (targets == 1)[called].mean()
    assert youden["npv"]["value"] == (targets == 0)[~called].mean()
    assert rows["most probable class"]["sensitivity"]["value"] == (score > 0.5)[targets == 1].mean()
    assert list(rows)[2:] == [f"sensitivity {wanted}" for wanted in SENSITIVITIES]


# --- images, groups, studies, sources, targets


def test_the_most_confidently_wrong_images_come_first_with_their_fold(tmp_path: Path) -> None:
    score = np.array([0.08, 0.99, 0.2, 0.6, 0.3, 0.4, 0.05, 0.7, 0.8])
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    own = told_of(opened(tmp_path, binary(score), folds={"target": targets}))
    assert own["wrong"]["images"] == 3
    cases = [(case["image_id"], case["truth"], case["predicted"], case["fold"]) for case in own["wrong"]["cases"]]
    assert cases == [
        ("image00001", "NORMAL", "COVID", "fold 1"),
        ("image00006", "COVID", "NORMAL", "fold 0"),
        ("image00003", "NORMAL", "COVID", "fold 0"),
    ]
    assert own["wrong"]["cases"][1]["probability"] == pytest.approx(0.95)
    assert own["wrong"]["cases"][1]["of_truth"] == pytest.approx(0.05)
    assert (own["sure"]["images"], own["sure"]["wrong"]) == (3, 2)
    assert own["accuracy"]["value"] == pytest.approx(6 / 9)
    assert own["confused"][0] == {"truth": "NORMAL", "predicted": "COVID", "images": 2, "share": pytest.approx(1 / 3)}


def test_with_repeats_an_image_is_judged_by_its_mean_probability(tmp_path: Path) -> None:
    score = np.array([0.9, 0.1, 0.2, 0.4, 0.3, 0.1])
    own = told_of(opened(tmp_path, binary(score), folds={}, repeats=2))
    assert own["wrong"]["images"] == 1
    assert own["wrong"]["cases"][0]["probability"] == pytest.approx(0.65)
    assert own["wrong"]["cases"][0]["fold"] == "fold 0, fold 3"
    assert np.sum(own["confusion"]["counts"]) == 6
    assert own["of_each_class"][0]["images"] == 3


def test_patients_that_fail_wholly_are_named_beside_what_chance_would_make(tmp_path: Path) -> None:
    groups = [*np.repeat([f"patient{i}" for i in range(10)], 3).tolist(), "alone"]
    score = np.full(31, 0.1)
    score[[0, 1, 2, 5, 30]] = 0.8
    own = told_of(opened(tmp_path, binary(score), folds={"group": groups}))["of_groups"]
    assert (own["several"], own["all_right"], own["some_wrong"], own["all_wrong"]) == (10, 8, 1, 1)
    assert own["all_wrong_by_chance"] == pytest.approx(10 * (4 / 30) ** 3)
    assert [(case["group"], case["images"], case["truth"]) for case in own["cases"]] == [("patient0", 3, ["NORMAL"])]
    assert told_of(opened(tmp_path / "alone", binary(score), folds={}))["of_groups"] is None


def test_a_study_is_judged_by_the_mean_of_its_images(tmp_path: Path) -> None:
    score = np.array([0.96, 0.44, 0.6, 0.1, 0.2, 0.3])
    folds = {"study": ["a", "a", "b", "b", "c", "c"], "target": [0, 0, 1, 1, 0, 0], "group": list("aabbcc")}
    results = opened(tmp_path, binary(score), folds=folds | {"fold": [0, 0, 1, 1, 2, 2]})
    own = told_of(results)["of_studies"]
    assert (own["studies"], own["disagree"], own["confusion"]) == (3, 2, [[1, 1], [1, 0]])
    assert own["accuracy"]["value"] == pytest.approx(1 / 3)
    assert [(case["study"], case["predicted"], case["fold"]) for case in own["cases"]] == [
        ("a", "COVID", "fold 0"),
        ("b", "NORMAL", "fold 1"),
    ]
    assert [case["probability"] for case in own["cases"]] == pytest.approx([0.7, 0.65])
    assert told_of(opened(tmp_path / "none", binary(score), folds={}))["of_studies"] is None


def test_of_many_sources_the_largest_are_shown_and_an_unknown_one_has_a_name(tmp_path: Path) -> None:
    sources = [None] * 3 + [f"site{i % 40}" for i in range(81)]
    own = told_of(opened(tmp_path, binary(np.full(84, 0.1)), folds={"source": sources}))["strata"][0]
    assert (own["by"], len(own["rows"]), own["left_out"]) == ("source", 30, 11)
    assert {row["name"]: row["images"] for row in own["rows"]} | {"not known": 3, "site0": 3} == {
        row["name"]: row["images"] for row in own["rows"]
    }


def test_every_target_is_told_and_broken_down_by_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    part, target = np.arange(90) % 3, rng.integers(0, 2, 90)
    names = ["elbow", "hand", "wrist"]
    score = np.where(part == 1, 1 - target, target) * 0.8 + 0.1  # wrong on hands, and only there
    of_part = np.full((90, 3), 0.1) + 0.7 * np.eye(3)[part]
    columns = {f"label:{name}": column for name, column in binary(score).items()}
    columns |= {f"part:{name}": of_part[:, i] for i, name in enumerate(names)}
    further = [{"name": "part", "classes": names, "scored": False}]
    folds = {"target": target, "target_part": part}
    results = opened(tmp_path, columns, folds=folds, kind="multitask", further=further)
    first, second = told_of(results), told_of(results, 1)
    assert (first["strata"][0]["by"], second["strata"][0]["by"]) == ("part", "label")
    assert (first["strata"][0]["rows"][0]["name"], first["strata"][0]["rows"][0]["accuracy"]["value"]) == ("hand", 0.0)
    assert (second["scored"], second["accuracy"]["value"], second["positive"], second["thresholds"]) == (
        False, 1.0, None, None
    )  # fmt: skip
    assert len(prediction_figures.confusion_matrix(results, 0, target=1).data[0].x) == 3
    assert "wrist" in probability_figures.score_distribution(results, 0, target=1).to_json()


# --- masks


def masks(tmp_path: Path, images: int, **more: np.ndarray) -> Results:
    rng = np.random.default_rng(0)
    dice = rng.random(images)
    dice[:3] = 0
    columns = {"dice": dice, "iou": dice / (2 - dice), "log_loss": 1 - dice, **more}
    folds = {"group": [f"g{i // 2}" for i in range(images)], "source": np.array(["x", "y"])[np.arange(images) % 2]}
    return opened(tmp_path, columns, folds=folds, kind="segmentation", classes=["background", "gland"])


def test_masks_tell_their_spread_their_sources_and_the_images_that_were_missed(tmp_path: Path) -> None:
    told = failures(masks(tmp_path, 60), 0)
    json.dumps(told, allow_nan=False)
    dice = np.random.default_rng(0).random(60).astype(np.float32)
    dice[:3] = 0
    assert told["dice"]["mean"] == pytest.approx(np.mean([dice[f::3].mean() for f in range(3)]))
    assert told["missed"]["value"] == pytest.approx(3 / 60)
    assert sum(told["distribution"]["images"]) == 60
    assert told["quantiles"]["0.5"] == pytest.approx(np.median(dice))
    assert {row["name"]: row["dice"]["value"] for row in told["strata"][0]["rows"]} == pytest.approx(
        {"x": dice[::2].mean(), "y": dice[1::2].mean()}
    )
    assert told["of_groups"]["several"] == 30
    assert told["of_groups"]["cases"][0]["group"] == "g0"
    assert told["worst"][0]["fold"] == "fold 0"
    assert told["by_area"] == {"note": "The predictions do not say how large the masks are."}
    with pytest.raises(Unavailable, match="how large the masks are"):
        mask_figures.dice_by_area(masks(tmp_path / "again", 6), 0)


def test_dice_is_held_against_the_area_where_it_is_known(tmp_path: Path) -> None:
    area = np.r_[np.zeros(10), np.geomspace(1e-3, 0.5, 3990)]
    results = masks(tmp_path, 4000, area=area)
    bins = failures(results, 0)["by_area"]
    assert [one["images"] for one in bins[:1]] == [10], "images without foreground are a bin of their own"
    assert sum(one["images"] for one in bins) == 4000
    assert [one["from"] for one in bins] == sorted(one["from"] for one in bins)
    drawn = mask_figures.dice_by_area(results, 0)
    assert len(drawn.data[0].x) == 2000, "a sample of many images"
    assert "2,000 of 3,990 images" in drawn.data[0].name
    assert len(drawn.to_json()) < 300_000


# --- figures


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_every_figure_of_classes_is_small_and_its_names_are_no_markup(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"<b>{i}" for i in range(classes)]
    targets = np.tile(np.arange(classes), 2000 // classes)
    probabilities = rng.dirichlet(np.ones(classes), len(targets))
    columns = dict(zip(names, probabilities.T, strict=True))
    folds = {"target": targets, "fold": rng.integers(0, 5, len(targets))}
    results = opened(tmp_path, columns, folds=folds, classes=names)
    drawing = [
        prediction_figures.confusion_matrix,
        prediction_figures.roc,
        prediction_figures.precision_recall,
        probability_figures.calibration,
        probability_figures.score_distribution,
    ]
    drawing += [probability_figures.sensitivity_specificity] * (classes == 2)
    for figure in drawing:
        drawn = figure(results, 0)
        assert len(drawn.to_json()) < 300_000, figure.__name__
        assert "<b>" not in str(drawn.to_plotly_json())
    cells = prediction_figures.confusion_matrix(results, 0).data[0]
    assert (cells.texttemplate is None) == (classes > 25)
    own = told_of(results)
    assert len(own["confused"]) == min(12, classes * (classes - 1))
    assert [sum(own["distribution"]["images"][name]) for name in names] == [len(targets) // classes] * classes


def test_a_confusion_matrix_of_two_classes_has_counts_and_shares(tmp_path: Path) -> None:
    score, targets = np.array([0.1, 0.2, 0.3, 0.9, 0.8]), np.array([0, 0, 0, 0, 1])
    results = opened(tmp_path, binary(score), folds={"target": targets})
    cells = prediction_figures.confusion_matrix(results, 0).data[0].text
    assert [list(row) for row in cells] == [["3<br>75%", "1<br>25%"], ["0<br>0%", "1<br>100%"]]


def test_sensitivity_falls_and_specificity_rises_with_the_threshold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 60)
    results = opened(tmp_path, binary(rng.random(60)), folds={"target": targets})
    lines = {
        line.name.partition(",")[0]: np.array(line.y)
        for line in probability_figures.sensitivity_specificity(results, 0).data
    }
    assert (np.diff(lines["sensitivity"]) <= 0).all()
    assert (np.diff(lines["specificity"]) >= 0).all()
    assert (lines["sensitivity"][0], lines["specificity"][0]) == (1, 0)
