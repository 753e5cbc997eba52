"""What mattered in a search: parameters as they were suggested, their effects, the figures of both and the budget."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import polars as pl
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from analysis.axes import NOT_ASKED, scaled, ticks_words
from analysis.budget import budget, by_rung
from analysis.effect_figures import marginal_effects, pair_effects, parallel_coordinates
from analysis.effects import along, cells, effects, measured_effects
from analysis.experiment import Experiment
from analysis.figures import budget_by_rung, optimization_history
from analysis.importance import ASKED, importances
from analysis.results import Results, Unavailable
from analysis.searched import Parameter, suggested
from search.storage import StudyFile

RATE, WIDTH = FloatDistribution(1e-5, 1e-1, log=True), IntDistribution(8, 512, log=True)
POOL, LAYERS = CategoricalDistribution(["avg", "<b>max"]), IntDistribution(0, 2)
PARAMETERS = ["<i>rate", "layers", "pool", "width"]


def suggestions(count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of a space in which `width` is asked only where there is a layer."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(count):
        params = {"<i>rate": float(10 ** rng.uniform(-5, -1)), "pool": POOL.choices[number % 2], "layers": number % 3}
        of: dict[str, Any] = {"<i>rate": RATE, "pool": POOL, "layers": LAYERS}
        if params["layers"]:
            params["width"], of["width"] = int(rng.integers(8, 512)), WIDTH
        drawn.append((params, of))
    return drawn


def table_of(drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> pl.DataFrame:
    """Scores with their best at a rate of 1e-3; bad trials are stopped at epoch 1, the others train to epoch 9."""
    score = [0.9 - 0.1 * abs(np.log10(params["<i>rate"]) + 3) - 0.001 * (n % 7) for n, (params, _) in enumerate(drawn)]
    stopped = [value < 0.75 for value in score]
    return pl.DataFrame(
        {
            "number": range(len(drawn)),
            "state": ["stopped" if early else "finished" for early in stopped],
            "published": pl.Series([None] * len(drawn), dtype=pl.String),
            "score": score,
            "score_std": [0.01] * len(drawn),
            "seconds": [2.0 if early else 12.0 for early in stopped],
            "report_epochs": [[1] if early else [1, 3, 9] for early in stopped],
            "report_seconds": [[2.0] if early else [2.0, 5.0, 12.0] for early in stopped],
            "energy_joules": pl.Series([None] * len(drawn), dtype=pl.Float64),
        }
    )


def opened(folder: Path, drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> Results:
    """Results whose study holds these trials."""
    storage = StudyFile(folder / "study.db")
    with storage.together():
        study = optuna.create_study(storage=storage, study_name="small", direction="maximize")
        for params, of in drawn:
            study.add_trial(optuna.create_trial(params=params, distributions=of, value=0.0))
    storage.close()
    experiment = {"name": "small", "mode": "max", "metric": "auroc", "rungs": [1, 3], "max_epochs": 9}
    return Results(folder, cast(Experiment, experiment), pl.DataFrame())


@pytest.fixture(scope="module")
def drawn() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return suggestions(60)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> Results:
    return opened(tmp_path_factory.mktemp("small"), drawn)


@pytest.fixture(scope="module")
def table(drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> pl.DataFrame:
    return table_of(drawn)


# --- what was suggested, and what it mattered


def test_what_was_suggested_is_what_optuna_reads(results: Results, drawn) -> None:
    read = suggested(results)
    assert list(read) == list(range(60))
    assert [{name: of.to_external_repr(value) for name, (value, of) in read[n].items()} for n in read] == [
        pytest.approx(params) for params, _ in drawn
    ]
    assert [{name: of for name, (_, of) in read[n].items()} for n in read] == [of for _, of in drawn]


def test_importances_are_those_of_optuna(results: Results, table: pl.DataFrame, drawn) -> None:
    study = optuna.create_study(direction="maximize")
    for (params, of), score in zip(drawn, table["score"], strict=True):
        study.add_trial(optuna.create_trial(params=params, distributions=of, value=score))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator, params=PARAMETERS)
    found = importances(results, table)
    assert found.share == pytest.approx(expected)
    assert next(iter(found.share)) == "<i>rate"


def test_a_parameter_that_few_trials_were_asked_has_no_importance(tmp_path: Path, drawn) -> None:
    few = [
        (params | {"rare": n / 60}, of | {"rare": FloatDistribution(0, 1)}) if n < ASKED - 1 else (params, of)
        for n, (params, of) in enumerate(drawn[:30])
    ]
    shares = importances(opened(tmp_path, few), table_of(few)).share
    assert set(shares) == set(PARAMETERS)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_study_that_changes_is_read_anew(results: Results, table: pl.DataFrame, tmp_path: Path) -> None:
    shutil.copy(results.folder / "study.db", tmp_path)
    copy = Results(tmp_path, results.experiment, results.folds)
    assert len(suggested(copy)) == 60
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.add_trial(optuna.create_trial(params={"layers": 1}, distributions={"layers": LAYERS}, value=0.0))
    assert len(suggested(copy)) == 61


# --- effects


def test_effects_are_medians_and_quartiles_of_the_trials(results: Results, table: pl.DataFrame, drawn) -> None:
    told = effects(results, table)
    json.dumps(told, allow_nan=False)
    assert (told["scored"], told["stopped"]) == (60, table.filter(pl.col("state") == "stopped").height)
    by_name = {one["name"]: one for one in told["parameters"]}
    assert next(iter(by_name)) == "<i>rate"
    avg = [score for score, (params, _) in zip(table["score"], drawn, strict=True) if params["pool"] == "avg"]
    (first,) = [value for value in by_name["pool"]["values"] if value["value"] == "avg"]
    assert first["trials"] == len(avg)
    assert [first["low"], first["median"], first["high"]] == pytest.approx(np.quantile(avg, (0.25, 0.5, 0.75)))
    best = drawn[table["score"].arg_max()][0]
    assert float(by_name["<i>rate"]["best"]) == pytest.approx(best["<i>rate"], rel=0.06)
    assert by_name["width"]["asked"] == 40
    assert by_name["layers"]["best"] == str(best["layers"])


def test_the_running_median_finds_the_best_rate(results: Results, table: pl.DataFrame) -> None:
    rate = measured_effects(results, table).parameters[0]
    places = along(rate, table["score"].to_numpy())
    best, count, _ = max(places, key=lambda place: place[2][1])
    assert best == pytest.approx(-3, abs=0.4)
    assert count == 12
    assert [place for place, _, _ in places] == sorted(place for place, _, _ in places)


def test_cells_of_a_pair_hold_each_trial_that_was_asked_both_once(results: Results, table: pl.DataFrame) -> None:
    found = measured_effects(results, table)
    by_name = {one.name: one for one in found.parameters}
    both = cells(by_name["width"], by_name["layers"], found.score_T)
    assert sum(len(scores) for scores in both.values()) == 40
    assert {layers for _, layers in both} == {1, 2}
    assert sorted(score for scores in both.values() for score in scores) == sorted(
        table.filter(pl.col("number") % 3 > 0)["score"]
    )


def test_effects_that_cannot_be_told_say_why(results: Results, table: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="3 scored trials"):
        effects(results, table.head(3))
    with pytest.raises(Unavailable, match=r"no study\.db"):
        effects(Results(tmp_path, results.experiment, results.folds), table)


# --- figures


def points(figure: Any, state: str) -> int:
    return sum(len(trace.x) for trace in figure.data if trace.name == state)


def test_every_trial_is_a_point_of_each_effect_and_stopped_ones_are_marked(results: Results, table) -> None:
    figure = marginal_effects(results, table)
    asked = {"finished": 0, "stopped": 0}
    for number, state in table.select("number", "state").iter_rows():
        asked[state] += 4 if number % 3 else 3
    assert {state: points(figure, state) for state in asked} == asked
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if trace.name in asked}
    assert symbols["stopped"] != symbols["finished"]
    assert "&lt;i&gt;rate" in figure.to_json()
    assert "<i>" not in figure.to_json() + pair_effects(results, table).to_json()
    assert "<b>" not in parallel_coordinates(results, table).to_json()


def test_scores_far_below_the_others_do_not_squeeze_them(results: Results, table: pl.DataFrame) -> None:
    spoilt = table.with_columns(score=pl.when(pl.col("number") == 5).then(-50.0).otherwise("score"))
    figure = marginal_effects(results, spoilt)
    low, high = figure.layout.yaxis.range
    assert 0.4 < low < high < 1
    told = [trace for trace in figure.data if trace.customdata is not None and -50 in trace.customdata[:, 1]]
    assert told
    assert all(trace.y.min() >= low - 1e-6 for trace in told)


def test_figures_of_thousands_of_trials_stay_small_and_show_the_best(tmp_path: Path) -> None:
    few = suggestions(12)
    results = opened(tmp_path, few)
    file = tmp_path / "study.db"
    repeated = pl.concat([table_of(few).with_columns(number=pl.col("number") + 12 * n) for n in range(300)])
    assert len(optimization_history(results, repeated).to_json()) < 300_000
    many = suggestions(1500)
    table = table_of(many)
    file.unlink()
    rows = {
        number: {name: (of[name].to_internal_repr(value), of[name]) for name, value in params.items()}
        for number, (params, of) in enumerate(many)
    }
    file.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.searched.read", lambda *_: rows)
        patch.setattr("analysis.importance.read", lambda *_: rows)
        drawn = {figure: figure(results, table) for figure in (marginal_effects, pair_effects, parallel_coordinates)}
    assert all(len(figure.to_json()) < 300_000 for figure in drawn.values())
    best = table["score"].arg_max()
    told = [trace.customdata for trace in drawn[marginal_effects].data if trace.customdata is not None]
    numbers = np.concatenate(told)[:, 0]
    assert best in numbers
    assert len(set(numbers)) == 400
    assert f"trial {best}" in drawn[parallel_coordinates].to_json()


def test_lines_pass_each_axis_where_the_trial_lies(results: Results, table: pl.DataFrame) -> None:
    figure = parallel_coordinates(results, table)
    found = measured_effects(results, table)
    best = table["score"].arg_max()
    (line,) = [trace for trace in figure.data if trace.name == f"the best of all, trial {best}"]
    at_axes = {float(y): float(x) for x, y in zip(line.x, line.y, strict=True) if y % 1 == 0}
    for row, one in enumerate(found.parameters):
        assert at_axes[-row] == pytest.approx(scaled(one, one.position_T)[best].item(), abs=0.04)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert sum(np.isnan(trace.x).sum() for trace in lines) == 60
    assert any(np.isclose(trace.x, NOT_ASKED, atol=0.04).any() for trace in lines)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Parameter("rate", [], True, False, np.array([-6.0, -2.0])), ["1e-6", "1e-5", "1e-4", "1e-3", "0.01"]),
        (Parameter("width", [], True, True, np.log10([32, 512])), ["50", "100", "200", "500"]),
        (Parameter("dropout", [], False, False, np.array([0.0, 0.7])), ["0", "0.2", "0.4", "0.6"]),
        (Parameter("layers", [], False, True, np.array([0.0, 2.0, np.nan])), ["0", "1", "2"]),
        (Parameter("one", [], False, False, np.array([0.3, 0.3])), ["0.3"]),
        (Parameter("pool", ["avg", "<max>"], False, False, np.array([0.0, 1.0])), ["avg", "&lt;max&gt;"]),
    ],
)
def test_ticks_are_round_values_within_the_axis(parameter: Parameter, expected: list[str]) -> None:
    assert ticks_words(parameter)[1] == expected


# --- where the budget went


def test_the_seconds_of_rungs_and_states_are_all_seconds(results: Results, table: pl.DataFrame) -> None:
    failed = table.with_columns(
        state=pl.when(pl.col("number") == 7).then(pl.lit("failed")).otherwise("state"),
        report_epochs=pl.when(pl.col("number") == 7).then(pl.lit([1, 2])).otherwise("report_epochs"),
        report_seconds=pl.when(pl.col("number") == 7).then(pl.lit([2.0, 9.0])).otherwise("report_seconds"),
        seconds=pl.when(pl.col("number") == 7).then(9.0).otherwise("seconds"),
    )
    spent = budget(results, failed)
    json.dumps(spent, allow_nan=False)
    total = spent["total"]["seconds"]
    assert total == failed["seconds"].sum()
    assert sum(spent[state]["seconds"] for state in ("finished", "stopped", "failed", "running")) == total
    assert [rung["epoch"] for rung in spent["rungs"]] == [1, 3, 9]
    assert sum(rung["seconds"] for rung in spent["rungs"]) == pytest.approx(total)
    finished = failed.filter(pl.col("state") == "finished").height
    assert [rung["trials"] for rung in spent["rungs"]] == [60, finished, finished]
    assert spent["rungs"][1]["seconds"] == pytest.approx(3 * finished + 7)  # what failed on its way there counts
    assert spent["rungs"][1]["ended"] == pytest.approx(7)
    assert len(budget_by_rung(results, failed).data) == 3


def test_energy_is_told_where_it_was_recorded(results: Results, table: pl.DataFrame) -> None:
    assert budget(results, table)["total"]["joules"] is None
    known = table.with_columns(energy_joules=pl.when(pl.col("state") == "finished").then(100.0))
    spent = budget(results, known)
    assert spent["total"]["joules"] == 100 * spent["energy_trials"] == 100 * spent["finished"]["trials"]
    assert spent["stopped"]["joules"] is None


def test_a_search_that_has_reported_nothing_has_spent_nothing(results: Results, table: pl.DataFrame) -> None:
    begun = table.head(2).with_columns(
        state=pl.lit("running"),
        seconds=pl.lit(None, pl.Float64),
        report_epochs=pl.lit([], pl.List(pl.Int64)),
        report_seconds=pl.lit([], pl.List(pl.Float64)),
    )
    assert by_rung(results, begun).is_empty()
    assert budget(results, begun)["total"] == {"trials": 2, "seconds": 0.0, "joules": None}
    with pytest.raises(Unavailable, match="how long"):
        budget_by_rung(results, begun)
