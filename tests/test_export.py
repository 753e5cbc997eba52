"""A model as a file for other programs: it says what the model says, or is not written."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from datasets import ImageDataset, InputError
from search.export import Disagrees, app, export
from tests.small import small_config, small_dataset, small_folds, small_protocol, small_segmentation
from trainables.ensemble import Ensemble
from trainables.exportable import Exportable
from trainables.lockstep import Lockstep


def model_of(folder: Path, dataset: ImageDataset, **given: Any) -> Path:
    """Three networks of one epoch."""
    config, folds = small_config(**given), small_folds(dataset)
    protocol = small_protocol(metric="dice" if dataset.mask_decoder else "accuracy")
    lockstep = Lockstep(config, dataset, folds, protocol)
    lockstep.advance()
    lockstep.save(folder)
    Ensemble.of_trial(folder, config, dataset, folds, protocol).save(folder / "best")
    return folder / "best"


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that have nothing in common."""
    return model_of(tmp_path_factory.mktemp("classes"), small_dataset(18, classes=3, channels=3))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks behind one frozen body."""
    dataset = small_dataset(18, classes=3, size_px=32, channels=3)
    resnet = {"model": "test_resnet", "image_size_px": 32, "unfrozen_layers": 2}
    return model_of(tmp_path_factory.mktemp("frozen"), dataset, **resnet)


def images(count: int, channels: int = 3, size_px: int = 16) -> np.ndarray:
    """uint8 (count, size, size, channels)"""
    return np.random.default_rng(1).integers(0, 256, (count, size_px, size_px, channels)).astype(np.uint8)


def test_a_torchscript_file_holds_all_and_takes_either_type(frozen: Path, tmp_path: Path) -> None:
    said = export(frozen, tmp_path / "model.pt", "torchscript")
    loaded, given = loaded_script(tmp_path / "model.pt"), images(4, size_px=32)
    images_BCHW = torch.from_numpy(given.transpose(0, 3, 1, 2).copy())

    expected = Ensemble.load(frozen).predict(given).mean(0)

    assert "mean of 3 networks" in said
    assert "5 images of noise differ by" in said
    assert np.abs(loaded(images_BCHW).numpy() - expected).max() < 1e-5
    assert np.abs(loaded(images_BCHW.float()).numpy() - expected).max() < 1e-5


def loaded_script(file: Path) -> torch.jit.ScriptModule:
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.jit.load(file)


def test_a_torch_export_file_of_one_fold(best: Path, tmp_path: Path) -> None:
    export(best, tmp_path / "fold.pt2", "torch-export", fold="1", number="float32")
    facts = {"columns": "", "input": ""}
    program = torch.export.load(tmp_path / "fold.pt2", extra_files=facts).module()

    found = program(torch.from_numpy(images(7).transpose(0, 3, 1, 2).astype(np.float32)))

    assert np.abs(found.numpy() - Ensemble.load(best).predict(images(7))[1]).max() < 1e-5
    assert facts["columns"] == '["a", "b", "c"]'
    assert facts["input"].startswith("float32 (B, 3, 16, 16), 0 to 255")


def test_an_onnx_file_takes_any_number_of_images(best: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    result = CliRunner().invoke(app, [str(best), "--format", "onnx", "--out", str(tmp_path / "model.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"images": images(6).transpose(0, 3, 1, 2)})[0]

    assert result.exit_code == 0, result.stderr
    assert np.abs(found - Ensemble.load(best).predict(images(6)).mean(0)).max() < 1e-4
    assert session.get_modelmeta().custom_metadata_map["columns"] == '["a", "b", "c"]'


def test_masks_are_exported_too(tmp_path: Path) -> None:
    model = model_of(tmp_path, small_segmentation(12), model="encoder_decoder", dense_widths=())
    given = images(2, channels=2)

    export(model, tmp_path / "masks.pt", "torchscript")
    found = loaded_script(tmp_path / "masks.pt")(torch.from_numpy(given.transpose(0, 3, 1, 2).copy()))

    assert found.shape == (2, 2, 16, 16)
    assert np.abs(found.numpy() - Ensemble.load(model).predict(given).mean(0)).max() < 1e-5


def test_a_file_that_says_something_else_is_not_written(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Exportable.forward
    monkeypatch.setattr(Exportable, "forward", lambda self, images: exact(self, images) * 0.999)

    with pytest.raises(Disagrees, match=r"probabilities of 5 images of noise differ by 0.000"):
        export(best, tmp_path / "model.pt", "torchscript")

    assert not list(tmp_path.iterdir())


def test_a_network_that_the_format_has_no_word_for_is_named(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: nn.Module, given: torch.Tensor) -> torch.Tensor:
        return given if given.sum().item() > 0 else -given

    monkeypatch.setattr(Exportable, "forward", forward)
    result = CliRunner().invoke(app, [str(best), "--format", "torch-export", "--out", str(tmp_path / "model.pt2")])

    assert result.exit_code == 1
    assert "error: digits_cnn cannot be written as torch-export" in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, [str(best), "--format", "tflite", "--out", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "choose one of torchscript, onnx, torch-export" in result.stderr

    with pytest.raises(InputError, match="choose from 0 to 2, or ensemble"):
        export(best, tmp_path / "x", "torchscript", fold="3")
    with pytest.raises(InputError, match="there is no folder"):
        export(best, tmp_path / "nowhere" / "x", "torchscript")
    with pytest.raises(InputError, match="is a folder"):
        export(best, tmp_path, "torchscript")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="install onnx"):
        export(best, tmp_path / "x", "onnx")
