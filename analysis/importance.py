"""Which parameters mattered: PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255), by Optuna."""

import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.experiment import Mode
from analysis.results import Results, Unavailable
from analysis.searched import Stamp, Suggested, read, stamp, suggested
from analysis.trials import ranked

if TYPE_CHECKING:
    from optuna import Study

FEWEST = 4
"""Scored trials below which nothing is said."""
TOP = 5
"""Trials that should stand on the good side of the comparison, as Optuna advises for PED-ANOVA."""

ASKED = 10
"""Trials that must have been asked for a parameter, if not all were: what two or three tell is chance, and may be as
large as what matters."""


@dataclass(frozen=True)
class Importances:
    share: dict[str, float]
    """Of each searched parameter that at least `ASKED` trials were asked; most important first, sum 1."""
    trials: int
    """Trials that were compared."""
    top_share: float
    """The share of them that counts as good: a tenth, more where that would be fewer than `TOP`, half at most."""


def importances(results: Results, trials: pl.DataFrame) -> Importances:
    """Share of each searched parameter in what separates the good trials from all.

    All scored trials count, stopped ones with the score at which they were stopped: Optuna by itself leaves those out,
    and with them nearly everything that a search has learnt about bad regions. `Unavailable` where there is too little.
    """
    scored = ranked(trials, results.experiment["mode"])
    scores = dict(zip(scored["number"].to_list(), scored["score"].to_list(), strict=True))
    if len(scores) < FEWEST:
        raise Unavailable(f"{_count(len(scores))} scored: importances need at least {FEWEST}.")
    if len(set(scores.values())) == 1:
        raise Unavailable("All trials have the same score: nothing separates good from bad.")
    known = suggested(results)
    scores_of = tuple((number, scores[number]) for number in sorted(scores.keys() & known.keys()))
    file, experiment = (results.folder / "study.db").absolute(), results.experiment
    return _importances(file, experiment["name"], experiment["mode"], scores_of, stamp(file))


@lru_cache(maxsize=2)
def _importances(
    file: Path, name: str, mode: Mode, scores: tuple[tuple[int, float], ...], changed: Stamp
) -> Importances:
    """A report asks several times for the same; `changed` tells when it is not the same any more."""
    import optuna

    known = read(file, name, changed)
    assert known is not None
    scores = tuple((number, score) for number, score in scores if _is_of_the_space(known[number]))
    if len(scores) < FEWEST:
        raise Unavailable(f"{_count(len(scores))} scored inside the search space: importances need {FEWEST}.")
    study = _study({number: known[number] for number, _ in scores}, dict(scores), mode)
    asked = Counter(parameter for number, _ in scores for parameter in known[number])
    names = sorted(name for name, trials in asked.items() if trials >= min(ASKED, len(scores)))
    if not any(len({known[number].get(parameter) for number, _ in scores}) > 1 for parameter in names):
        raise Unavailable("All trials have the same configuration: no parameter varies.")
    top_share = min(0.5, max(0.1, TOP / len(scores)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top_share)
    with warnings.catch_warnings():
        # Rare branches of the space have few trials; the report says how many there are.
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    if not any(shares.values()):
        raise Unavailable("No parameter separates the good trials from the others.")
    ordered = dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))
    return Importances(ordered, len(scores), top_share)


def _study(known: dict[int, Suggested], scores: dict[int, float], mode: Mode) -> "Study":
    """A study in memory that holds these trials as they are: `Study.add_trial` takes a millisecond to copy each."""
    import optuna

    trials = [
        optuna.trial.FrozenTrial(
            number=place,
            trial_id=place,
            state=optuna.trial.TrialState.COMPLETE,
            value=scores[number],
            datetime_start=None,
            datetime_complete=None,
            params={name: of.to_external_repr(value) for name, (value, of) in of_trial.items()},
            distributions={name: of for name, (_, of) in of_trial.items()},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for place, (number, of_trial) in enumerate(known.items())
    ]

    class Given(optuna.storages.InMemoryStorage):
        def get_all_trials(self, *_: Any, **__: Any) -> list[optuna.trial.FrozenTrial]:
            return trials

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    try:
        return optuna.create_study(storage=Given(), direction="maximize" if mode == "max" else "minimize")
    finally:
        optuna.logging.set_verbosity(verbosity)


def _is_of_the_space(of_trial: Suggested) -> bool:
    """A published configuration may lie outside of what is searched: no point of the space. Choices cannot."""
    return all(getattr(of, "low", value) <= value <= getattr(of, "high", value) for value, of in of_trial.values())


def _count(trials: int) -> str:
    return {0: "No trial is", 1: "Only one trial is"}.get(trials, f"Only {trials} trials are")
