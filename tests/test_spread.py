"""Folds that have a process each: the numbers of one process that trains them in turn, whatever happens in between."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import psutil
import pytest
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from analysis.results import reports
from datasets import InputError
from search.options import Options
from search.ray_session import Share, share_of
from tests.small import small_config, small_dataset, small_folds, small_protocol
from trainables import fold_group, spread
from trainables.lockstep import Lockstep

ROOT = Path(__file__).resolve().parents[1]
DATASET, PROTOCOL = small_dataset(60), small_protocol(max_epochs=2)
FOLDS = small_folds(DATASET, 2)
DRAWN = {"dropout": 0.4, "dense_batch_norm": True, "mixup": 0.4, "ema": 0.9, "rotation_deg": 36.0, "batch_size": 2}


def in_turn(**config: Any) -> Lockstep:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fold_group, "can_be_fused", lambda *_: False)
        return Lockstep(small_config(**config), DATASET, FOLDS, PROTOCOL)


def trained(lockstep: Lockstep) -> Lockstep:
    while not lockstep.finished:
        lockstep.advance()
    return lockstep


def told(lockstep: Lockstep) -> dict[str, Any]:
    """All but the clock."""
    return {
        "report": {key: value for key, value in lockstep.report().items() if key != "seconds"},
        "curve": lockstep.curve,
        "predictions": lockstep._best_predictions,
        "best": [{name: tensor.numpy() for name, tensor in one.items()} for one in lockstep._group.best()],
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """To the last bit."""
    assert repr(one["report"]) == repr(other["report"]), "as words, for NaN is not NaN"
    assert repr(one["curve"]) == repr(other["curve"])
    np.testing.assert_array_equal(one["predictions"], other["predictions"])
    for first, second in zip(one["best"], other["best"], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


class Trial:
    """What `CrossValidation` does, in a process that is the first of a placement group."""

    def __init__(self, *given: Any):
        spread.LOOKED_AFTER_S = 0.001
        self._given, self._processes = given, spread.fold_processes(*given)

    def begin(self, **config: Any) -> None:
        self._lockstep = Lockstep(small_config(**config), *self._given, partial(spread.SpreadFolds, self._processes))

    def train(self) -> dict[str, Any]:
        return told(trained(self._lockstep))

    def halt_at_once(self) -> int:
        """The whole epochs, when a further one has been begun."""
        self._lockstep.halt()
        self._lockstep.advance()
        return self._lockstep.epoch

    def train_until_told(self) -> tuple[list[str], int, bool, int]:
        """By which process, when the last one of a fold has the signal: what it has heard, whole epochs, whether it
        has halted, and whole epochs of the next call."""
        heard: list[str] = []
        processes = self._processes
        group = partial(spread.SpreadFolds, processes, told=lambda: heard.append("told"))
        lockstep = self._lockstep = Lockstep(small_config(**DRAWN), *self._given, group)
        os.kill(ray.get(processes[-1].__ray_call__.remote(_threads_and_pid))[1], signal.SIGTERM)
        while not ray.get(processes[-1].__ray_call__.remote(_is_told)):  # the signal is on its way
            pass
        lockstep.advance()
        first = lockstep.epoch, lockstep.halted
        lockstep.advance()
        return heard, *first, lockstep.epoch

    def save(self, folder: Path) -> None:
        self._lockstep.save(folder)

    def load(self, folder: Path) -> None:
        self._lockstep.load(folder)

    def refused(self, **config: Any) -> tuple[str, str]:
        """Why, in its own words, and where."""
        try:
            self.begin(**config)
        except InputError as error:
            return str(error), traceback.format_exc()
        raise AssertionError("it was not refused")

    def threads_and_pids(self) -> list[tuple[int, int]]:
        return [ray.get(process.__ray_call__.remote(_threads_and_pid)) for process in self._processes]


def _is_told(process: spread.FoldProcess) -> bool:
    return process._told


def _threads_and_pid(_: Any) -> tuple[int, int]:
    import torch

    return torch.get_num_threads(), os.getpid()


@pytest.fixture(scope="module")
def trial(ray_on_loopback: None) -> Iterator[Any]:
    group = placement_group([{"CPU": 0.1}, {"CPU": 0.2}, {"CPU": 0.2}])
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    made = ray.remote(Trial).options(num_cpus=0.1, scheduling_strategy=strategy).remote(DATASET, FOLDS, PROTOCOL)

    def ask(what: str, *given: Any, **options: Any) -> Any:
        return ray.get(getattr(made, what).remote(*given, **options), timeout=120)

    yield ask
    ray.kill(made)
    remove_placement_group(group)


@pytest.mark.parametrize(
    "config", [DRAWN, {"model": "mlp", "dropout": 0.2}, {"head_epochs": 1, "learning_rate": 1e30, "optimizer": "sgd"}]
)
@pytest.mark.filterwarnings("ignore")
def test_the_numbers_are_those_of_one_process_in_turn(config, trial):
    trial("begin", **config)
    assert_same(trial("train"), told(trained(in_turn(**config))))


def test_the_processes_stay_from_trial_to_trial_and_compute_with_the_threads_of_their_cpus(trial):
    before = trial("threads_and_pids")
    trial("begin", **DRAWN)
    assert trial("threads_and_pids") == before
    assert [threads for threads, _ in before] == [1, 1]
    assert len({pid for _, pid in before}) == 2


def test_halted_and_gone_on_with_in_either_form_it_ends_with_the_same_numbers(trial, tmp_path):
    """Spread, halted; in turn, halted; spread to the end."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    trial("begin", **DRAWN)
    assert trial("halt_at_once") == 0, "fifteen batches take longer than to say so"
    trial("save", folders[0])
    here = in_turn(**DRAWN)
    here.load(folders[0])
    assert any(state["underway"]["step"] < 15 for state in here._group.states() if state["underway"])
    here.advance()
    here.halt()
    here.advance()
    assert (here.epoch, here.halted) == (1, True)
    here.save(folders[1])
    trial("begin", **DRAWN)
    trial("load", folders[1])
    assert_same(trial("train"), told(trained(in_turn(**DRAWN))))


def test_the_process_of_a_fold_that_is_told_to_end_has_its_trial_save_and_goes_on(trial):
    before = trial("threads_and_pids")
    heard, epoch, halted, then = trial("train_until_told")
    assert heard == ["told"], "once, and the trial is told by whom it trains"
    assert (epoch, halted, then) == (0, True, 1)
    assert trial("threads_and_pids") == before
    assert_same(trial("train"), told(trained(in_turn(**DRAWN))))


def test_heads_that_were_trained_as_one_go_on_in_processes_of_their_own(trial, tmp_path):
    config = {"model": "mlp", "dropout": 0.2}
    as_one = Lockstep(small_config(**config), DATASET, FOLDS, PROTOCOL)
    assert as_one._group.fused
    as_one.advance()
    as_one.save(tmp_path)
    trial("begin", **config)
    trial("load", tmp_path)
    for one, other in zip(trained(as_one).curve, trial("train")["curve"], strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_a_configuration_that_cannot_be_built_says_why_as_in_one_process(trial):
    with pytest.raises(InputError) as here:
        in_turn(model="resnet_of_mine")
    why, where = trial("refused", model="resnet_of_mine")
    assert why == str(here.value)
    assert "in build_body" in where, "of the fold's process"
    trial("begin", **DRAWN)  # and the processes take the next one


def test_a_trial_whose_fold_loses_its_process_does_not_wait_for_it(trial):
    trial("begin", **DRAWN)
    (_, pid), _ = trial("threads_and_pids")
    psutil.Process(pid).kill()
    with pytest.raises(RayError) as raised:
        trial("train")
    assert not isinstance(raised.value, GetTimeoutError)
    assert "died" in str(raised.value)


def test_folds_that_do_not_answer_hide_no_error_of_a_configuration(monkeypatch):
    def answer(reference: Any, timeout: float | None = None) -> Any:
        if timeout is not None:
            raise GetTimeoutError
        raise RayTaskError("build", "its traceback", InputError("no such model"))

    monkeypatch.setattr(spread.ray, "wait", lambda waiting, **_: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(spread.ray, "get", answer)
    group = object.__new__(spread.SpreadFolds)
    group._processes, group.halting = [MagicMock(), MagicMock()], False
    with pytest.raises(InputError, match="no such model"):
        group._asked("build")


def spread_share(resources: dict[str, float], folds: int = 5, **options: Any) -> Share:
    return share_of(Options(task="digits", spread_folds=True, **options), [resources], folds=folds)


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"CPU": 12.0}, {}, Share(1, 0.0, 2, folds=5)),
        ({"CPU": 12.0}, {"concurrent": 1}, Share(2, 0.0, 1, folds=5)),
        ({"CPU": 64.0, "GPU": 8.0}, {}, Share(12, 1.0, 1, folds=5)),
        ({"CPU": 64.0, "GPU": 8.0}, {"gpus_per_trial": 0.5}, Share(4, 0.5, 3, folds=5)),
        ({"CPU": 64.0, "GPU": 2.0}, {"gpus_per_trial": 0.4}, None),  # two of them on each, and a fifth nowhere
        ({"CPU": 64.0, "GPU": 8.0}, {"gpus_per_trial": 2.0}, None),
        ({"CPU": 5.0}, {}, None),
        ({"CPU": 64.0}, {"cpus_per_trial": 13}, None),
        ({}, {"address": "auto", "gpus_per_trial": 1.0, "concurrent": 8}, Share(1, 1.0, 8, folds=5)),
    ],
)
def test_every_fold_takes_what_else_a_trial_does(resources, options, expected):
    if expected is not None:
        assert spread_share(resources, **options) == expected
        return
    with pytest.raises(InputError, match="--spread-folds: "):
        spread_share(resources, **options)


def test_what_is_kept_for_a_trial_is_a_bundle_for_its_process_and_one_for_each_fold():
    assert Share(2, 0.5, 1, folds=3).bundles == [{"CPU": 1}, *[{"CPU": 2, "GPU": 0.5}] * 3]
    assert Share(2, 0.5, 1).bundles == [{"CPU": 2, "GPU": 0.5}]


def test_room_for_whole_trials_is_not_measured_for_folds():
    with pytest.raises(InputError, match=r"--gpus-per-trial auto: .* give a number, for each fold"):
        Options(task="digits", spread_folds=True, gpus_per_trial="auto")


def search_twice(results: Path) -> None:
    """Spread and packed, on a GPU that is only in Ray's books; a fold's process is killed in the first trial."""
    import search
    from search.plan import Plan

    ray.init(address="local", include_dashboard=False, num_cpus=4, num_gpus=1, log_to_driver=False)
    on_a = Plan.protocol
    Plan.protocol = lambda plan, device: on_a(plan, "cpu")
    seen: dict[str, Any] = {"pids": set(), "killed": None, "bundles": set()}
    thread = threading.Thread(target=_watch, args=(results, seen), daemon=True)
    thread.start()
    options = {"folds": 2, "max_epochs": 9, "trials": 2, "searcher": "random", "scheduler": "none", "explain": False}
    options |= {"gpus_per_trial": 0.25, "fixed": {"batch_size": 64, "dense_layers": 1}, "precision": "float32"}
    for name, spread_folds in (("spread", True), ("packed", False)):
        search.run("digits", name=name, results=results, spread_folds=spread_folds, **options)
    seen = {**seen, "pids": sorted(seen["pids"]), "bundles": sorted(seen["bundles"])}
    (results / "seen.json").write_text(json.dumps(seen))


def _watch(results: Path, seen: dict[str, Any]) -> None:
    while True:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ray::FoldProcess" in " ".join(process.cmdline()):
                    seen["pids"].add(process.pid)
                    if seen["killed"] is None and (results / "spread/trials/0000/reports.jsonl").exists():
                        seen["killed"] = process.pid
                        process.kill()
        for group in ray.util.placement_group_table().values():
            bundles = [group["bundles"][place] for place in sorted(group["bundles"])]
            seen["bundles"].add(json.dumps(bundles, sort_keys=True))  # Ray gives CPU and GPU in any order
        time.sleep(0.05)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    start = f"from tests.test_spread import *; search_twice(Path({str(results)!r}))"
    start = f"from search.ray_session import set_environment; set_environment(None); {start}"
    subprocess.run([sys.executable, "-c", start], cwd=ROOT, check=True, timeout=600)
    return results


@pytest.mark.slow
@pytest.mark.timeout(660)
def test_searches_with_spread_folds_and_with_packed_trials_come_to_the_same(searched: Path):
    spread_trials, packed_trials = (
        [reports(searched / name / "trials" / f"{number:04d}" / "reports.jsonl")[-1] for number in range(2)]
        for name in ("spread", "packed")
    )
    for one, other in zip(spread_trials, packed_trials, strict=True):
        for name in ("params", "epoch", "best_epoch", "folds", "accuracy", "notes", "parts", "trainable_parameters"):
            assert one[name] == other[name], name


@pytest.mark.slow
def test_ray_keeps_a_part_of_a_gpu_for_each_fold_or_for_each_packed_trial(searched: Path):
    bundles = [json.loads(told) for told in json.loads((searched / "seen.json").read_text())["bundles"]]
    part = {"CPU": 1.0, "GPU": 0.25}
    assert sorted(bundles, key=len) == [[part], [{"CPU": 1.0}, part, part]]


@pytest.mark.slow
def test_with_the_process_of_a_fold_that_of_the_trial_ends_and_both_are_started_again(searched: Path):
    seen = json.loads((searched / "seen.json").read_text())
    assert seen["killed"] in seen["pids"]
    # Five where the machine is so busy that Ray gives up one that starts, and starts another.
    assert len(seen["pids"]) in (4, 5), "two before, two after, for both trials"
