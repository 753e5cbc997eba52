"""TPE whose proposals take no longer after ten thousand trials than after a few hundred."""

from collections.abc import Container
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.trial import FrozenTrial, TrialState

LOOKED_AT = 300


class BoundedTPE(optuna.samplers.TPESampler):
    """Optuna's, which goes through all trials that there have been, several times for each branch of a conditional
    space, whenever it proposes: with 22 parameters a tenth of a second after 1,000 trials, and more with each. This one
    looks at no more than `looked_at`: all that Optuna calls good, which are 25 at most; and of the others the newest,
    among them those that are running, and of the older ones every so many-th. More of them would tell the density of
    what is not good little better (`benchmarks/proposals.md`)."""

    def __init__(self, *, looked_at: int = LOOKED_AT, **options: Any):
        super().__init__(**options)
        self.looked_at = looked_at
        self._part: tuple[int, optuna.Study] | None = None
        """For which trial, and what is looked at for it."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._part_of(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._part_of(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(self._part_of(study, trial), trial, param_name, param_distribution)

    def _part_of(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        if self._part is None or self._part[0] != trial.number:
            self._part = trial.number, cast(optuna.Study, _Part(study, self._chosen(study, trial)))
        return self._part[1]

    def _chosen(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """Ascending by number."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = study._get_trials(deepcopy=False, states=states)
        if len(trials) <= self.looked_at:
            return trials
        finished = sum(trial.state != TrialState.RUNNING for trial in trials)
        good, others = _split_trials(study, trials, default_gamma(finished))
        kept = [*good, *(others[i] for i in spread(len(others), self.looked_at - len(good)))]
        return sorted(kept, key=lambda trial: trial.number)


class _Part:
    """A study as samplers see it, of some of its trials."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]):
        self._study, self._trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = False, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def spread(count: int, kept: int) -> list[int]:
    """At most `kept` of the numbers below `count`, ascending: the last half of them, and evenly from the others."""
    if count <= kept:
        return list(range(count))
    older = kept // 2
    newest = count - (kept - older)
    return [i * newest // older for i in range(older)] + list(range(newest, count))
