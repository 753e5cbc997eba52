"""Ray-distributed, cross-validated hyperparameter search for image tasks.

    >>> import search
    >>> result = search.run("covid", demo=True, trials=8)
    >>> result.trials, result.best, result.report()

The same from a terminal: `python -m search covid --demo --trials 8`.
"""

from search.experiment import Result, run
from search.options import Options

__all__ = ["Options", "Result", "run"]
