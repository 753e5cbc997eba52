"""Whether two programs that train the same configurations in the same folds come to the same scores.

They draw other initial heads, other orders and other dropout, so their scores differ as those of two seeds do. How much
that is, is measured: some configurations are trained with further seeds, and the variance over seeds of one fold is
pooled over folds and configurations. The score of a configuration (its mean over k folds) then differs between two
programs by a standard deviation of sqrt(2 / k) times that of a fold; the mean difference over n configurations by
sqrt(n) less. A difference beyond what one in a thousand searches would show (t distribution, Bonferroni over all that
is looked at) is a disagreement.

Two scores are looked at: the AUROC at the best epoch, which is what a search is after, and the log loss of the last
epoch, which shows small differences that leave the order of the images as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CHANCE = 0.001


@dataclass(frozen=True)
class Scores:
    """Of one configuration; shapes (epochs, folds)."""

    aurocs: np.ndarray
    log_losses: np.ndarray
    trained_parameters: int

    @property
    def auroc(self) -> np.ndarray:
        """Of each fold, at the epoch of the best mean."""
        return self.aurocs[self.aurocs.mean(1).argmax()]

    @property
    def log_loss(self) -> np.ndarray:
        """Of each fold, at the last epoch."""
        return self.log_losses[-1]


LOOKED_AT: dict[str, Callable[[Scores], np.ndarray]] = {"AUROC": lambda s: s.auroc, "log loss": lambda s: s.log_loss}


@dataclass(frozen=True)
class Difference:
    """Between two programs, in one of the scores."""

    score: str
    mean: float
    """Over configurations, the first less the second."""
    largest: float
    mean_allowed: float
    largest_allowed: float

    @property
    def agrees(self) -> bool:
        return abs(self.mean) <= self.mean_allowed and abs(self.largest) <= self.largest_allowed

    def __str__(self) -> str:
        return (
            f"{self.score}: mean difference {self.mean:+.4f} (allowed {self.mean_allowed:.4f}), "
            f"largest {self.largest:+.4f} (allowed {self.largest_allowed:.4f})"
        )


def differences(
    ours: Sequence[Scores], theirs: Sequence[Scores], of_seeds: Sequence[Sequence[Scores]]
) -> list[Difference]:
    """ours, theirs: of the same configurations, in the same order. of_seeds: of some configurations, of each the scores
    with at least two seeds. Raises `ValueError` where the two do not train equally many parameters."""
    for a, b in zip(ours, theirs, strict=True):
        if a.trained_parameters != b.trained_parameters:
            raise ValueError(f"not the same networks: {a.trained_parameters} and {b.trained_parameters} are trained")
    looked_at = len(LOOKED_AT) * (len(ours) + 1)
    found = []
    for name, score in LOOKED_AT.items():
        variances, freedom = [], 0
        for scores in of_seeds:
            of_folds = np.stack([score(each) for each in scores])
            variances.append(of_folds.var(axis=0, ddof=1).mean())
            freedom += (of_folds.shape[0] - 1) * of_folds.shape[1]
        folds = score(ours[0]).size
        allowed = stats.t.ppf(1 - CHANCE / 2 / looked_at, freedom) * np.sqrt(2 / folds * np.mean(variances))
        apart = np.array([score(a).mean() - score(b).mean() for a, b in zip(ours, theirs, strict=True)])
        largest = apart[np.abs(apart).argmax()]
        found.append(
            Difference(name, float(apart.mean()), float(largest), float(allowed / np.sqrt(apart.size)), float(allowed))
        )
    return found
