"""Optuna's samplers behind Ray Tune's `OptunaSearch`, with the study as the only memory.

The study stands in a file that is written at every step, so it is never behind: what it calls complete, pruned or
failed is finished, what it calls running goes on from its last checkpoint, and nothing else needs to survive. Ray's own
way (a pickled searcher, up to ten seconds old) would contradict the database after a crash.
"""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from search.storage import StudyFile
from search.study_address import Unreachable
from search.tpe import BoundedTPE
from search_spaces import Published, Space
from trainables.config import TrialConfig
from trainables.protocol import Mode

if TYPE_CHECKING:
    from search.shared_study import SharedStudy

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def sampler(searcher: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler for so many trials; grids need none, their points are enqueued."""
    # At first, published ones included. Optuna's 10 would be the whole of a short search.
    at_random = min(10, max(4, trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if searcher == "tpe":
            # Joint in all parameters, by branch of the conditional space; running trials count as bad ones, so that
            # trials side by side differ.
            return BoundedTPE(multivariate=True, group=True, constant_liar=True, n_startup_trials=at_random, seed=seed)
        if searcher == "gp":
            # Gaussian process over the parameters that every trial has; conditional ones are drawn at random.
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=at_random, deterministic_objective=False)
    return optuna.samplers.RandomSampler(seed=seed)


def enqueue(study: optuna.Study, published: list[Published], points: list[dict[str, Any]]) -> None:
    """Configurations to run first, published ones marked with their names; those that are there already stay single,
    so that a search which was killed while it did this has them all when it goes on."""
    trials = study.get_trials(deepcopy=False)
    there = [trial.system_attrs.get("fixed_params") for trial in trials]
    names = [trial.user_attrs.get("published") for trial in trials]
    for entry in published:
        if entry.name not in names:
            study.enqueue_trial(entry.params, user_attrs={"published": entry.name, "fixed": entry.unasked})
    for point in points:
        if point not in there:
            study.enqueue_trial(point)


class StudySearch(OptunaSearch):
    """Proposes trials from a study; trials that the study knows as running are proposed again, before new ones.

    A proposal is `{"number", "published", "continue_from", "params"}`: Optuna's number of the trial, the published
    configuration it repeats or None, the checkpoint folder it goes on from or None, and all parameters.
    """

    def __init__(
        self,
        space: Space,
        study_name: str,
        storage: "StudyFile | SharedStudy",
        sampler: optuna.samplers.BaseSampler,
        metric: str,
        mode: Mode,
        checkpoint_of: Callable[[int], Path | None],
    ):
        """checkpoint_of: trial number -> the folder of its last complete checkpoint, kept from being overwritten."""
        super().__init__(space, metric=metric, mode=mode, sampler=sampler, storage=storage, study_name=study_name)
        self._file, self._checkpoint_of = storage, checkpoint_of
        # Optuna's Gaussian process learns from complete trials only; it would hardly ever see one.
        self._stopped = TrialState.COMPLETE if isinstance(sampler, optuna.samplers.GPSampler) else TrialState.PRUNED
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._unfinished = [trial for trial in running if storage.is_own(trial)]

    @property
    def study(self) -> optuna.Study:
        return self._ot_study

    def settle(self, past: dict[int, list[dict[str, Any]]]) -> None:
        """Makes study and reports agree. past: the reports of every trial of this search, by number.

        Trials that had reported their end, and saved it, before an interruption kept the study from being told, have
        finished. Those of whose end only the study knows, as the last that they reported was lost with a machine or its
        power, have not: they go on from their last checkpoint.
        """
        for frozen in self.study.get_trials(deepcopy=False, states=FINISHED):
            if frozen.number in past and not (past[frozen.number] and past[frozen.number][-1].get("done")):
                self._file.reopen(frozen._trial_id)
                self._unfinished.append(self.study.trials[frozen.number])
        self._unfinished.sort(key=lambda trial: trial.number)
        for frozen in list(self._unfinished):
            last = past[frozen.number][-1] if past[frozen.number] else None
            checkpoint = self._checkpoint_of(frozen.number)
            if last and last["done"] and (last.get("error") or (checkpoint and _epoch(checkpoint) == last["epoch"])):
                self._tell(optuna.trial.Trial(self.study, frozen._trial_id), last)
                self._unfinished.remove(frozen)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """None: not now, as the study's database is away; `FINISHED`: as many have begun as were asked for."""
        if self._unfinished:
            # The study has the values that were suggested before the interruption, and returns them again.
            trial = optuna.trial.Trial(self.study, self._unfinished.pop(0)._trial_id)
            checkpoint = self._checkpoint_of(trial.number)
            params = self._space(trial)
        else:
            try:
                with self._file.alone(patient=False):
                    if self._file.full:
                        return self.FINISHED
                    trial, checkpoint = self.study.ask(), None
                    params = self._space(trial)
            except Unreachable:
                return None
        self._ot_trials[trial_id] = trial
        attributes = trial.user_attrs
        return {
            "number": trial.number,
            "published": attributes.get("published"),
            "continue_from": str(checkpoint) if checkpoint else None,
            "params": TrialConfig.of(params | attributes.get("fixed", {})).params(),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if math.isfinite(result[self.metric]):
            self._ot_trials[trial_id].report(result[self.metric], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study: COMPLETE with all its epochs, PRUNED if the scheduler stopped it (COMPLETE for a Gaussian
        process), FAIL without a score.

        Ray calls this after the last report and its checkpoint have been written. It also calls it, without a result,
        for trials that it puts down when the search is interrupted: they stay RUNNING. So do those that end by an
        `error`, until somebody who knows what it was calls `failed`.
        """
        trial = None if error else self._ot_trials.pop(trial_id, None)
        if trial is not None and result is not None:
            self._tell(trial, result)

    def failed(self, trial_id: str) -> None:
        """A trial whose process has died once too often."""
        self._tell(self._ot_trials.pop(trial_id), None)

    def _tell(self, trial: optuna.Trial, report: dict[str, Any] | None) -> None:
        score = (report or {}).get(self.metric)
        if report is None or score is None or not math.isfinite(score):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        state = TrialState.COMPLETE if report["finished"] else self._stopped
        with self._file.together():
            trial.report(score, report["epoch"])
            for name in (f"{self.metric}_std", "epoch", "best_epoch", "seconds"):
                trial.set_user_attr(name, report[name])
            self.study.tell(trial, score if state == TrialState.COMPLETE else None, state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is in its database."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search goes on by opening its study again")


def _epoch(checkpoint: Path) -> int:
    return json.loads((checkpoint / "checkpoint.json").read_text())["epoch"]
