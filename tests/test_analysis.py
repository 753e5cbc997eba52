"""The analysis room reads results folders: trials, curves, predictions, importances."""

import json
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import Results, best, ranked, summary, trials, write_report
from analysis.importance import importances
from analysis.predictions import Ranked
from analysis.results import Unavailable, reports
from analysis.trials import METRICS, PARAMETERS, SCHEMA, mean_std
from tests.results_folder import Wanted, build, change, scores, write_checkpoint

ALL_COLUMNS = [
    *SCHEMA,
    *(column for metric in METRICS for column in (metric, f"{metric}_std")),
    *(f"param.{name}" for name in PARAMETERS),
]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("results"))


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(built, tmp_path / "results" / built.name))


def reports_file(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04d}" / "reports.jsonl"


def reports_of(folder: Path, number: int) -> list[dict]:
    return [json.loads(line) for line in reports_file(folder, number).read_text().splitlines()]


# --- the table


def test_the_table_has_the_documented_columns_and_types(built: Path) -> None:
    table = trials(built)
    assert table.columns == ALL_COLUMNS
    assert table["number"].to_list() == list(range(8))
    assert {name: table.schema[name] for name in SCHEMA} == SCHEMA
    assert {name: table.schema[f"param.{name}"] for name in PARAMETERS} == PARAMETERS
    first = table.row(0, named=True)
    last = reports_of(built, 0)[-1]
    assert (first["published"], first["state"]) == ("svendsen2025-model1", "finished")
    assert first["score"] == last["auroc"]
    assert first["fold_scores"] == last["folds"]["auroc"]
    assert first["accuracy"] == pytest.approx(np.mean(last["folds"]["accuracy"]))
    assert first["accuracy_std"] == pytest.approx(np.std(last["folds"]["accuracy"], ddof=1))
    assert first["param.dense_widths"] == last["params"]["dense_widths"]


def test_states_are_told_apart(folder: Path) -> None:
    change(folder, 0, finished=False, done=False)
    states = trials(folder)["state"].to_list()
    assert states[0] == "running"
    assert states[-1] == "failed"
    assert {"finished", "stopped"} < set(states)


def test_tables_of_different_experiments_stack(built: Path, tmp_path: Path) -> None:
    empty = trials(build(tmp_path, Wanted(name="empty", trials=0, published=0, failed=0)))
    assert pl.concat([trials(built), empty]).height == 8  # identical schemas: pl.concat checks them
    change(folder := build(tmp_path, Wanted(name="more", trials=2, failed=0)), 1, params={"model": "x", "new": [1, 2]})
    stacked = pl.concat([trials(built), trials(folder)], how="diagonal")
    assert stacked["param.new"].to_list()[-2:] == [None, "[1, 2]"]


def test_a_torn_last_line_is_ignored(folder: Path) -> None:
    before = trials(folder)
    with reports_file(folder, 0).open("a") as file:
        file.write('{"number": 0, "epoch": 99, "curve": [{"epoch": 99, "fold": 0}')
    assert trials(folder).equals(before)
    assert Results.open(folder).curves(0)["epoch"].max() == 9


def test_a_report_written_behind_a_torn_line_is_read(folder: Path) -> None:
    *before, last = reports_file(folder, 0).read_text().splitlines()
    reports_file(folder, 0).write_text("\n".join([*before, last[: len(last) // 2] + last]) + "\n")
    assert trials(folder)["epochs"][0] == 9


def test_reports_without_curves_are_the_same_but_for_these_wherever_a_line_is_torn(tmp_path: Path) -> None:
    point = {"epoch": 1, "fold": 0, "auroc": 0.5}
    first = {"epoch": 1, "folds": {"auroc": [0.5]}, "seconds": 1.5, "curve": [point, point | {"fold": 1}], "number": 0}
    second = {"epoch": 3, "params": {"dense_widths": [8], "note": 'a "curve": [] of }'}, "curve": [point], "number": 0}
    third = {"error": "IndexError: [1]}", "number": 0}
    whole, after = json.dumps(first), [second, third]
    file = tmp_path / "reports.jsonl"
    for length in range(len(whole) + 1):
        for behind in after:
            file.write_text(f"{whole}\n{whole[:length]}{json.dumps(behind)}\n{whole[:length]}")
            with_curves = reports(file)
            assert behind in with_curves or length == len(whole)
            bare = [report | {"curve": []} if "curve" in report else report for report in with_curves]
            assert reports(file, curves=False) == bare, length


def test_what_a_trial_had_spent_at_each_report_is_in_the_table(folder: Path) -> None:
    change(folder, 0, parts=2, notes=["trained whole"], energy_joules=81.5)
    row = trials(folder).row(0, named=True)
    assert (row["report_epochs"], row["report_seconds"]) == ([1, 3, 9], [11.5, 34.5, 103.5])
    assert (row["parts"], row["notes"], row["energy_joules"]) == (2, ["trained whole"], 81.5)
    with reports_file(folder, 0).open("a") as file:  # it went on from an older checkpoint
        file.write(json.dumps(reports_of(folder, 0)[1] | {"seconds": 40.0}) + "\n")
    row = trials(folder).row(0, named=True)
    assert (row["report_epochs"], row["report_seconds"], row["seconds"]) == ([1, 3], [11.5, 40.0], 40.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_mean_and_standard_deviation_are_those_of_a_sample(values: list[float]) -> None:
    mean, std = mean_std(values)
    assert mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    assert std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert mean_std([*values, math.nan]) == (None, None)
    assert mean_std(values[:1]) == (values[0], None)


def test_of_an_epoch_reported_twice_the_last_wins(folder: Path) -> None:
    again = reports_of(folder, 0)[-1]
    again["curve"] = [point | {"auroc": 0.123} for point in again["curve"] if point["epoch"] == 9]
    again["auroc"] = 0.456
    with reports_file(folder, 0).open("a") as file:
        file.write(json.dumps(again) + "\n")
    curves = Results.open(folder).curves(0)
    assert curves.height == 9 * 3
    assert curves.filter(pl.col("epoch") == 9)["auroc"].to_list() == [0.123] * 3
    assert trials(folder)["score"][0] == 0.456


def test_curves_of_epochs_that_a_resume_went_back_before_are_dropped(folder: Path) -> None:
    with reports_file(folder, 0).open("a") as file:
        file.write(json.dumps(reports_of(folder, 0)[1]) + "\n")
    assert Results.open(folder).curves(0)["epoch"].max() == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_trial_without_a_finite_score_counts_as_failed(folder: Path, bad: float | None) -> None:
    change(folder, 0, auroc=bad, auroc_std=bad, folds={"auroc": [bad, 0.9, 0.8], "accuracy": [bad] * 3})
    row = trials(folder).row(0, named=True)
    assert row["state"] == "failed"
    assert row["error"] == "no finite score"
    assert row["score"] is None
    assert row["seconds"] > 0
    assert 0 not in ranked(trials(folder), "max")["number"].to_list()
    write_report(folder)
    change(folder, 0, diverged=True)
    assert trials(folder)["error"][0] == "no finite score: the training diverged"


def test_an_error_after_reports_keeps_what_was_spent(folder: Path) -> None:
    with reports_file(folder, 0).open("a") as file:
        file.write(json.dumps({"number": 0, "published": None, "params": {}, "error": "OOM", "epoch": 0}) + "\n")
    row = trials(folder).row(0, named=True)
    assert (row["state"], row["error"], row["epochs"], row["seconds"]) == ("failed", "OOM", 9, 11.5 * 9)
    assert row["score"] is None
    assert Results.open(folder).curves(0)["epoch"].max() == 9


def test_a_trial_that_has_not_reported_is_running(folder: Path) -> None:
    (folder / "trials" / "0011").mkdir()
    row = trials(folder).row(-1, named=True)
    assert (row["number"], row["state"], row["score"]) == (11, "running", None)


def test_ranking_follows_the_mode() -> None:
    table = pl.DataFrame({"number": [0, 1, 2, 3], "score": [0.5, 0.2, None, 0.2]})
    assert ranked(table, "min")["number"].to_list() == [1, 3, 0]
    assert ranked(table, "max")["number"].to_list() == [0, 1, 3]
    winner = best(table, "min")
    assert winner is not None
    assert winner["number"] == 1
    assert best(table.head(0), "max") is None


# --- predictions


def test_out_of_fold_predictions_give_the_reported_scores(built: Path) -> None:
    results = Results.open(built)
    probabilities = results.out_of_fold(0)
    per_fold = [
        scores(results.targets[inside], probabilities[inside])
        for inside in (results.validated_in == fold for fold in range(3))
    ]
    reported = reports_of(built, 0)[-1]["folds"]
    assert [one["auroc"] for one in per_fold] == pytest.approx(reported["auroc"], abs=1e-6)
    areas = Ranked.of(results.targets, probabilities, results.validated_in).roc.areas
    assert areas == pytest.approx(reported["auroc"], abs=1e-6)


def test_areas_of_several_classes_are_one_against_the_rest(tmp_path: Path) -> None:
    folder = build(tmp_path, Wanted(classes=("a", "b", "c"), trials=1, published=0, failed=0))
    results = Results.open(folder)
    areas = Ranked.of(results.targets, results.out_of_fold(0), results.validated_in).roc.areas
    assert areas == pytest.approx(reports_of(folder, 0)[-1]["folds"]["auroc"], abs=1e-6)


def test_a_cut_off_checkpoint_falls_back_to_the_one_before(folder: Path) -> None:
    before = pl.read_parquet(folder / "trials/0000/checkpoint_000003/predictions.parquet")
    newest = folder / "trials/0000/checkpoint_000009/predictions.parquet"
    newest.write_bytes(newest.read_bytes()[:-10])
    (folder / "trials/0000/checkpoint_000010").mkdir()  # and one that was only begun
    assert np.array_equal(Results.open(folder).out_of_fold(0), before.to_numpy())


def test_without_a_whole_checkpoint_the_report_says_so(folder: Path) -> None:
    winner = summary(folder)["best"]["number"]
    for file in (folder / "trials" / f"{winner:04d}").glob("checkpoint_*/checkpoint.json"):
        file.unlink()
    with pytest.raises(Unavailable, match="no whole checkpoint"):
        Results.open(folder).out_of_fold(winner)
    assert f"Trial {winner} has no whole checkpoint" in write_report(folder).read_text()


def test_columns_are_taken_by_class_name(folder: Path) -> None:
    expected = Results.open(folder).out_of_fold(0)
    write_checkpoint(folder / "trials/0000", 12, 9, {"COVID": expected[:, 1], "NORMAL": expected[:, 0]})
    assert np.allclose(Results.open(folder).out_of_fold(0), expected)


# --- what mattered


def test_the_parameter_that_makes_the_score_matters_most(tmp_path: Path) -> None:
    folder = build(tmp_path, Wanted(trials=24, failed=0, max_epochs=3))
    shares = importances(Results.open(folder), trials(folder)).share
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)


def test_importances_count_stopped_trials(folder: Path) -> None:
    table = trials(folder)
    assert (table["state"] == "finished").sum() < summary(folder)["importances"]["trials"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "study.db").unlink(), "no study.db"),
        (lambda folder: (folder / "study.db").write_bytes(b""), "study.db"),
        (lambda folder: (folder / "study.db").write_bytes(b"not a database" * 99), "cannot be read"),
        (lambda folder: [change(folder, number, auroc=0.5) for number in range(7)], "same score"),
        (lambda folder: [change(folder, number, error="x") for number in range(4)], "at least 4"),
    ],
)
def test_importances_that_cannot_be_told_are_a_note(folder: Path, spoil, reason: str) -> None:
    spoil(folder)
    note = summary(folder)["importances"]["note"]
    assert reason in note
    assert note in write_report(folder).with_suffix(".md").read_text()
