"""What is done when something is about to be lost, or has been: without Ray's processes, in a second."""

import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.search import Searcher
from rich.console import Console

import search.ending
import search.farewell
from analysis import write_report
from analysis.happenings import happenings
from analysis.results import last_checkpoint
from search.ending import Ending
from search.farewell import Farewell, Room
from search.happenings import Happenings
from search.ray_session import Share
from tests.results_folder import Wanted, build
from tests.test_cross_validation import configuration, local, told  # noqa: F401 (a fixture)
from trainables.cross_validation import CrossValidation


@pytest.fixture
def told_by_sigterm() -> Iterator[Callable[[CrossValidation], None]]:
    """Lets a trial have the signal in this process, as it has it in its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda trial: signal.signal(signal.SIGTERM, trial._save_soon)
    signal.signal(signal.SIGTERM, before)


def test_a_trial_that_is_told_saves_in_the_middle_of_an_epoch_and_goes_on_to_the_same_numbers(
    local,  # noqa: F811
    told_by_sigterm,
    tmp_path,
):
    straight, trial, restored = (local(configuration(dropout=0.3)) for _ in range(3))
    expected = [straight.train() for _ in range(3)][-1]
    told_by_sigterm(trial)
    first = trial.train()
    assert "told_to_save" not in first
    lockstep, advance = trial._lockstep, trial._lockstep.advance

    def interrupted() -> None:
        lockstep.advance = advance
        signal.raise_signal(signal.SIGTERM)
        advance()

    lockstep.advance = interrupted
    notice = trial.train()
    assert (notice["told_to_save"], notice[SHOULD_CHECKPOINT], notice["done"]) == (True, True, False)
    assert (notice["epoch"], notice["curve"]) == (1, [])
    trial.save_checkpoint(str(tmp_path))
    goes_on = [trial.train() for _ in range(2)]
    assert [result["epoch"] for result in goes_on] == [3, 4], "it trains until it is ended"
    assert not any("told_to_save" in result for result in goes_on)
    restored.load_checkpoint(str(tmp_path))
    for last in (goes_on[-1], [restored.train() for _ in range(2)][-1]):
        assert told(last) == told(expected)


def test_the_last_checkpoint_in_between_is_the_last_by_name_whatever_the_clocks_say(
    local,  # noqa: F811
    monkeypatch,
    tmp_path,
):
    clock = iter([9_000, 5_000, 4_000, 3_000])
    monkeypatch.setattr("trainables.cross_validation.time.time_ns", lambda: next(clock))
    trial, on_another_node = local(configuration()), local(configuration())
    names = []
    for one in (trial, trial, on_another_node, on_another_node):
        if one is on_another_node and len(names) == 2:
            one.load_checkpoint(str(tmp_path / names[-1]))
        one._told_to_save = True
        one.train()
        (tmp_path / (name := one._checkpoint_name())).mkdir()
        one.save_checkpoint(str(tmp_path / name))
        names.append(name)
    assert names == [f"checkpoint_000000_{n:06d}_{at}" for n, at in ((1, 9000), (2, 5000), (3, 4000), (4, 3000))]
    assert last_checkpoint(tmp_path) == tmp_path / names[-1]


def test_a_trial_that_is_told_between_two_steps_saves_before_it_trains(local, told_by_sigterm):  # noqa: F811
    told_by_sigterm(trial := local(configuration()))
    trial.train()
    signal.raise_signal(signal.SIGTERM)
    notice = trial.train()
    assert (notice["epoch"], notice["curve"], notice[SHOULD_CHECKPOINT]) == (1, [], True)
    assert [trial.train()["epoch"] for _ in range(2)] == [3, 4], "and its rungs are where they were"


def test_the_first_signal_is_noted_and_the_second_ends(monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with (ending := Ending()).caught():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert ending.signal == signal.SIGTERM, "the same one twice, as `timeout` sends it"
        monkeypatch.setattr(search.ending, "ONCE_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert ending.signal == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (ending := Ending()).caught():
            signal.raise_signal(signal.SIGINT)
            assert not ending.asked
            ending.ask("the study's database is away")  # by whatever means, it is heard
        assert (ending.asked, ending.signal) == (True, None)
    finally:
        signal.signal(signal.SIGINT, before)


def a_trial(number: int, status: str = Trial.RUNNING) -> SimpleNamespace:
    return SimpleNamespace(
        config={"number": number}, status=status, last_result={}, run_metadata=SimpleNamespace(num_failures=1)
    )


def test_a_search_that_is_asked_to_end_waits_until_all_trials_have_saved_but_not_for_ever(monkeypatch):
    asked: list[list[int]] = []
    monkeypatch.setattr(
        search.farewell, "tell_to_save", lambda trials: asked.append([t.config["number"] for t in trials])
    )
    trials = [a_trial(0), a_trial(1), a_trial(2, Trial.PENDING), a_trial(3, Trial.TERMINATED)]
    console = Console(file=(said := io.StringIO()))
    for longest_s, ends in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(search.farewell, "LONGEST_S", longest_s)
        ending = Ending()
        farewell = Farewell(ending, console)
        farewell.on_step_begin(0, trials)
        farewell.on_step_end(0, trials)
        assert (asked, farewell.stop_all()) == ([], False)
        ending.ask("the study's database is away")
        farewell.on_step_begin(1, trials)
        farewell.on_trial_save(1, trials, trials[0])
        time.sleep(0.001)
        farewell.on_step_end(1, trials)
        assert farewell.stop_all() == ends
        farewell.on_trial_recover(2, trials, trials[1])
        farewell.on_step_begin(2, trials)
        farewell.on_step_end(2, trials)
        assert farewell.stop_all()
        assert asked[:2] == [[0, 1], [0, 1]], "told, and told again so that nobody trains on while the search ends"
        asked.clear()
    line = "The study's database is away: 2 running trials save, then the search ends; Ctrl-C ends it at once"
    assert said.getvalue().splitlines() == [line] * 2


class Proposing(Searcher):
    def suggest(self, trial_id):
        return {"number": int(trial_id)}

    def on_trial_complete(self, trial_id, result=None, error=False):
        pass

    save = restore = None


@pytest.mark.parametrize(("follows", "then"), [(True, [True, True, True, False]), (False, [True, False, False, False])])
def test_nodes_that_come_are_used_unless_the_number_of_trials_was_asked_for(follows, then, monkeypatch):
    resources = {"CPU": 4.0, "GPU": 1.0}
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": resources}])
    monkeypatch.setattr(search.farewell, "ROOM_EVERY_S", -1.0)
    ending = Ending()
    room = Room(Proposing("accuracy", "max"), Share(cpus=2, gpus=0.5, side_by_side=2), ending, follows=follows)
    assert [bool(room.suggest(str(number))) for number in range(3)] == [True, True, False]
    room.on_trial_complete("0")
    resources |= {"CPU": 8.0, "GPU": 2.0}
    assert [bool(room.suggest(str(number))) for number in range(3, 7)] == then
    resources |= {"CPU": 0.0, "GPU": 0.0}
    assert room.suggest("7") is None, "what nodes have left behind is trained before anything new"
    ending.ask("SIGINT")
    assert room.suggest("8") == Searcher.FINISHED


def node(name: str, *, alive: bool = True) -> dict:
    resources = {"CPU": 8.0, "GPU": 1.0}
    why = "" if alive else "health check failed\nmore of it"
    return {
        "NodeID": name * 10,
        "NodeManagerAddress": f"10.0.0.{ord(name)}",
        "Alive": alive,
        "Resources": resources,
    } | {"DeathReasonMessage": why}


def test_the_report_says_what_was_lost_and_from_where_it_went_on(tmp_path, monkeypatch):
    nodes = [node("a"), node("b")]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    folder = build(tmp_path, Wanted(trials=4, images=40))
    assert happenings(folder) is None, "older results"
    first = Happenings(folder, ending := Ending(), finished=0, unfinished=[])
    first.setup()
    trial = a_trial(3)
    trial.last_result = {"epoch": 4, "node": "b" * 10}
    nodes[:] = [node("a"), node("b", alive=False), node("c")]
    first.on_trial_recover(0, [], trial)
    for epoch in (4, 5):
        first.on_trial_result(0, [], trial, {"number": 3, "epoch": epoch, "curve": [{"epoch": float(epoch)}]})
    first.on_trial_save(0, [], trial)
    assert trial.run_metadata.num_failures == 0, "who gets on may be begun again however often"
    first.on_trial_result(0, [], trial, {"number": 3, "epoch": 5, "curve": [], "told_to_save": True})
    first.on_trial_complete(0, [], trial)
    with (folder / "happenings.jsonl").open("a") as file:
        file.write('{"at": "2026-02-03T04:0')  # and here the driver was killed
    second = Happenings(folder, ending, finished=1, unfinished=[2])
    second.setup()
    second.on_trial_result(0, [], a_trial(2), {"number": 2, "epoch": 1, "curve": [{"epoch": 1.0}]})
    second.on_trial_error(0, [], a_trial(2))
    ending.ask("SIGTERM")
    second.on_experiment_end([])

    told = happenings(folder)
    assert [[event["words"] for event in session["events"]] for session in told["sessions"]] == [
        [
            "trial 3 lost its process on node bbbbbbbb, after its report of epoch 4",
            "node 10.0.0.99 (cccccccc) joined, with 8 CPUs and 1 GPUs",
            "node 10.0.0.98 (bbbbbbbb) was lost: health check failed",
            "trial 3 went on from epoch 3",
            "trial 3 was told that its process is to end, and saved at once, in the epoch after 5",
        ],
        [
            "trial 2 began anew",
            "trial 2 lost its process, after its report of epoch 0",
            "trial 2 was given up: its process was lost again and again, and it got no further",
        ],
    ]
    assert [session["words"].partition(";")[0].partition(",")[0] for session in told["sessions"]] == [
        "It was lost with its driver",
        "It was asked to end (SIGTERM)",
    ]
    assert (told["processes_lost"], told["nodes_lost"], told["nodes_joined"], told["went_on"]) == (2, 1, 1, [2, 3])

    page = write_report(folder)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "What happened" in text
        assert "trial 3 went on from epoch 3" in text
    assert json.loads((folder / "summary.json").read_text())["happened"] == told


def test_a_search_to_which_nothing_happened_says_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [node("a")])
    only = Happenings(tmp_path, Ending(), finished=0, unfinished=[])
    only.setup()
    only.on_trial_complete(0, [], a_trial(0))
    only.on_experiment_end([])
    assert [json.loads(line)["what"] for line in (tmp_path / "happenings.jsonl").read_text().splitlines()] == [
        "began",
        "ended",
    ]
    assert happenings(tmp_path) is None
    assert happenings(Path(tmp_path / "nowhere")) is None
