"""No process is started that is not needed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SIDE_BY_SIDE, TRIALS = 2, 8


@pytest.fixture
def kept(ray_on_loopback: None) -> Iterator[None]:
    """Tune as a search changes it, for one test."""
    from ray.tune.execution import tune_controller

    from search.trial_processes import keep_processes

    controller = tune_controller.TuneController
    before = tune_controller._ActorClassCache, controller._maybe_reuse_cached_actor
    keep_processes()
    yield
    tune_controller._ActorClassCache, controller._maybe_reuse_cached_actor = before


def test_trials_take_the_processes_that_ray_has_started_with_itself(kept):
    """Tune's own way is an environment of its own for every actor, and so a process that has to be started first."""
    from ray.tune.execution import class_cache, tune_controller

    class Trainable:
        pass

    of_tune = class_cache._ActorClassCache().get(Trainable)
    assert of_tune._default_options["runtime_env"], "else there is nothing to do"
    classes = tune_controller._ActorClassCache()
    assert classes.get(Trainable) is classes.get(Trainable)
    assert not classes.get(Trainable)._default_options.get("runtime_env")


def test_a_process_that_is_starting_is_left_alone_when_another_trial_ends(kept, tmp_path):
    """With trials shorter than the start of a process, Tune would begin one with each trial and kill it again."""
    starts = _search(tmp_path)
    assert len(starts) == SIDE_BY_SIDE
    assert len(list((tmp_path / "ended").iterdir())) == TRIALS


def test_a_trial_whose_process_waits_for_room_takes_one_that_another_has_left(kept):
    """As Tune has it; and so does any trial when there is no next one."""
    from search import trial_processes

    given = []
    take = trial_processes._take
    trial_processes._take = lambda controller, trial: bool(given.append(trial) or True)
    try:
        for own, starting, finished, taken in (
            (True, True, False, False),
            (True, True, True, True),
            (True, False, False, True),
            (False, False, False, True),
        ):
            given.clear()
            controller = SimpleNamespace(
                _trial_to_actor={"trial": "actor"} if own else {},
                _actor_manager=SimpleNamespace(is_actor_started=lambda actor, starting=starting: starting),
                _search_alg=SimpleNamespace(is_finished=lambda finished=finished: finished),
                _resetting_trials=set(),
            )
            assert trial_processes._take_freed(controller, "trial") == taken
            assert given == (["trial"] if taken else [])
    finally:
        trial_processes._take = take


def _search(folder: Path) -> list[str]:
    """The processes that it has started."""
    from ray import tune

    for name in ("started", "trained", "ended"):
        (folder / name).mkdir()

    def _note(what: str) -> None:
        (folder / what / str(os.getpid())).touch()

    def _count(what: str) -> int:
        return len(list((folder / what).iterdir()))

    def _wait(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not condition() and time.monotonic() < until:
            time.sleep(0.02)

    class Short(tune.Trainable):
        """The first process is there at once, another when half of the trials have ended; and the first then waits
        until another one trains."""

        def setup(self, config: dict[str, Any]) -> None:
            _note("started")
            try:
                (folder / "first").touch(exist_ok=False)
            except FileExistsError:
                _wait(self._are_half_ended)

        def _are_half_ended(self) -> bool:
            return _count("ended") >= TRIALS // 2

        def step(self) -> dict[str, Any]:
            _note("trained")
            if self._are_half_ended():
                _wait(lambda: _count("trained") >= SIDE_BY_SIDE)
            return {"score": 1.0, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (folder / "ended" / str(self.trial_id)).touch()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    tune.Tuner(
        tune.with_resources(Short, tune.PlacementGroupFactory([{"CPU": 1}])),
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=SIDE_BY_SIDE,
            num_samples=TRIALS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "results"), verbose=0),
    ).fit()
    return [file.name for file in (folder / "started").iterdir()]
