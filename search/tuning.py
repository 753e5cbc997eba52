"""The search itself: Ray Tune's Tuner over the trials that are left to do."""

import logging
import warnings
from typing import Any

import optuna
from ray import tune
from rich.console import Console

from analysis.results import reports, trial_folder
from search.callbacks import Progress, Recorder, Release, kept_checkpoint, prune, set_aside, trial_dirname
from search.plan import Plan
from search.ray_session import Share
from search.schedulers import make_scheduler
from search.searchers import FINISHED, StudySearch, enqueue, sampler
from search.storage import StudyFile
from trainables.cross_validation import CrossValidation
from trainables.metrics import METRICS

RETRIES = 2
"""How often Ray starts a trial again whose process has died, from its last checkpoint."""


def search_trials(plan: Plan, record: dict[str, Any], share: Share, console: Console) -> bool:
    """Run until as many trials as asked for have finished. Returns False where it was interrupted before."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)

    folder, metric = plan.options.folder, plan.experiment.metric
    file = StudyFile(folder / "study.db")
    searcher = StudySearch(
        plan.space,
        study_name=record["name"],
        storage=file,
        sampler=sampler(plan.options.searcher, plan.options.seed + len(record["sessions"]) - 1, record["trials"]),
        metric=metric,
        mode=METRICS[metric],
        checkpoint_of=lambda number: kept_checkpoint(trial_folder(folder, number)),
    )
    study = searcher.study
    known = study.get_trials(deepcopy=False)
    set_aside(folder, begun={trial.number for trial in known if trial.state != optuna.trial.TrialState.WAITING})
    enqueue(study, plan.published, plan.points)
    past = {
        trial.number: reports(trial_folder(folder, trial.number) / "reports.jsonl")
        for trial in study.get_trials(deepcopy=False)
    }
    searcher.settle(past)
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        prune(trial_folder(folder, trial.number))  # as it would have been, had nothing come in between
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    left = record["trials"] - finished
    if finished:
        console.print(f"{finished} of {record['trials']} trials have finished before", highlight=False)
    if left <= 0:
        file.close()
        return True

    protocol = plan.protocol("cuda" if share.gpus else "cpu")
    trainable = tune.with_parameters(CrossValidation, dataset=plan.dataset, folds=plan.folds, protocol=protocol)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": share.cpus, "GPU": share.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(plan.options.scheduler, protocol, past),
            num_samples=left,
            max_concurrent_trials=min(share.side_by_side, left),
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
            callbacks=[Recorder(folder), Progress(console, metric, record["trials"], finished), Release()],
        ),
    )
    try:
        tuner.fit()
    finally:
        file.close()
    for rays_own in (folder / "trials").iterdir():  # pickles of the tuner's state, which nobody reads
        if rays_own.is_file():
            rays_own.unlink()
    return len(study.get_trials(deepcopy=False, states=FINISHED)) >= record["trials"]
