"""Several experiments beside each other. `python -m analysis a b`"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis import summary
from analysis.__main__ import app
from analysis.compare import compare
from analysis.terminal import comparison_tables
from datasets import InputError
from tests.results_folder import Wanted, build

WANTED = Wanted(name="first", trials=5, published=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first`; `second` with other trials on the same folds; `other` on other images; `loss` by another metric."""
    folder = tmp_path_factory.mktemp("results")
    build(folder, WANTED)
    build(folder, replace(WANTED, name="second", seed=1))
    other = Path(shutil.copytree(folder / "first", folder / "other"))
    record = json.loads((other / "experiment.json").read_text()) | {"name": "other", "demonstration": False}
    record["data"]["digest"] = "another"
    (other / "experiment.json").write_text(json.dumps(record))
    build(folder, replace(WANTED, name="loss", metric="log_loss", mode="min"))
    return folder


def test_each_experiment_stands_there_with_what_its_own_report_says(results: Path) -> None:
    compared = compare([results / "first", results / "other"])
    json.dumps(compared, allow_nan=False)
    assert compared["metric"] == "auroc"
    for row, name in zip(compared["experiments"], ("first", "other"), strict=True):
        told = summary(results / name)
        assert row["estimate"] == told["estimate"]
        assert row["best"]["configuration"] == told["best"]["configuration"]
        assert row["trials"]["total"] == 5
        assert row["seconds"] == told["budget"]["total"]["seconds"]


def test_the_same_folds_are_compared_image_by_image(results: Path) -> None:
    (pair,) = compare([results / "first", results / "second"])["paired"]
    estimates = [summary(results / name)["estimate"] for name in ("first", "second")]
    assert pair["difference"] == pytest.approx(estimates[0]["corrected"] - estimates[1]["corrected"])
    assert pair["low"] < pair["difference"] < pair["high"]
    (mirrored,) = compare([results / "second", results / "first"])["paired"]
    assert mirrored["difference"] == pytest.approx(-pair["difference"])
    assert mirrored["words"] == pair["words"], "who is better does not depend on who is named first"


def test_an_experiment_does_not_differ_from_itself(results: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(results / "first", tmp_path / "copy"))
    (pair,) = compare([results / "first", copy])["paired"]
    assert (pair["difference"], pair["low"], pair["high"], pair["distinguishable"]) == (0, 0, 0, False)


@pytest.mark.parametrize(("changed", "says"), [("digest", "other images"), ("folds_digest", "in other folds")])
def test_what_is_not_paired_is_said_so(results: Path, tmp_path: Path, changed: str, says: str) -> None:
    copy = Path(shutil.copytree(results / "second", tmp_path / "copy"))
    record = json.loads((copy / "experiment.json").read_text())
    (record if changed in record else record["data"])[changed] = "another"
    (copy / "experiment.json").write_text(json.dumps(record))
    compared = compare([results / "first", copy])
    (pair,) = compared["paired"]
    assert says in pair["note"]
    assert any("other images" in caution for caution in compared["cautions"]) is (changed == "digest")


def test_different_scores_need_one_that_all_have(results: Path) -> None:
    folders = [results / "first", results / "loss"]
    with pytest.raises(InputError, match=r"first by auroc, loss by log_loss.*--metric"):
        compare(folders)
    with pytest.raises(InputError, match="'acuracy' is no score; did you mean 'accuracy'"):
        compare(folders, "acuracy")
    with pytest.raises(InputError, match="no trial of first has that score"):
        compare(folders, "dice")
    compared = compare(folders, "accuracy")
    assert [row["searched_by"] for row in compared["experiments"]] == ["auroc", "log_loss"]
    for row, folder in zip(compared["experiments"], folders, strict=True):
        lines = (folder / f"trials/{row['best']['number']:04d}/reports.jsonl").read_text().splitlines()
        assert row["best"]["score"] == pytest.approx(np.mean(json.loads(lines[-1])["folds"]["accuracy"]))
        assert row["estimate"]["naive"] == pytest.approx(row["best"]["score"])
        assert row["estimate"]["metric"] == "accuracy"
        assert row["estimate"]["low"] < row["estimate"]["corrected"] < row["estimate"]["high"]


def test_an_experiment_without_a_score_has_its_row(results: Path, tmp_path: Path) -> None:
    failed = build(tmp_path, replace(WANTED, name="failed", trials=2, failed=2, published=0))
    compared = compare([results / "first", failed])
    row = compared["experiments"][1]
    assert row["best"] is None
    assert "note" in row["estimate"]
    assert "note" in compared["paired"][0]
    with Console(width=80).capture():
        for table in comparison_tables(compared):
            Console(width=80).print(table)


def test_the_command_prints_and_writes_a_page_with_every_name_escaped(results: Path, tmp_path: Path) -> None:
    for name in ("first", "other"):
        shutil.copytree(results / name, tmp_path / name)
    record = json.loads((tmp_path / "first/experiment.json").read_text())
    evil = "<script>alert(1)</script>"
    (tmp_path / "first/experiment.json").write_text(json.dumps(record | {"title": evil}))
    done = CliRunner().invoke(app, ["first", "other", "--results", str(tmp_path)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    estimate = summary(tmp_path / "first")["estimate"]
    page = (tmp_path / "comparison.html").read_text()
    for text in (done.stdout, page):
        assert f"{estimate['corrected']:.3f}" in text
        assert f"{estimate['low']:.3f} to {estimate['high']:.3f}" in text
        assert "DEMONSTRATION DATA" in text
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_json_is_the_comparison_and_nothing_is_written(results: Path) -> None:
    done = CliRunner().invoke(app, ["first", "second", "--results", str(results), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(compare([results / "first", results / "second"])))
    assert not (results / "comparison.html").exists()


def test_figures_of_several_experiments_are_refused(results: Path) -> None:
    done = CliRunner().invoke(app, ["first", "second", "--results", str(results), "--figures", "svg"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--figures is of one experiment" in done.stderr
