"""What the searcher suggested to every trial, and from which ranges: study.db, which is only read.

Read by SQL, from the tables that `search/storage.py` writes: Optuna's own storage takes ten seconds for ten thousand
trials, as long as all other figures together.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import polars as pl

from analysis.results import Results, Unavailable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Suggested = dict[str, tuple[float, "BaseDistribution"]]
"""Of one trial: Optuna's internal value of each parameter (of a choice its index) and what it was drawn from."""

Stamp = tuple[tuple[int, int], ...]

_ROWS = """
    SELECT trials.number, param_name, param_value, distribution_json
    FROM trial_params JOIN trials USING (trial_id) JOIN studies USING (study_id) WHERE study_name = ? ORDER BY param_id
"""


@dataclass(frozen=True)
class Parameter:
    """One searched parameter over T trials."""

    name: str
    choices: list[str]
    """In words; empty for numbers."""
    log: bool
    whole: bool
    """Whether it is an integer."""
    position_T: np.ndarray
    """float64: the value, of a logarithmic one its decimal logarithm, of a choice its index; NaN where it was not
    asked, as another parameter made it meaningless."""

    def words(self, position: float) -> str:
        """The value at a position: `1e-4`, `0.35`, `cosine`; `not asked` for NaN."""
        if np.isnan(position):
            return "not asked"
        if self.choices:
            return self.choices[round(position)]
        value = 10**position if self.log else position
        if self.whole and abs(value) < 10_000:
            return str(round(value))
        text = f"{value:.2g}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}".replace(".0e", "e")
        return text.replace("e-0", "e-").replace("e+0", "e")


def suggested(results: Results) -> dict[int, Suggested]:
    """By the number of the trial; `Unavailable` where there is no study or it cannot be read."""
    file = results.folder / "study.db"
    if not file.is_file():
        raise Unavailable("There is no study.db, so what was searched is not known.")
    found = read(file.absolute(), results.experiment["name"], stamp(file))
    if found is None:
        raise Unavailable(f"study.db holds no study named {results.experiment['name']!r}.")
    return found


def stamp(file: Path) -> Stamp:
    """What changes when a database does: size and time of it and of its journal."""
    parts = (file, file.with_name(f"{file.name}-wal"))
    return tuple((part.stat().st_size, part.stat().st_mtime_ns) for part in parts if part.exists())


@lru_cache(maxsize=2)
def read(file: Path, name: str, changed: Stamp) -> dict[int, Suggested] | None:
    """A report asks several times for the same; `changed` tells when it is not the same any more."""
    from optuna.distributions import json_to_distribution

    trials: dict[int, Suggested] = {}
    distributions: dict[str, BaseDistribution] = {}
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            if not database.execute("SELECT 1 FROM studies WHERE study_name = ?", (name,)).fetchone():
                return None
            for number, parameter, value, of in database.execute(_ROWS, (name,)):
                if of not in distributions:
                    distributions[of] = json_to_distribution(of)
                trials.setdefault(number, {})[parameter] = float(value), distributions[of]
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"study.db cannot be read: {str(error).splitlines()[0]}") from None
    return trials


def parameters(results: Results, trials: pl.DataFrame) -> list[Parameter]:
    """The searched parameters that differ among these trials, by name; a trial that the study lacks was asked nothing.

    `Unavailable` where nothing differs, or what was searched is not known.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    of = suggested(results)
    rows = [of.get(number, {}) for number in trials["number"]]
    found = []
    for name in sorted({name for row in rows for name in row}):
        ranges = list({id(row[name][1]): row[name][1] for row in rows if name in row}.values())
        value_T = np.array([row[name][0] if name in row else np.nan for row in rows])
        choices: list[str] = []
        if isinstance(ranges[0], CategoricalDistribution):
            choices = [_choice_words(choice) for choice in ranges[0].choices]
        log = not choices and any(getattr(of_range, "log", False) for of_range in ranges)
        if log and not (value_T[~np.isnan(value_T)] > 0).all():
            log = False  # a published configuration outside of the range
        position_T = np.log10(value_T) if log else value_T
        if len(np.unique(position_T[~np.isnan(position_T)])) + bool(np.isnan(position_T).any()) > 1:
            found.append(Parameter(name, choices, log, isinstance(ranges[0], IntDistribution), position_T))
    if not found:
        raise Unavailable("All trials have the same configuration: no parameter varies.")
    return found


def _choice_words(choice: Any) -> str:
    if isinstance(choice, str):
        return choice
    words = {True: "yes", False: "no", None: "none"}
    return words[choice] if isinstance(choice, bool) or choice is None else json.dumps(choice)
