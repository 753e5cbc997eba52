"""k folds in lockstep: exact to resume, exact to repeat, best epoch of the mean curve."""

import math

import numpy as np
import polars as pl
import pytest
import timm
import torch
from safetensors.torch import save_file

from datasets import InputError
from datasets.pixels import pixels
from tests.small import MOBILENET, small_config, small_dataset, small_folds, small_protocol
from trainables import features, fold_group
from trainables.features import FrozenBody
from trainables.lockstep import Lockstep


def make(dataset=None, k=3, protocol=None, repeats=1, **config) -> Lockstep:
    dataset = dataset or small_dataset()
    return Lockstep(small_config(**config), dataset, small_folds(dataset, k, repeats), protocol or small_protocol())


def trained(lockstep: Lockstep, epochs: int | None = None) -> Lockstep:
    while not lockstep.finished and lockstep.epoch != epochs:
        lockstep.advance()
    return lockstep


def without_store(monkeypatch) -> None:
    """From here on no body is cut."""
    monkeypatch.setattr(features, "places", lambda *_: [])
    monkeypatch.setattr(features, "_begun", FrozenBody)


def told(lockstep: Lockstep) -> dict:
    """Everything but the clock."""
    return {key: value for key, value in lockstep.report().items() if key != "seconds"}


VARIANTS = {
    "scratch": {},
    "everything at once": {
        "dropout": 0.4,
        "dense_batch_norm": True,
        "optimizer": "adamw",
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "flip": True,
        "rotation_deg": 36.0,
        "zoom": 0.1,
        "contrast": 0.1,
    },
    "plateau": {"schedule": "plateau", "learning_rate": 0.05, "optimizer": "sgd", "decay_epochs": 1},
    "all that regularises": {
        "label_smoothing": 0.1,
        "mixup": 0.4,
        "cutmix": 1.0,
        "ema": 0.9,
        "accumulate": 2,
        "body_rate": 0.1,
        "vertical_flip": True,
        "brightness": 0.1,
        "noise": 0.05,
        "intensity_percentile": 5.0,
    },
    "balanced": {"balance": "augmented_oversample", "oversample_to": 20, "rotation_deg": 36.0},
}


@pytest.mark.parametrize("stop_at", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_that_was_stopped_ends_with_the_same_numbers(variant, stop_at, tmp_path):
    straight = trained(make(**VARIANTS[variant]))
    trained(make(**VARIANTS[variant]), stop_at).save(tmp_path)
    torch.manual_seed(99)  # whatever the process did in between
    resumed = make(**VARIANTS[variant])
    resumed.load(tmp_path)
    assert resumed.epoch == stop_at
    trained(resumed)
    assert told(resumed) == told(straight)
    assert resumed.curve == straight.curve
    straight.save(tmp_path)
    first = pl.read_parquet(tmp_path / "predictions.parquet")
    resumed.save(tmp_path)
    assert first.equals(pl.read_parquet(tmp_path / "predictions.parquet"))


def test_layers_learn_at_their_own_rates_on_features_in_bfloat16(monkeypatch):
    monkeypatch.setattr(features, "TOLERANCE", math.inf)
    dataset, half = small_dataset(images=24, size_px=32, channels=3), small_protocol(precision="bfloat16")
    lockstep = trained(make(dataset, 2, half, **MOBILENET, unfrozen_layers=8, body_rate=0.1), 1)
    assert lockstep._group.fetch(torch.arange(2))[0].dtype == torch.bfloat16
    assert not lockstep.diverged


@pytest.mark.parametrize("unfrozen_layers", [0, 8])
def test_a_trial_on_stored_features_resumes_and_equals_one_without_store(unfrozen_layers, tmp_path, monkeypatch):
    dataset = small_dataset(images=24, size_px=32, channels=3)
    config = {**MOBILENET, "unfrozen_layers": unfrozen_layers}
    straight = trained(make(dataset, 2, small_protocol(max_epochs=2), **config))
    trained(make(dataset, 2, small_protocol(max_epochs=2), **config), 1).save(tmp_path)
    resumed = make(dataset, 2, small_protocol(max_epochs=2), **config)
    resumed.load(tmp_path)
    assert told(trained(resumed)) == told(straight)

    without_store(monkeypatch)
    whole = trained(make(dataset, 2, small_protocol(max_epochs=2), **config))
    for with_store, without in zip(straight.curve, whole.curve, strict=True):
        assert with_store == pytest.approx(without, rel=2e-3)


def test_the_prefix_is_computed_once_for_all_trials(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    dataset = small_dataset(images=24, size_px=32, channels=3)
    for rate in (1e-3, 1e-2):
        make(dataset, 2, **MOBILENET, unfrozen_layers=0, learning_rate=rate)
    assert len(list(tmp_path.glob("features-*.npy"))) == 1
    make(dataset, 2, **MOBILENET, unfrozen_layers=0, pooling="max")
    make(dataset, 2, small_protocol(seed=1), **MOBILENET, unfrozen_layers=0)
    assert len(list(tmp_path.glob("features-*.npy"))) == 3


def test_bodies_that_differ_in_what_is_no_weight_share_no_features(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    for given in ({}, {"activation": "sigmoid"}, {"pool_first": True, "activation": "sigmoid"}, {}):
        make(small_dataset(24), 2, model="tsouderos_cnn", unfrozen_layers=0, **given)
    assert len(list(tmp_path.glob("features-*.npy"))) == 3


@pytest.mark.parametrize("in_memory", [True, False])
def test_features_beyond_the_budget_are_not_stored(in_memory, monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    monkeypatch.setenv("IMAGE_SEARCH_STORE_GB", "0.0000801")  # the pixels, but not the features
    if not in_memory:
        monkeypatch.setattr(fold_group, "IN_MEMORY_BYTES", 1000)
    lockstep = make(small_dataset(images=24, size_px=32, channels=3), 2, **MOBILENET, unfrozen_layers=0)
    assert not list(tmp_path.glob("features-*.npy"))
    (note,) = lockstep.report()["notes"]
    assert note.startswith("mobilenetv2_035: features of 0.000123 GB cannot be stored (0.000123 GB exceed the budget")
    assert note.endswith("computed again by every trial" if in_memory else "trained whole")
    assert (lockstep.cut is not None) == in_memory
    assert math.isfinite(told(trained(lockstep, 1))["accuracy"])


def test_the_same_seed_gives_bitwise_the_same_scores_and_another_does_not():
    everything = VARIANTS["everything at once"]
    first, again = trained(make(**everything)), trained(make(**everything))
    assert first.curve == again.curve
    other = trained(make(**everything, protocol=small_protocol(seed=1)))
    assert other.curve != first.curve


def test_it_learns_what_can_be_learned():
    report = trained(make(protocol=small_protocol(max_epochs=8))).report()
    assert report["accuracy"] > 0.95


def test_predictions_are_out_of_fold_and_of_the_best_epoch(tmp_path):
    lockstep = trained(make())
    lockstep.save(tmp_path)
    probabilities = pl.read_parquet(tmp_path / "predictions.parquet").to_numpy()
    dataset = small_dataset()
    assert probabilities.shape == (len(dataset), 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    right = probabilities.argmax(1) == dataset.targets
    per_fold = [right[validated].mean() for _, validated in small_folds(dataset)]
    assert per_fold == pytest.approx(lockstep.report()["folds"]["accuracy"])
    at_best = [entry["accuracy"] for entry in lockstep.curve if entry["epoch"] == lockstep.best_epoch]
    assert at_best == pytest.approx(per_fold)


def test_every_repeat_predicts_every_image_out_of_fold(tmp_path):
    dataset = small_dataset(images=30)
    lockstep = trained(make(dataset, 3, small_protocol(max_epochs=2), repeats=2))
    lockstep.save(tmp_path)
    probabilities = pl.read_parquet(tmp_path / "predictions.parquet").to_numpy()
    folds = small_folds(dataset, 3, repeats=2)
    table = folds.table(dataset)
    assert len(probabilities) == table.height == 60
    right = probabilities.argmax(1) == table["target"].to_numpy()
    per_fold = [right[table["fold"].to_numpy() == fold].mean() for fold in range(6)]
    assert per_fold == pytest.approx(lockstep.report()["folds"]["accuracy"])
    assert lockstep.report()["accuracy_std"] == pytest.approx(np.std(per_fold, ddof=1))
    assert sorted({entry["fold"] for entry in lockstep.curve}) == [0, 1, 2, 3, 4, 5]


def test_repeats_resume_exactly(tmp_path):
    dataset = small_dataset(images=24)
    straight = trained(make(dataset, 2, repeats=2))
    trained(make(dataset, 2, repeats=2), 2).save(tmp_path)
    resumed = make(dataset, 2, repeats=2)
    resumed.load(tmp_path)
    assert told(trained(resumed)) == told(straight)


def test_the_best_epoch_is_that_of_the_mean_curve():
    lockstep = trained(make(protocol=small_protocol(max_epochs=6)))
    curve = pl.DataFrame(lockstep.curve).group_by("epoch").agg(pl.col("accuracy", "log_loss").mean()).sort("epoch")
    ranks = list(zip(curve["accuracy"], -curve["log_loss"], strict=True))
    assert lockstep.best_epoch == curve["epoch"][ranks.index(max(ranks))]
    assert lockstep.report()["accuracy"] == pytest.approx(curve["accuracy"].max())


def test_patience_ends_a_trial_that_no_longer_improves():
    lockstep = trained(make(patience=2, learning_rate=1e-12, protocol=small_protocol(max_epochs=50, metric="accuracy")))
    assert lockstep.epoch == lockstep.best_epoch + 2 < 50


@pytest.mark.filterwarnings("ignore")
def test_a_diverged_trial_ends_and_keeps_what_came_before():
    lockstep = trained(make(learning_rate=1e30, optimizer="sgd"))
    assert lockstep.diverged
    assert lockstep.finished
    assert lockstep.epoch < 4
    report = lockstep.report()
    assert report["best_epoch"] == 0
    assert math.isnan(report["accuracy"])


def test_several_classes():
    dataset = small_dataset(images=60, classes=4)
    report = trained(make(dataset, protocol=small_protocol(max_epochs=6))).report()
    assert report["accuracy"] > 0.8
    assert len(report["folds"]["auroc"]) == 3


def test_bfloat16_stays_close_to_float32():
    full = trained(make(learning_rate=1e-3), 1).report()
    half = trained(make(learning_rate=1e-3, protocol=small_protocol(precision="bfloat16")), 1).report()
    assert half["folds"]["log_loss"] == pytest.approx(full["folds"]["log_loss"], abs=0.02)
    assert (half["precision"], full["precision"]) == ("bfloat16", "float32")
    assert half["folds"]["log_loss"] != full["folds"]["log_loss"]


def test_an_unknown_metric_is_refused():
    with pytest.raises(InputError, match="metric 'acuracy': choose from"):
        make(protocol=small_protocol(metric="acuracy"))


def test_a_pretrained_backbone_sees_images_as_it_was_trained_on_and_a_random_one_as_all_the_others(tmp_path):
    dataset = small_dataset(images=8, size_px=40, channels=3)
    published = timm.get_pretrained_cfg("test_efficientnet")
    assert published.interpolation == "bicubic"
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), file)
    config = small_config(model="test_efficientnet", image_size_px=32)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (published.mean, published.std))

    def seen(weights: str, interpolation: str = "bilinear") -> np.ndarray:
        protocol = small_protocol(weights=weights, interpolation=interpolation)
        return Lockstep(config, dataset, small_folds(dataset), protocol)._group.pixel_fetch(torch.arange(8))[0].numpy()

    def expected(interpolation: str) -> np.ndarray:
        return (pixels(dataset, 32, interpolation).transpose(0, 3, 1, 2) / np.float32(255) - mean) / std

    np.testing.assert_allclose(seen(str(file)), expected("bicubic"), atol=1e-5)
    np.testing.assert_allclose(seen("none"), expected("bilinear"), atol=1e-5)
    np.testing.assert_allclose(seen("none", "bicubic"), expected("bicubic"), atol=1e-5)
    assert np.abs(expected("bicubic") - expected("bilinear")).max() > 0.1
