"""Results in a bucket (`--storage URL`): what a search writes here is there within about a second of each report.

The folder of results here is a working copy; what is at the URL is the truth between sessions, on whatever machine.
Checkpoints go there straight from the processes that train (`trainables.cross_validation`), and their predictions come
here, for the report. Everything else goes from here to there, by one thread:

    study.db, then reports      so a trial that is reported is always known to the study
    then older checkpoints go   so there is always one that is not ahead of the reports

A network that fails ends nothing: it is said once, and tried again. Only at the end of the search it is an error.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from analysis.fetched import NOTE
from analysis.results import trial_folder
from datasets.remote import RemoteFolder, patiently
from search.owner import FILE as OWNER
from search.owner import Owner
from search.remote_checkpoints import RemoteCheckpoints
from search.snapshot import snapshot

LOOKED_EVERY_S = 0.5
SHARE = 0.25
"""Of its time the thread sends the study, at most: a large one is sent less often."""
AT_A_TIME = 16
"""Trials whose news are on their way together: each of them is a dozen requests, one after the other."""
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
        self._checkpoints = RemoteCheckpoints(remote, folder)
        self._lock = threading.Lock()
        """Of what follows."""
        self._news = News()
        self._sent: dict[str, State] = {}
        """Files beside the trials as they were when they were sent; of the study, its journal also counts."""
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
        nobodys = [name for name in there if name.startswith("trials/") and self._checkpoints.is_nobodys(name, begun)]
        notes = [name for name in nobodys if name.endswith(f"/{NOTE}")]
        self.remote.remove(notes)  # first: they make the rest count
        self.remote.remove(set(nobodys).difference(notes))
        for name, size_bytes in there.items():
            if name.startswith("trials/") and _state(file := self._folder / name)[0] == size_bytes:
                self._sent[name] = _state(file)
        self._checkpoints.send()
        self._checkpoints.look(begun)
        unsent = {number for number in begun if self._name(self._reports(number)) not in self._sent}
        self._bring(News(reported=unsent, ended=set(finished)))
        self._thread.start()

    def catch_up(self) -> None:
        """When the last trial has ended, for the report: its predictions are here, and all that was reported is there.
        Raises `Unsent`."""
        self.stop()
        self._patiently(self._bring_news)

    def finish(self) -> None:
        """Everything here is there, TensorBoard's curves and the report too. Raises `Unsent`."""
        self.stop()
        self._patiently(self._bring_all)

    def _patiently(self, bring: Callable[[], object]) -> None:
        try:
            patiently(bring, PATIENCE_S)
        except Exception as error:
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
            try:
                study_took_s = self._bring_news()
            except Exception as error:  # whatever it was: nobody sees how a thread ends
                pause_s = min(30.0, 2 * pause_s)
                if not self._is_away:
                    self._is_away = True
                    self._say(f"note: {error or type(error).__name__}; the search goes on, and tries again")
                continue
            if self._is_away:
                self._is_away = False
                self._say(f"note: {self.remote} answers again")
            pause_s = max(LOOKED_EVERY_S, study_took_s * (1 / SHARE - 1))

    def _bring_news(self) -> float:
        """Returns how long it took to send the study, in seconds. What fails is still news."""
        with self._lock:
            news, self._news = self._news, News()
        try:
            return self._bring(news)
        except Exception:
            with self._lock:
                news.join(self._news)
                self._news = news
            raise

    def _bring(self, news: News) -> float:
        """Doing it again, after half of it has failed, does no harm."""
        with self._sending:
            self._owner.check_lately()
            files = {number: self._reports(number) for number in news.reported}
            reports = {number: file.read_bytes() for number, file in files.items() if file.exists()}
            began = time.monotonic()
            self._send_study()  # after the reports were read, and before they are sent
            study_took_s = time.monotonic() - began
            saved: dict[int, list[str]] = {}
            for number, name in news.saved:
                saved.setdefault(number, []).append(name)

            def bring(number: int) -> None:
                self._owner.check_lately()
                if number in reports:
                    self.remote.write(self._name(files[number]), reports[number])
                for name in saved.get(number, []):
                    self._checkpoints.bring(number, name)
                if number in news.ended:
                    self._send_changed(self._curves(number))
                    self._checkpoints.prune(number)

            with ThreadPoolExecutor(AT_A_TIME) as threads:
                list(threads.map(bring, sorted(news.reported | saved.keys() | news.ended)))
            self._send_changed(file for file in self._folder.iterdir() if file.is_file())
        return study_took_s

    def _bring_all(self) -> None:
        self._owner.check()
        self._bring_news()
        with self._sending:
            self._checkpoints.send()
            there = self.remote.files()
            every = [file for file in self._folder.rglob("*") if file.is_file() and self._is_ours(file)]
            of_trials = [name for name in map(self._name, every) if name.startswith("trials/")]
            changed = [name for name in of_trials if there.get(name) != (self._folder / name).stat().st_size]
            self.remote.send(changed, self._folder)
            self._send_changed(file for file in every if not self._name(file).startswith("trials/"))

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
