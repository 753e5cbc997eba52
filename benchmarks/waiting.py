"""The trainable of `benchmarks.overhead`: all of a trial but its training, which waits for a known time instead."""

import time

from trainables.config import TrialConfig
from trainables.cross_validation import CrossValidation
from trainables.lockstep import Lockstep

EPOCH_S = 0.01


class _Waiting(Lockstep):
    """Trains in its first epoch, so that there are scores, predictions and weights to save; the others repeat it."""

    def advance(self) -> None:
        if self.epoch == 0:
            super().advance()
        else:
            last = [entry for entry in self.curve if entry["epoch"] == self.epoch]
            self.epoch += 1
            self.curve += [{**entry, "epoch": self.epoch} for entry in last]
        time.sleep(EPOCH_S)
        self.seconds += EPOCH_S


class WaitingCrossValidation(CrossValidation):
    def _begun(self) -> Lockstep:
        return _Waiting(TrialConfig.of(self.config["params"]), self._dataset, self._folds, self._protocol)
