"""Searches of the command line that share one study in PostgreSQL: two at once, one of which is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from analysis.results import reports
from datasets import InputError
from search.shared_study import left_to_share
from tests.postgres_server import PASSWORD, PROGRAMS, QUOTED_PASSWORD, PostgresServer, postgres_server
from tests.searching import ROOT, searching, wait_for

TRIALS = 6
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
    # Optuna leaves a connection of its check of the tables to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*psycopg.Connection:ResourceWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def command(results: Path, url: str, *more: str) -> list[str]:
    options = ["--folds", "2", "--max-epochs", "9", "--trials", str(TRIALS), "--scheduler", "none", "--no-explain"]
    options += ["--set", "batch_size=128", "--set", "dense_layers=0", "--concurrent", "1"]
    return [sys.executable, "-m", "search", "digits", "--results", str(results), *options, "--study", url, *more]


def ended(results: Path) -> dict[int, bool]:
    """Trials that have reported, and whether that was their end."""
    told = {int(file.parent.name): reports(file) for file in (results / "digits").glob("trials/*/reports.jsonl")}
    return {number: lines[-1]["done"] for number, lines in told.items() if lines}


def check_no_password(folder: Path) -> None:
    for file in (file for file in folder.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert PASSWORD.encode() not in content, file
        assert QUOTED_PASSWORD.encode() not in content, file


def test_two_searches_share_a_study_and_the_one_that_was_killed_goes_on(server, tmp_path):
    one, two, url = tmp_path / "one", tmp_path / "two", server.create("shared")
    one.mkdir()
    two.mkdir()
    with (
        searching(command(one, url), one / "terminal.txt") as first,
        searching(command(two, url), two / "terminal.txt") as second,
    ):
        in_the_middle = lambda: sum(ended(one).values()) >= 1 and not all(ended(one).values())  # noqa: E731
        wait_for(in_the_middle, first, second, seconds=240)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        check_no_password(one)  # nor in what Ray has pickled
        before = {number for number, done in ended(one).items() if done}
        assert second.wait(timeout=240) == 0, (two / "terminal.txt").read_text()
    others = ended(two)
    assert all(others.values())
    assert not others.keys() & ended(one).keys(), "it has left alone what the other had begun"
    done = subprocess.run(command(one, url, "--resume"), cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    own = ended(one)
    assert all(own.values())
    assert before <= own.keys()
    assert sorted([*own, *others]) == list(range(TRIALS)), "as many as were asked for, and none twice"
    address = url.replace("postgresql:", "postgresql+psycopg:")
    trials = optuna.load_study(study_name="digits", storage=address).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * TRIALS
    assert len({trial.user_attrs["search"] for trial in trials}) == 2
    assert f"{len(others)} trials of the study" in (one / "digits" / "report.md").read_text()
    experiment = json.loads((one / "digits" / "experiment.json").read_text())
    assert experiment["study"]["finished"] == len(others)
    assert experiment["command"].count(url.replace(f":{QUOTED_PASSWORD}@", "@")) == 1
    check_no_password(tmp_path)
    with pytest.raises(InputError, match="have been begun by others"):
        left_to_share(url, experiment | {"study": {"owner": "another"}}, tmp_path)
    refused = subprocess.run(
        command(tmp_path / "three", url, "--seed", "1"), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "seed 0 and not 1" in refused.stderr
    assert not (tmp_path / "three").exists()
