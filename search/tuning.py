"""The search itself: Ray Tune's Tuner over the trials that are left to do."""

import logging
import warnings
from typing import Any

import optuna
from ray import tune
from rich.console import Console

from analysis.results import last_checkpoint, reports
from search.callbacks import Progress, Recorder, trial_dirname, trial_folder
from search.plan import Plan
from search.schedulers import make_scheduler
from search.searchers import FINISHED, StudySearch, enqueue, open_storage, sampler
from trainables.cross_validation import CrossValidation
from trainables.metrics import METRICS

RETRIES = 2
"""How often Ray starts a trial again whose process has died, from its last checkpoint."""


def search_trials(plan: Plan, record: dict[str, Any], resources: dict[str, float], console: Console) -> bool:
    """Run until as many trials as asked for have finished. Returns False where it was interrupted before.

    resources: what Ray has, `{"CPU": 2.0, …}`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)

    folder, metric = plan.options.folder, plan.experiment.metric
    searcher = StudySearch(
        plan.space,
        study_name=record["name"],
        storage=open_storage(folder / "study.db"),
        sampler=sampler(plan.options.searcher, plan.options.seed + len(record["sessions"]) - 1),
        metric=metric,
        mode=METRICS[metric],
        checkpoint_of=lambda number: last_checkpoint(trial_folder(folder, number)),
    )
    study = searcher.study
    if not study.get_trials(deepcopy=False):
        enqueue(study, plan.published, plan.points)
    past = {
        trial.number: reports(trial_folder(folder, trial.number) / "reports.jsonl")
        for trial in study.get_trials(deepcopy=False)
    }
    searcher.settle(past)
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    left = record["trials"] - finished
    if left <= 0:
        return True

    cpus, gpus, slots = _resources_per_trial(plan, resources)
    protocol = plan.protocol("cuda" if gpus else "cpu")
    trainable = tune.with_parameters(CrossValidation, dataset=plan.dataset, folds=plan.folds, protocol=protocol)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": cpus, "GPU": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(plan.options.scheduler, protocol, past),
            num_samples=left,
            max_concurrent_trials=min(slots, left),
            reuse_actors=True,
            trial_dirname_creator=trial_dirname,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=False, num_to_keep=2),
            callbacks=[Recorder(folder), Progress(console, metric, record["trials"], finished)],
        ),
    )
    tuner.fit()
    for rays_own in (folder / "trials").iterdir():  # pickles of the tuner's state, which nobody reads
        if rays_own.is_file():
            rays_own.unlink()
    return len(study.get_trials(deepcopy=False, states=FINISHED)) >= record["trials"]


def _resources_per_trial(plan: Plan, resources: dict[str, float]) -> tuple[int, float, int]:
    """CPUs and GPUs of one trial, and how many trials fit side by side.

    Unless told otherwise a trial takes a GPU where there are any, and its share of the CPUs; else one CPU.
    """
    all_cpus, all_gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0.0)
    gpus = plan.options.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if all_gpus >= 1 else 0.0
    side_by_side = int(all_gpus / gpus) if gpus else all_cpus
    cpus = plan.options.cpus_per_trial or max(1, all_cpus // max(1, side_by_side))
    return cpus, gpus, plan.options.concurrent or max(1, min(side_by_side, all_cpus // cpus))
