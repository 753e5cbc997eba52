"""TPE that looks at a bounded number of trials: as Optuna's own up to that number, and no worse informed beyond."""

import itertools

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.trial import TrialState

from benchmarks.overhead import search_space
from search.tpe import BoundedTPE, spread

OPTIONS = {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": 4, "seed": 1}


@given(st.integers(0, 2000), st.integers(1, 400))
def test_the_newest_half_is_kept_and_the_others_evenly(count, kept):
    chosen = spread(count, kept)
    assert len(chosen) == min(count, kept)
    assert chosen == sorted(set(chosen))
    assert all(0 <= i < count for i in chosen)
    newest = min(count, kept - kept // 2)
    assert chosen[len(chosen) - newest :] == list(range(count - newest, count))
    older = chosen[: len(chosen) - newest]
    gaps = {b - a for a, b in itertools.pairwise(older)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_up_to_the_bound_it_proposes_what_optunas_own_does():
    ours, optunas = BoundedTPE(looked_at=40, **OPTIONS), optuna.samplers.TPESampler(**OPTIONS)
    assert _searched(ours, trials=40) == _searched(optunas, trials=40)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_it_all_good_trials_and_those_that_run_are_looked_at():
    sampler = BoundedTPE(looked_at=50, **OPTIONS)
    study = optuna.create_study(sampler=sampler)
    _fill(study, finished=300, running=10)
    every = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
    part = sampler._part_of(study, study.ask()._cached_frozen_trial)
    seen = part._get_trials(deepcopy=False)
    assert len(seen) == 50
    assert [trial.number for trial in seen] == sorted(trial.number for trial in seen)
    good, others = _split_trials(study, every, default_gamma(300))
    assert {trial.number for trial in good} <= {trial.number for trial in seen}
    assert {trial.number for trial in every if trial.state == TrialState.RUNNING} <= {trial.number for trial in seen}
    assert _split_trials(part, seen, len(good))[0] == good  # and it is they that TPE calls good
    assert part.direction == study.direction
    assert min(trial.number for trial in seen if trial in others) == 0  # the first ones are not forgotten


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_it_proposals_are_still_better_than_by_chance():
    def cost(trial: optuna.Trial) -> float:
        return sum((trial.suggest_float(f"x{i}", 0, 1) - 0.3) ** 2 for i in range(4))

    study = optuna.create_study(sampler=BoundedTPE(looked_at=50, **OPTIONS))
    study.optimize(cost, n_trials=150)
    late = sum(trial.value for trial in study.trials[-50:]) / 50
    assert late < 0.2 * (4 * (0.3**2 - 0.3 + 1 / 3))  # of what points at random cost


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_what_another_search_adds_to_a_shared_study_is_seen_with_the_next_proposal():
    sampler = BoundedTPE(looked_at=50, **OPTIONS)
    study = optuna.create_study(sampler=sampler)
    _fill(study, finished=60, running=0)
    best = optuna.trial.create_trial(params={"x": 0.5}, distributions={"x": FLOAT}, value=-1.0)
    first = study.ask()
    assert -1.0 not in [trial.value for trial in sampler._part_of(study, first._cached_frozen_trial)._get_trials()]
    study.add_trial(best)
    second = study.ask()
    assert -1.0 in [trial.value for trial in sampler._part_of(study, second._cached_frozen_trial)._get_trials()]


FLOAT = optuna.distributions.FloatDistribution(0, 1)


def _fill(study: optuna.Study, finished: int, running: int) -> None:
    """Every third trial stopped early, every tenth failed."""
    for number in range(finished):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        if number % 3 == 0:
            trial.report(x, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, x)
    for _ in range(running):
        study.ask().suggest_float("x", 0, 1)


def _searched(sampler: optuna.samplers.BaseSampler, trials: int) -> list[dict[str, object]]:
    """In a conditional space, with trials side by side and some that are stopped."""
    study = optuna.create_study(sampler=sampler)
    under_way: list[optuna.Trial] = []
    for number in range(trials):
        trial = study.ask()
        search_space(trial)
        under_way.append(trial)
        if len(under_way) == 3:
            first = under_way.pop(0)
            score = first.params["learning_rate"]
            first.report(score, 1)
            study.tell(first, *((None, TrialState.PRUNED) if number % 4 == 0 else (score,)))
    return [trial.params for trial in study.trials]
