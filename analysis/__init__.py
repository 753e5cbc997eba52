"""Finished trials in; tables, figures and reports out. `python -m analysis NAME`."""

import datasets.interruption  # noqa: F401, I001 -- before all that takes long

from analysis.report import write_report
from analysis.results import Results
from analysis.summary import summary
from analysis.terminal import best_trials_table, headline, published_table
from analysis.trials import best, ranked, trials

__all__ = [
    "Results",
    "best",
    "best_trials_table",
    "headline",
    "published_table",
    "ranked",
    "summary",
    "trials",
    "write_report",
]
