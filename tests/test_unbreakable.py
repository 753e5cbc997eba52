"""Nothing finished is ever lost: real searches, killed in the middle and resumed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
from rich.console import Console

import datasets
import search
from analysis.results import last_checkpoint, reports
from search.callbacks import kept_checkpoint
from search.experiment import Failed
from tests.searching import ROOT, searching, wait_for
from tests.small import small_dataset

TRIALS = 5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def command(results: Path, *more: str) -> list[str]:
    options = ["--folds", "2", "--max-epochs", "9", "--trials", str(TRIALS), "--scheduler", "none"]
    options += ["--set", "batch_size=128", "--set", "dense_layers=0", "--no-explain"]
    return [sys.executable, "-m", "search", "digits", "--results", str(results), *options, *more]


def resume(results: Path) -> str:
    done = subprocess.run(command(results, "--resume"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(results: Path) -> dict[int, list[dict]]:
    return {n: reports(results / "digits" / "trials" / f"{n:04d}" / "reports.jsonl") for n in range(TRIALS)}


def in_the_middle(results: Path) -> Callable[[], bool]:
    """Two trials have finished and a third has a checkpoint to go on from."""

    def reached() -> bool:
        ends = [lines[-1]["done"] for lines in told(results).values() if lines]
        checkpoints = [last_checkpoint(results / "digits" / "trials" / f"{n:04d}") for n in range(TRIALS)]
        on_the_way = [n for n, lines in told(results).items() if lines and not lines[-1]["done"] and checkpoints[n]]
        return sum(ends) >= 2 and len(on_the_way) >= 1

    return reached


def check_resumed(results: Path, before: dict[int, list[dict]]) -> None:
    after = told(results)
    assert all(lines[-1]["done"] for lines in after.values()), "every trial has ended"
    for number, lines in before.items():
        assert after[number][: len(lines)] == lines, "what had been reported stays"
        if lines and lines[-1]["done"]:
            assert after[number] == lines, "what had finished is not repeated"
    continued = [n for n, lines in before.items() if lines and not lines[-1]["done"]]
    assert continued
    for number in continued:
        epochs = [report["epoch"] for report in after[number][len(before[number]) :]]
        assert epochs == sorted(set(epochs)), "a trial goes on from its last checkpoint"
    assert any(after[n][len(before[n])]["epoch"] > 1 for n in continued), "one of them had been saved"
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{results / 'digits' / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * TRIALS
    for trial in study.trials:
        assert trial.value == pytest.approx(after[trial.number][-1]["accuracy"])


def test_after_a_kill_of_the_driver_nothing_finished_is_lost_or_repeated(tmp_path):
    with searching(command(tmp_path), tmp_path / "terminal.txt") as process:
        wait_for(in_the_middle(tmp_path), process, seconds=120)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = told(tmp_path)
    said = resume(tmp_path)
    check_resumed(tmp_path, before)
    assert f"the best of {TRIALS} trials" in said


def test_a_trial_goes_on_from_its_last_whole_checkpoint_and_the_others_go(tmp_path):
    for epoch in (1, 3, 9):
        folder = tmp_path / f"checkpoint_{epoch:06d}"
        folder.mkdir()
        (folder / "predictions.parquet").write_bytes(b"12345")
        size = 5 if epoch < 9 else 6  # the last was not written to its end
        note = {"epoch": epoch, "files": {"predictions.parquet": size}}
        (folder / "checkpoint.json").write_text(json.dumps(note))
    kept = kept_checkpoint(tmp_path)
    assert (kept.name, last_checkpoint(tmp_path)) == ("checkpoint_000003", kept)
    assert json.loads((kept / "checkpoint.json").read_text())["epoch"] == 3
    assert list(tmp_path.iterdir()) == [kept]
    assert kept_checkpoint(tmp_path) == kept
    assert kept_checkpoint(tmp_path / "nothing") is None


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    with searching(command(tmp_path), tmp_path / "terminal.txt") as process:
        wait_for(in_the_middle(tmp_path), process, seconds=120)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(timeout=60) == 130
    said = (tmp_path / "terminal.txt").read_text()
    assert "Interrupted" in said
    assert "--resume" in said
    assert "Traceback" not in said
    before = told(tmp_path)
    assert (tmp_path / "digits" / "report.html").exists(), "a report of what there is"
    resume(tmp_path)
    check_resumed(tmp_path, before)


def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on(tmp_path):
    with searching(command(tmp_path), tmp_path / "terminal.txt") as process:
        wait_for(in_the_middle(tmp_path), process, seconds=120)
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "train" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        assert process.wait(timeout=200) == 0, (tmp_path / "terminal.txt").read_text()
    after = told(tmp_path)
    assert all(lines[-1]["finished"] for lines in after.values())
    assert all([report["epoch"] for report in lines][-1] == 9 for lines in after.values())


class _Deadly:
    """A decoder that ends every process that receives it."""

    def __call__(self, row: dict) -> np.ndarray:
        return np.full((8, 8, 1), int(row["image_id"][-3:]), np.uint8)

    def __reduce__(self) -> tuple:
        return _received, (os.getpid(),)


def _received(sender: int) -> _Deadly:
    if os.getpid() != sender:
        os._exit(1)
    return _Deadly()


def test_a_trial_whose_process_dies_again_and_again_fails_and_the_search_ends(tmp_path, monkeypatch, ray_on_loopback):
    deadly = dataclasses.replace(small_dataset(images=24), decoder=_Deadly())
    monkeypatch.setattr(datasets, "load_all", lambda *_: deadly)
    with pytest.raises(Failed, match="No trial has a score"):
        search.run(
            "digits", console=Console(quiet=True), results=tmp_path, trials=1, folds=2, max_epochs=1, explain=False
        )
    (only,) = reports(tmp_path / "digits" / "trials" / "0000" / "reports.jsonl")
    assert only["done"]
    assert "died" in only["error"]
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{tmp_path / 'digits' / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
