"""The networks of a trial's folds: what they said when they were trained, they say again, here and elsewhere."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from datasets import ImageDataset, InputError
from datasets.folds import Folds
from datasets.pixels import masks
from tests.small import (
    MOBILENET,
    small_config,
    small_dataset,
    small_folds,
    small_multitask,
    small_protocol,
    small_segmentation,
)
from trainables.config import TrialConfig
from trainables.ensemble import Ensemble
from trainables.lockstep import Lockstep

ROUNDING = 2e-5


def trained(folder: Path, config: TrialConfig, dataset: ImageDataset, folds: Folds, **protocol: Any) -> np.ndarray:
    """A checkpoint in the folder; what its predictions are."""
    lockstep = Lockstep(config, dataset, folds, small_protocol(max_epochs=2, **protocol))
    lockstep.advance()
    lockstep.advance()
    lockstep.save(folder)
    return pl.read_parquet(folder / "predictions.parquet").to_numpy()


def decoded(dataset: ImageDataset) -> list[np.ndarray]:
    return [dataset.decode(row) for row in range(len(dataset))]


def out_of_fold(ensemble: Ensemble, dataset: ImageDataset, folds: Folds) -> np.ndarray:
    """(repeats * N, C): what the network that has not seen an image says of it."""
    probabilities_kNC = ensemble.predict(decoded(dataset))
    fold_RN = folds.validated_in + np.arange(folds.repeats)[:, None] * folds.k
    rows = np.arange(len(dataset))
    return np.concatenate([probabilities_kNC[fold_N, rows] for fold_N in fold_RN])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ema": 0.9, "dense_batch_norm": True},
        {**MOBILENET, "unfrozen_layers": 0},
        {**MOBILENET, "unfrozen_layers": 4, "flip": True, "views": 2},
        {**MOBILENET, "unfrozen_layers": 4, "flip": True, "views": 0},
        {**MOBILENET, "unfrozen_layers": 2, "head_epochs": 1},
    ],
    ids=["whole", "average", "head", "cut", "frozen but whole", "two phases"],
)
def test_the_fold_that_validates_an_image_says_what_it_said_in_the_search(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    dataset = small_dataset(24, size_px=32, channels=3 if "model" in given else 1)
    config, folds = small_config(**given), small_folds(dataset)
    said = trained(tmp_path, config, dataset, folds)

    ensemble = Ensemble.of_trial(tmp_path, config, dataset, folds, small_protocol())
    ensemble.save(tmp_path / "best")
    loaded = Ensemble.load(tmp_path / "best")

    assert np.abs(out_of_fold(ensemble, dataset, folds) - said).max() < ROUNDING
    assert np.array_equal(out_of_fold(loaded, dataset, folds), out_of_fold(ensemble, dataset, folds))


def test_repeats_and_several_targets_have_networks_and_columns_of_their_own(tmp_path: Path) -> None:
    dataset = small_multitask(32)
    config, folds = small_config(), small_folds(dataset, repeats=2)
    said = trained(tmp_path, config, dataset, folds)

    ensemble = Ensemble.of_trial(tmp_path, config, dataset, folds, small_protocol())

    assert len(ensemble) == 6
    assert ensemble.columns == tuple(pl.read_parquet(tmp_path / "predictions.parquet").columns)
    assert np.abs(out_of_fold(ensemble, dataset, folds) - said).max() < ROUNDING


@pytest.mark.parametrize("classes", [2, 3])
def test_masks_overlap_with_the_truth_as_they_did_in_the_search(tmp_path: Path, classes: int) -> None:
    dataset = small_segmentation(12, classes)
    config, folds = small_config(model="encoder_decoder", dense_widths=()), small_folds(dataset)
    said = trained(tmp_path, config, dataset, folds, metric="dice")

    ensemble = Ensemble.of_trial(tmp_path, config, dataset, folds, small_protocol(metric="dice"))
    ensemble.save(tmp_path / "best")
    probabilities_kNCHW = Ensemble.load(tmp_path / "best").predict(decoded(dataset))

    truth_NHW = masks(dataset, 16)
    of_truth = np.take_along_axis(
        probabilities_kNCHW[folds.validated_in[0], np.arange(12)], truth_NHW[:, None].astype(np.int64), axis=1
    )
    assert probabilities_kNCHW.shape == (3, 12, classes, 16, 16)
    assert np.abs(-np.log(of_truth).mean((1, 2, 3)) - said[:, 2]).max() < ROUNDING


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three folds behind one frozen body."""
    folder = tmp_path_factory.mktemp("saved")
    dataset, config = small_dataset(12, size_px=32, channels=3), small_config(**MOBILENET, unfrozen_layers=2)
    trained(folder, config, dataset, small_folds(dataset))
    Ensemble.of_trial(folder, config, dataset, small_folds(dataset), small_protocol()).save(folder / "best")
    return folder / "best"


def copy_of(saved: Path, folder: Path) -> Path:
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_what_folds_share_is_written_once_and_held_once(saved: Path) -> None:
    names = load_file(saved / "model.safetensors").keys()
    one, *others = Ensemble.load(saved).networks

    assert "shared.body.conv_stem.weight" in names
    assert {"fold0.head.0.weight", "fold1.head.0.weight", "fold2.head.0.weight"} <= names
    assert not any(name.startswith("fold") and "conv_stem" in name for name in names)
    assert all(other.body.conv_stem.weight is one.body.conv_stem.weight for other in others)
    assert all(other.head[0].weight is not one.head[0].weight for other in others)


def test_images_of_any_size_are_squeezed_and_one_at_a_time_they_are_the_same(saved: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, 40, 3), np.uint8) for height in (20, 32, 90)]
    ensemble = Ensemble.load(saved)

    together = ensemble.predict(images)
    alone = np.concatenate([ensemble.predict([image]) for image in images], axis=1)

    assert together.shape == (3, 3, 2)
    assert np.abs(together - alone).max() < ROUNDING
    assert np.abs(together.sum(2) - 1).max() < ROUNDING
    assert ensemble.predict([]).shape == (3, 0, 2)
    with pytest.raises(InputError, match=r"expected uint8 \(height, width, 3\)"):
        ensemble.predict([images[0][:, :, :1]])


def test_it_loads_where_there_is_no_network_connection(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert len(Ensemble.load(saved)) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "this program reads format 1"),
        ({"config": {"model": "os"}}, "unknown model 'os'"),
        ({"config": {"model": "hf-hub:someone/model"}}, "unknown model"),
        ({"config": {"model": "../evil"}}, "unknown model"),
        ({"config": {"model": "__init__"}}, "no such network|unknown model"),
        ({"config": {"image_size_px": 10**6}}, "expected 1 to 4,096"),
        ({"config": {"dense_widths": [10**9]}}, "expected 1 to 65,536"),
        ({"config": {"dense_widths": [16]}}, "head.0.weight has shape"),
        ({"config": {"dense_widths": [65_536, 65_536]}}, "cannot hold dense layers of 65536, 65536"),
        ({"config": {"evil": 1}}, "unknown parameter 'evil'"),
        ({"networks": 2}, "too many or too few"),
        ({"networks": True}, "expected int"),
        ({"channels": 4}, "expected 1, 2 or 3"),
        ({"std": [0.0]}, "above 0"),
        ({"std": [1.0, 1.0]}, "one per channel"),
        ({"mean": [float("nan")]}, "expected numbers"),
        ({"mean": [10**400]}, "expected numbers"),
        ({"kind": "multitask"}, "do not make a multitask task"),
        ({"kind": "segmentation"}, "does not answer as segmentation needs it"),
        ({"thresholds": {"label": 2}}, "expected 0 to 1"),
        ({"targets": [{"name": "label", "classes": ["a", "a"], "scored": True}]}, "no two alike"),
        ({"code": "import os"}, "'code' is unknown"),
    ],
)
def test_a_description_that_is_not_what_it_should_be_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = copy_of(saved, tmp_path)
    told = json.loads((folder / "model.json").read_text())
    told |= changes | {"config": told["config"] | changes.get("config", {})}
    (folder / "model.json").write_text(json.dumps(told))

    with pytest.raises(InputError, match=said):
        Ensemble.load(folder)


def test_files_that_are_damaged_missing_or_a_pickle_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = copy_of(saved, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    refused = [
        ({name: tensors[name] for name in list(tensors)[1:]}, "too many or too few"),
        (tensors | {"fold7.head.0.weight": torch.zeros(1)}, "too many or too few"),
        ({name: tensor.double() for name, tensor in tensors.items()}, "or its type"),
    ]
    for changed, said in refused:
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(InputError, match=said):
            Ensemble.load(folder)

    torch.save(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Ensemble.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Ensemble.load(folder)
    with pytest.raises(InputError, match="no such file"):
        Ensemble.load(tmp_path / "nowhere")


def test_another_frozen_body_than_that_of_the_search_is_refused(tmp_path: Path) -> None:
    dataset, config = small_dataset(12, size_px=32, channels=3), small_config(**MOBILENET, unfrozen_layers=2)
    folds = small_folds(dataset)
    trained(tmp_path, config, dataset, folds)

    with pytest.raises(InputError, match="not those of weights=none here"):
        Ensemble.of_trial(tmp_path, config, dataset, folds, small_protocol(seed=1))
