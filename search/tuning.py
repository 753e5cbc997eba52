"""The search itself: Ray Tune's Tuner over the trials that are left to do."""

import logging
import warnings
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from rich.console import Console

from analysis.results import reports, trial_folder
from search.callbacks import (
    Mirroring,
    Progress,
    Recorder,
    Release,
    kept_checkpoint,
    prune,
    set_aside,
    trial_dirname,
)
from search.ending import Ending
from search.farewell import Farewell, Room
from search.happenings import Happenings
from search.mirror import Mirror
from search.plan import Plan
from search.ray_session import Share
from search.records import write_json
from search.schedulers import make_scheduler
from search.searchers import FINISHED, StudySearch, enqueue, sampler
from search.shared_study import SharedStudy
from search.storage import StudyFile
from search.study_address import own_seed
from search.unanswered import Unanswered
from trainables.cross_validation import CrossValidation
from trainables.metrics import METRICS

RETRIES = 2
"""How often Ray starts a trial again whose process has died, from its last checkpoint, until it gets beyond that."""


def search_trials(
    plan: Plan,
    record: dict[str, Any],
    share: Share,
    console: Console,
    ending: Ending | None = None,
    mirror: Mirror | None = None,
) -> bool:
    """Run until as many trials as asked for have finished. Returns False where it was interrupted before.

    ending: notes when it is asked to end; None: nobody asks. mirror: of the results at a URL.
    """
    ending = ending or Ending()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # A trial that goes on after its process was lost comes by the same epochs again.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)

    folder, metric = plan.options.folder, plan.experiment.metric
    file = _opened(plan, record, console, ending)
    searcher = StudySearch(
        plan.space,
        study_name=record["name"],
        storage=file,
        sampler=sampler(plan.options.searcher, _seed(plan, record), record["trials"]),
        metric=metric,
        mode=METRICS[metric],
        checkpoint_of=lambda number: kept_checkpoint(trial_folder(folder, number)),
    )
    study = searcher.study
    known = study.get_trials(deepcopy=False)
    own = [trial for trial in known if trial.state != optuna.trial.TrialState.WAITING and file.is_own(trial)]
    set_aside(folder, begun={trial.number for trial in own})
    with file.alone():
        enqueue(study, plan.published, plan.points)
    past = {trial.number: reports(trial_folder(folder, trial.number) / "reports.jsonl") for trial in own}
    searcher.settle(past)
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        if trial.number in past:
            prune(trial_folder(folder, trial.number))  # as it would have been, had nothing come in between
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    remaining = record["trials"] - file.taken
    if mirror is not None:
        ended = {trial.number for trial in study.get_trials(deepcopy=False, states=FINISHED)}
        mirror.begin(begun=set(past), finished=ended & set(past))
    if finished:
        console.print(f"{finished} of {record['trials']} trials have finished before", highlight=False)
    if remaining <= 0:
        _close(file, folder, record, ending)
        return not file.pending

    protocol = plan.protocol("cuda" if share.gpus else "cpu")
    trainable = tune.with_parameters(
        CrossValidation,
        dataset=plan.dataset,
        folds=plan.folds,
        protocol=protocol,
        remote=None if mirror is None else mirror.remote.below("trials"),
    )
    # A number of trials that was asked for is also what an autoscaler is asked for.
    follows = plan.options.address is not None and plan.options.concurrent is None
    farewell = Farewell(ending, console)
    begun = [
        trial.number
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        if file.is_own(trial)
    ]
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory(share.bundles)),
        tune_config=tune.TuneConfig(
            search_alg=Room(searcher, share, ending, follows=follows),
            scheduler=make_scheduler(plan.options.scheduler, protocol, past),
            num_samples=remaining,
            reuse_actors=True,
            trial_dirname_creator=trial_dirname,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            # And in between when a trial's report asks for it. No `num_to_keep`: with it, Tune writes down all trials
            # there have been, twice in three rungs.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            stop=farewell,
            callbacks=[
                Recorder(folder, elsewhere=mirror is not None),
                Unanswered(searcher, ending),
                *([] if mirror is None else [Mirroring(mirror)]),
                Happenings(folder, ending, finished, begun),
                Progress(console, metric, record["trials"], finished),
                farewell,
                Release(),
            ],
        ),
    )
    try:
        tuner.fit()
    except Exception:  # what ends this may have ended Ray with it
        if not ending.asked:
            raise
    finally:
        _close(file, folder, record, ending)
    for rays_own in (folder / "trials").iterdir():  # pickles of the tuner's state, which nobody reads
        if rays_own.is_file():
            rays_own.unlink()
    return file.taken >= record["trials"] and not file.pending


def _opened(plan: Plan, record: dict[str, Any], console: Console, ending: Ending) -> "StudyFile | SharedStudy":
    file = plan.options.folder / "study.db"
    if plan.options.study is None:
        return StudyFile(file)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return SharedStudy(plan.options.study, record, file, say, ending.ask)


def _close(file: "StudyFile | SharedStudy", folder: Path, record: dict[str, Any], ending: Ending) -> None:
    """And says in the record what others have trained."""
    file.close()
    if isinstance(file, SharedStudy):
        record["study"] |= file.elsewhere()
        write_json(folder / "experiment.json", record)
    if file.pending:
        ending.ask("the study's database is away, and has still to be told of trials that have finished")


def _seed(plan: Plan, record: dict[str, Any]) -> int:
    """Of the sampler: another one in every session, and in every search that shares a study."""
    of_search = 0 if plan.options.study is None else own_seed(record["study"]["owner"])
    return plan.options.seed + len(record["sessions"]) - 1 + of_search
