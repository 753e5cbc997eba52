"""Whole searches, small ones, through Ray Tune."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import search
from analysis.results import reports
from datasets import InputError
from search.options import Options
from search.plan import make_plan
from search.records import alone_in
from search.spaces import models
from search_spaces import digits

ROOT = Path(__file__).parent.parent
SMALL = {"trials": 4, "folds": 2, "max_epochs": 3}


def run(task: str, **options: Any) -> search.Result:
    """Without a look at what the best trial looks at, which takes as long as the search."""
    return search.run(task, explain=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_on_loopback):
    """A search on the digits, and what it printed."""
    console = Console(width=100, record=True, file=io.StringIO())
    folder = tmp_path_factory.mktemp("results")
    result = run("digits", console=console, results=folder, concurrent=1, **SMALL)
    return result, console.export_text()


def scores(folder):
    return {
        (trial, report["epoch"]): report["folds"]
        for trial in range(SMALL["trials"])
        for report in reports(folder / "trials" / f"{trial:04d}" / "reports.jsonl")
    }


def test_a_search_leaves_what_the_design_says(finished):
    result, _ = finished
    folder = result.folder
    names = {path.name for path in folder.iterdir()}
    assert {
        "experiment.json",
        "folds.parquet",
        "study.db",
        "trials",
        "trials.parquet",
        "report.html",
        "report.md",
    } <= names
    record = json.loads((folder / "experiment.json").read_text())
    assert (record["task"], record["trials"], record["folds"], record["rungs"]) == ("digits", 4, 2, [1, 3])
    assert record["data"]["images"] == 1797
    assert record["versions"]["ray"].startswith("2.")
    assert pl.read_parquet(folder / "folds.parquet").columns == ["image_id", "target", "group", "repeat", "fold"]


def test_every_trial_has_its_reports_predictions_and_curves(finished):
    result, _ = finished
    assert result.trials.height == 4
    assert set(result.trials["state"]) <= {"finished", "stopped"}
    for trial in result.trials.iter_rows(named=True):
        folder = result.folder / "trials" / f"{trial['number']:04d}"
        last = reports(folder / "reports.jsonl")[-1]
        assert last["done"]
        assert last["epoch"] == trial["epochs"]
        (checkpoint,) = folder.glob("checkpoint_*")
        assert {file.name for file in checkpoint.iterdir()} >= {"predictions.parquet", "model.safetensors"}
        assert not (checkpoint / "state.pt").exists(), "only a running trial needs its optimizer"
        for fold in range(2):
            assert list((folder / f"fold{fold}").glob("events.out.tfevents.*"))


def test_tensorboard_has_every_epoch_of_every_fold(finished):
    result, _ = finished
    best = result.best
    for fold in range(2):
        events = EventAccumulator(str(result.folder / "trials" / f"{best['number']:04d}" / f"fold{fold}"))
        events.Reload()
        assert {"training/train_loss", "validation/accuracy", "validation/log_loss"} <= set(events.Tags()["scalars"])
        assert [point.step for point in events.Scalars("validation/accuracy")] == list(range(1, best["epochs"] + 1))


def test_the_study_is_optunas(finished):
    result, _ = finished
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{result.folder / 'study.db'}")
    assert len(study.trials) == 4
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert study.best_value == pytest.approx(result.best["score"])


def test_the_terminal_says_how_it_goes_and_where_things_are(finished):
    _, text = finished
    for trial in range(4):
        assert f"trial {trial}  accuracy 0." in text
    for said in (
        "1,797 images",
        "the best of 4 trials",
        "report.html",
        "optuna-dashboard sqlite:///",
        "tensorboard --logdir",
    ):
        assert said in text
    assert "DEMONSTRATION" not in text


def test_a_notebook_gets_a_frame_the_best_trial_and_a_report(finished):
    result, _ = finished
    assert isinstance(result.trials, pl.DataFrame)
    assert result.best["score"] == result.trials["score"].max()
    assert result.report() == result.folder / "report.html"


def test_the_same_seed_gives_the_same_proposals_and_bitwise_the_same_scores(finished, tmp_path):
    result, _ = finished
    again = run("digits", console=Console(quiet=True), results=tmp_path, concurrent=1, **SMALL)
    params = pl.selectors.starts_with("param.")
    assert again.trials.select(params).equals(result.trials.select(params))
    assert scores(again.folder) == scores(result.folder)
    other = search.run(
        "digits", console=Console(quiet=True), results=tmp_path, name="other", seed=1, concurrent=1, **SMALL
    )
    assert not other.trials.select(params).equals(result.trials.select(params))


def test_a_name_that_exists_is_refused_and_nothing_changes(finished):
    result, _ = finished
    before = (result.folder / "experiment.json").read_bytes()
    with pytest.raises(InputError, match=r"exists in .*: go on with --resume"):
        run("digits", results=result.folder.parent, **SMALL)
    assert (result.folder / "experiment.json").read_bytes() == before


def test_two_searches_cannot_write_to_one_folder(finished):
    result, _ = finished
    before = (result.folder / "experiment.json").read_bytes()
    with alone_in(result.folder), pytest.raises(InputError, match="another search is running in"):
        run("digits", console=Console(quiet=True), results=result.folder.parent, resume=True, **SMALL)
    assert (result.folder / "experiment.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"folds": 3}, "folds was 2 and is 3 now"),
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"max_epochs": 9}, "max_epochs was 3 and is 9 now"),
        ({"metric": "auroc"}, "metric was 'accuracy' and is 'auroc' now"),
        ({"fixed": {"batch_size": 32}}, "fixed was {} and is {'batch_size': 32} now"),
        ({"repeats": 2}, "repeats was 1 and is 2 now"),
        ({"drop": ("corrupt",)}, "drop was .* and is \\['corrupt'\\] now"),
    ],
)
def test_a_search_goes_on_only_as_the_same_search(finished, changed, says):
    result, _ = finished
    with pytest.raises(InputError, match=says):
        run("digits", console=Console(quiet=True), results=result.folder.parent, resume=True, **SMALL | changed)


def test_a_search_can_be_given_more_trials(tmp_path, ray_on_loopback):
    quiet = {"console": Console(quiet=True), "results": tmp_path, "folds": 2, "max_epochs": 1}
    run("digits", trials=2, **quiet)
    done = scores(tmp_path / "digits")
    result = run("digits", trials=4, resume=True, **quiet)
    assert result.trials["number"].to_list() == [0, 1, 2, 3]
    assert {key: value for key, value in scores(result.folder).items() if key in done} == done
    assert len(json.loads((result.folder / "experiment.json").read_text())["sessions"]) == 2


def test_where_nothing_is_left_ray_is_not_even_imported(finished):
    result, _ = finished
    options = SMALL | {"results": str(result.folder.parent), "concurrent": 1, "resume": True}
    again = f"import sys, search; result = search.run('digits', explain=False, **{options})\n"
    again += "print(result.trials['score'].to_list(), 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", again], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "All 4 trials have finished before" in done.stdout
    assert done.stdout.strip().endswith(f"{result.trials['score'].to_list()} False")
    sessions = json.loads((result.folder / "experiment.json").read_text())["sessions"]
    assert len(sessions) == 2


def test_folders_with_odd_names_will_do(tmp_path, ray_on_loopback):
    odd = {"console": Console(quiet=True), "results": tmp_path / "r [x] é", "trials": 1, "folds": 2, "max_epochs": 1}
    assert run("digits", **odd).best["number"] == 0
    assert run("digits", **odd, resume=True).best["number"] == 0
    with pytest.raises(InputError, match="cannot have"):
        run("digits", results=tmp_path / "what?", trials=1)


def test_without_its_study_a_search_cannot_go_on(finished, tmp_path):
    result, _ = finished
    shutil.copytree(result.folder, tmp_path / "digits")
    (tmp_path / "digits" / "study.db").unlink()
    with pytest.raises(InputError, match=r"study\.db is missing"):
        run("digits", console=Console(quiet=True), results=tmp_path, resume=True, **SMALL)
    assert not (tmp_path / "digits" / "study.db").exists()


@pytest.mark.parametrize(
    "options",
    [{"trials": "8"}, {"trials": 2.5}, {"folds": True}, {"name": ""}, {"gpus_per_trial": float("nan")}],
)
def test_ill_typed_options_are_refused(options, tmp_path):
    with pytest.raises(InputError):
        run("digits", results=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_go_on_with_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no experiment 'digits'"):
        run("digits", results=tmp_path, resume=True, **SMALL)
    assert not (tmp_path / "digits").exists()


def test_a_grid_is_searched_to_its_end(tmp_path, ray_on_loopback):
    fixed = {
        "optimizer": "adam",
        "schedule": "cosine",
        "warmup_epochs": 0,
        "dense_layers": 0,
        "batch_size": 128,
        "dropout": 0.1,
    }
    options = {"console": Console(quiet=True), "results": tmp_path, "folds": 2, "max_epochs": 1, "scheduler": "none"}
    result = run("digits", searcher="grid", fixed=fixed, **options)
    assert sorted(result.trials["param.learning_rate"]) == pytest.approx([3e-4, 3e-3, 3e-2])
    assert set(result.trials["state"]) == {"finished"}


def test_trials_that_fail_do_not_end_the_search(tmp_path, ray_on_loopback, monkeypatch):
    monkeypatch.setattr(digits, "search_space", either_model)
    result = run("digits", console=Console(quiet=True), searcher="grid", results=tmp_path, folds=2, max_epochs=1)
    failed = result.trials.filter(pl.col("state") == "failed")
    assert failed["param.model"].to_list() == ["svendsen_cnn"] * 2
    assert result.trials.filter(pl.col("state") == "finished")["param.model"].to_list() == ["digits_cnn"] * 2
    assert all("needs at least 70" in error for error in failed["error"])
    assert result.best["param.model"] == "digits_cnn"


def test_a_search_with_a_failed_trial_goes_on(tmp_path, ray_on_loopback, monkeypatch):
    monkeypatch.setattr(digits, "search_space", either_model)
    quiet = {"console": Console(quiet=True), "results": tmp_path, "folds": 2, "max_epochs": 1, "searcher": "random"}
    assert "failed" in run("digits", trials=3, **quiet).trials["state"].to_list()
    result = run("digits", trials=4, resume=True, **quiet)
    assert result.trials["number"].to_list() == [0, 1, 2, 3]


def test_a_search_without_any_score_says_why(tmp_path, ray_on_loopback, monkeypatch):
    monkeypatch.setattr(digits, "search_space", model_for_larger_images)
    with pytest.raises(
        search.experiment.Failed, match=r"No trial has a score\. The first error: InputError: image_size"
    ):
        run("digits", console=Console(quiet=True), results=tmp_path, trials=1)


A_SPACE = """
from search_spaces import Experiment, Published, parts

EXPERIMENT = Experiment(metric="balanced_accuracy", folds=2, trials=3, max_epochs=2)


def search_space(trial):
    layers = {"dense_widths": [trial.suggest_int("dense_width_1", 8, 16)]}
    given = {"model": "mlp", "image_size_px": 8, "batch_size": 256}
    return {**given, **layers, "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)}


def published(name, epochs, **params):
    return Published(
        name=name, summary="", params=params, fixed={"patience": 4}, metric="accuracy", reported=0.9, images=10,
        split="some", epochs=epochs,
    )


PUBLISHED = (
    published("narrow", 2, dense_width_1=8, learning_rate=1e-3),
    published("wide", 1, dense_width_1=16, learning_rate=1e-2),
)
"""


def test_a_file_of_ones_own_stands_in_the_place_of_the_space(tmp_path, ray_on_loopback):
    file = tmp_path / "mine.py"
    file.write_text(A_SPACE)
    asked = {"console": Console(quiet=True), "results": tmp_path, "space": file}
    result = run("digits", **asked)
    record = json.loads((result.folder / "experiment.json").read_text())
    assert (record["metric"], record["folds"], record["trials"], record["max_epochs"]) == ("balanced_accuracy", 2, 3, 2)
    assert record["space"] == str(file)
    assert set(result.trials["param.model"]) == {"mlp"}
    assert result.trials["published"].to_list() == ["narrow", None, None], "not more of them than half of the trials"
    assert result.trials["param.patience"].to_list() == [4, 30, 30]
    assert [entry["name"] for entry in record["published"]] == ["narrow"]

    again = run("digits", trials=4, resume=True, **asked)
    assert again.trials["published"].to_list() == ["narrow", None, None, "wide"]
    record = json.loads((result.folder / "experiment.json").read_text())
    assert [entry["name"] for entry in record["published"]] == ["narrow", "wide"]
    of_the_task = {"space": None, "metric": "balanced_accuracy", "max_epochs": 2, "folds": 2}
    with pytest.raises(InputError, match="the file of --space was given before"):
        run("digits", trials=4, resume=True, **asked | of_the_task)
    file.write_text(A_SPACE + "# another\n")
    with pytest.raises(InputError, match="the file of --space has changed since"):
        run("digits", trials=4, resume=True, **asked)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module\n", r"mine.py, line 1: ModuleNotFoundError"),
        ("x = 1\n\nraise ValueError('wrong')\n", r"mine.py, line 3: ValueError: wrong"),
        ("def search_space(trial:\n", r"mine.py: SyntaxError"),
        ("x = 1\n", r"has no function search_space\(trial\)"),
        ("def search_space(trial):\n    return {'model': 'mlp'}\n", r"--space .*mine.py: .*image_size_px"),
        ("def search_space(trial):\n    return {'modle': 'mlp'}\n", r"--space .*mine.py: .*'model'"),
    ],
)
def test_a_file_that_is_no_space_is_refused_with_its_line(text, says, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        run("digits", console=Console(quiet=True), results=tmp_path / "results", space=file)
    assert not (tmp_path / "results").exists()


def test_a_file_without_an_experiment_has_that_of_the_task(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def search_space(trial):\n    return {'model': 'mlp', 'image_size_px': 8, "
        "'learning_rate': trial.suggest_float('learning_rate', 1e-3, 1e-2), 'batch_size': 32}\n"
    )
    plan = make_plan(Options(task="digits", space=file))
    assert plan.experiment == digits.EXPERIMENT
    assert plan.published == []


def test_published_configurations_alone_are_all_trained_to_their_ends(tmp_path, ray_on_loopback):
    quiet = {"console": Console(quiet=True), "results": tmp_path}
    asked = quiet | {"demo": True, "images": 60, "folds": 2}
    result = search.run("mnist", only=("tsouderos2024-1.3b", "tsouderos2024-1.1"), max_epochs=2, **asked)
    trials = result.trials
    assert trials["published"].to_list() == ["tsouderos2024-1.3b", "tsouderos2024-1.1"]
    assert set(trials["state"]) == {"finished"}
    assert trials["epochs"].to_list() == [2, 2]
    assert trials["param.activation"].to_list() == ["sigmoid", "relu"]
    assert trials["param.model"].to_list() == ["tsouderos_cnn", "mlp"]
    record = json.loads((result.folder / "experiment.json").read_text())
    assert (record["scheduler"], record["trials"], record["only"]) == ("none", 2, trials["published"].to_list())
    with pytest.raises(InputError, match="only was"):
        search.run("mnist", only=("tsouderos2024-1.1",), max_epochs=2, resume=True, **asked)


def test_published_configurations_alone_get_the_epochs_of_the_longest(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(A_SPACE.replace('"narrow", 2', '"narrow", 7'))
    both = make_plan(Options(task="digits", space=file, published_only=True))
    assert [entry.name for entry in both.published] == ["narrow", "wide"]
    assert (both.experiment.max_epochs, both.experiment.trials, both.options.scheduler) == (7, 2, "none")
    assert make_plan(Options(task="digits", space=file, only=("wide",))).experiment.max_epochs == 1
    assert make_plan(Options(task="digits", space=file, only=("wide",), max_epochs=5)).experiment.max_epochs == 5
    demo = make_plan(Options(task="mnist", demo=True, images=60, published_only=True))
    assert (demo.experiment.max_epochs, len(demo.published)) == (3, 8)


def test_a_demonstration_leaves_out_models_that_take_long_unless_they_are_named():
    def searched(**options):
        return models(make_plan(Options(task="cifar10", demo=True, images=60, **options)).space)

    assert searched() == ["asproudis_cnn", "digits_cnn"]
    assert searched(models=("residual", "digits_cnn")) == ["digits_cnn", "residual"]
    assert searched(fixed={"model": "residual"}) == ["residual"]
    assert searched(published_only=True) == ["asproudis_cnn"], "nothing else is built"


def test_films_can_be_searched_by_the_scores_of_studies():
    plan = make_plan(Options(task="mura", demo=True, images=160, metric="study_auroc"))
    assert plan.protocol("cpu").metric == "study_auroc"


def test_the_models_of_a_search_stay_the_same_when_it_goes_on(finished):
    result, _ = finished
    with pytest.raises(InputError, match="models was None and is \\['digits_cnn'\\] now"):
        run("digits", results=result.folder.parent, resume=True, models=("digits_cnn",), **SMALL)


def model_for_larger_images(trial):
    rate = trial.suggest_float("learning_rate", 1e-3, 1e-2)
    return {"model": "svendsen_cnn", "image_size_px": 8, "learning_rate": rate, "batch_size": 128}


def either_model(trial):
    return {
        "model": trial.suggest_categorical("model", ("digits_cnn", "svendsen_cnn")),  # the second needs larger images
        "image_size_px": 8,
        "learning_rate": trial.suggest_categorical("learning_rate", (1e-3, 1e-2)),
        "batch_size": 128,
    }


@pytest.mark.slow
def test_the_best_of_ten_trials_reads_digits(tmp_path, ray_on_loopback):
    """The promise of `search_spaces/digits.py`: at least 0.98 over 5 folds."""
    result = run("digits", console=Console(quiet=True), results=tmp_path)
    assert result.trials.height == 10
    assert result.best["score"] >= 0.98
    assert len(result.best["fold_scores"]) == 5
