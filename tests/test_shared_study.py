"""Several searches that share one study in a PostgreSQL server from Debian's packages."""

import concurrent.futures
import itertools
import json
import math
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

import search.shared_study
import search.study_database
import search.tuning
from analysis import summary, write_report
from analysis.results import reports
from datasets import InputError
from search.ending import Ending
from search.ray_session import Share
from search.records import alone_in, check_name
from search.searchers import StudySearch, enqueue, sampler
from search.shared_study import SharedStudy, left_to_share
from search.study_address import Unreachable, check_reachable, own_seed, without_password
from search.study_database import StudyDatabase
from search_spaces import covid
from tests.postgres_server import PASSWORD, PROGRAMS, QUOTED_PASSWORD, USER, PostgresServer, postgres_server
from tests.results_folder import Wanted, build
from tests.test_searchers import report
from trainables.config import TrialConfig

# Optuna leaves a connection of its check of the tables to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*psycopg.Connection:ResourceWarning")
needs_postgres = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: postgresql)")
COUNT = itertools.count()
RUNNING, COMPLETE, PRUNED, FAIL = TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty database."""
    return server.create(f"study-{next(COUNT)}")


def recorded(owner: str, trials: int = 20, **other) -> dict:
    """What experiment.json says of a search."""
    same = dict.fromkeys(("task", "demonstration", "seed", "folds", "max_epochs", "weights", "precision", "fixed"), 1)
    same |= dict.fromkeys(("searcher", "scheduler", "models", "space_digest", "only"))
    images = dict.fromkeys(("drop", "like", "pool", "plant", "repeats", "leave_source_out"), 1)
    told = same | {"metric": "auroc", "folds_digest": "f", "name": "test", "trials": trials, "study": {"owner": owner}}
    return told | {"data": images | {"digest": "d"}} | other


def shared(
    url: str, owner: str, searcher: str = "random", trials: int = 20, **other
) -> tuple[SharedStudy, StudySearch]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = SharedStudy(url, recorded(owner, trials), **other)
    proposes = sampler(searcher, own_seed(owner), trials)
    return study, StudySearch(covid.search_space, "test", study, proposes, "auroc", "max", lambda number: None)


def in_database(url: str) -> list[optuna.trial.FrozenTrial]:
    """As Optuna reads it."""
    address = url.replace("postgresql:", "postgresql+psycopg:")
    return optuna.load_study(study_name="test", storage=address).get_trials(deepcopy=False)


def whole_search(url: str, owner: str, trials: int, at_the_same_time: threading.Barrier) -> list[dict]:
    """Two trials side by side, until there are none to begin; returns what was proposed."""
    at_the_same_time.wait()
    study, search = shared(url, owner, "tpe", trials)
    with study.alone():
        enqueue(search.study, list(covid.PUBLISHED), [])
    proposed: list[dict] = []
    waiting: list[str] = []
    while (proposal := search.suggest(f"{owner}-{len(proposed)}")) != search.FINISHED:
        assert isinstance(proposal, dict)
        TrialConfig.of(proposal["params"])
        proposed.append(proposal)
        waiting.append(f"{owner}-{len(proposed) - 1}")
        search.on_trial_result(waiting[-1], report(0.5, 1))
        if len(waiting) > 1:
            search.on_trial_complete(waiting.pop(0), report(len(proposed) / 100))
    for left in waiting:
        search.on_trial_complete(left, report(0.9))
    study.close()
    return proposed


@needs_postgres
def test_searches_that_begin_together_train_as_many_trials_as_were_asked_for_and_none_twice(url):
    """In an empty database, whose tables each of them finds missing."""
    owners, trials = ("one", "two", "three"), 21
    together = threading.Barrier(len(owners))
    with concurrent.futures.ThreadPoolExecutor(len(owners)) as pool:
        found = list(pool.map(lambda owner: whole_search(url, owner, trials, together), owners))
    proposed = [proposal for each in found for proposal in each]
    assert sorted(proposal["number"] for proposal in proposed) == list(range(trials))
    published = Counter(proposal["published"] for proposal in proposed if proposal["published"])
    assert published == Counter(entry.name for entry in covid.PUBLISHED), "each of them once"
    there = in_database(url)
    assert [trial.state for trial in there] == [COMPLETE] * trials
    assert Counter(trial.user_attrs["search"] for trial in there) == {
        owner: len(each) for owner, each in zip(owners, found, strict=True) if each
    }
    for proposal in proposed:
        assert (
            there[proposal["number"]].params.items()
            <= {**proposal["params"], **there[proposal["number"]].params}.items()
        )
    drawn = [tuple(sorted(trial.params.items())) for trial in there if not trial.user_attrs.get("published")]
    assert len(set(drawn)) == len(drawn), "searches with one seed propose different trials"


@needs_postgres
@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_what_one_search_writes_is_what_the_other_and_optuna_read(searcher, url):
    study, search = shared(url, "one", searcher)
    with study.alone():
        enqueue(search.study, list(covid.PUBLISHED[:1]), [{"learning_rate": 1e-3}])
    for name in "abcd":
        search.suggest(name)
    search.on_trial_result("a", report(0.25, 1))
    search.on_trial_complete("a", report(0.75))
    search.on_trial_complete("b", report(0.5, finished=False))
    search.on_trial_complete("c", error=True)
    search.failed("c")
    search.on_trial_result("d", report(math.nan, 1))
    search.on_trial_result("d", report(0.5, 3))
    known, there = search.study.get_trials(), in_database(url)
    assert [trial.state for trial in there] == [COMPLETE, PRUNED, FAIL, RUNNING]
    for one, other in zip(known, there, strict=True):
        other._trial_id = one._trial_id
        assert one == other
    other, _ = shared(url, "two", searcher)
    for one, theirs in zip(known, other.get_all_trials(0), strict=True):
        theirs._trial_id = one._trial_id
        assert one == theirs


@needs_postgres
def test_a_search_reads_what_others_have_done_whenever_it_begins_a_trial(url):
    (_, one), (study, two) = shared(url, "one"), shared(url, "two")
    one.suggest("a")
    assert two.suggest("b")["number"] == 1
    assert [trial.state for trial in two.study.trials] == [RUNNING, RUNNING]
    assert two.study.trials[0].params, "what is proposed takes account of it"
    one.on_trial_complete("a", report(0.875))
    assert two.suggest("c")["number"] == 2
    assert (two.study.best_value, two.study.best_trial.number) == (0.875, 0)
    assert study.elsewhere() == {"finished": 1, "unfinished": 0}
    assert (study.own, study.taken, study.full) == (2, 1, False)


@needs_postgres
def test_only_ones_own_trials_go_on_and_those_of_a_search_that_died_stay_begun(url):
    _, one = shared(url, "one", trials=4)
    before = {number: one.suggest(str(number)) for number in range(2)}
    _, two = shared(url, "two", trials=4)
    assert two.suggest("a")["number"] == 2, "not one of those that are running elsewhere"
    del one  # killed
    study, again = shared(url, "one", trials=4)
    assert [again.suggest(f"again-{i}") for i in range(2)] == list(before.values())
    assert again.suggest("new")["number"] == 3
    assert again.suggest("none") == two.suggest("none") == again.FINISHED
    assert study.taken == 1
    again.on_trial_complete("again-0", report())
    assert [trial.state for trial in in_database(url)] == [COMPLETE, RUNNING, RUNNING, RUNNING]


@needs_postgres
def test_a_trial_that_optunas_command_line_gives_up_counts_as_finished(url):
    _, one = shared(url, "one", trials=1)
    one.suggest("lost")
    address = url.replace("postgresql:", "postgresql+psycopg:")
    optuna.load_study(study_name="test", storage=address).tell(0, state=FAIL)
    study, two = shared(url, "two", trials=2)
    assert study.elsewhere() == {"finished": 1, "unfinished": 0}
    assert two.suggest("a")["number"] == 1


@needs_postgres
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"data": recorded("x")["data"] | {"digest": "e"}}, "other images, or other labels"),
        ({"data": recorded("x")["data"] | {"repeats": 2}}, "repeats 1 and not 2"),
        ({"folds_digest": "g"}, "another folds"),
        ({"metric": "accuracy"}, "metric 'auroc' and not 'accuracy'"),
        ({"max_epochs": 9}, "max_epochs 1 and not 9"),
        ({"fixed": {"dropout": 0.5}}, "fixed 1 and not {'dropout': 0.5}"),
    ],
)
def test_a_search_whose_scores_mean_something_else_is_refused_in_a_line(other, said, url):
    SharedStudy(url, recorded("two", **other), begins=False).close()  # only looks: the study may become another one
    study = SharedStudy(url, recorded("one"))  # from now on it may enqueue and begin trials
    with pytest.raises(InputError) as refused:
        SharedStudy(url, recorded("two", **other), begins=False)
    assert said in str(refused.value)
    assert "--name or database" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert QUOTED_PASSWORD not in str(refused.value)
    SharedStudy(url, recorded("two", searcher="gp", scheduler="none")).close()
    study.close()


@needs_postgres
def test_while_the_database_is_away_trials_go_on_and_afterwards_it_knows_everything(monkeypatch, tmp_path):
    monkeypatch.setattr(search.study_database, "PAUSE_S", 0.0)
    said: list[str] = []
    with postgres_server() as server:
        study, searching = shared(server.url(), "one", trials=3, say=said.append, copy=tmp_path / "study.db")
        for name in "ab":
            searching.suggest(name)
        server.stop()
        assert searching.suggest("c") is None, "it begins when the database is back"
        searching.on_trial_result("a", report(0.25, 1))
        searching.on_trial_result("b", report(0.5, 1))
        searching.on_trial_complete("a", report(0.75))
        assert searching.suggest("c") is None
        assert study.pending
        assert [trial.state for trial in searching.study.trials] == [COMPLETE, RUNNING]
        server.start()
        assert searching.suggest("c")["number"] == 2
        assert [line.partition(" (")[0] for line in said] == [
            "The study's database cannot be reached",
            "The study's database is back",
        ]
        there = in_database(server.url())
        assert [trial.state for trial in there] == [COMPLETE, RUNNING, RUNNING]
        assert (there[0].value, there[0].intermediate_values) == (0.75, {1: 0.25, 3: 0.75})
        assert there[1].intermediate_values == {1: 0.5}
        study.close()
    assert not study.pending
    copy = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}").get_trials()
    assert [(trial.state, trial.params) for trial in copy] == [(trial.state, trial.params) for trial in there]


@needs_postgres
def test_a_search_without_its_database_ends_after_a_while_and_tells_it_when_it_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(search.study_database, "PAUSE_S", 0.0)
    monkeypatch.setattr(search.study_database, "PATIENCE_S", -1.0)
    asked, said = [], []
    with postgres_server() as server:
        study, searching = shared(server.url(), "one", say=said.append, ask=asked.append)
        searching.suggest("a")
        server.stop()
        for _ in range(3):
            searching.suggest("b")
        searching.on_trial_complete("a", report(0.75))
        study.close()
        assert asked == ["the study's database has been away for 0 s"], "once"
        assert len(said) == 1
        assert study.pending
        server.start()
        _, again = shared(server.url(), "one")
        checkpoint = tmp_path / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "checkpoint.json").write_text(json.dumps({"epoch": 3}))
        again._checkpoint_of = lambda number: checkpoint
        again.settle({0: [report(0.75, done=True)]})
        assert [(trial.state, trial.value) for trial in in_database(server.url())] == [(COMPLETE, 0.75)]


@needs_postgres
def test_a_search_whose_last_trial_could_not_be_told_is_to_go_on(url, monkeypatch, tmp_path):
    """All that it lacks is to say so, for which Ray trains nothing."""
    shared(url, "one", trials=1)[1].suggest("a")  # and is killed before it tells
    reports = tmp_path / "trials" / "0000" / "reports.jsonl"
    reports.parent.mkdir(parents=True)
    reports.write_text(json.dumps(report(None, number=0, done=True, error="too large")) + "\n")
    record = recorded("one", trials=1, sessions=[{}])
    options = SimpleNamespace(study=url, folder=tmp_path, searcher="random", seed=1)
    given = {"experiment": SimpleNamespace(metric="auroc"), "published": [], "points": []}
    plan = SimpleNamespace(options=options, space=covid.search_space, **given)
    settle, reached = StudySearch.settle, StudyDatabase.transaction

    def settle_without_the_database(*args: object) -> None:
        monkeypatch.setattr(StudyDatabase, "transaction", away)
        settle(*args)

    def away(*_: object) -> None:
        raise Unreachable("away")

    monkeypatch.setattr(StudySearch, "settle", settle_without_the_database)
    monkeypatch.setattr(search.shared_study, "LAST_PATIENCE_S", 0.0)
    assert not search.tuning.search_trials(plan, record, Share(1, 0.0, 1), Console(quiet=True), ending := Ending())
    assert ending.why is not None
    assert "has still to be told" in ending.why
    assert json.loads((tmp_path / "experiment.json").read_text())["study"]["finished"] == 0
    monkeypatch.setattr(StudyDatabase, "transaction", reached)
    monkeypatch.setattr(StudySearch, "settle", settle)
    assert search.tuning.search_trials(plan, record, Share(1, 0.0, 1), Console(quiet=True))
    assert [trial.state for trial in in_database(url)] == [FAIL]


@needs_postgres
def test_nothing_happened_where_a_trial_could_not_be_begun_to_the_end(url):
    study, search = shared(url, "one")
    with study.alone():
        enqueue(search.study, [], [{"learning_rate": 1e-3}])

    def begin_and_fail():
        with study.alone():
            assert [search.study.ask().number for _ in range(2)] == [0, 1]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin_and_fail()
    assert [trial.state for trial in in_database(url)] == [TrialState.WAITING]
    assert [search.suggest(name)["number"] for name in "ab"] == [0, 1]
    assert in_database(url)[0].params["learning_rate"] == 1e-3


@needs_postgres
def test_what_was_being_read_when_the_connection_broke_is_read_again(url, monkeypatch):
    (_, one), (study, two) = shared(url, "one"), shared(url, "two")
    one.suggest("a")
    one.suggest("b")
    one.on_trial_complete("a", report(0.75))
    read = study._database.storage.get_trial

    def breaks_at_the_second(row: int) -> optuna.trial.FrozenTrial:
        monkeypatch.setattr(study._database.storage, "get_trial", breaks)
        return read(row)

    def breaks(row: int) -> None:
        raise optuna.exceptions.StorageInternalError("the connection is lost")

    monkeypatch.setattr(search.study_database, "PAUSE_S", 0.0)
    monkeypatch.setattr(study._database.storage, "get_trial", breaks_at_the_second)
    assert two.suggest("c") is None
    assert two.study.trials == []
    monkeypatch.setattr(study._database.storage, "get_trial", read)
    assert two.suggest("c")["number"] == 2
    two.on_trial_complete("c", report(0.5))
    assert [trial.state for trial in two.study.trials] == [COMPLETE, RUNNING, COMPLETE]
    assert two.study.best_trial.number == 0


@needs_postgres
def test_a_search_that_was_stopped_while_it_began_a_trial_does_not_stop_the_others(url, monkeypatch):
    monkeypatch.setattr(search.study_database, "PAUSE_S", 0.0)
    monkeypatch.setattr(search.study_database, "LOCK_S", 0.05)
    monkeypatch.setattr(search.study_database, "FROZEN_S", 1.0)
    said: dict[str, list[str]] = {"two": [], "three": []}
    frozen, one = shared(url, "one")
    (_, two), (patient, _) = (shared(url, owner, say=lines.append) for owner, lines in said.items())
    two.suggest("a")

    def begin_and_be_stopped() -> None:
        with frozen.alone():
            one.study.ask()
            assert [two.suggest("b") for _ in range(2)] == [None, None]
            two.on_trial_complete("a", report(0.75))
            with patient.alone():  # it waits until the server has let go
                pass
            assert [trial.state for trial in patient.get_all_trials(0)] == [COMPLETE], "trials go on meanwhile, and end"

    with pytest.raises(Unreachable):
        begin_and_be_stopped()
    assert two.suggest("b")["number"] == 1
    held = "Another search holds the study and does not go on; trials go on, new ones wait for it"
    assert said["two"] == said["three"] == [held, "The study is free again"]
    assert one.suggest("c")["number"] == 2, "and it goes on when it is woken"


@needs_postgres
def test_the_password_is_in_no_pickle_and_no_message(url):
    study, search = shared(url, "one")
    search.suggest("a")
    for secret in (PASSWORD, QUOTED_PASSWORD):
        assert secret.encode() not in pickle.dumps(study)
    with pytest.raises(InputError) as wrong:
        check_reachable(url.replace(QUOTED_PASSWORD, "wrong-secret"))
    assert "password authentication failed" in str(wrong.value)
    assert "wrong-secret" not in str(wrong.value)


@needs_postgres
@pytest.mark.parametrize("way", ["PGPASSWORD", "PGPASSFILE"])
def test_the_password_may_stand_where_postgresql_looks_for_it(way, server, monkeypatch, tmp_path):
    without = server.url(password=None)
    with pytest.raises(InputError, match="no password supplied"):
        check_reachable(without)
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:{USER}:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv(way, PASSWORD if way == "PGPASSWORD" else str(file))
    check_reachable(without)


@needs_postgres
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace(f"{USER}:", "nobody:"), 'user "nobody"'),
        (lambda url: f"{url}-missing", "does not exist"),
    ],
)
def test_a_wrong_user_or_database_is_said_in_a_line(change, said, url):
    with pytest.raises(InputError) as wrong:
        check_reachable(change(url))
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)
    assert QUOTED_PASSWORD not in str(wrong.value)


def test_the_report_says_how_many_trials_of_the_study_were_trained_elsewhere(tmp_path):
    folder = build(tmp_path, Wanted(images=40, trials=3))
    experiment = json.loads((folder / "experiment.json").read_text())
    assert summary(folder)["elsewhere"] is None
    study = {"address": "postgresql://me@host/x", "owner": "a", "finished": 4, "unfinished": 2}
    (folder / "experiment.json").write_text(json.dumps(experiment | {"study": study}))
    write_report(folder)
    for page in ("report.md", "report.html"):
        said = "4 trials of the study were trained elsewhere, by searches that share it, which have begun 2 more;"
        assert said in (folder / page).read_text()


def test_a_search_that_would_share_its_results_too_is_told_that_it_needs_its_own(tmp_path):
    (tmp_path / "experiment.json").touch()
    with pytest.raises(InputError, match="each search that shares a study needs a --results, or a --storage, of its"):
        check_name(tmp_path, resume=False, shares=True)
    with (
        alone_in(tmp_path),
        pytest.raises(InputError, match=r"is running in .*; each search that shares a study needs"),
        alone_in(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("postgresql://me@127.0.0.1:1/x", "check host, user and database"),
        ("postgresql://me@[::1/x", "is no address"),
        ("here.db", "is no address"),
        ("sqlite:///here.db", "SQLite is for one search"),
        ("nosuch://me:secret@host/x", "no driver"),
        ("mysql+nosuch://me:secret@host/x", "no driver"),
    ],
)
def test_an_address_that_cannot_be_is_said_in_a_line_and_without_its_password(study, said):
    with pytest.raises(InputError) as wrong:
        check_reachable(study)
    assert said in str(wrong.value)
    assert "secret" not in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_an_address_is_written_down_without_its_password():
    assert (
        without_password("postgresql://me:a:b@c@host:1/x?sslmode=require") == "postgresql://me@host:1/x?sslmode=require"
    )
    assert without_password("postgresql://host/x?user=me&password=secret") == "postgresql://host/x?user=me&password=***"
    assert without_password("postgresql://me@host/x") == "postgresql://me@host/x"


@needs_postgres
def test_an_end_whose_report_was_lost_has_not_been_and_there_is_a_trial_left(url, tmp_path):
    """The database knows of it, and the machine with what the trial had reported last is gone."""
    study, search = shared(url, "one", trials=2)
    for name, score in (("a", 0.75), ("b", 0.5)):
        search.suggest(name)
        search.on_trial_complete(name, report(score))
    study.close()
    for number, done in ((0, False), (1, True)):
        (folder := tmp_path / "trials" / f"{number:04d}").mkdir(parents=True)
        (folder / "reports.jsonl").write_text(json.dumps({"number": number, "epoch": 1, "done": done}) + "\n")
    assert left_to_share(url, recorded("one", 2), tmp_path) == 1
    study, search = shared(url, "one", trials=2)
    search.settle({number: reports(tmp_path / "trials" / f"{number:04d}" / "reports.jsonl") for number in range(2)})
    assert [(trial.state, trial.value) for trial in in_database(url)] == [(RUNNING, None), (COMPLETE, 0.5)]
    assert search.suggest("again")["number"] == 0
    search.on_trial_complete("again", report(0.7, epoch=4))
    assert [trial.value for trial in in_database(url)] == [0.7, 0.5]
    study.close()
    (tmp_path / "trials/0000/reports.jsonl").write_text(json.dumps({"number": 0, "epoch": 4, "done": True}) + "\n")
    assert left_to_share(url, recorded("one", 2), tmp_path) == 0
