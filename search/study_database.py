"""Optuna's tables in the database of a shared study: transactions that notice when it is away, and rows of trials.

`optuna.storages.RDBStorage` makes the tables and reads. Trials are written here, as all that happens to one at a moment
is one transaction, in place of thirty (`search/storage.py`): beyond a network each of them costs several round trips.
"""

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Table, delete, insert, or_, select, update

from datasets import InputError
from search.storage import OF_A_TRIAL, rows_of
from search.study_address import Unreachable, address, connecting, reason, without_password

ATTRIBUTES = "study_user_attributes"
PATIENCE_S = 300.0
"""How long a search goes on without its database before it ends."""
PAUSE_S = 5.0
"""Between two attempts to reach it, or to lock the study."""
LOCK_S = 10.0
"""How long a search waits for another one that begins a trial, which takes the other a second or less."""
FROZEN_S = 300.0
"""After so long without a word the server ends a transaction: a search that was stopped within holds the study."""

Rows = dict[str, dict[Any, tuple[Any, ...]]]
"""All that the database holds of a trial: by table, the rows by what is unique in them."""

_GONE = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.InternalError,
    optuna.exceptions.StorageInternalError,
)


class StudyDatabase:
    """say: prints a line. ask: `Ending.ask`, called once, when the database has been away for `PATIENCE_S`. Raises
    `InputError` where it cannot be reached at the beginning."""

    def __init__(self, study: str, say: Callable[[str], None], ask: Callable[[str], None]):
        self._url, self.shown, self._say, self._ask = address(study), without_password(study), say, ask
        self._away_since: float | None = None
        self._tried_at = 0.0
        self._held_at: float | None = None
        """When it was last found that another search holds the study; None: it does not."""
        self.lost = False
        """Whether the search has been ended because the database was away for too long."""
        with self.at_the_beginning():
            self.storage = _optunas_storage(self._url)
            tables = sqlalchemy.MetaData()
            tables.reflect(self.storage.engine, only=("studies", ATTRIBUTES, "trials", *OF_A_TRIAL))
        self._tables = dict(tables.tables)

    @contextlib.contextmanager
    def at_the_beginning(self) -> Iterator[None]:
        """What fails within is an `InputError`."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise InputError(f"--study {self.shown}: {self._reason(error)}") from None

    @contextlib.contextmanager
    def transaction(self, at_once: bool = False) -> Iterator[Connection]:
        """Raises `Unreachable` where the database is, and without asking where it was a moment ago."""
        now = time.monotonic()
        if self._away_since is not None and now - self._tried_at < PAUSE_S and not at_once:
            raise Unreachable(f"--study {self.shown}: cannot be reached")
        try:
            with self.storage.engine.begin() as connection:
                yield connection
        except _GONE as error:
            if _is_held(error):
                raise Unreachable(f"--study {self.shown}: another search holds the study and does not go on") from None
            self._tried_at = time.monotonic()
            self._is_away(now, self._reason(error))
            raise Unreachable(f"--study {self.shown}: {self._reason(error)}") from None
        if self._away_since is not None:
            self._away_since = None
            self._say("The study's database is back")

    def _is_away(self, now: float, why: str) -> None:
        if self._away_since is None:
            self._away_since = now
            self._say(f"The study's database cannot be reached ({why}); trials go on, new ones wait for it")
        elif now - self._away_since > PATIENCE_S and not self.lost:
            self.lost = True
            self._ask(f"the study's database has been away for {now - self._away_since:.0f} s")

    def _reason(self, error: Exception) -> str:
        return reason(error.__cause__ or error, self._url)

    def lock(self, connection: Connection, study_row: int, patient: bool) -> None:
        """Until the end of the transaction, nobody else who locks it gets further than this.

        patient: waits until the server has ended what holds it, if need be. Else raises `Unreachable` where another
        search holds it for longer than `LOCK_S`, and without asking where it did a moment ago."""
        if not patient and self._held_at is not None and time.monotonic() - self._held_at < PAUSE_S:
            raise Unreachable(f"--study {self.shown}: another search holds the study")
        if connection.dialect.name == "postgresql":
            self._wait(connection, LOCK_S)
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_ms(FROZEN_S)}")
        try:
            with connection.begin_nested():  # an error would end the whole transaction
                self._lock(connection, study_row)
        except _GONE as error:
            if not _is_held(error):
                raise
            if self._held_at is None:
                self._say("Another search holds the study and does not go on; trials go on, new ones wait for it")
            self._held_at = time.monotonic()
            if not patient:
                raise
            self._wait(connection, FROZEN_S)
            self._lock(connection, study_row)
        if self._held_at is not None:
            self._held_at = None
            self._say("The study is free again")

    def _wait(self, connection: Connection, longest_s: float) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_ms(longest_s)}")

    def _lock(self, connection: Connection, study_row: int) -> None:
        studies = self._tables["studies"]
        # A change that changes nothing locks a row in every database; SELECT FOR UPDATE does in some.
        same = {"study_name": studies.c.study_name}
        connection.execute(update(studies).where(studies.c.study_id == study_row).values(same))

    def set_attribute(self, connection: Connection, study_row: int, key: str, value: Any) -> None:
        """Of the study."""
        table = self._tables[ATTRIBUTES]
        connection.execute(delete(table).where(table.c.study_id == study_row, table.c.key == key))
        connection.execute(insert(table).values(study_id=study_row, key=key, value_json=json.dumps(value)))

    def states(
        self, connection: Connection, study_row: int, known: int, unfinished: Iterable[int]
    ) -> list[tuple[int, str]]:
        """Row and state of every trial from number `known` on and of those rows, by number."""
        trials = self._tables["trials"]
        asked = select(trials.c.trial_id, trials.c.state).where(
            trials.c.study_id == study_row, or_(trials.c.number >= known, trials.c.trial_id.in_(list(unfinished)))
        )
        return [(row, state) for row, state in connection.execute(asked.order_by(trials.c.number))]

    def send(
        self, connection: Connection, study_row: int, trial: FrozenTrial, trial_row: int | None, before: Rows | None
    ) -> tuple[int, Rows]:
        """Writes what is new of a trial, and returns its row and what the database then holds of it.

        trial_row: None for a trial that is not there yet. before: what is there; None where that is not known."""
        trials = self._tables["trials"]
        state = (trial.state.name, _utc(trial.datetime_start), _utc(trial.datetime_complete))
        values = dict(zip(("state", "datetime_start", "datetime_complete"), state, strict=True))
        if trial_row is None:
            new = insert(trials).values(study_id=study_row, number=trial.number, **values)
            key = connection.execute(new).inserted_primary_key
            assert key is not None
            trial_row, before = int(key[0]), {}
        elif before is None or before["trials"] != {0: state}:
            connection.execute(update(trials).where(trials.c.trial_id == trial_row).values(values))
        if before is None and not trial.state.is_finished():  # it may have been, and runs again
            values_of = self._tables["trial_values"]
            connection.execute(delete(values_of).where(values_of.c.trial_id == trial_row))
        now: Rows = {"trials": {0: state}}
        for name, rows in rows_of(trial).items():
            now[name] = {row[0]: row for row in rows}
            old = None if before is None else before.get(name, {})
            _replace(connection, self._tables[name], trial_row, old, now[name])
        return trial_row, now


def _is_held(error: Exception) -> bool:
    """Whether it is PostgreSQL's for a lock that was not to be had in time."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03"


def _ms(time_s: float) -> int:
    return round(1000 * time_s)


def _replace(
    connection: Connection,
    table: Table,
    trial_row: int,
    before: dict[Any, tuple[Any, ...]] | None,
    now: dict[Any, tuple[Any, ...]],
) -> None:
    """Make a trial's rows of a table `now`; it holds `before`, or what is not known. No row is ever taken back."""
    columns = OF_A_TRIAL[table.name]
    fresh = now if before is None else {key: row for key, row in now.items() if before.get(key) != row}
    old = list(fresh if before is None else fresh.keys() & before.keys())
    if old:
        connection.execute(delete(table).where(table.c.trial_id == trial_row, table.c[columns[0]].in_(old)))
    if fresh:
        rows = [{"trial_id": trial_row, **dict(zip(columns, row, strict=True))} for row in fresh.values()]
        connection.execute(insert(table), rows)


def _optunas_storage(url: sqlalchemy.URL) -> optuna.storages.RDBStorage:
    """Makes the tables, or says that another version of Optuna has made them. Of two searches that begin at the same
    moment one finds that the other has made a table meanwhile, and looks again."""
    whole, noticing = url.render_as_string(hide_password=False), connecting(url)
    for attempt in range(5):
        try:
            optuna.storages.RDBStorage(whole, engine_kwargs=noticing | {"poolclass": sqlalchemy.NullPool})
            break
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError, optuna.exceptions.StorageInternalError):
            if attempt == 4:
                raise
            time.sleep(0.2 * 2**attempt)
        except RuntimeError as error:  # its words name a command and no address
            raise InputError(f"--study: {str(error).splitlines()[0]}") from None
    return optuna.storages.RDBStorage(
        whole, engine_kwargs=noticing, skip_compatibility_check=True, skip_table_creation=True
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    """Of a local time without a zone, as Optuna stores it."""
    return None if moment is None else moment.astimezone(datetime.UTC).replace(tzinfo=None)
