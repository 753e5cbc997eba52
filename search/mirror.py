"""Results in a bucket (`--storage URL`): what a search writes here is there within about a second of each report.

The folder of results here is a working copy; what is at the URL is the truth between sessions, on whatever machine.
Checkpoints go there straight from the processes that train (`trainables.cross_validation`), and their predictions come
here, for the report. Everything else goes from here to there, by one thread:

    study.db, then reports      so a trial that is reported is always known to the study
    then older checkpoints go   so there is always one that is not ahead of the reports

A network that fails ends nothing: it is said once, and tried again. Only at the end of the search it is an error.
"""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import analysis.fetched as fetched
from analysis.fetched import CHECKPOINT, NOTE, PREDICTIONS
from analysis.results import last_checkpoint, trial_folder
from datasets import InputError
from datasets.remote import RemoteFolder, patiently
from search.owner import FILE as OWNER
from search.owner import Owner
from search.snapshot import snapshot

LOOKED_EVERY_S = 0.5
SHARE = 0.25
"""Of its time the thread sends, at most: a large study is sent less often."""
PATIENCE_S = 120.0
"""How long the end of a search waits for a server that does not answer."""

OF_A_TRIAL = re.compile(r"trials/[^/]+/(reports\.jsonl|fold\d+/[^/]+)")

Say = Callable[[str], None]
State = tuple[int, int]
"""Of a file: size in bytes, and when it was changed, in ns."""


class Unsent(Exception):
    """Not all results could be brought to the URL. The message says where they are."""


@dataclass
class News:
    """What has happened since it was brought there."""

    reported: set[int] = field(default_factory=set)
    """Numbers of trials with new reports."""
    saved: list[tuple[int, str]] = field(default_factory=list)
    """Trial and folder of each new checkpoint, oldest first."""
    ended: set[int] = field(default_factory=set)

    def join(self, later: "News") -> None:
        self.reported |= later.reported
        self.saved += later.saved
        self.ended |= later.ended


class Mirror:
    """Of a folder of results here at a remote one. Methods may be called from any thread."""

    def __init__(self, remote: RemoteFolder, folder: Path, owner: Owner, say: Say):
        """say: is told, once, when the server does not answer, and when it does again."""
        self.remote, self._folder, self._owner, self._say = remote, folder, owner, say
        self._lock = threading.Lock()
        """Of what follows."""
        self._news = News()
        self._sent: dict[str, State] = {}
        """Files beside the trials as they were when they were sent; of the study, its journal also counts."""
        self._kept: dict[int, list[str]] = {}
        """Checkpoints of a trial that are there, oldest first."""
        self._sending = threading.Lock()
        """One thread sends at a time: the mirror's own, or the one that begins and ends."""
        self._ended = threading.Event()
        self._is_away = False
        self._thread = threading.Thread(target=self._keep_up, name="mirror", daemon=True)

    def reported(self, number: int) -> None:
        with self._lock:
            self._news.reported.add(number)

    def saved(self, number: int, checkpoint: str) -> None:
        with self._lock:
            self._news.saved.append((number, checkpoint))

    def ended(self, number: int) -> None:
        with self._lock:
            self._news.ended.add(number)

    def begin(self, begun: set[int], finished: set[int]) -> None:
        """Before anything is trained: what is here is there, and what belongs to no trial goes. Starts the thread.

        begun: the trials that the study knows. finished: those of them that will not go on. Raises `InputError`.
        """
        self._owner.check()
        there = self.remote.files()
        gone = [
            name
            for name in there
            if name.startswith("trials/") and self._is_nobodys(name, begun) and not name.endswith(f"/{NOTE}")
        ]
        notes = [name for name in there if CHECKPOINT.fullmatch(name) and name.endswith(f"/{NOTE}")]
        self.remote.remove([name for name in notes if self._is_nobodys(name, begun)])  # first: it makes the rest count
        self.remote.remove(gone)
        for name, size_bytes in there.items():
            if name.startswith("trials/") and _state(file := self._folder / name)[0] == size_bytes:
                self._sent[name] = _state(file)
        self._send_checkpoints()
        for number in begun:
            notes_here = sorted(trial_folder(self._folder, number).glob(f"checkpoint_*/{NOTE}"))
            self._kept[number] = [note.parent.name for note in notes_here]
        unsent = {number for number in begun if self._name(self._reports(number)) not in self._sent}
        self._bring(News(reported=unsent, ended=set(finished)))
        self._thread.start()

    def finish(self) -> None:
        """Everything here is there, TensorBoard's curves and the report too. Raises `Unsent`."""
        self.stop()
        try:
            patiently(self._bring_all, PATIENCE_S)
        except (InputError, OSError) as error:
            raise Unsent(
                f"Not all results could be sent: {error}. They are in {self._folder}: the same command with --resume "
                f"sends them, and goes on"
            ) from error

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_up(self) -> None:
        pause_s = LOOKED_EVERY_S
        while not self._ended.wait(pause_s):
            with self._lock:
                news, self._news = self._news, News()
            began = time.monotonic()
            try:
                self._owner.check_known()
                self._bring(news)
            except (ValueError, OSError, sqlite3.Error) as error:
                with self._lock:
                    news.join(self._news)
                    self._news = news
                pause_s = min(30.0, 2 * pause_s)
                if not self._is_away:
                    self._is_away = True
                    self._say(f"note: {error}; the search goes on, and tries again")
                continue
            if self._is_away:
                self._is_away = False
                self._say(f"note: {self.remote} answers again")
            pause_s = max(LOOKED_EVERY_S, (time.monotonic() - began) * (1 / SHARE - 1))

    def _bring(self, news: News) -> None:
        """Doing it again, after half of it has failed, does no harm."""
        with self._sending:
            files = [self._reports(number) for number in sorted(news.reported)]
            reports = {self._name(file): file.read_bytes() for file in files if file.exists()}
            self._send_study()  # after the reports were read, and before they are sent
            self.remote.write_all(reports)
            self._send_changed(file for file in self._folder.iterdir() if file.is_file())
            for number, name in news.saved:
                self._bring_predictions(number, name)
            for number in news.ended:
                self._send_changed(self._curves(number))
                self._prune(number)

    def _bring_all(self) -> None:
        with self._lock:
            news, self._news = self._news, News()
        try:
            self._owner.check()
            self._bring(news)
            with self._sending:
                self._send_checkpoints()
                there = self.remote.files()
                every = [file for file in self._folder.rglob("*") if file.is_file() and self._is_ours(file)]
                of_trials = [name for name in map(self._name, every) if name.startswith("trials/")]
                changed = [name for name in of_trials if there.get(name) != (self._folder / name).stat().st_size]
                self.remote.send(changed, self._folder)
                self._send_changed(file for file in every if not self._name(file).startswith("trials/"))
        except (InputError, OSError):
            with self._lock:
                news.join(self._news)
                self._news = news
            raise

    def _send_study(self) -> None:
        file, journal = self._folder / "study.db", self._folder / "study.db-wal"
        if not file.exists():
            return
        state = (_state(file)[0] + _state(journal)[0], max(_state(file)[1], _state(journal)[1]))
        if self._sent.get("study.db") != state:
            self.remote.write("study.db", snapshot(file))
            self._sent["study.db"] = state

    def _send_changed(self, files: Iterator[Path]) -> None:
        """The record last: where it stands, there is an experiment."""
        states = {self._name(file): _state(file) for file in files if self._is_ours(file)}
        changed = [name for name, state in states.items() if self._sent.get(name) != state]
        record = [name for name in changed if name == "experiment.json"]
        self.remote.send([name for name in changed if name not in record], self._folder)
        self.remote.send(record, self._folder)
        self._sent |= {name: states[name] for name in changed}

    def _bring_predictions(self, number: int, name: str) -> None:
        """Here the checkpoint is its predictions and a note; the newest two of a trial are kept, as what is newest may
        be ahead of the reports."""
        checkpoint = trial_folder(self._folder, number) / name
        place = self._name(checkpoint)
        kept = self._kept.setdefault(number, [])
        try:
            note = json.loads(self.remote.read(f"{place}/{NOTE}"))
        except FileNotFoundError:  # of a trial that failed: there is nothing to save
            return
        self.remote.fetch([f"{place}/{PREDICTIONS}"], self._folder)
        fetched.write_note(checkpoint, note)
        if name not in kept:
            kept.append(name)
        while len(kept) > 2:
            self._drop(number, kept[0])
            del kept[0]

    def _prune(self, number: int) -> None:
        """As `callbacks.prune`: of a finished trial one checkpoint stays, without what it would go on from."""
        last = last_checkpoint(trial_folder(self._folder, number))
        if last is None:
            return
        for other in [name for name in self._kept.get(number, []) if name != last.name]:
            self._drop(number, other)
            self._kept[number].remove(other)
        note = fetched.whole_note(last)
        if "state.pt" in note["files"]:
            del note["files"]["state.pt"]
            place = self._name(last)
            self.remote.write(f"{place}/{NOTE}", json.dumps(note).encode())
            self.remote.remove([f"{place}/state.pt"])
            fetched.write_note(last, note)

    def _drop(self, number: int, name: str) -> None:
        checkpoint = trial_folder(self._folder, number) / name
        place = self._name(checkpoint)
        self.remote.remove([f"{place}/{NOTE}"])
        self.remote.remove(self.remote.files(place))
        for file in checkpoint.glob("*"):
            file.unlink()
        if checkpoint.exists():
            checkpoint.rmdir()

    def _send_checkpoints(self) -> None:
        """Those of a search that began without a URL."""
        for trial in (self._folder / "trials").glob("[0-9]*"):
            checkpoint = last_checkpoint(trial)
            if checkpoint is not None and "elsewhere" not in json.loads((checkpoint / NOTE).read_text()):
                self._send_checkpoint(checkpoint)

    def _send_checkpoint(self, checkpoint: Path) -> None:
        place = self._name(checkpoint)
        note = json.loads((checkpoint / NOTE).read_text())
        self.remote.send([f"{place}/{name}" for name in note["files"]], self._folder)
        self.remote.send([f"{place}/{NOTE}"], self._folder)
        fetched.write_note(checkpoint, note)
        for name in note["files"]:
            if name != PREDICTIONS:
                (checkpoint / name).unlink()

    def _is_nobodys(self, name: str, begun: set[int]) -> bool:
        """Of a trial that the study does not know, or a checkpoint that does not count here: it is half written, or
        ahead of the reports."""
        number = name.split("/")[1]
        if not number.isdecimal():
            return False
        found = CHECKPOINT.fullmatch(name)
        if int(number) not in begun or found is None:
            return int(number) not in begun
        note = trial_folder(self._folder, int(number)) / found[2] / NOTE
        return not note.exists() or found[3] not in (NOTE, *fetched.whole_note(note.parent)["files"])

    def _is_ours(self, file: Path) -> bool:
        """To be sent as it is: not the study, nor checkpoints, nor what only counts here, or is half written."""
        name = self._name(file)
        if name.startswith("trials/"):  # where Ray keeps pickles
            return OF_A_TRIAL.fullmatch(name) is not None
        return not (name.startswith((".", "study.db")) or name.endswith(".part") or name == OWNER)

    def _reports(self, number: int) -> Path:
        return trial_folder(self._folder, number) / "reports.jsonl"

    def _curves(self, number: int) -> Iterator[Path]:
        return trial_folder(self._folder, number).glob("fold*/*")

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def _state(file: Path) -> State:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
