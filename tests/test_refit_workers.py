"""A refit by several workers: what each takes, what they save, and that losing one changes nothing."""

import contextlib
import functools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from datasets import InputError
from search.refit import app, refit
from search.refit_training import Diverged
from search.refit_workers import Keeper, _share, trained_by_workers
from search.reopened import Reopened
from tests.reopened_search import searched
from trainables.ensemble import Ensemble

EPOCHS = 12
PLAIN = {"optimizer": "sgd", "learning_rate": 0.01, "dense_batch_norm": True, "dropout": 0.3}
"""Adaptive optimizers make much of rounding, see test_distributed.py."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Reopened:
    return searched(tmp_path_factory.mktemp("results"), **PLAIN)


def files(epoch: int, finished: bool = False) -> dict[str, np.ndarray]:
    """Of a checkpoint."""
    given = {"predictions.parquet": b"scores", "model.safetensors": b"weights"}
    if not finished:
        given["state.pt"] = b"state"
    note = {"epoch": epoch, "files": {name: len(content) for name, content in given.items()}}
    given |= {"checkpoint.json": json.dumps(note).encode()}
    return {name: np.frombuffer(content, np.uint8) for name, content in given.items()}


def test_the_last_checkpoint_is_kept_for_those_that_go_on(tmp_path):
    keeper = Keeper(tmp_path)
    assert keeper.latest() == {}
    for epoch in (1, 3):
        keeper.keep(epoch, files(epoch))
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint_000003"]
    latest = Keeper(tmp_path).latest()
    assert {name: content.tobytes() for name, content in latest.items()} == {
        name: content.tobytes() for name, content in files(3).items()
    }


def test_a_checkpoint_counts_when_its_last_file_is_written(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path)
    keeper.keep(1, files(1))
    written: list[str] = []

    class Dying(np.ndarray):
        def tofile(self, file: Path) -> None:
            written.append(file.name)
            if file.name == "checkpoint.json":
                raise KeyboardInterrupt
            np.asarray(self).tofile(file)

    with pytest.raises(KeyboardInterrupt):
        keeper.keep(2, {name: content.view(Dying) for name, content in files(2).items()})
    assert len(written) == 4
    assert json.loads(keeper.latest()["checkpoint.json"].tobytes())["epoch"] == 1


def test_news_are_told_once_and_the_first_failure_stays(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.say("one")
    assert keeper.news() == (["one"], None)
    for failure in (Diverged("first"), InputError("what followed from it")):
        keeper.fail(failure)
    texts, failure = keeper.news()
    assert (texts, str(failure), keeper.has_failed()) == ([], "first", True)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([{"CPU": 8.0}], 2, None, {"CPU": 4, "GPU": 0}),
        ([{"CPU": 8.0}], 3, None, {"CPU": 2, "GPU": 0}),
        ([{"CPU": 16.0, "GPU": 4.0}], 4, None, {"CPU": 4, "GPU": 1}),
        ([{"CPU": 16.0, "GPU": 4.0}], 8, 0, {"CPU": 2, "GPU": 0}),
        ([{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}], 4, None, {"CPU": 4, "GPU": 1}),
        ([{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 3.0}], 2, None, {"CPU": 3, "GPU": 0}),
    ],
)
def test_workers_take_a_gpu_each_and_their_part_of_the_cpus_of_a_node(nodes, workers, gpus, expected, monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert _share(workers, gpus, "auto", pytest.fail) == expected


def test_more_workers_than_fit_are_refused_here_and_waited_for_on_a_cluster(monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}])
    with pytest.raises(InputError, match=r"--workers 3: this machine has 2 CPUs and 1 GPUs.*; 1 are the most$"):
        _share(3, None, None, pytest.fail)
    said: list[str] = []
    assert _share(3, None, "auto", said.append) == {"CPU": 1, "GPU": 1}
    assert "waiting for the cluster to grow" in said[0]


@pytest.mark.parametrize("nodes", [[], [{"CPU": 2.0}]])
def test_whether_to_wait_for_gpus_is_asked_where_there_are_none_and_too_few_cpus(nodes, monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    with pytest.raises(InputError, match=r"4: the cluster has \d CPUs and 0 GPUs now; give --gpus-per-worker"):
        _share(4, None, "auto", pytest.fail)
    said: list[str] = []
    assert [_share(4, gpus, "auto", said.append)["GPU"] for gpus in (0, 1)] == [0, 1]
    assert len(said) == 2


def test_checkpoints_are_kept_where_the_command_was_given_wherever_ray_puts_its_processes(tmp_path, monkeypatch):
    keepers: list[Keeper] = []
    monkeypatch.setattr("search.refit_workers._train", lambda _, folder, *__, **___: keepers.append(Keeper(folder)))
    monkeypatch.setattr("search.refit_workers._share", lambda *_: {})
    monkeypatch.setattr("search.refit_workers.ray_session", lambda *_: contextlib.nullcontext())
    monkeypatch.chdir(tmp_path)
    folder = Path("results/x/refit/training")
    folder.mkdir(parents=True)
    trained_by_workers(None, folder, pytest.fail, 0.0, workers=2, gpus_per_worker=0, address="auto")
    (elsewhere := tmp_path / "working_dir").mkdir()
    monkeypatch.chdir(elsewhere)
    keepers[0].keep(1, files(1))
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["checkpoint_000001"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--workers", "2", "--gpus-per-worker", "2"], "--gpus-per-worker 2: must be 0 or 1"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker 1: only with --workers or --address"),
        (["--workers", "2", "--address", "ray://head:10001"], "--address ray://head:10001: a refit cannot be driven"),
        (["--address", "127.0.0.1:9"], "--address 127.0.0.1:9: nobody listens there"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_starts(arguments, said, found, monkeypatch):
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("it was started"))
    monkeypatch.setattr("search.refit.reopened", lambda *_: found)
    folder = found.results.folder
    outcome = CliRunner().invoke(app, [folder.name, "--results", str(folder.parent), *arguments])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"error: {said}")
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_go_on_where_one_was_interrupted_and_where_one_of_them_was_killed(found, monkeypatch, ray_on_loopback):
    """And what they have learned then is what one process learns, up to rounding."""

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        (network,) = Ensemble.load(folder).networks
        return network.state_dict()

    expected = weights(refit(found, epochs=EPOCHS))

    def interrupt(text: str) -> None:
        if text.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refit(found, epochs=EPOCHS, say=interrupt, saved_every_s=0)
    said: list[str] = []
    killed: list[int] = []

    def kill_one(text: str) -> None:
        said.append(text)
        if text.startswith("epoch") and not killed:
            worker = max(pid for pid in workers() if pid not in killed)
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)

    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    together = functools.partial(trained_by_workers, workers=2, gpus_per_worker=0, address=None)
    folder = refit(found, epochs=EPOCHS, say=kill_one, saved_every_s=0, trained=together)
    assert killed
    going_on = [text for text in said if text.startswith("going on")]
    assert going_on[0] == "going on after epoch 2"
    assert len(going_on) == 2
    assert f"epoch {EPOCHS} of {EPOCHS}" in " ".join(said)
    for name, tensor in weights(folder).items():
        apart = (tensor.double() - expected[name].double()).norm()
        assert apart <= 5e-3 * expected[name].double().norm() + 1e-5, name


def workers() -> list[int]:
    """The processes that train for this one."""
    import psutil  # Ray brings it along, once it is imported

    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and "RayTrainWorker" in " ".join([child.name(), *child.cmdline()])
    ]
