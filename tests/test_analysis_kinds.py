"""The analysis room on real trials of the other kinds: several targets, masks, repeats; and what was left out."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis import Results, best_trials_table, summary, trials, write_report
from analysis.predictions import roc_curves, worst
from analysis.words import folds_words, metric_words
from tests.results_folder import Wanted, build, build_from
from tests.small import (
    small_config,
    small_dataset,
    small_folds,
    small_multitask,
    small_protocol,
    small_segmentation,
)
from tests.test_analysis_report import Loads
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep

DROPPED = [{"path": f"memes/{i:03d}.png", "reason": f"contaminant: like memes/{i % 2}.png"} for i in range(50)]
FINDINGS = [
    {"check": "contaminants", "severity": "error", "title": "one image under 8 labels", "images": ["a", "b"],
     "remedy": "--drop contaminants"},
    {"check": "tiny", "severity": "note", "title": "a class of 9 images", "images": 1234, "remedy": "collect more"},
]  # fmt: skip


def trained(results: Path, dataset, metric: str, config: TrialConfig, k=3, repeats=1, **data) -> Path:
    folds = small_folds(dataset, k, repeats)
    lockstep = Lockstep(config, dataset, folds, small_protocol(metric=metric, max_epochs=2))
    while not lockstep.finished:
        lockstep.advance()
    return build_from(results, lockstep, dataset, folds, metric, **data)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_config(model="encoder_decoder", dense_widths=(), batch_norm=True)
    return trained(tmp_path_factory.mktemp("results"), small_segmentation(), "dice", config, k=2, repeats=2)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"dropped": DROPPED, "findings": FINDINGS, "splits": {"development": 48, "test": 9876}}
    return trained(tmp_path_factory.mktemp("results"), small_multitask(), "auroc", small_config(), **data)


def shown(folder: Path) -> tuple[str, str]:
    page = write_report(folder)
    return Loads(page.read_text()).shown, page.with_suffix(".md").read_text()


def test_masks_have_their_dice_in_place_of_confusion_and_recall(masks: Path) -> None:
    told = summary(masks)
    json.dumps(told, allow_nan=False)
    assert set(told["predictions"]) == {"dice", "worst"}
    assert sum(told["predictions"]["dice"]["images"]) == 2 * 36, "each image once per repeat"
    page, markdown = shown(masks)
    for text in (page, markdown):
        assert "Dice" in text
        assert "IoU" in text
        assert "onfusion" not in text
        assert "ROC" not in text
        assert "2 × 2 folds" in text
        assert "best Dice that these phantoms allow" in text
    assert "Every image once per repeat" in page


def test_the_worst_images_are_named_with_their_mean_over_repeats(masks: Path) -> None:
    results, told = Results.open(masks), summary(masks)
    dice = results.predictions(0, ["dice"])[:, 0].reshape(2, 36).mean(0)
    lowest = told["predictions"]["worst"]
    assert len(lowest) == 5
    assert [image["dice"] for image in lowest] == pytest.approx(np.sort(dice)[:5])
    ids = results.folds["image_id"].to_list()
    assert all(image["dice"] == pytest.approx(dice[ids.index(image["image_id"])]) for image in lowest)
    page, markdown = shown(masks)
    assert all(image["image_id"] in page and image["image_id"] in markdown for image in lowest)


def test_the_table_of_a_trial_with_masks_has_its_scores_and_no_others(masks: Path) -> None:
    row = trials(masks).row(0, named=True)
    assert row["score"] == row["dice"]
    assert row["iou"] < row["dice"]
    assert row["auroc"] is None
    assert set(summary(masks)["best"]["metrics"]) == {"dice", "iou", "log_loss"}


def test_repeats_are_scored_over_all_their_folds(tmp_path: Path) -> None:
    folder = trained(tmp_path, small_dataset(), "auroc", small_config(), k=2, repeats=3)
    results, told = Results.open(folder), summary(folder)
    assert len(told["best"]["fold_scores"]) == 6
    probabilities = results.out_of_fold(0)
    assert len(probabilities) == len(results.targets) == 3 * 48
    assert np.sum(told["predictions"]["confusion"]) == 3 * 48
    _, areas = roc_curves(results.targets, probabilities, results.validated_in)
    assert areas == pytest.approx(told["best"]["fold_scores"])
    assert told["data"]["groups"] == 48
    assert "3 × 2 folds" in str(best_trials_table(trials(folder), results.experiment).caption)


def test_each_target_has_its_own_metrics_and_the_first_its_confusion(several: Path) -> None:
    told = summary(several)
    json.dumps(told, allow_nan=False)
    assert [(target["name"], target["scored"]) for target in told["targets"]] == [
        ("height", True), ("side", True), ("shade", False)
    ]  # fmt: skip
    of = {target["name"]: target["metrics"] for target in told["targets"]}
    mean = (of["height"]["auroc"]["mean"] + of["side"]["auroc"]["mean"]) / 2
    assert told["best"]["score"] == pytest.approx(mean)
    reported = json.loads((several / "trials/0000/reports.jsonl").read_text())["folds"]
    assert of["shade"]["f1"]["std"] == pytest.approx(np.std(reported["f1:shade"], ddof=1))
    assert trials(several)["auroc_std:side"][0] == of["side"]["auroc"]["std"]
    assert np.sum(told["predictions"]["confusion"]) == 48
    for text in shown(several):
        assert "Each target" in text
        assert "trained along, not scored" in text
        for metrics in of.values():
            assert all(f"{one['mean']:.3f} ± {one['std']:.3f}" in text for one in metrics.values())


def test_what_was_left_out_and_found_is_listed_with_its_count(several: Path) -> None:
    assert summary(several)["data"]["dropped_for"] == {"contaminant": 50}
    page, markdown = shown(several)
    for text in (page, markdown):
        assert "Left out" in text
        assert "memes/000.png" in text
        assert "memes/049.png" not in text, "long lists are shortened"
        assert "30 more, in experiment.json" in text
        assert "the file ends too early" in text  # skipped
        assert "one image under 8 labels" in text
        assert "1,234" in text
        assert "--drop contaminants" in text
    assert "Images dropped: 50 (50 contaminant)" in page
    assert "9,876 further images are the test split" in page


def test_results_from_before_the_other_kinds_still_open(tmp_path: Path) -> None:
    """`build` writes what the first release wrote."""
    folder = build(tmp_path, Wanted(trials=2, failed=0))
    data = Results.open(folder).experiment["data"]
    assert (data["repeats"], data["further"], data["dropped"]) == (1, [], [])
    assert folds_words(Results.open(folder).experiment) == "3 folds"
    page, _ = shown(folder)
    assert "Each target" not in page
    assert "Left out" in page
    assert "Images dropped" not in page
    assert "What the audit found" not in page


def test_words_of_folds_and_metrics() -> None:
    data = {"repeats": 1, "leave_source_out": True}
    assert folds_words({"folds": 4, "data": data}) == "4 folds, one per source"  # type: ignore[typeddict-item]
    assert metric_words("balanced_accuracy:side") == "balanced accuracy of side"
    assert metric_words("iou") == "IoU"


def test_of_equally_bad_images_the_first_by_name() -> None:
    scores = {"dice": np.array([0.5, 0.1, 0.1, 0.9])}
    assert worst(pl.Series(["d", "c", "b", "a"]), scores, 2) == [
        {"image_id": "b", "dice": 0.1}, {"image_id": "c", "dice": 0.1}
    ]  # fmt: skip
