"""The winner on all images: for as long as the cross-validation found, exact to resume, compared on the test split."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from search import refit as refit_module
from search.refit import Diverged, app, refit
from search.reopened import Reopened
from tests.reopened_search import EPOCHS, searched
from tests.small import small_config, small_dataset, small_protocol, small_segmentation
from trainables.ensemble import Ensemble
from trainables.metrics import scores
from trainables.refit import AllImages, Refit


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Reopened:
    return searched(tmp_path_factory.mktemp("results"))


def begun(epochs: int = 2, networks: int = 1, losses: tuple[float, ...] = (), **config) -> Refit:
    given = {"networks": networks, "epochs": epochs, "losses": losses}
    return Refit(small_config(**config), small_dataset(), small_protocol(max_epochs=EPOCHS), **given)


def trained(lockstep: Refit) -> Refit:
    while not lockstep.finished:
        lockstep.advance()
    return lockstep


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (network,) = Ensemble.load(folder).networks
    return network.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_every_network_is_trained_on_all_images():
    dataset = small_dataset(100, classes=5)
    folds = AllImages.of(dataset, 2)
    assert (len(folds), folds.k, folds.repeats) == (2, 2, 1)
    for rows, watched in folds:
        assert rows.tolist() == list(range(100))
        assert np.bincount(dataset.targets[watched]).min() >= 12


def test_the_last_epoch_is_what_is_kept_and_it_ends_when_it_is_told_to():
    lockstep = trained(begun(epochs=2, patience=1, learning_rate=0.3, optimizer="sgd"))
    assert (lockstep.epoch, lockstep.best_epoch) == (2, 2)
    last = lockstep._group.folds[0].weights()
    assert same(last, lockstep._group.best()[0])


def test_the_rate_falls_as_if_the_training_went_on_after_the_best_epoch():
    whole = trained(begun(epochs=EPOCHS, schedule="cosine"))
    ended = trained(begun(epochs=2, schedule="cosine"))
    longer = trained(begun(epochs=5, schedule="cosine"))
    rates = [[entry["learning_rate"] for entry in lockstep.curve] for lockstep in (whole, ended, longer)]
    assert rates[0][:2] == rates[1]
    assert rates[2][1] > rates[0][1]


def test_a_plateau_is_that_of_the_cross_validation():
    """Decays after an epoch in which its mean validation loss was no lower, whatever is measured now."""
    falling, flat = (
        [entry["learning_rate"] for entry in trained(begun(3, losses=losses, schedule="plateau", decay_epochs=1)).curve]
        for losses in ((3.0, 2.0, 1.0), (1.0, 1.0, 1.0))
    )
    assert falling[0] == falling[2] == flat[0]
    assert flat[2] < flat[0]


def test_networks_of_several_seeds_differ():
    first, second = trained(begun(networks=2))._group.best()
    assert not same(first, second)


def test_it_goes_on_exactly_where_it_was_interrupted(found, tmp_path):
    def stop(text: str) -> None:
        if text.startswith("epoch 2"):
            raise KeyboardInterrupt

    whole = weights(refit(found, epochs=3))
    with pytest.raises(KeyboardInterrupt):
        refit(found, epochs=3, say=stop, saved_every_s=0)
    said: list[str] = []
    again = refit(found, epochs=3, say=said.append)
    assert said[1] == "going on after epoch 1"
    assert same(weights(again), whole)
    assert not (again / "training").exists()


def test_another_training_is_not_gone_on_with(found):
    def stop(text: str) -> None:
        if text.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refit(found, epochs=3, say=stop, saved_every_s=0)
    said: list[str] = []
    refit(found, epochs=2, say=said.append)
    assert not any("going on" in text for text in said)


def test_ensemble_and_refit_are_compared_on_the_test_split(found):
    folder = refit(found)
    told = json.loads((folder / "test.json").read_text())
    best_epoch = found.results.curves(0).group_by("epoch").agg(pl.col("accuracy").mean()).sort("epoch")
    assert told["epochs"] in best_epoch["epoch"].to_list()
    assert (told["trial"], told["seeds"], told["images"], told["test_images"]) == (0, 1, 36, 12)
    pixels = [found.test.decode(index) for index in range(12)]
    for which, ensemble in (("ensemble", found.ensemble(0)), ("refit", Ensemble.load(folder))):
        expected = scores(found.test.targets, ensemble.predict(pixels).mean(0))
        for metric in ("auroc", "accuracy", "log_loss"):
            assert told[which][metric] == pytest.approx(expected[metric], abs=1e-6)
    predictions = pl.read_parquet(folder / "test_predictions.parquet")
    assert predictions["image_id"].to_list() == found.test.table["image_id"].to_list()
    assert predictions.select("a", "b").sum_horizontal().to_list() == pytest.approx([1.0] * 12)
    assert "trained on all 36 development images" in (folder / "README.md").read_text()


def test_masks_are_compared_by_dice(tmp_path):
    config = {"model": "encoder_decoder", "dense_widths": (), "batch_size": 8}
    found = searched(tmp_path, small_segmentation(24), test=6, metric="dice", **config)
    told = json.loads((refit(found) / "test.json").read_text())
    assert 0 <= told["refit"]["dice"] <= 1
    assert 0 <= told["ensemble"]["dice"] <= 1
    predictions = pl.read_parquet(tmp_path / "segmentation/refit/test_predictions.parquet")
    assert told["refit"]["dice"] == pytest.approx(predictions["dice"].mean(), abs=1e-6)


def test_without_a_test_split_nothing_is_compared(tmp_path):
    said: list[str] = []
    folder = refit(searched(tmp_path, small_dataset(24), test=0), say=said.append)
    assert not (folder / "test.json").exists()
    assert (folder / "model.json").exists()
    assert "no test split" in said[-1]


def test_a_loss_that_is_not_finite_is_said(found, monkeypatch):
    monkeypatch.setattr("trainables.refit.Refit.diverged", property(lambda self: self.epoch == 1))
    with pytest.raises(Diverged, match="after epoch 1"):
        refit(found, epochs=2)


def test_the_command_says_what_is_wrong_in_one_line(found, monkeypatch):
    results = str(found.results.folder.parent)
    for arguments, said in (
        (["nothing"], "no experiment 'nothing'"),
        (["binary", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["binary", "--epochs", "0"], "--epochs 0: must be at least 1"),
    ):
        outcome = CliRunner().invoke(app, [*arguments, "--results", results])
        assert outcome.exit_code == 2
        assert outcome.stderr.startswith("error: ")
        assert said in outcome.stderr

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refit_module, "reopened", interrupted)
    outcome = CliRunner().invoke(app, ["binary", "--results", results])
    assert outcome.exit_code == 130
    assert "goes on from the last checkpoint" in outcome.stderr
