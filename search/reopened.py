"""A finished search together with the images that it was made of, checked to be the same.

experiment.json says where the images were (`request`), folds.parquet which of them stayed, in which order, group and
fold, so nothing is decoded, remedied or dealt again to find them.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import datasets
from analysis.fetched import bring_networks
from analysis.results import Results, last_checkpoint
from datasets import ImageDataset, InputError, Request
from datasets.fetching import Root, root_of
from datasets.folds import Folds
from datasets.remote import RemoteFolder
from search.plan import Plan
from trainables.config import TrialConfig
from trainables.protocol import Protocol

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.ensemble import Ensemble


@dataclass(frozen=True)
class Reopened:
    results: Results
    dataset: ImageDataset
    """The development images, whose rows are those of folds.parquet (of one repeat)."""
    test: ImageDataset
    """The test split, which no trial has seen; of length 0 where there is none."""
    folds: Folds
    remote: RemoteFolder | None = None
    """Where the networks of trials are, if not in the folder of results."""

    @staticmethod
    def of_plan(plan: Plan) -> "Reopened":
        """Of a search that has just ended, whose images are at hand."""
        return Reopened(Results.open(plan.options.folder), plan.dataset, plan.test, plan.folds, plan.options.remote)

    def protocol(self, device: str = "cpu") -> Protocol:
        """How the trials were judged."""
        experiment: dict[str, Any] = dict(self.results.experiment)
        return Protocol(
            metric=experiment["metric"],
            max_epochs=experiment["max_epochs"],
            seed=experiment["seed"],
            weights=experiment["weights"],
            interpolation=experiment["request"]["interpolation"],
            precision=experiment["precision"],
            device="cuda" if device == "cuda" else "cpu",
        )

    def config(self, number: int) -> TrialConfig:
        """Of a trial."""
        params = self.results.params(number)
        if not params:
            raise InputError(f"trial {number} of {self.results.folder} has reported nothing")
        return TrialConfig.of(params)

    def checkpoint(self, number: int) -> Path:
        """The last whole one of a trial."""
        found = last_checkpoint(self.results.trial_folder(number))
        if found is None:
            raise InputError(f"trial {number} of {self.results.folder} has no whole checkpoint")
        return found

    def ensemble(self, number: int) -> "Ensemble":
        """The fold networks of a trial's best epoch."""
        from trainables.ensemble import Ensemble

        checkpoint, config = self.checkpoint(number), self.config(number)
        bring_networks(self.remote, self.results.folder, checkpoint)
        return Ensemble.of_trial(checkpoint, config, self.dataset, self.folds, self.protocol())


def reopened(folder: Path, data: Root | None = None, remote: RemoteFolder | None = None) -> Reopened:
    """The experiment in a folder, with its images.

    data: where they are now; None: where they were. remote: what the folder is a working copy of. Raises `InputError`
    where images are gone or have changed.
    """
    results = Results.open(folder)
    experiment: dict[str, Any] = dict(results.experiment)
    if "request" not in experiment:
        raise InputError(
            f"{folder / 'experiment.json'} does not say where its images were, as it is of an earlier version: search "
            f"again under another --name"
        )
    found = datasets.load_all(experiment["task"], requested(experiment["request"], folder, data))
    folds = folds_of(results)
    dataset = _development(found, results, data)
    if dataset.digest != experiment["data"]["digest"]:
        raise InputError(_changed(folder, data, "the images, or what is said of them, are not those of the search"))
    return Reopened(results, dataset, _test(found, experiment), folds, remote)


def requested(told: dict[str, Any], folder: Path, data: Root | None = None) -> Request:
    """The request that experiment.json keeps; `data`: another folder, archive or, where no folder was given, table."""
    given = {field.name: told[field.name] for field in dataclasses.fields(Request) if field.name in told}
    given["plant"] = tuple(told["plant"])
    paths = {name: root_of(told[name]) for name in ("root", "table") if told[name] is not None}
    if data is not None:
        if not paths:
            raise InputError(f"--data {data}: {folder.name} did not read its images from files; leave it out")
        paths["root" if "root" in paths else "table"] = data
    for path in paths.values():
        if isinstance(path, Path) and path.is_absolute() and not path.exists():
            raise InputError(f"{path}: the images of {folder.name} are not there; say where they are now with --data")
    return Request(**given | paths)


def folds_of(results: Results) -> Folds:
    """As folds.parquet keeps them. Raises `InputError` where they are not those of experiment.json."""
    table = results.folds
    repeats = table["repeat"].n_unique()
    fold_RN = table["fold"].to_numpy().astype(np.int64).reshape(repeats, -1)
    folds = Folds(fold_RN - np.arange(repeats)[:, None] * ((fold_RN.max() + 1) // repeats))
    if folds.digest != results.experiment["folds_digest"]:
        raise InputError(f"{results.folder / 'folds.parquet'}: not the folds that experiment.json names")
    return folds


def _development(found: ImageDataset, results: Results, data: Root | None) -> ImageDataset:
    """The images of folds.parquet, in its order and with its groups, which remedies may have joined."""
    wanted = results.folds.filter(pl.col("repeat") == 0).select("image_id", pl.col("group").alias("joined"))
    row_of = pl.DataFrame({"image_id": found.table["image_id"]}).with_row_index("found")
    rows = wanted.join(row_of, on="image_id", how="left", maintain_order="left")
    if rows["found"].null_count():
        missing = rows.filter(pl.col("found").is_null())["image_id"]
        raise InputError(_changed(results.folder, data, f"{len(missing):,} images are missing, {missing[0]} for one"))
    dataset = found.rows(rows["found"].to_numpy().astype(np.int64))
    return dataclasses.replace(dataset, table=dataset.table.with_columns(group=wanted["joined"]))


def _test(found: ImageDataset, experiment: dict[str, Any]) -> ImageDataset:
    """The test split, less what was dropped."""
    dropped = [entry["path"] for entry in experiment["data"]["dropped"]]
    test = found.part("test")
    return test.rows((~test.table["image_id"].is_in(dropped)).to_numpy())


def _changed(folder: Path, data: Root | None, what: str) -> str:
    there = f"--data {data}" if data is not None else "where experiment.json says"
    return f"{folder.name}: {what} ({there}); give the folder of the same images with --data"
