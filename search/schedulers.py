"""Who may go on at a rung."""

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from trainables.metrics import METRICS
from trainables.protocol import Protocol


def make_scheduler(name: str, protocol: Protocol, past: dict[int, list[dict[str, Any]]]) -> TrialScheduler:
    """`asha`: at every rung the best third goes on (Li et al. 2020); `none`: everybody does.

    past: the reports of trials from before an interruption, by number; the rungs remember their scores.
    """
    if name == "none":
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric=protocol.metric,
        mode=METRICS[protocol.metric],
        max_t=protocol.max_epochs,
        grace_period=1,
        reduction_factor=3,
    )
    for number, reports in past.items():
        trial = SimpleNamespace(trial_id=f"past-{number}")
        scheduler.on_trial_add(None, trial)
        for report in reports:
            scheduler.on_trial_result(None, trial, report)
    return scheduler
