"""The study's file: what Optuna reads in it is what the search has in memory, at every moment."""

import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import optuna
from optuna.trial import TrialState

from search.storage import StudyFile

ROOT = Path(__file__).parent.parent


def opened(file, **more):
    return optuna.create_study(study_name="test", storage=StudyFile(file), load_if_exists=True, **more)


def in_file(file):
    """As Optuna reads it. Identities count from 1 there and from 0 in memory."""
    trials = optuna.load_study(study_name="test", storage=f"sqlite:///{file}").get_trials()
    for trial in trials:
        trial._trial_id -= 1
    return trials


def asked(study):
    trial = study.ask()
    trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    trial.suggest_int("width", 1, 9, step=2)
    trial.suggest_categorical("model", ("a", None, True))
    return trial


def test_every_change_is_in_the_file_when_it_has_been_made(tmp_path):
    study = opened(tmp_path / "study.db", direction="maximize")
    study.enqueue_trial({"rate": 0.01, "model": None}, user_attrs={"published": "a-2025", "fixed": {"widths": [1, 2]}})
    assert in_file(tmp_path / "study.db") == study.get_trials()
    complete, pruned, failed, running = (asked(study) for _ in range(4))
    running.report(0.5, 1)
    running.report(float("-inf"), 3)
    complete.report(float("inf"), 1)
    complete.set_user_attr("seconds", 2.5)
    study.tell(complete, 0.75)
    study.tell(pruned, state=TrialState.PRUNED)
    study.tell(failed, state=TrialState.FAIL)
    written, known = in_file(tmp_path / "study.db"), study.get_trials()
    assert [trial.state.name for trial in written] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert written == known
    assert (written[0].params["rate"], written[0].params["model"]) == (0.01, None)
    running.report(float("nan"), 9)
    assert math.isnan(in_file(tmp_path / "study.db")[3].intermediate_values[9])


def test_changes_made_together_are_written_together(tmp_path):
    study = opened(tmp_path / "study.db")
    with study._storage.together():
        asked(study)
        assert in_file(tmp_path / "study.db") == []
    assert in_file(tmp_path / "study.db") == study.get_trials()


def test_a_file_opened_again_goes_on_where_it_was(tmp_path):
    study = opened(tmp_path / "study.db", direction="maximize")
    running = [asked(study) for _ in range(2)][1]
    study.tell(0, 0.5)
    running.report(0.25, 1)

    again = opened(tmp_path / "study.db", direction="maximize")
    assert again.get_trials() == study.get_trials()
    assert (again.best_value, again.ask().number) == (0.5, 2)
    trial = optuna.trial.Trial(again, again.get_trials()[1]._trial_id)
    assert trial.suggest_float("rate", 1e-5, 1e-1, log=True) == running.params["rate"]
    trial.report(0.5, 3)
    again.tell(trial, 0.5)
    assert in_file(tmp_path / "study.db")[1].intermediate_values == {1: 0.25, 3: 0.5}


def test_a_file_that_optunas_own_storage_has_written_goes_on(tmp_path):
    before = optuna.create_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}")
    asked(before)
    before.tell(0, 1.0)
    after = opened(tmp_path / "study.db")
    asked(after)
    assert in_file(tmp_path / "study.db") == after.get_trials()
    assert before.get_trials()[1].params == after.get_trials()[1].params


def test_a_closed_file_is_alone_and_readable_where_nothing_can_be_written(tmp_path):
    study = opened(tmp_path / "study.db")
    asked(study)
    study._storage.close()
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]
    address = f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&immutable=1&uri=true"
    storage = optuna.storages.RDBStorage(address, skip_table_creation=True)
    assert len(optuna.load_study(study_name="test", storage=storage).trials) == 1


def test_what_was_written_survives_a_kill(tmp_path):
    """In the middle of writing: the last trial is there with all of its parameters, or not at all."""
    code = f"""
import optuna
from tests.test_storage import asked, opened
from pathlib import Path
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = opened(Path({str(tmp_path / "study.db")!r}))
while True:
    with study._storage.together():
        number = asked(study).number
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.read().splitlines()
    trials = opened(tmp_path / "study.db").get_trials()
    told = [int(number) for number in said if number.strip()]
    assert len(trials) in (len(told), len(told) + 1)
    assert all(len(trial.params) == 3 for trial in trials)


def test_it_can_be_pickled_without_its_file(tmp_path):
    study = opened(tmp_path / "study.db")
    asked(study)
    assert pickle.loads(pickle.dumps(study._storage)).get_all_trials(study._study_id) == study.get_trials()
