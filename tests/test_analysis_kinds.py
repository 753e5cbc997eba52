"""The analysis room on real trials of the other kinds: several targets, masks, repeats; and what was left out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from analysis import Results, best_trials_table, summary, trials, write_report
from analysis.failing_images import CASES
from analysis.figures import learning_curves
from analysis.prediction_figures import roc
from analysis.predictions import Ranked, extremes, of_each_class
from analysis.results import SINCE
from analysis.trials import PARAMETERS
from analysis.words import configuration_words, folds_words, metric_words, params_of
from datasets.folds import Folds, leave_one_source_out
from tests.results_folder import Wanted, build, build_from, change
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
from trainables.metrics import OF_CLASSES

DROPPED = [{"path": f"memes/{i:03d}.png", "reason": f"contaminant: like memes/{i % 2}.png"} for i in range(50)]
FINDINGS = [
    {"check": "contaminants", "severity": "error", "title": "one image under 8 labels", "images": ["a", "b"],
     "remedy": "--drop contaminants"},
    {"check": "tiny", "severity": "note", "title": "a class of 9 images", "images": 1234, "remedy": "collect more"},
    {"check": "blank", "severity": "warning", "title": "nothing to see", "remedy": "look at them",
     "images": [f"dark/{i}.png" for i in range(5678)], "numbers": {"std": [0.0] * 5678}},
    {"check": "imbalance", "severity": "note", "title": "classes differ", "images": [], "remedy": "balance"},
]  # fmt: skip


NEW_PARAMS = ("batch_norm", "balance", "oversample_to", "auxiliary_weight")


def trained(
    results: Path, dataset, metric: str, config: TrialConfig, k=3, repeats=1, folds: Folds | None = None, **data
) -> Path:
    folds = folds or small_folds(dataset, k, repeats)
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
    assert told["failures"]["kind"] == "segmentation"
    assert sum(told["failures"]["distribution"]["images"]) == 2 * 36, "each image once per repeat"
    page, markdown = shown(masks)
    for text in (page, markdown):
        assert "Dice" in text
        assert "IoU" in text
        assert "onfusion" not in text
        assert "ROC" not in text
        assert "2 × 2 folds" in text
        assert "best Dice that these phantoms allow" in text
        assert "masks squeezed to the network's squares of 16 px, not at their own size" in text
    assert "every image once per repeat" in page


def test_the_best_and_worst_images_are_named_with_their_mean_over_repeats(masks: Path) -> None:
    results, told = Results.open(masks), summary(masks)
    dice = results.predictions(0, ["dice"])[:, 0].reshape(2, 36).mean(0)
    ids = results.folds["image_id"].to_list()
    page, markdown = shown(masks)
    for name, expected in (("best", -np.sort(-dice)[:CASES]), ("worst", np.sort(dice)[:CASES])):
        cases = told["failures"][name]
        assert [image["dice"] for image in cases] == pytest.approx(expected.tolist())
        assert all(image["dice"] == pytest.approx(dice[ids.index(image["image_id"])]) for image in cases)
        assert f"The {name} images" in page
        for image in cases[:6]:  # what a page has room for
            row = f"| {image['image_id']} | {image['dice']:.3f} | {image['iou']:.3f} |"
            assert row in markdown
            assert row.replace("|", "").replace(" ", "") in page.replace("\n", "")


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
    assert np.sum(told["failures"]["targets"][0]["confusion"]["counts"]) == 3 * 48
    areas = Ranked.of(results.targets, probabilities, results.validated_in).roc.areas
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
    assert np.sum(told["failures"]["targets"][0]["confusion"]["counts"]) == 48
    for text in shown(several):
        assert "Each target" in text
        assert "trained along, not scored" in text
        for metrics in of.values():
            told_of = [metrics[name] for name in ("auroc", "accuracy", "balanced_accuracy", "f1", "log_loss")]
            assert all(f"{one['mean']:.3f} ± {one['std']:.3f}" in text for one in told_of)
    assert set(of["shade"]) == set(OF_CLASSES), "the summary has them all"


def test_a_target_without_auroc_shifts_no_column(tmp_path: Path) -> None:
    """A fold lacks a class of one that is trained along: its AUROC is not known, and its accuracy is."""
    dataset = small_multitask()
    rare = dataset.table.with_columns(target_shade=pl.Series([0] * 47 + [1]))
    folder = trained(tmp_path, dataclasses.replace(dataset, table=rare), "auroc", small_config())
    of = {target["name"]: target["metrics"] for target in summary(folder)["targets"]}
    assert list(of["height"]) == list(of["side"]) == list(of["shade"])
    assert of["shade"]["auroc"] == {"mean": None, "std": None}
    assert of["height"]["auroc"]["mean"] is not None
    accuracy = f"{of['shade']['accuracy']['mean']:.3f} ± {of['shade']['accuracy']['std']:.3f}"
    page, markdown = shown(folder)
    (row,) = [line for line in markdown.splitlines() if line.startswith("| shade (trained along")]
    (head,) = [line for line in markdown.splitlines() if line.startswith("| target")]
    cells = dict(zip(head.split("|"), row.split("|"), strict=True))
    assert (cells[" AUROC "], cells[" accuracy "]) == (" no score ", f" {accuracy} ")
    assert f"(trained along, not scored)no score{accuracy}" in page.replace("\n", "")


def test_where_a_fold_is_a_source_each_is_named_with_its_score(tmp_path: Path) -> None:
    dataset = small_dataset()
    sources = ["Uppsala <1>"] * 12 + ["Lund"] * 20 + ["Graz"] * 16
    dataset = dataclasses.replace(dataset, table=dataset.table.with_columns(source=pl.Series(sources)))
    folds = leave_one_source_out(dataset)
    folder = trained(tmp_path, dataset, "auroc", small_config(), folds=folds, leave_source_out=True)
    told = summary(folder)
    assert [(row["source"], row["images"]) for row in told["sources"]] == [
        ("Graz", 16), ("Lund", 20), ("Uppsala <1>", 12)
    ]  # fmt: skip
    assert [row["score"] for row in told["sources"]] == told["best"]["fold_scores"]
    page, markdown = shown(folder)
    for text, name in ((page, "Uppsala <1>"), (markdown, "Uppsala &lt;1>")):
        assert "Each source" in text
        assert name in text
        assert all(f"{score:.3f}" in text for score in told["best"]["fold_scores"])
    results = Results.open(folder)
    for figure in (learning_curves(results, 0, 1), roc(results, 0)):
        assert all(name in figure.to_json() for name in ("Graz", "Lund"))


def test_random_folds_have_no_sources_to_name(several: Path) -> None:
    assert summary(several)["sources"] == []
    assert Results.open(several).fold_names == ["fold 0", "fold 1", "fold 2"]
    assert all("Each source" not in text for text in shown(several))


@pytest.mark.parametrize(
    ("balance", "words"),
    [
        ("none", "training"),
        ("class_weights", "training (rare classes weigh more)"),
        ("sample_weights", "training (images of rare classes weigh more)"),
        ("oversample", "training (with the repeats of rare classes)"),
        ("augmented_oversample", "training (with the augmented repeats of rare classes)"),
    ],
)
def test_a_training_loss_that_is_balanced_says_so(tmp_path: Path, balance: str, words: str) -> None:
    folder = trained(tmp_path, small_dataset(), "auroc", small_config(balance=balance, flip=True))
    names = [trace.name for trace in learning_curves(Results.open(folder), 0, 1).data]
    assert f"mean over folds, {words}" in names


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"label_smoothing": 0.1}, "training (against smoothed labels)"),
        ({"mixup": 0.2, "cutmix": 1.0}, "training (of mixed images)"),
        ({"ema": 0.99}, "training (of weights before they are averaged)"),
        ({"label_smoothing": 0.0, "mixup": 0.0, "ema": 0.0}, "training"),
    ],
)
def test_a_training_loss_that_is_not_the_one_validated_says_why(tmp_path: Path, changed: dict, words: str) -> None:
    folder = build(tmp_path, Wanted(trials=1, published=0, failed=0, max_epochs=1))
    params = json.loads((folder / "trials/0000/reports.jsonl").read_text().splitlines()[-1])["params"]
    change(folder, 0, params=params | changed)
    names = [trace.name for trace in learning_curves(Results.open(folder), 0, 1).data]
    assert f"mean over folds, {words}" in names


def test_of_several_targets_the_training_loss_says_both(tmp_path: Path) -> None:
    folder = trained(tmp_path, small_multitask(), "auroc", small_config(balance="class_weights"))
    names = [trace.name for trace in learning_curves(Results.open(folder), 0, 1).data]
    assert "mean over folds, training (all targets, also those not scored; rare classes weigh more)" in names


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
        assert "5,678" in text
        assert "dark/2.png, …" in text
        assert "dark/3.png" not in text, "a finding may concern every image"
    findings = summary(several)["data"]["findings"]
    assert [(found["images"], found["named"]) for found in findings] == [
        (2, ["a", "b"]), (1234, []), (5678, ["dark/0.png", "dark/1.png", "dark/2.png"]), (0, [])
    ]  # fmt: skip
    assert len(json.dumps(findings)) < 1000
    assert "Images dropped: 50 (50 contaminant)" in page
    assert "9,876 further images are the test split" in page


def test_results_from_before_the_other_kinds_still_open(tmp_path: Path) -> None:
    """What the first release wrote: `build`, without the parameters that came later."""
    folder = build(tmp_path, Wanted(trials=2, failed=0))
    for file in folder.glob("trials/*/reports.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line["params"] = {name: value for name, value in line["params"].items() if name not in NEW_PARAMS}
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert not set(NEW_PARAMS) & lines[-1]["params"].keys()
    assert not SINCE.keys() & json.loads((folder / "experiment.json").read_text())["data"].keys()
    table = trials(folder)
    assert all(table[f"param.{name}"].is_null().all() for name in NEW_PARAMS)
    assert "balance" not in configuration_words(params_of(table.row(0, named=True)), NEW_PARAMS)
    assert "mean over folds, training" in [trace.name for trace in learning_curves(Results.open(folder), 0, 1).data]
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
    assert metric_words("study_cohen_kappa") == "Cohen's kappa over studies"


def test_of_equal_images_the_first_by_name() -> None:
    scores = {"dice": np.array([0.5, 0.1, 0.1, 0.9])}
    found = extremes(pl.Series(["d", "c", "b", "a"]), scores, 2)
    assert found["worst"] == [{"image_id": "b", "dice": 0.1}, {"image_id": "c", "dice": 0.1}]
    assert found["best"] == [{"image_id": "a", "dice": 0.9}, {"image_id": "d", "dice": 0.5}]


# --- classes and studies


@settings(max_examples=15)  # scikit-learn takes its time
@given(st.integers(2, 5), st.integers(0, 10**6))
def test_the_scores_of_each_class_are_those_of_scikit_learn_over_the_folds_that_hold_it(classes, seed) -> None:
    rng = np.random.default_rng(seed)
    targets, fold = rng.integers(0, classes, 40), np.arange(40) % 3
    probabilities = rng.random((40, classes))
    found = of_each_class(targets, probabilities, fold)
    predicted = probabilities.argmax(1)
    per_fold = [
        sk.precision_recall_fscore_support(
            targets[fold == f], predicted[fold == f], labels=range(classes), zero_division=0
        )
        for f in range(3)
    ]
    for c in range(classes):
        for index, name in enumerate(("precision", "recall", "f1")):
            values = [one[index][c] for one in per_fold if one[3][c] > 0]
            mean, std = found[c][name]
            assert mean == (pytest.approx(np.mean(values)) if values else None)
            assert std == (pytest.approx(np.std(values, ddof=1)) if len(values) > 1 else None)


def test_each_class_has_its_images_once_whatever_the_repeats(tmp_path: Path) -> None:
    folder = trained(tmp_path, small_dataset(classes=3), "accuracy", small_config(), k=2, repeats=2)
    rows = summary(folder)["failures"]["targets"][0]["of_each_class"]
    assert [(row["name"], row["images"]) for row in rows] == [("a", 16), ("b", 16), ("c", 16)]
    page, markdown = shown(folder)
    for row in rows:
        cells = [f"{row[name]['mean']:.3f} ± {row[name]['std']:.3f}" for name in ("precision", "recall", "f1")]
        assert f"| {row['name']} | 16 | {' | '.join(cells)} |" in markdown
        assert f"{row['name']}16{''.join(cells)}" in page.replace("\n", "")


def test_studies_are_scored_beside_their_images(tmp_path: Path) -> None:
    dataset = small_dataset()
    pairs = [f"study{i // 4}{i % 2}" for i in range(48)]  # two images of one class
    table = dataset.table.with_columns(study=pl.Series(pairs), group=pl.Series(pairs))
    folder = trained(tmp_path, dataclasses.replace(dataset, table=table), "study_auroc", small_config())
    told = summary(folder)
    of = {row["metric"]: row for row in told["studies"]}
    assert set(of) == set(OF_CLASSES)
    assert of["auroc"]["studies"]["mean"] == told["best"]["score"]
    assert of["accuracy"]["images"] == told["best"]["metrics"]["accuracy"]
    assert trials(folder)["study_accuracy"][0] == of["accuracy"]["studies"]["mean"]
    for text in shown(folder):
        assert "AUROC over studies" in text
        assert f"{of['log_loss']['studies']['mean']:.3f} ± {of['log_loss']['studies']['std']:.3f}" in text


def test_where_no_studies_are_known_nothing_is_said_of_them(several: Path) -> None:
    assert summary(several)["studies"] == []
    assert all("tudies" not in text for text in shown(several))


# --- words of configurations


def test_the_table_has_a_column_of_every_parameter() -> None:
    assert set(PARAMETERS) >= {field.name for field in dataclasses.fields(TrialConfig)}


def test_a_parameter_that_is_switched_off_has_no_word() -> None:
    plain = TrialConfig(model="m", image_size_px=8, learning_rate=1e-3, batch_size=4).params()
    assert configuration_words(plain, list(plain)) == (
        "m, 8 px, lr 1e-3, batch 4, adam, constant rate, patience 30, no dense layer, all layers"
    )


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"optimizer": "sgd", "momentum": 0.5}, "sgd, momentum 0.5"),
        ({"schedule": "step", "gamma": 0.2, "decay_epochs": 20}, "step rate, rate × 0.2, every 20 epochs"),
        ({"accumulate": 2}, "in 2 parts"),
        (
            {"head_epochs": 5, "head_learning_rate": 1e-4, "head_batch_size": 128},
            "head alone for 5 epochs, at lr 1e-4, with batch 128",
        ),
        ({"body_rate": 0.1}, "rate × 0.1 in the body"),
        ({"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0}, "label smoothing 0.1, mixup 0.2, cutmix 1"),
        ({"ema": 0.999}, "averaged weights 0.999"),
        ({"width": 32, "depth": 3, "body_dropout": 0.4}, "width 32, depth 3, dropout 0.4 in the body"),
        ({"activation": "sigmoid", "pool_first": True}, "sigmoid in the body, pool first"),
        ({"defaults": "keras"}, "Keras' defaults"),
        ({"vertical_flip": True, "brightness": 0.2, "noise": 0.05}, "vertical flip, brightness ±0.2, noise to 0.05"),
        ({"intensity_percentile": 5.0}, "stretch from 5 %"),
        ({"views": 3}, "3 augmented views"),
        ({"views": 0}, "every batch augmented anew"),
    ],
)
def test_a_parameter_that_is_switched_on_has_its_word(chosen, words) -> None:
    params = TrialConfig(**{"model": "m", "image_size_px": 8, "learning_rate": 1e-3, "batch_size": 4} | chosen).params()
    assert configuration_words(params, list(chosen)) == words


def test_what_does_nothing_beside_another_choice_has_no_word() -> None:
    idle = {"momentum": 0.5, "gamma": 0.2, "decay_epochs": 20, "head_learning_rate": 1e-4, "head_batch_size": 128}
    params = small_config(**idle).params()
    assert configuration_words(params, list(idle)) == ""
    assert configuration_words(params | {"schedule": "plateau"}, list(idle)) == "rate × 0.2, every 20 epochs"


def test_what_is_the_same_in_all_trials_leaves_out_what_is_switched_off(several: Path) -> None:
    equal = summary(several)["same_in_all_trials"]
    assert not {"ema", "mixup", "momentum", "gamma", "width", "flip", "balance", "last_dropout"} & set(equal)
    assert equal["learning_rate"] == 3e-3
    assert equal["unfrozen_layers"] is None, "all layers is a word"
