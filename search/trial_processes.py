"""Which process a trial gets: one that is there, as starting one takes seconds of a core, most of them for torch."""

from typing import Any

import ray
from ray.tune.execution import class_cache, tune_controller
from ray.tune.experiment import Trial

_take = tune_controller.TuneController._maybe_reuse_cached_actor


def keep_processes() -> None:
    """Has Ray Tune, which has no interface for that, start no process but the first of each place. To be called before
    a Tuner is made."""
    tune_controller._ActorClassCache = PlainActors
    tune_controller.TuneController._maybe_reuse_cached_actor = _take_freed


class PlainActors(class_cache._ActorClassCache):
    """Tune gives every actor an environment variable, meant for PyTorch Lightning, and with it a process of its own.
    Without one they take the processes that Ray has started with itself."""

    def get(self, trainable: type) -> Any:
        if trainable not in self._cache:
            self._cache[trainable] = ray.remote(trainable)
        return self._cache[trainable]


def _take_freed(controller: Any, trial: Trial) -> bool:
    """Whether the trial takes the process that another has left.

    Tune hands it to one that waits for its own to start, and kills that, as often as trials end sooner than processes
    start: the next trial then begins to start one again, and so on, for each trial a process that never trains. Here it
    is kept for the trial that is proposed next, as long as there will be one.
    """
    own = controller._trial_to_actor.get(trial)
    if own is not None and controller._actor_manager.is_actor_started(own) and not controller._search_alg.is_finished():
        return trial in controller._resetting_trials
    taken: bool = _take(controller, trial)
    return taken
