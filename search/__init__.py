"""Ray-distributed, cross-validated hyperparameter search for image tasks.

    >>> import search
    >>> result = search.run("covid", demo=True, trials=8)
    >>> result.trials, result.best, result.report()

The same from a terminal: `python -m search covid --demo --trials 8`.
"""

from pathlib import Path

import datasets

_OURS = Path(__file__).resolve().parent.parent / "datasets"
if Path(datasets.__file__ or "").resolve().parent != _OURS:
    raise ImportError(
        f"the package `datasets` is {datasets.__file__} and not {_OURS}: put this checkout first in the path, "
        f"by starting Python in it or with PYTHONPATH={_OURS.parent}"
    )

from search.experiment import Result, run  # noqa: E402
from search.options import Options  # noqa: E402

__all__ = ["Options", "Result", "run"]
