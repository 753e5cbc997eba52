"""Results at a URL: what is brought there and in which order, what counts there, and who may."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
import pytest

from analysis.fetched import bring_networks, fetch, placed, whole_note
from analysis.results import Results, last_checkpoint, reports, trial_folder
from datasets import InputError
from datasets.remote import NoAnswerError, RemoteFolder
from search import mirror as mirroring
from search import owner as owning
from search.ending import Ending
from search.mirror import Mirror, News, Unsent
from search.owner import Owner, alone_at
from search.storage import StudyFile
from search.stored import merge, mirrored
from tests.s3_server import Bucket, bucket  # noqa: F401
from tests.searching import ROOT, searching, wait_for
from tests.test_unbreakable import in_the_middle


@pytest.fixture
def remote(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(f"file://{tmp_path}/there")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working copy of an experiment that has just begun."""
    folder = tmp_path / "here"
    folder.mkdir()
    write_record(folder, sessions=1)
    (folder / "folds.parquet").write_bytes(b"folds")
    (folder / "trials").mkdir()
    (folder / "trials/tuner.pkl").write_bytes(b"Ray's")
    return folder


def write_record(folder: Path, sessions: int, started: str = "then") -> None:
    told = {"started": started, "sessions": [{"started": f"session {i}"} for i in range(sessions)]}
    (folder / "experiment.json").write_text(json.dumps(told))


def report(folder: Path, number: int, epoch: int) -> None:
    file = trial_folder(folder, number) / "reports.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as appended:
        appended.write(json.dumps({"number": number, "epoch": epoch}) + "\n")


def checkpoint(folder: Path, number: int, epoch: int, finished: bool = False, name: str = "") -> Path:
    """As a process that trains leaves it."""
    path = trial_folder(folder, number) / (name or f"checkpoint_{epoch:06d}")
    path.mkdir(parents=True)
    content = {"predictions.parquet": b"p" * epoch, "model.safetensors": b"m" * 10 * epoch}
    content |= {} if finished else {"state.pt": b"s" * 20 * epoch}
    for file, written in content.items():
        (path / file).write_bytes(written)
    note = {"epoch": epoch, "files": {file: len(written) for file, written in content.items()}}
    (path / "checkpoint.json").write_text(json.dumps(note))
    return path


def checkpoints(folder: Path) -> list[str]:
    """Of trial 0: those with files."""
    return sorted({file.parent.name for file in trial_folder(folder, 0).glob("checkpoint_*/*")})


def study_of(folder: Path) -> tuple[StudyFile, optuna.Study]:
    file = StudyFile(folder / "study.db")
    return file, optuna.create_study(study_name="here", storage=file)


def trials_at(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="here", storage=f"sqlite:///{folder}/study.db")
    return [trial.state.name for trial in study.trials]


def mirror_of(remote: RemoteFolder, folder: Path, said: list[str] | None = None) -> Mirror:
    return Mirror(remote, folder, Owner(remote), (said if said is not None else []).append)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def hooked(monkeypatch: pytest.MonkeyPatch, hook: Callable[[str], None]) -> None:
    """`hook` is called with the name of every file before it is written there."""
    write = RemoteFolder._write

    def wrapped(self: RemoteFolder, name: str, blocks: Iterable[bytes]) -> None:
        hook(name)
        write(self, name, blocks)

    monkeypatch.setattr(RemoteFolder, "_write", wrapped)


def test_a_trial_that_is_reported_there_is_known_to_the_study_there(remote, here, there, monkeypatch):
    file, study = study_of(here)
    mirror = mirror_of(remote, here)
    for number in range(3):
        study.ask()
        report(here, number, epoch=1)
        mirror.reported(number)
    order: list[str] = []

    def while_the_study_is_sent(name: str) -> None:
        order.append(name)
        if name == "study.db":  # what happens now is not in the study that is on its way
            study.ask()
            report(here, 3, epoch=1)
            report(here, 0, epoch=3)

    hooked(monkeypatch, while_the_study_is_sent)
    mirror._bring(News(reported={0, 1, 2}))
    assert order.index("study.db") < min(order.index(f"trials/000{n}/reports.jsonl") for n in range(3))
    assert trials_at(there) == ["RUNNING"] * 3
    assert [len(reports(trial_folder(there, n) / "reports.jsonl")) for n in range(4)] == [1, 1, 1, 0]
    file.close()


def test_the_thread_brings_what_changes_and_the_end_brings_the_rest(remote, here, there):
    file, study = study_of(here)
    mirror = mirror_of(remote, here)
    mirror.begin(begun=set(), finished=set())
    assert (there / "experiment.json").read_bytes() == (here / "experiment.json").read_bytes()
    study.ask()  # nobody says so: a proposal is no report
    until(lambda: trials_at(there) == ["RUNNING"])
    report(here, 0, epoch=1)
    mirror.reported(0)
    until(lambda: (there / "trials/0000/reports.jsonl").exists())
    (here / "happenings.jsonl").write_text("{}\n")
    until(lambda: (there / "happenings.jsonl").exists())
    for name in ("best/model.safetensors", "trials/0000/fold0/events.out.1", "report.html", ".lock"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("at the end")
    study.tell(0, 1.0)
    file.close()
    mirror.finish()
    assert trials_at(there) == ["COMPLETE"]
    sent = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert {"best/model.safetensors", "trials/0000/fold0/events.out.1", "report.html"} <= sent
    assert not {".lock", "trials/tuner.pkl"} & sent
    assert not [name for name in sent if name.startswith("study.db-")]


def test_a_server_that_does_not_answer_is_said_once_and_asked_again(remote, here, there, monkeypatch):
    monkeypatch.setattr(mirroring, "LOOKED_EVERY_S", 0.01)
    said: list[str] = []
    mirror = mirror_of(remote, here, said)
    mirror.begin(begun=set(), finished=set())
    failures = iter(range(3))

    def fails_three_times(name: str) -> None:
        if name.startswith("trials/") and next(failures, None) is not None:
            raise NoAnswerError("the network is away")

    hooked(monkeypatch, fails_three_times)
    report(here, 0, epoch=1)
    mirror.reported(0)
    until(lambda: len(said) == 2)
    mirror.stop()
    assert said == ["note: the network is away; the search goes on, and tries again", f"note: {remote} answers again"]
    assert reports(there / "trials/0000/reports.jsonl") == [{"number": 0, "epoch": 1}]


def test_whatever_fails_is_tried_again(remote, here, there, monkeypatch):
    monkeypatch.setattr(mirroring, "LOOKED_EVERY_S", 0.01)
    said: list[str] = []
    mirror = mirror_of(remote, here, said)
    mirror.begin(begun=set(), finished=set())
    failures = iter([RuntimeError("of a package")])

    def fails_once(name: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    hooked(monkeypatch, fails_once)
    report(here, 0, epoch=1)
    mirror.reported(0)
    until((there / "trials/0000/reports.jsonl").exists)
    mirror.stop()
    assert said[0] == "note: of a package; the search goes on, and tries again"


def test_before_the_report_the_last_predictions_are_here(remote, here, there, monkeypatch):
    """The thread has not come to them yet."""
    monkeypatch.setattr(mirroring, "LOOKED_EVERY_S", 1000.0)
    mirror = mirror_of(remote, here)
    mirror.begin(begun=set(), finished=set())
    checkpoint(there, 0, epoch=9, finished=True)
    report(here, 0, epoch=9)
    mirror.reported(0)
    mirror.saved(0, "checkpoint_000009")
    mirror.ended(0)
    mirror.catch_up()
    assert last_checkpoint(trial_folder(here, 0)) == here / "trials/0000/checkpoint_000009"
    (here / "report.html").write_text("with it")
    mirror.finish()
    assert (there / "report.html").exists()


def test_it_keeps_up_with_a_server_that_is_far(remote, here, there, monkeypatch):
    """20 trials are saved, each of them for the third time: they go side by side, and no pause follows from it."""
    mirror = mirror_of(remote, here)
    monkeypatch.setattr(mirroring, "LOOKED_EVERY_S", 0.05)
    pauses, wait = [], mirror._ended.wait
    monkeypatch.setattr(mirror._ended, "wait", lambda seconds: pauses.append(seconds) or wait(seconds))
    mirror.begin(begun=set(), finished=set())
    for number in range(20):
        for epoch in (1, 3, 9):
            checkpoint(there, number, epoch)
            report(here, number, epoch)
        mirror._checkpoints.kept[number] = ["checkpoint_000001", "checkpoint_000003"]
    under_way: set[int] = set()
    together = [0]

    def far(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            under_way.add(threading.get_ident())
            together.append(len(under_way))
            time.sleep(0.03)
            try:
                return call(*given)
            finally:
                under_way.discard(threading.get_ident())

        return called

    for name in ("read", "files", "remove"):  # of one trial after the other
        monkeypatch.setattr(RemoteFolder, name, far(getattr(RemoteFolder, name)))
    for number in range(20):
        mirror.reported(number)
        mirror.saved(number, "checkpoint_000009")
    until(lambda: all((trial_folder(here, n) / "checkpoint_000009/checkpoint.json").exists() for n in range(20)))
    until(lambda: not list(there.glob("trials/*/checkpoint_000001/*")))
    mirror.stop()
    assert max(together) >= 8
    assert set(pauses) == {0.05}
    assert {path.name for path in there.glob("trials/*/checkpoint_*") if any(path.iterdir())} == {
        *("checkpoint_000003", "checkpoint_000009")
    }


def test_it_is_an_error_to_end_without_the_results_there(remote, here, monkeypatch):
    monkeypatch.setattr(mirroring, "PATIENCE_S", 0.0)
    mirror = mirror_of(remote, here)
    mirror.begin(begun=set(), finished=set())

    def away(name: str) -> None:
        raise NoAnswerError("the network is away")

    hooked(monkeypatch, away)
    (here / "report.html").write_text("new")
    with pytest.raises(Unsent, match=f"the network is away. They are in {here}: the same command with --resume"):
        mirror.finish()


def test_of_the_checkpoints_of_a_trial_two_are_kept_and_at_its_end_one_without_its_state(remote, here, there):
    mirror = mirror_of(remote, here)
    for epoch in (1, 3, 9, 27):
        checkpoint(there, 0, epoch)
        mirror._bring(News(saved=[(0, f"checkpoint_{epoch:06d}")]))
    kept = ["checkpoint_000009", "checkpoint_000027"]
    for folder in (here, there):
        assert checkpoints(folder) == kept
    assert sorted(path.name for path in (here / "trials/0000/checkpoint_000027").iterdir()) == [
        "checkpoint.json",
        "predictions.parquet",
    ]
    mirror._bring(News(ended={0}))
    for folder in (here, there):
        assert checkpoints(folder) == kept[1:]
    last = last_checkpoint(trial_folder(there, 0))
    assert last is not None
    assert not (last / "state.pt").exists()
    assert last_checkpoint(trial_folder(here, 0)) == here / "trials/0000/checkpoint_000027"
    assert whole_note(here / "trials/0000/checkpoint_000027") == json.loads((last / "checkpoint.json").read_text())


def test_a_failed_trial_has_no_checkpoint_and_that_is_no_error(remote, here):
    mirror = mirror_of(remote, here)
    mirror._bring(News(saved=[(0, "checkpoint_000000")], ended={0}))
    assert last_checkpoint(trial_folder(here, 0)) is None


def at_url(there: Path, sessions: int = 1) -> None:
    there.mkdir(exist_ok=True)
    write_record(there, sessions)


def test_what_is_half_written_or_not_yet_reported_there_does_not_count(remote, there, tmp_path):
    at_url(there)
    report(there, 0, epoch=3)
    checkpoint(there, 0, epoch=1)
    checkpoint(there, 0, epoch=3)
    (there / "trials/0000/checkpoint_000003/state.pt").write_bytes(b"cut off")
    checkpoint(there, 0, epoch=9)  # its report was on its way
    checkpoint(there, 1, epoch=3, finished=True)  # nothing of this one was reported
    (there / "trials/0000/checkpoint_000027").mkdir()
    (there / "trials/0000/checkpoint_000027/predictions.parquet").write_bytes(b"no note yet")
    fetch(remote, tmp_path / "new")
    found = [path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").glob("trials/*/checkpoint*")]
    assert found == ["trials/0000/checkpoint_000001"]
    mirror = mirror_of(remote, tmp_path / "new")
    mirror.begin(begun={0}, finished=set())
    mirror.stop()
    left = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert {name for name in left if "checkpoint_" in name} == {
        f"trials/0000/checkpoint_000001/{name}"
        for name in ("checkpoint.json", "predictions.parquet", "model.safetensors", "state.pt")
    }


def test_a_trial_that_the_study_does_not_know_leaves_nothing_to_the_one_that_gets_its_number(remote, here, there):
    at_url(there)
    checkpoint(there, 7, epoch=3)
    report(there, 7, epoch=3)
    mirror = mirror_of(remote, here)
    mirror.begin(begun={0, 1}, finished=set())
    mirror.stop()
    assert not [path for path in there.glob("trials/0007/**/*") if path.is_file()]


def test_a_search_that_began_without_a_url_takes_its_checkpoints_there(remote, here, there):
    report(here, 0, epoch=3)
    saved = checkpoint(here, 0, epoch=3)
    mirror = mirror_of(remote, here)
    mirror.begin(begun={0}, finished=set())
    mirror.stop()
    sent = last_checkpoint(trial_folder(there, 0))
    assert sent is not None
    assert (sent / "state.pt").stat().st_size == 60
    assert last_checkpoint(trial_folder(here, 0)) == saved
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint.json", "predictions.parquet"]


def test_networks_come_when_they_are_asked_for(remote, there, tmp_path):
    at_url(there)
    report(there, 0, epoch=3)
    checkpoint(there, 0, epoch=3)
    folder = tmp_path / "new"
    fetch(remote, folder)
    here = folder / "trials/0000/checkpoint_000003"
    with pytest.raises(InputError, match="its networks are where the search keeps its results; give --results URL"):
        bring_networks(None, folder, here)
    assert not (here / "model.safetensors").exists()
    bring_networks(remote, folder, here)
    assert (here / "model.safetensors").stat().st_size == 30
    assert not (here / "state.pt").exists()
    bring_networks(None, folder, here)  # nothing is missing any more


def test_only_what_has_changed_is_fetched_again(remote, there, tmp_path, monkeypatch):
    at_url(there)
    for number in range(3):
        report(there, number, epoch=1)
        checkpoint(there, number, epoch=1)
    fetch(remote, tmp_path / "new")
    fetched: list[str] = []
    whole = RemoteFolder.fetch

    def noted(self: RemoteFolder, names: Any, folder: Path) -> None:
        fetched.extend(names := list(names))
        whole(self, names, folder)

    monkeypatch.setattr(RemoteFolder, "fetch", noted)
    fetch(remote, tmp_path / "new")
    assert fetched == []
    report(there, 1, epoch=3)
    checkpoint(there, 1, epoch=3)
    fetch(remote, tmp_path / "new")
    assert sorted(fetched) == ["trials/0001/checkpoint_000003/predictions.parquet", "trials/0001/reports.jsonl"]


def test_where_nobody_went_on_meanwhile_what_is_here_is_kept(remote, here, there):
    at_url(there)
    report(there, 0, epoch=1)
    report(here, 0, epoch=1)
    report(here, 0, epoch=3)  # the last second, which was not sent
    checkpoint(there, 0, epoch=3)
    (here / "study.db").write_bytes(b"ours")
    (there / "study.db").write_bytes(b"theirs")
    merge(remote, here)
    assert [told["epoch"] for told in reports(here / "trials/0000/reports.jsonl")] == [1, 3]
    assert (here / "study.db").read_bytes() == b"ours"
    assert last_checkpoint(trial_folder(here, 0)) == here / "trials/0000/checkpoint_000003"


def test_a_copy_that_was_made_in_the_middle_takes_nothing_back(remote, here, there):
    """As a restored disk: the sessions are the same, and what is there is later."""
    at_url(there)
    for epoch in (1, 3, 9):
        report(there, 0, epoch)
        report(there, 7, epoch)  # which has begun since
    report(here, 0, epoch=1)
    report(here, 1, epoch=1)
    report(here, 1, epoch=3)  # which has not come there
    report(there, 1, epoch=1)
    checkpoint(there, 0, epoch=9, finished=True)
    ours = checkpoint(here, 1, epoch=3)
    for folder, begun in ((here, 2), (there, 8)):
        file, study = study_of(folder)
        for _ in range(begun):
            study.ask()
        file.close()
    merge(remote, here)
    told = {n: [told["epoch"] for told in reports(trial_folder(here, n) / "reports.jsonl")] for n in (0, 1, 7)}
    assert told == {0: [1, 3, 9], 1: [1, 3], 7: [1, 3, 9]}
    assert len(trials_at(here)) == 8
    assert last_checkpoint(trial_folder(here, 1)) == ours
    mirror = mirror_of(remote, here)
    mirror.begin(begun={0, 1, 7}, finished={0})
    mirror.stop()
    assert [len(reports(trial_folder(there, n) / "reports.jsonl")) for n in (0, 1, 7)] == [3, 2, 3]
    assert last_checkpoint(trial_folder(there, 0)) is not None


def test_what_has_gone_on_apart_is_not_mixed(remote, here, there):
    at_url(there)
    write_record(here, sessions=2)
    report(there, 0, epoch=1)
    with pytest.raises(InputError, match=r"has gone on without file:///.*, where trials/0000/reports.jsonl says more"):
        merge(remote, here)


def test_trials_of_another_course_are_set_aside(remote, here, there):
    at_url(there, sessions=2)
    for number in (0, 1):
        report(here, number, epoch=9)
    report(there, 0, epoch=1)
    checkpoint(here, 1, epoch=9)
    merge(remote, here)
    assert [told["epoch"] for told in reports(here / "trials/0000/reports.jsonl")] == [1]
    assert not trial_folder(here, 1).exists()
    assert [told["epoch"] for told in reports(here / "trials/lost-0001/reports.jsonl")] == [9]


def test_where_another_machine_went_on_what_is_there_is_right(remote, here, there):
    at_url(there, sessions=2)
    report(there, 0, epoch=1)
    report(there, 0, epoch=9)
    report(here, 0, epoch=1)
    report(here, 0, epoch=3)
    for name, content in (("study.db", b"ours"), ("study.db-wal", b"of ours")):
        (here / name).write_bytes(content)
    (there / "study.db").write_bytes(b"theirs")
    merge(remote, here)
    assert [told["epoch"] for told in reports(here / "trials/0000/reports.jsonl")] == [1, 9]
    assert (here / "study.db").read_bytes() == b"theirs"
    assert not (here / "study.db-wal").exists()


def test_two_experiments_of_one_name_are_not_mixed(remote, here, there):
    at_url(there)
    write_record(there, sessions=2, started="at another time")
    with pytest.raises(InputError, match=f"{here}: is another experiment than file:///.*; choose another --name"):
        merge(remote, here)


def test_what_is_there_is_not_written_over(remote, here, there):
    at_url(there)
    with (
        pytest.raises(InputError, match="there is an experiment: go on with --resume"),
        mirrored(remote, here, resume=False, say=print, ending=Ending()),
    ):
        pass
    assert not (there / "owner.json").exists()


def elsewhere(there: Path) -> None:
    """The owner is of another machine."""
    told = json.loads((there / "owner.json").read_text())
    (there / "owner.json").write_text(json.dumps(told | {"id": "other", "host": "far-away", "machine": "other"}))


def test_of_two_searches_at_one_url_the_second_is_refused(remote, there):
    with alone_at(remote):
        elsewhere(there)
        with pytest.raises(InputError, match=r"^file:///\S+: far-away is searching there, as it said \d s ago; wait"):
            Owner(remote).claim()


def test_an_owner_that_is_silent_for_long_is_taken_for_dead(remote, there):
    first = Owner(remote)
    first.claim()
    elsewhere(there)
    long_ago = time.time() - owning.STALE_S - 5
    os.utime(there / "owner.json", (long_ago, long_ago))
    with alone_at(remote) as second:
        second.check()
        with pytest.raises(InputError, match="has gone on with this search"):
            first.check()  # it was asleep
        with pytest.raises(InputError, match="has gone on with this search"):
            first.check_lately()
    assert not (there / "owner.json").exists()


def test_the_owner_that_has_lost_its_place_is_interrupted_and_sends_nothing_more(remote, here, there, monkeypatch):
    monkeypatch.setattr(owning, "BEAT_S", 0.01)
    owner = Owner(remote, (ending := Ending()).ask)
    owner.claim()
    mirror = Mirror(remote, here, owner, print)
    mirror.begin(begun=set(), finished=set())
    elsewhere(there)
    owner.keep()  # returns
    assert ending.why == "far-away has gone on with it"
    (here / "report.html").write_text("ours")
    with pytest.raises(Unsent, match="far-away has gone on with this search"):
        mirror.finish()
    assert not (there / "report.html").exists()


def test_an_owner_that_was_away_looks_before_it_sends(remote, here, there, monkeypatch):
    """Between two signs of life, as the network or this machine was asleep."""
    monkeypatch.setattr(mirroring, "LOOKED_EVERY_S", 0.01)
    owner, said = Owner(remote), []
    owner.claim()
    mirror = Mirror(remote, here, owner, said.append)
    mirror.begin(begun=set(), finished=set())
    elsewhere(there)
    report(there, 0, epoch=9)  # by the new owner
    now = time.time()
    monkeypatch.setattr(owning.time, "time", lambda: now + owning.SURE_S + 1)
    report(here, 0, epoch=1)
    mirror.reported(0)
    until(lambda: bool(said))
    mirror.stop()
    assert "far-away has gone on with this search; since then nothing is sent" in said[0]
    assert [told["epoch"] for told in reports(there / "trials/0000/reports.jsonl")] == [9]


@pytest.mark.parametrize("found", ["no answer", "nobody"])
def test_an_owner_that_cannot_see_itself_there_sends_nothing(remote, there, monkeypatch, found):
    """Where nobody is, another one has taken the place meanwhile, and is through."""
    owner = Owner(remote)
    owner.claim()
    if found == "nobody":
        (there / "owner.json").unlink()
    else:
        monkeypatch.setattr(RemoteFolder, "read", lambda self, name: (_ for _ in ()).throw(NoAnswerError("no answer")))
    with pytest.raises(InputError, match="no answer" if found == "no answer" else "another machine has gone on"):
        owner.check_lately()


@pytest.mark.parametrize("when", ["lately", "long ago"])
def test_the_server_is_asked_for_the_owner_only_where_it_was_not_lately(remote, monkeypatch, when):
    owner = Owner(remote)
    owner.claim()
    owner.check()
    asked: list[str] = []
    read = RemoteFolder.read
    monkeypatch.setattr(RemoteFolder, "read", lambda self, name: asked.append(name) or read(self, name))
    if when == "long ago":
        owner._looked_s -= owning.SURE_S
    owner.check_lately()
    assert len(asked) == (when == "long ago")


def test_no_error_ends_the_signs_of_life(remote, there, monkeypatch):
    monkeypatch.setattr(owning, "BEAT_S", 0.01)
    owner = Owner(remote)
    owner.claim()
    failures = iter([KeyError("of a package for fsspec")] * 2)
    read = RemoteFolder.read

    def fails(self: RemoteFolder, name: str) -> bytes:
        if (error := next(failures, None)) is not None:
            raise error
        owner.end()
        return read(self, name)

    monkeypatch.setattr(RemoteFolder, "read", fails)
    before = (there / "owner.json").stat().st_mtime_ns
    owner.keep()
    assert (there / "owner.json").stat().st_mtime_ns > before


def test_a_dead_process_of_this_machine_is_not_waited_for(remote):
    claim = "import sys; from search.owner import Owner; from datasets.remote import RemoteFolder; "
    claim += "Owner(RemoteFolder(sys.argv[1])).claim()"
    subprocess.run([sys.executable, "-c", claim, remote.url], cwd=ROOT, check=True)
    Owner(remote).claim()


def command(results: Path, url: str, *more: str) -> list[str]:
    options = ["--folds", "2", "--max-epochs", "9", "--trials", "4", "--scheduler", "none", "--no-explain"]
    options += ["--set", "batch_size=128", "--set", "dense_layers=0", "--storage", url]
    return [sys.executable, "-m", "search", "digits", "--results", str(results), *options, *more]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_at_a_url_survives_its_machine(bucket: Bucket, tmp_path, monkeypatch):  # noqa: F811
    url = bucket.url("all/searches").replace("s3://", "s3://of-a-test:secret-of-a-url@")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    with searching(command(first, url), first / "terminal.txt") as process:
        wait_for(in_the_middle(first), process, seconds=300)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    written = [file for file in first.rglob("*") if file.is_file()]
    assert not [file for file in written if b"secret-of-a-url" in file.read_bytes()]
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "store"))
    before = placed("digits", url).folder  # what is there, and not what is in `first`
    ends = {n: reports(trial_folder(before, n) / "reports.jsonl") for n in range(4)}
    finished = [n for n, told in ends.items() if told and told[-1]["done"]]
    unfinished = [n for n, told in ends.items() if told and not told[-1]["done"]]
    assert len(finished) >= 1, "brought there within seconds of being reported"

    done = subprocess.run(command(second, url, "--resume"), cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s3://searches/all/searches/digits" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    after = placed("digits", url).folder
    for number in range(4):
        told = reports(trial_folder(after, number) / "reports.jsonl")
        assert told[: len(ends[number])] == ends[number], "what had been reported stays"
        assert told[-1]["finished"]
        assert {point["epoch"] for report in told for point in report["curve"]} == {*range(1, 10)}, "without a gap"
        if number in finished:
            assert told == ends[number], "what had finished is not repeated"
    resumed = [n for n in unfinished if ends[n][-1]["epoch"] >= 1]
    assert resumed, "a trial was on its way"
    assert [trial.state.name for trial in _study(after).trials] == ["COMPLETE"] * 4
    names = RemoteFolder(url).below("digits").files()
    assert not [name for name in names if name.endswith(("state.pt", ".pkl", "owner.json")) or ".written" in name]
    kept = [name for name in names if name.endswith("/model.safetensors")]
    assert len(kept) == 4, "one checkpoint of each trial"

    told_here = subprocess.run(
        [sys.executable, "-m", "analysis", f"{url.partition('?')[0]}/digits?{url.partition('?')[2]}"],
        cwd=ROOT,
        env=os.environ | {"IMAGE_SEARCH_STORE": str(tmp_path / "third")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told_here.returncode == 0, told_here.stdout + told_here.stderr
    assert "the best of 4 trials" in told_here.stdout
    assert "Stored: s3://searches/all/searches/digits/report.html" in told_here.stdout
    results = Results.open(after)
    assert np.isfinite(results.out_of_fold(finished[0])).all()
    assert pl.read_parquet(after / "folds.parquet").height == results.folds.height


def _study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="digits", storage=f"sqlite:///{folder / 'study.db'}")


def test_a_url_that_is_none_or_cannot_be_written_is_told_at_once(bucket: Bucket, tmp_path):  # noqa: F811
    for url, said in (
        ("bucket/folder", "error: --storage bucket/folder: give a URL, such as s3://bucket/folder"),
        (bucket.url("x", bucket="no-such-bucket"), "error: s3://no-such-bucket/x/digits: "),
    ):
        done = subprocess.run(command(tmp_path / "r", url), cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "r").exists()
