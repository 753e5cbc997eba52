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
    scheduler = RungScheduler(protocol)
    for number, reports in past.items():
        trial = SimpleNamespace(config={"number": number})
        scheduler.on_trial_add(None, trial)
        for report in reports:
            if report.get(protocol.metric) is not None:  # a trial that failed has none
                scheduler.on_trial_result(None, trial, report)
    return scheduler


class RungScheduler(ASHAScheduler):
    """Ray's ASHA, which knows a trial by our number, so that one which goes on after an interruption is still the same;
    and which decides at rungs only, however often a long step reports in between."""

    def __init__(self, protocol: Protocol):
        super().__init__(
            time_attr="epoch",
            metric=protocol.metric,
            mode=METRICS[protocol.metric],
            max_t=protocol.max_epochs,
            grace_period=1,
            reduction_factor=3,
        )
        self._epochs = protocol.rungs

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _numbered(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["epoch"] not in self._epochs:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, _numbered(trial), result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its rungs have been recorded when it reached them."""
        self._trial_info.pop(_numbered(trial).trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._trial_info.pop(_numbered(trial).trial_id, None)


def _numbered(trial: Any) -> Any:
    return SimpleNamespace(trial_id=str(trial.config["number"]))
