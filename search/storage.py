"""An Optuna study in memory that is written to an SQLite file as it changes, in Optuna's own tables.

`optuna.storages.RDBStorage` asks the database before and after each of the twenty parameters of a trial, and waits for
the disk after each: 30 transactions and as many milliseconds of computing per trial, whoever trains meanwhile. Nobody
else changes the study while a search runs, so what is in memory is right, and all that happens to a trial at one moment
is one transaction. The file is what `RDBStorage` reads, the dashboard included.

The journal is a write-ahead log: what was written survives the death of every process. Nothing waits for the disk, and
nor do the reports and checkpoints: a power cut may take the last seconds of all of them, and leaves a file that is
whole.
"""

import contextlib
import datetime
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.study_memory import StudyMemory

PATIENCE_S = 60
"""How long a writer waits for another one, such as the dashboard."""

_TRIAL = """
    INSERT INTO trials (trial_id, study_id, number, state, datetime_start, datetime_complete) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (trial_id) DO UPDATE SET
        state = excluded.state, datetime_start = excluded.datetime_start, datetime_complete = excluded.datetime_complete
"""
OF_A_TRIAL = {
    "trial_params": ("param_name", "param_value", "distribution_json"),
    "trial_user_attributes": ("key", "value_json"),
    "trial_system_attributes": ("key", "value_json"),
    "trial_intermediate_values": ("step", "intermediate_value", "intermediate_value_type"),
    "trial_values": ("objective", "value", "value_type"),
}
"""Tables with rows of a trial. The first column is unique within a trial, and rows of a trial are never taken back."""


class StudyFile(StudyMemory):
    """Every change is in the file when the call returns; those within `together` are when the block ends."""

    def __init__(self, file: Path):
        super().__init__()
        # Makes the tables, or says that another version of Optuna has made them.
        self._tables = optuna.storages.RDBStorage(
            f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": PATIENCE_S}}
        )
        self._tables.engine.dispose()
        sqlalchemy.event.listen(self._tables.engine, "connect", _log_ahead)
        self._study_rows: dict[int, int] = {}
        """As `_trial_rows`."""
        for study in self._tables.get_all_studies():
            study_id = super().create_new_study(study.directions, study.study_name)
            self._study_rows[study_id] = study._study_id
            for frozen in self._tables.get_all_trials(study._study_id, deepcopy=False):
                self._trial_rows[super().create_new_trial(study_id, frozen)] = frozen._trial_id

    def __getstate__(self) -> dict[Any, Any]:
        """Ray pickles searchers. The study in memory goes along, the file does not."""
        return super().__getstate__() | {"_tables": None}

    @property
    def full(self) -> bool:
        """Whether no more trials may begin: Ray counts those of a study that nobody else has."""
        return False

    @property
    def taken(self) -> int:
        """Trials that this search need not train any more."""
        return sum(trial.state.is_finished() for study in self._studies.values() for trial in study.trials)

    @property
    def pending(self) -> bool:
        """Whether the file lacks something that is known here."""
        return False

    def is_own(self, trial: FrozenTrial) -> bool:
        """Whether this search trains it: all trials of a file are its own."""
        return True

    @contextlib.contextmanager
    def alone(self, patient: bool = True) -> Iterator[None]:
        """For what begins trials; nobody else writes to a file, so that there is nothing to be patient for."""
        with self.together():
            yield

    def close(self) -> None:
        """Leaves one plain file, which can be read where nothing can be written; not while others have it open."""
        with (
            contextlib.suppress(sqlalchemy.exc.OperationalError),
            self._tables.engine.connect() as connection,
        ):
            connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
        self._tables.engine.dispose()

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        study_id = super().create_new_study(directions, study_name)
        self._study_rows[study_id] = self._tables.create_new_study(directions, self.get_study_name_from_id(study_id))
        return study_id

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._tables.delete_study(self._study_rows.pop(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, value)
        self._tables.set_study_user_attr(self._study_rows[study_id], key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_system_attr(study_id, key, value)
        self._tables.set_study_system_attr(self._study_rows[study_id], key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._trial_rows[trial_id] = max(self._trial_rows.values(), default=0) + 1
        self._change(trial_id)
        return trial_id

    def reopen(self, trial_id: int) -> None:
        super().reopen(trial_id)
        with self._tables.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM trial_values WHERE trial_id = ?", (self._trial_rows[trial_id],))

    def _write(self) -> None:
        changed, self._changed = sorted(self._changed), set()
        if not changed:
            return
        with self._tables.engine.begin() as connection:
            ahead = connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if ahead else 'FULL'}")
            for trial_id in changed:
                row, trial = self._trial_rows[trial_id], self.get_trial(trial_id)
                study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
                times = _utc(trial.datetime_start), _utc(trial.datetime_complete)
                whole = (row, self._study_rows[study_id], trial.number, trial.state.name, *times)
                connection.exec_driver_sql(_TRIAL, whole)
                for table, rows in rows_of(trial).items():
                    if rows:
                        columns = ("trial_id", *OF_A_TRIAL[table])
                        places = ", ".join("?" * len(columns))
                        connection.exec_driver_sql(
                            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})",
                            [(row, *values) for values in rows],
                        )


def rows_of(trial: FrozenTrial) -> dict[str, list[tuple[Any, ...]]]:
    """Of each table in `OF_A_TRIAL`."""
    distributions = trial.distributions
    return {
        "trial_params": [
            (name, distributions[name].to_internal_repr(value), distribution_to_json(distributions[name]))
            for name, value in trial.params.items()
        ],
        "trial_user_attributes": [(key, json.dumps(value)) for key, value in trial.user_attrs.items()],
        "trial_system_attributes": [(key, json.dumps(value)) for key, value in trial.system_attrs.items()],
        "trial_intermediate_values": [(step, *_stored(value)) for step, value in trial.intermediate_values.items()],
        "trial_values": [(objective, *_stored(value)) for objective, value in enumerate(trial.values or ())],
    }


def _stored(value: float) -> tuple[float | None, str]:
    """SQLite has no infinity: a number, and what it stands for where there is none."""
    if math.isfinite(value):
        return float(value), "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def _utc(time: datetime.datetime | None) -> str | None:
    """Of a local time without a zone, as Optuna stores it."""
    if time is None:
        return None
    return time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _log_ahead(connection: sqlite3.Connection, _: Any) -> None:
    """Where that can be: SQLite goes on with its other journal on some shared file systems, or where others read."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
