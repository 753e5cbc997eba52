"""An Optuna study in memory that knows what has changed, for whoever keeps it elsewhere too: in a file
(`search.storage`), or in a database that several searches share (`search.shared_study`)."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState


class StudyMemory(optuna.storages.InMemoryStorage):
    """Every change is written (`_write`) when the call returns; those within `together` are when the block ends."""

    def __init__(self) -> None:
        super().__init__()
        self._trial_rows: dict[int, int] = {}
        """From identities in memory, which count from 0, to those where it is kept."""
        self._changed: set[int] = set()
        self._together = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All changes within are one transaction: now, or as soon as can be written."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._write()

    def reopen(self, trial_id: int) -> None:
        """A trial that had finished, which Optuna does not let anybody change, runs again, and its values are taken
        back."""
        trial = copy.copy(self.get_trial(trial_id))
        trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
        self._set_trial(trial_id, trial)
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        study = self._studies[study_id]
        if study.best_trial_id == trial_id:
            study.best_trial_id = None
            for other in study.trials:
                self._update_cache(other._trial_id, study_id)
        self._change(trial_id)

    def set_trial_param(self, trial_id: int, name: str, value_internal: float, distribution: BaseDistribution) -> None:
        super().set_trial_param(trial_id, name, value_internal, distribution)
        self._change(trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        self._change(trial_id)
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._change(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self._change(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._change(trial_id)

    def _change(self, trial_id: int) -> None:
        self._changed.add(trial_id)
        if not self._together:
            self._write()

    def _write(self) -> None:
        """Of every trial in `_changed`, what there now is."""
        raise NotImplementedError
