"""A study in a database that several searches share, on several machines: `--study postgresql://USER@HOST/DATABASE`.

Each search has the study in memory, as `search.storage` has, and reads what others have done since whenever it begins a
trial. To begin one is a transaction that locks the study's row first: so no two searches take the same number or the
same configuration from the queue, no more trials begin than were asked for, and what is proposed takes account of what
the others are training. The tables are Optuna's own, for its dashboard and command line.

A trial belongs to the search that began it, by the attribute `search`, an identity that experiment.json keeps. Nobody
else goes on with it or writes to it.

While the database cannot be reached, trials go on and what they report is kept here; none begin. A search that has to
end so has lost nothing: reports.jsonl has the scores, and `StudySearch.settle` tells the study when it goes on.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from datasets import InputError
from search.comparable import check_same, scores_of
from search.records import has_reported_end
from search.storage import StudyFile
from search.study_address import Unreachable
from search.study_database import Rows, StudyDatabase
from search.study_memory import StudyMemory
from trainables.metrics import METRICS

LAST_PATIENCE_S = 30.0
"""How long the end of a search waits for a database that is away."""

OWNER, COMPARED = "search", "scores"
"""The attribute of a trial that says whose it is, and that of the study which says what its scores are."""


def _nothing(*_: Any) -> None:
    pass


class SharedStudy(StudyMemory):
    """As `StudyFile`, for the search of `record` (experiment.json), which says how many trials may begin in all.

    copy: where `close` leaves the study as an SQLite file, for reports. say, ask: see `StudyDatabase`. begins:
    whether the search is to begin trials, which settles of what scores the study is; else it only looks. Raises
    `InputError` where it is of scores that cannot be compared with those of this search.
    """

    def __init__(
        self,
        study: str,
        record: dict[str, Any],
        copy: Path | None = None,
        say: Callable[[str], None] = _nothing,
        ask: Callable[[str], None] = _nothing,
        begins: bool = True,
    ):
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces every study
        self.owner: str = record["study"]["owner"]
        self._trials: int = record["trials"]
        self._copy = copy
        self._sent: dict[int, Rows] = {}
        """What the database holds of trials that we train, as far as that is known."""
        self._database = StudyDatabase(study, say, ask)
        with self._database.at_the_beginning():
            self._open(record["name"], METRICS[record["metric"]], scores_of(record), begins)

    def _open(self, name: str, mode: str, scores: dict[str, Any], begins: bool) -> None:
        storage = self._database.storage
        directions = [StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE]
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            storage.create_new_study(directions, name)
        self._study_row = storage.get_study_id_from_name(name)
        self._study_id = super().create_new_study(directions, name)
        for frozen in sorted(storage.get_all_trials(self._study_row, deepcopy=False), key=lambda trial: trial.number):
            self._trial_rows[super().create_new_trial(self._study_id, frozen)] = frozen._trial_id
        with self.alone() as connection:
            there = storage.get_study_user_attrs(self._study_row).get(COMPARED)
            if there is not None or self._all():
                check_same(there or {}, scores, f"--study {self._database.shown}", name)
            elif begins:  # from here on: another search may enqueue and begin trials in the next moment
                self._database.set_attribute(connection, self._study_row, COMPARED, scores)

    def __getstate__(self) -> dict[Any, Any]:
        """Ray pickles searchers. The study in memory goes along; the database, whose address may hold a password, does
        not."""
        return super().__getstate__() | {"_database": None}

    @property
    def full(self) -> bool:
        """Whether no more trials may begin. Within `alone` it stays as it is."""
        return sum(trial.state != TrialState.WAITING for trial in self._all()) >= self._trials

    @property
    def taken(self) -> int:
        """Trials that this search need not train: those which have finished, and those of others."""
        begun = (trial for trial in self._all() if trial.state != TrialState.WAITING)
        return sum(trial.state.is_finished() or not self.is_own(trial) for trial in begun)

    @property
    def own(self) -> int:
        """Trials that this search has begun."""
        return sum(map(self.is_own, self._all()))

    @property
    def pending(self) -> bool:
        """Whether the database lacks something that is known here."""
        return bool(self._changed)

    def is_own(self, trial: FrozenTrial) -> bool:
        """Whether this search trains it."""
        return bool(trial.user_attrs.get(OWNER) == self.owner)

    def elsewhere(self) -> dict[str, int]:
        """How many trials other searches have finished, and how many they have begun and not finished, as last read."""
        others = [trial for trial in self._all() if trial.state != TrialState.WAITING and not self.is_own(trial)]
        finished = sum(trial.state.is_finished() for trial in others)
        return {"finished": finished, "unfinished": len(others) - finished}

    @contextlib.contextmanager
    def alone(self, patient: bool = True) -> Iterator[Connection]:
        """A transaction in which no other search begins trials; what they have done is read first. patient: see
        `StudyDatabase.lock`. Raises `Unreachable`, and then nothing has happened that was done within, or read."""
        known = self._studies[self._study_id]
        before, best = list(known.trials), known.best_trial_id
        changed, rows = set(self._changed), dict(self._trial_rows)
        self._together = True
        try:
            with self._database.transaction() as connection:
                self._database.lock(connection, self._study_row, patient)
                self._read(connection)
                yield connection
                sent = self._send(connection)
            self._have_sent(sent)
        except BaseException:
            known.trials[:], known.best_trial_id = before, best
            self._changed, self._trial_rows = changed, rows
            self._sent.clear()  # it is not known what has arrived
            self._prev_waiting_trial_number[self._study_id] = 0
            raise
        finally:
            self._together = False

    def close(self) -> None:
        """Waits for the database to have everything, if not for long, and leaves the copy."""
        until = time.monotonic() + (0 if self._database.lost else LAST_PATIENCE_S)
        self._write(at_once=True)
        while self._changed and time.monotonic() < until:
            time.sleep(0.5)
            self._write(at_once=True)
        if not self._changed and self._copy is not None:
            with contextlib.suppress(Unreachable), self.alone(patient=False):
                pass  # how far the others are
        self._database.storage.engine.dispose()
        if self._copy is not None:
            self._leave(self._copy)

    def _leave(self, file: Path) -> None:
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        copy = StudyFile(part)
        name, directions = self.get_study_name_from_id(self._study_id), self.get_study_directions(self._study_id)
        study_id = copy.create_new_study(directions, name)
        with copy.together():
            for trial in self._all():
                copy.create_new_trial(study_id, trial)
        copy.close()
        part.replace(file)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """There is one, which is there already."""
        raise optuna.exceptions.DuplicatedStudyError

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        assert self._together, "a trial begins where no other search can begin one"
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is None:
            self._take(trial_id)
        self._changed.add(trial_id)
        return trial_id

    def reopen(self, trial_id: int) -> None:
        self._sent.pop(trial_id, None)
        super().reopen(trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state == TrialState.RUNNING:  # from the queue
            self._take(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def _take(self, trial_id: int) -> None:
        """Says whose it is; written with what comes next."""
        optuna.storages.InMemoryStorage.set_trial_user_attr(self, trial_id, OWNER, self.owner)

    def _all(self) -> list[FrozenTrial]:
        return self.get_all_trials(self._study_id, deepcopy=False)

    def _write(self, at_once: bool = False) -> None:
        if not self._changed:
            return
        rows = dict(self._trial_rows)
        try:
            with self._database.transaction(at_once) as connection:
                sent = self._send(connection)
            self._have_sent(sent)
        except Unreachable:
            self._trial_rows = rows
            self._sent.clear()  # it is not known what has arrived

    def _read(self, connection: Connection) -> None:
        """What others have begun, enqueued and finished."""
        known = self._all()
        theirs = {
            self._trial_rows[trial._trial_id]: trial
            for trial in known
            if not trial.state.is_finished() and not self.is_own(trial)
        }
        for row, state in self._database.states(connection, self._study_row, len(known), theirs):
            before = theirs.get(row)
            if before is None:
                frozen = self._database.storage.get_trial(row)
                self._trial_rows[super().create_new_trial(self._study_id, frozen)] = row
            elif before.state.name != state:
                frozen = self._database.storage.get_trial(row)
                frozen._trial_id = before._trial_id
                self._set_trial(before._trial_id, frozen)
                self._update_cache(before._trial_id, self._study_id)

    def _send(self, connection: Connection) -> dict[int, Rows]:
        """Of every trial that has changed, what the database then holds of it."""
        sent = {}
        for trial_id in sorted(self._changed):
            row, before = self._trial_rows.get(trial_id), self._sent.get(trial_id)
            self._trial_rows[trial_id], sent[trial_id] = self._database.send(
                connection, self._study_row, self.get_trial(trial_id), row, before
            )
        return sent

    def _have_sent(self, sent: dict[int, Rows]) -> None:
        self._changed.clear()
        for trial_id, rows in sent.items():
            if self.get_trial(trial_id).state == TrialState.RUNNING:
                self._sent[trial_id] = rows
            else:
                self._sent.pop(trial_id, None)


def left_to_share(study: str, record: dict[str, Any], folder: Path, say: Callable[[str], None] = _nothing) -> int:
    """How many trials there are for this search, whose results are in `folder`. say: see `StudyDatabase`. Raises
    `InputError` where there are none, or where the study is one of other scores."""
    shared = SharedStudy(study, record, say=say, begins=False)
    shared.close()
    ended = (trial.number for trial in shared._all() if trial.state.is_finished() and shared.is_own(trial))
    left = int(record["trials"]) - shared.taken + sum(not has_reported_end(folder, number) for number in ended)
    if left <= 0 and not shared.own:
        raise InputError(
            f"--study: all {record['trials']} trials of the study {record['name']!r} have been begun by others; for "
            f"more of them give a larger --trials, for a new study another --name"
        )
    return left
