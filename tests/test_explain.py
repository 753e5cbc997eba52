"""`best/`: what the winner's out-of-fold networks look at, in words, figures and pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from datasets import InputError
from search import explain as explain_module
from search.case_pictures import HEAT, PREDICTION, TRUTH, picture, with_heat, with_outlines
from search.cases import CASES
from search.explain import app, explain, explain_winner, explained
from search.reopened import Reopened
from tests.reopened_search import searched
from tests.small import small_dataset, small_multitask, small_segmentation


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Reopened:
    """Not trained well: there are wrong images."""
    return searched(tmp_path_factory.mktemp("results"), small_dataset(72), learning_rate=3e-4)


@pytest.fixture(scope="module")
def best(found: Reopened) -> Path:
    return explain(found, images=30)


def seen(folder: Path) -> dict:
    return json.loads((folder / "seen.json").read_text())


def test_the_surest_errors_stand_beside_right_images_each_predicted_by_the_network_that_has_not_seen_it(found, best):
    told = seen(best)
    predictions = dict(
        zip(found.dataset.table["image_id"], found.results.out_of_fold(0).round(6).tolist(), strict=False)
    )
    folds = dict(zip(found.dataset.table["image_id"], found.folds.validated_in[0].tolist(), strict=True))
    wrong, right = ([case for case in told["cases"] if case["kind"] == kind] for kind in ("wrong", "right"))
    assert 1 <= len(wrong) <= CASES
    assert len(right) == CASES
    for case in told["cases"]:
        of_image = predictions[case["image_id"]]
        assert case["probability"] == pytest.approx(max(of_image), abs=1e-5)
        assert case["predicted"] == "ab"[int(np.argmax(of_image))]
        assert (case["predicted"] == case["truth"]) == (case["kind"] == "right")
        assert case["fold"] == folds[case["image_id"]]
    confidence = [case["probability"] for case in wrong]
    assert confidence == sorted(confidence, reverse=True)
    assert {case["truth"] for case in right[:2]} == {"a", "b"}


def test_pictures_are_small_jpegs_and_those_of_before_are_removed(found, best):
    told = seen(best)
    named = {name for case in told["cases"] for name in (case["picture"], case["saliency"]) if name}
    assert {f"pictures/{file.name}" for file in (best / "pictures").iterdir()} == named
    for name in named:
        with Image.open(best / name) as opened:
            assert opened.format == "JPEG"
            assert 96 <= max(opened.size) <= 224
    (best / "pictures/0099-wrong-1.jpg").write_bytes(b"of another winner")
    explain(found, images=30)
    assert not (best / "pictures/0099-wrong-1.jpg").exists()


def test_attention_border_and_sample_are_told(best):
    told = seen(best)
    assert told["trial"] == 0
    assert told["layer"] == "body.9"
    assert [entry["class"] for entry in told["attention"]["by_class"]] == ["a", "b"]
    assert 0 < told["attention"]["uniform"] < 1
    border = told["border"]
    assert (border["metric"], border["chance"], border["images"]) == ("auroc", 0.5, 30)
    for name in ("score", "masked_border", "only_border", "only_corners"):
        assert 0 <= border[name]["mean"] <= 1
        assert border[name]["std"] >= 0
    assert any("30 of the 60 images" in note for note in told["notes"])


def test_the_test_split_is_scored_and_who_chose_after_having_seen_it_is_told(found, best):
    told = seen(best)
    predictions = pl.read_parquet(best / "test_predictions.parquet")
    assert predictions["image_id"].to_list() == found.test.table["image_id"].to_list()
    right = predictions.select("a", "b").to_numpy().argmax(1) == predictions["target"].to_numpy()
    assert told["test"]["images"] == 12
    assert told["test"]["metrics"]["accuracy"] == pytest.approx(right.mean())
    assert told["tested_before"] == []
    (best / "seen.json").write_text(json.dumps(told | {"trial": 7}))
    for _ in range(2):  # to explain it once more does not make it untouched
        assert seen(explain(found, images=30))["tested_before"] == [7]


def test_without_saying_how_many_it_looks_at_as_many_as_there_is_time_for(found, monkeypatch):
    monkeypatch.setattr(explain_module, "LOOKED_AT", (40, 20, 10))
    for seconds, images in ((1e9, 40), (0.0, 10)):
        monkeypatch.setattr(explain_module, "SECONDS", seconds)
        assert seen(explain(found))["border"]["images"] == images


def test_masks_are_outlined_and_not_tested_for_shortcuts(tmp_path):
    config = {"model": "encoder_decoder", "dense_widths": (), "batch_size": 8}
    found = searched(tmp_path, small_segmentation(24), test=6, metric="dice", **config)
    told = seen(explain(found))
    assert told["attention"] is told["border"] is told["layer"] is None
    assert told["warnings"] == []
    dice = found.results.predictions(0, ["dice"])[:, 0]
    worst, best = ([case["dice"] for case in told["cases"] if case["kind"] == kind] for kind in ("worst", "best"))
    assert worst == sorted(dice)[:CASES]
    assert best == sorted(dice, reverse=True)[:CASES]
    assert 0 <= told["test"]["metrics"]["dice"] <= 1


def test_of_several_targets_the_first_is_looked_at_and_a_perceptron_has_no_places(tmp_path):
    found = searched(tmp_path, small_multitask(48), test=0, model="mlp", learning_rate=1e-4)
    told = seen(explain(found))
    assert told["test"] is None
    assert told["layer"] is None
    assert told["attention"] is None
    assert told["border"]["score"]["mean"] is not None
    assert {case["saliency"] for case in told["cases"]} == {None}
    assert {case["truth"] for case in told["cases"]} <= {"a", "b"}
    notes = " ".join(told["notes"])
    assert "height, is looked at" in notes
    assert "mlp keeps no map" in notes


def test_two_images_of_a_patient_are_not_both_shown(found):
    table = found.dataset.table.with_columns(group=pl.lit("one"))
    alike = dataclasses.replace(found, dataset=dataclasses.replace(found.dataset, table=table))
    told = seen(explain(alike, images=30))
    assert [case["kind"] for case in told["cases"]].count("right") == 1


def test_a_failure_is_one_line_and_no_failure_of_the_search(found, monkeypatch):
    for error, words in ((RuntimeError("no memory\nlong"), "RuntimeError: no memory"), (KeyboardInterrupt(), "interr")):
        monkeypatch.setattr(explain_module, "explain", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        told = explain_winner(found, print)
        assert words in told
        assert "python -m search.explain binary" in told
        assert "\n" not in told


def test_of_which_trial_best_is_can_be_asked(found, best, tmp_path):
    explain(found, images=30)
    assert explained(found.results.folder) == 0
    assert explained(tmp_path) is None
    (tmp_path / "best").mkdir()
    (tmp_path / "best/seen.json").write_text("[]")
    assert explained(tmp_path) is None


def test_no_score_is_an_input_error(tmp_path):
    found = searched(tmp_path, small_dataset(24), test=0)
    (found.results.folder / "trials/0000/reports.jsonl").write_text("")
    with pytest.raises(InputError, match="no trial of binary has a score"):
        explain(found)


def test_the_command_says_what_is_wrong_in_one_line(found):
    results = str(found.results.folder.parent)
    for arguments, said in ((["nothing"], "no experiment"), (["binary", "--images", "0"], "must be at least 1")):
        outcome = CliRunner().invoke(app, [*arguments, "--results", results])
        assert outcome.exit_code == 2
        assert outcome.stderr.startswith("error: ")
        assert said in outcome.stderr


def test_heat_is_where_the_attention_is():
    heat = np.zeros((8, 8), np.float32)
    heat[:4, :4] = 2
    shown = np.asarray(with_heat(Image.new("RGB", (80, 40)), heat)).astype(int)
    assert abs(shown[5, 5] - 0.65 * np.array(HEAT[1])).max() <= 1
    assert shown[35, 75].tolist() == [0, 0, 0]
    plain = Image.new("RGB", (80, 40), (90, 90, 90))
    assert np.asarray(with_heat(plain, np.zeros((8, 8)))).tolist() == np.asarray(plain).tolist()


def test_outlines_are_of_truth_of_prediction_and_of_both():
    truth, predicted = np.zeros((2, 10, 10), np.uint8)
    truth[2:8, 2:8] = predicted[2:8, 2:5] = 1
    drawn = np.asarray(with_outlines(Image.new("RGB", (10, 10)), truth, predicted))
    assert tuple(drawn[4, 7]) == TRUTH
    assert tuple(drawn[4, 4]) == PREDICTION
    assert tuple(drawn[4, 2]) == (255, 255, 255)
    assert tuple(drawn[4, 6]) == tuple(drawn[0, 0]) == (0, 0, 0)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_keep_the_images_proportions(channels):
    shown = picture(small_dataset(4, size_px=16, channels=channels), 0)
    assert shown.mode == "RGB"
    assert shown.size == (96, 96)
