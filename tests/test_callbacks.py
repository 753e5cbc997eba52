"""What the driver writes down, keeps and forgets."""

import math
from types import SimpleNamespace

from ray.exceptions import RayTaskError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.results import reports
from datasets.remote import NoAnswerError
from search.callbacks import Mirroring, Recorder, Release, set_aside
from search.ending import Ending
from search.unanswered import Unanswered


def reported(epoch, *, since):
    curve = [
        {"epoch": e, "fold": fold, "train_loss": 1 / e, "auroc": math.nan if e == 2 else e / 10 + fold}
        for e in range(since + 1, epoch + 1)
        for fold in (0, 1)
    ]
    return {"number": 7, "epoch": epoch, "curve": curve, "pid": 1}


def trial_of(number=7):
    return SimpleNamespace(checkpoint=None, config={"number": number})


def saved(folder):
    return SimpleNamespace(path=str(folder / "checkpoint_000000"))


def record(folder, *results):
    """Each with a checkpoint."""
    recorder = Recorder(folder)
    for result in results:
        recorder.on_trial_result(0, [], trial_of(), result)
        recorder.on_checkpoint(0, [], trial_of(), saved(folder))
    return folder / "trials" / "0007"


def curve(folder, tag):
    seen = EventAccumulator(str(folder))
    seen.Reload()
    return {event.step: round(event.value, 6) for event in seen.Scalars(tag)}


def test_every_report_is_appended_and_its_curves_are_what_tensorboard_reads(tmp_path):
    trial = record(tmp_path, reported(1, since=0), reported(3, since=1))
    assert [report["epoch"] for report in reports(trial / "reports.jsonl")] == [1, 3]
    assert "pid" not in reports(trial / "reports.jsonl")[0], "that is Ray's"
    assert curve(trial / "fold1", "validation/auroc") == {1: 1.1, 3: 1.3}, "without the score that is not a number"
    assert curve(trial / "fold0", "training/train_loss") == {1: 1.0, 2: 0.5, 3: 0.333333}


def test_half_a_file_of_curves_hides_nothing_of_the_others(tmp_path):
    trial = record(tmp_path, reported(1, since=0), reported(3, since=1))
    (first, _) = sorted((trial / "fold0").iterdir(), key=lambda file: file.name[-5:])
    first.write_bytes(first.read_bytes()[:-3])
    record(tmp_path, reported(4, since=3))
    watched = EventAccumulator(str(trial / "fold0"))
    watched.Reload()
    assert {event.step for event in watched.Scalars("training/train_loss")} >= {3, 4}


def test_curves_that_come_again_after_a_process_has_died_are_there_once(tmp_path):
    recorder = Recorder(tmp_path)
    for result in (reported(1, since=0), None, reported(1, since=0), reported(3, since=1)):
        if result is None:
            recorder.on_trial_recover(0, [], trial_of())
        else:
            recorder.on_trial_result(0, [], trial_of(), result)
    recorder.on_checkpoint(0, [], trial_of(), saved(tmp_path))
    seen = EventAccumulator(str(tmp_path / "trials" / "0007" / "fold0"))
    seen.Reload()
    assert [event.step for event in seen.Scalars("training/train_loss")] == [1, 2, 3]


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    trial = trial_of()
    (tmp_path / "checkpoint_000001").mkdir()  # that it went on from
    kept = []
    for epoch in (3, 9, 27):
        new = SimpleNamespace(path=str(tmp_path / f"checkpoint_{epoch:06d}"))
        (tmp_path / f"checkpoint_{epoch:06d}").mkdir()
        Recorder(tmp_path).on_checkpoint(0, [], trial, new)
        trial.checkpoint = new
        kept.append(sorted(folder.name.removeprefix("checkpoint_") for folder in tmp_path.iterdir()))
    assert kept == [["000001", "000003"], ["000003", "000009"], ["000009", "000027"]]


def test_trials_that_the_study_does_not_know_are_set_aside(tmp_path):
    for name in ("0000", "0001", "0002", "lost-0002"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    (tmp_path / "trials" / "0002" / "reports.jsonl").touch()
    set_aside(tmp_path, begun={0, 1})
    assert sorted(folder.name for folder in (tmp_path / "trials").iterdir()) == ["0000", "0001", "lost-0002"]
    assert (tmp_path / "trials" / "lost-0002" / "reports.jsonl").exists()


def test_rays_memory_of_an_ended_trial_goes():
    kept = SimpleNamespace(last_result={"curve": [1]}, metric_analysis={"auroc": {}}, metric_n_steps={"auroc": {}})
    Release().on_trial_complete(0, [], SimpleNamespace(run_metadata=kept))
    assert vars(kept) == {"last_result": {"done": True}, "metric_analysis": {}, "metric_n_steps": {}}


def test_a_trial_that_could_not_be_saved_has_not_failed_and_the_search_ends(tmp_path):
    class Ended(SimpleNamespace):
        def get_pickled_error(self):
            return self.error

    dead = RayTaskError("save", "Traceback", OSError("no space"))
    unanswered = RayTaskError("save", "Traceback", NoAnswerError("s3://x: no route"))
    about = {"checkpoint": None, "get_error": lambda: "ValueError: it", "temporary_state": None}
    trials = [
        Ended(trial_id=name, error=error, config={"number": number, "published": None, "params": {}}, **about)
        for number, (name, error) in enumerate({"dead": dead, "unanswered": unanswered}.items())
    ]
    failed, news, ending = [], SimpleNamespace(reported=set(), ended=set()), Ending()
    told = Unanswered(SimpleNamespace(failed=failed.append), ending)
    callbacks = [
        Recorder(tmp_path, elsewhere=True),
        told,
        Mirroring(SimpleNamespace(reported=news.reported.add, ended=news.ended.add)),
    ]
    for trial in trials:
        assert not ending.asked
        for callback in callbacks:
            callback.on_trial_error(0, [], trial)
    assert failed == ["dead"]
    assert ending.why == "trials cannot be saved, as the server of --storage does not answer"
    assert vars(news) == {"reported": {0}, "ended": {0}}
    assert [len(reports(tmp_path / "trials" / f"{n:04d}" / "reports.jsonl")) for n in range(2)] == [1, 0]
    again = Unanswered(SimpleNamespace(), ending := Ending())
    for trial, asked in zip(trials, (False, True), strict=True):
        again.on_trial_recover(0, [], trial)
        assert ending.asked == asked, "the first time, before Ray begins the trial again and again"
