"""Contract tests of the searchers, and of the study as their only memory."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from search.searchers import StudySearch, enqueue, sampler
from search.storage import StudyFile
from search_spaces import covid
from trainables.config import TrialConfig

SEARCHERS = ("tpe", "gp", "random")


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_search(
    folder, searcher="tpe", seed=0, space=covid.search_space, checkpoint_of=lambda number: None, trials=40
):
    return StudySearch(
        space,
        "test",
        StudyFile(folder / "study.db"),
        sampler(searcher, seed, trials),
        "auroc",
        "max",
        checkpoint_of,
    )


def report(score=0.8, epoch=3, finished=True, **more):
    return {
        "auroc": score,
        "auroc_std": 0.1,
        "epoch": epoch,
        "best_epoch": 1,
        "seconds": 2.0,
        "finished": finished,
        **more,
    }


def states(search):
    return [trial.state for trial in search.study.get_trials(deepcopy=False)]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_proposes_whole_configurations_and_learns_scores(searcher, tmp_path):
    search = study_search(tmp_path, searcher)
    for i in range(13):  # beyond the random start of TPE and GP
        proposal = search.suggest(str(i))
        assert (proposal["number"], proposal["published"], proposal["continue_from"]) == (i, None, None)
        TrialConfig.of(proposal["params"])
        search.on_trial_complete(str(i), report(score=i / 20))
    assert states(search) == [TrialState.COMPLETE] * 13
    assert search.study.best_trial.number == 12


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_same_seed_proposes_the_same(searcher, tmp_path):
    def proposals(folder, seed):
        folder.mkdir()
        search = study_search(folder, searcher, seed)
        made = []
        for i in range(12):
            made.append(search.suggest(str(i))["params"])
            search.on_trial_complete(str(i), report(score=made[-1]["dropout"]))
        return made

    first = proposals(tmp_path / "a", seed=0)
    assert proposals(tmp_path / "b", seed=0) == first
    assert proposals(tmp_path / "c", seed=1) != first


def test_a_short_search_learns_earlier_than_a_long_one(tmp_path):
    proposed = []
    for trials in (10, 40):
        folder = tmp_path / str(trials)
        folder.mkdir()
        search = study_search(folder, trials=trials)
        proposed.append([])
        for i in range(8):
            proposed[-1].append(search.suggest(str(i))["params"])
            search.on_trial_complete(str(i), report(score=proposed[-1][-1]["learning_rate"]))
    short, long = proposed
    assert short[:4] == long[:4]
    assert all(one != other for one, other in zip(short[4:], long[4:], strict=True))


def test_published_configurations_come_first_and_are_marked(tmp_path):
    search = study_search(tmp_path)
    enqueue(search.study, list(covid.PUBLISHED), [])
    proposals = [search.suggest(str(i)) for i in range(5)]
    assert [proposal["published"] for proposal in proposals] == [*[entry.name for entry in covid.PUBLISHED], None]
    assert proposals[2]["params"]["unfrozen_layers"] == 14
    defaults = [proposal["params"]["defaults"] for proposal in proposals]
    assert defaults == ["keras"] * 4 + ["torch"], "what the space holds fixed is as it was published"


def test_configurations_are_enqueued_once_however_often_it_is_begun(tmp_path):
    search = study_search(tmp_path)
    enqueue(search.study, list(covid.PUBLISHED[:2]), [{"model": "svendsen_cnn"}])
    search.suggest("0")
    enqueue(search.study, list(covid.PUBLISHED), [{"model": "svendsen_cnn"}, {"model": "mobilenetv2_100"}])
    assert [trial.user_attrs.get("published", "point")[-6:] for trial in search.study.trials] == [
        *("model1", "model2", "point", "model3", "model4", "point")
    ]


def test_how_a_trial_ends_is_told_to_the_study(tmp_path):
    search = study_search(tmp_path)
    for i, (result, error) in enumerate(
        [
            (report(), False),
            (report(finished=False), False),
            (report(score=math.nan), False),
            (report(score=math.nan, error="RuntimeError: no"), False),
            (None, True),
            (None, False),  # put down by an interruption
        ]
    ):
        search.suggest(str(i))
        search.on_trial_complete(str(i), result, error=error)
    search.suggest("stays")
    search.on_trial_complete("stays", error=True)
    search.failed("4")  # and not the other one, whose server did not answer
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert states(search) == [complete, pruned, fail, fail, fail, TrialState.RUNNING, TrialState.RUNNING]
    assert search.study.trials[1].value == 0.8
    assert search.study.trials[0].intermediate_values == {3: 0.8}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_trials_that_the_scheduler_stopped_are_learnt_from(searcher, tmp_path):
    """With two of three trials stopped, proposals still move to where the score is: a dropout of 0.5."""
    search = study_search(tmp_path, searcher, space=one_parameter)
    proposed = []
    for i in range(36):
        proposed.append(search.suggest(str(i))["params"]["dropout"])
        search.on_trial_complete(str(i), report(score=1 - abs(proposed[-1] - 0.5), finished=i % 3 == 0))
    assert sum(abs(dropout - 0.5) for dropout in proposed[-12:]) / 12 < 0.12


def one_parameter(trial):
    dropout = trial.suggest_float("dropout", 0.0, 0.9)
    return {"model": "digits_cnn", "image_size_px": 8, "learning_rate": 1e-3, "batch_size": 8, "dropout": dropout}


def test_reports_are_seen_in_the_study_while_a_trial_runs(tmp_path):
    search = study_search(tmp_path)
    search.suggest("a")
    search.on_trial_result("a", report(score=0.6, epoch=1, finished=False))
    search.on_trial_result("a", report(score=math.nan, epoch=2, finished=False))
    seen = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}").trials[0]
    assert (seen.state, seen.intermediate_values) == (TrialState.RUNNING, {1: 0.6})


def test_a_study_opened_again_goes_on_with_the_running_trials(tmp_path):
    before = study_search(tmp_path)
    enqueue(before.study, list(covid.PUBLISHED), [])
    proposals = {i: before.suggest(str(i)) for i in range(6)}
    before.on_trial_complete("1", report())
    del before  # killed

    after = study_search(tmp_path, checkpoint_of=lambda number: tmp_path / "c" if number == 2 else None)
    again = [after.suggest(f"again-{i}") for i in range(6)]
    assert [proposal["number"] for proposal in again] == [0, 2, 3, 4, 5, 6]
    assert [proposal["continue_from"] for proposal in again] == [None, str(tmp_path / "c"), None, None, None, None]
    for proposal in again[:5]:
        same = proposals[proposal["number"]]
        assert proposal["params"]["defaults"] == ("torch" if proposal["published"] is None else "keras")
        assert (proposal["params"], proposal["published"]) == (same["params"], same["published"])
    after.on_trial_complete("again-0", report())
    assert states(after)[:2] == [TrialState.COMPLETE] * 2


def test_an_end_that_was_reported_but_not_told_is_told(tmp_path):
    before = study_search(tmp_path)
    for i in range(5):
        before.suggest(str(i))
    checkpoint = tmp_path / "checkpoint_000000"
    checkpoint.mkdir()
    (checkpoint / "checkpoint.json").write_text('{"epoch": 3, "files": {}}')
    past = {
        0: [report(done=True)],
        1: [report(done=True, finished=False)],
        2: [report(done=True, epoch=4)],  # its last checkpoint was not saved
        3: [report(done=False)],
        4: [{"number": 4, "error": "RuntimeError: no", "epoch": 0, "done": True}],
    }
    after = study_search(tmp_path, checkpoint_of=lambda number: checkpoint)
    after.settle(past)
    running = TrialState.RUNNING
    assert states(after) == [TrialState.COMPLETE, TrialState.PRUNED, running, running, TrialState.FAIL]
    assert [after.suggest(name)["number"] for name in ("a", "b")] == [2, 3]


def test_an_end_that_only_the_study_knows_has_not_been(tmp_path):
    """Its last report went with the machine; the checkpoint before is there."""
    before = study_search(tmp_path)
    for i in range(4):
        before.suggest(str(i))
    for i, (score, finished) in enumerate([(0.7, True), (0.9, True), (0.8, False)]):
        before.on_trial_complete(str(i), report(score, finished=finished))
    past = {0: [report(done=True)], 1: [report(0.6, epoch=1, done=False)], 2: [], 3: [report(epoch=1, done=False)]}
    after = study_search(tmp_path, checkpoint_of=lambda number: tmp_path / "c" if number == 1 else None)
    after.settle(past)
    complete, running = TrialState.COMPLETE, TrialState.RUNNING
    assert states(after) == [complete, running, running, running]
    assert after.study.best_trial.number == 0
    seen = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [(trial.state, trial.value) for trial in seen.trials] == [(complete, 0.7), *[(running, None)] * 3]
    again = {name: after.suggest(name) for name in "abc"}
    assert [proposal["number"] for proposal in again.values()] == [1, 2, 3]
    assert [proposal["continue_from"] for proposal in again.values()] == [str(tmp_path / "c"), None, None]
    after.on_trial_complete("a", report(0.95, epoch=4))
    seen = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert (seen.best_trial.number, seen.best_value) == (1, 0.95)
