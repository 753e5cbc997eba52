"""Which parameters mattered: PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255), by Optuna."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import optuna
import polars as pl
from optuna.distributions import BaseDistribution

from analysis.results import Results, Unavailable
from analysis.trials import ranked

FEWEST = 4
"""Scored trials below which nothing is said."""
TOP = 5
"""Trials that should stand on the good side of the comparison, as Optuna advises for PED-ANOVA."""


@dataclass(frozen=True)
class Importances:
    share: dict[str, float]
    """Of each searched parameter; most important first, sum 1."""
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
    suggested = _suggested(results)
    with _quiet():
        study = optuna.create_study(direction="maximize" if results.experiment["mode"] == "max" else "minimize")
    for number in sorted(scores.keys() & suggested.keys()):
        params, distributions = suggested[number]
        try:
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=scores[number]))
        except ValueError:
            continue  # a published configuration outside of what is searched: no point of the space
    added = study.get_trials(deepcopy=False)
    if len(added) < FEWEST:
        raise Unavailable(f"{_count(len(added))} scored inside the search space: importances need {FEWEST}.")
    names = sorted({name for trial in added for name in trial.params})
    if not any(len({repr(trial.params.get(name)) for trial in added}) > 1 for name in names):
        raise Unavailable("All trials have the same configuration: no parameter varies.")
    top_share = min(0.5, max(0.1, TOP / len(added)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top_share)
    with warnings.catch_warnings():
        # Rare branches of the space have few trials; the report says how many there are.
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    if not any(shares.values()):
        raise Unavailable("No parameter separates the good trials from the others.")
    ordered = dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))
    return Importances(ordered, len(added), top_share)


def _suggested(results: Results) -> dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    """Per trial what the searcher suggested, and from which distributions; the database is only read."""
    file = results.folder / "study.db"
    if not file.is_file():
        raise Unavailable("There is no study.db, so what was searched is not known.")
    storage = None
    try:
        with _quiet():
            storage = optuna.storages.RDBStorage(
                f"sqlite:///file:{quote(str(file.absolute()))}?mode=ro&uri=true", skip_table_creation=True
            )
            study = optuna.load_study(study_name=results.experiment["name"], storage=storage)
            return {trial.number: (trial.params, trial.distributions) for trial in study.get_trials(deepcopy=False)}
    except KeyError:
        raise Unavailable(f"study.db holds no study named {results.experiment['name']!r}.") from None
    except (RuntimeError, optuna.exceptions.OptunaError) as error:
        raise Unavailable(f"study.db cannot be read: {str(error).splitlines()[0]}") from None
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study that it opens."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _count(trials: int) -> str:
    return {0: "No trial is", 1: "Only one trial is"}.get(trials, f"Only {trials} trials are")
