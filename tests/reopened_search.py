"""A search of one small trial that has ended, with its images at hand; the last of them are the test split."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl

from analysis.results import Results
from datasets import ImageDataset
from search.reopened import Reopened
from tests.results_folder import build_from
from tests.small import small_config, small_dataset, small_folds, small_protocol
from trainables.lockstep import Lockstep

EPOCHS = 3


def searched(
    results: Path, dataset: ImageDataset | None = None, *, test: int = 12, metric: str = "accuracy", **config: object
) -> Reopened:
    whole = dataset or small_dataset(48)
    split = np.where(np.arange(len(whole)) < len(whole) - test, "development", "test")
    whole = dataclasses.replace(whole, table=whole.table.with_columns(split=pl.Series(split)))
    development = whole.part("development")
    folds, protocol = small_folds(development), small_protocol(metric=metric, max_epochs=EPOCHS)
    trial = Lockstep(small_config(**config), development, folds, protocol)
    while not trial.finished:
        trial.advance()
    folder = build_from(results, trial, development, folds, metric)
    told = json.loads((folder / "experiment.json").read_text())
    told |= {"request": {"interpolation": "bilinear"}, "max_epochs": EPOCHS, "precision": "float32"}
    (folder / "experiment.json").write_text(json.dumps(told))
    return Reopened(Results.open(folder), development, whole.part("test"), folds)
