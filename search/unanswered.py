"""A server of `--storage` that is away for so long that trials cannot be saved: no fault of theirs, and the search ends
in order, to go on when it is back."""

from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.experiment import Trial

from datasets.remote import NoAnswerError
from search.ending import Ending

if TYPE_CHECKING:
    from search.searchers import StudySearch


def is_unanswered(trial: Trial) -> bool:
    """Whether a trial has ended, or its process has, only because the server did not answer."""
    error = trial.get_pickled_error()
    return isinstance(getattr(error, "cause", error), NoAnswerError)


class Unanswered(tune.Callback):
    """Tells the study which trials have failed, and that the search is to end where they cannot be saved: those stay
    unfinished. Ray tells a searcher of both in the same way."""

    def __init__(self, searcher: "StudySearch", ending: Ending):
        self._searcher, self._ending = searcher, ending

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks; the study is large, and pickled with the searcher."""
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ends_for(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._ends_for(trial):
            self._searcher.failed(trial.trial_id)

    def _ends_for(self, trial: Trial) -> bool:
        unanswered = is_unanswered(trial)
        if unanswered:
            self._ending.ask("trials cannot be saved, as the server of --storage does not answer")
        return unanswered
