"""How many trials share a GPU. What a GPU would say is given here; what is trained is trained."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets import InputError
from search import packing
from search.options import Options
from search.packing import Footprint, footprint, largest_config, shortened, size_of, trials_per_gpu
from search.ray_session import Share, share_of
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

GB = 10**9


def space(trial):
    """As those of the tasks: what is asked hangs on what was answered. The larger model has smaller batches."""
    model = trial.suggest_categorical("model", ("mobilenetv2_035", "digits_cnn"))
    asked = {
        "model": model,
        "image_size_px": trial.suggest_categorical("image_size_px", (64, 32)),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        "ema": trial.suggest_categorical("ema", (0.9, 0.0)),
    }
    if model == "digits_cnn":
        return asked | {"batch_size": trial.suggest_categorical("batch_size", (2, 3))}
    asked["batch_size"] = trial.suggest_categorical("batch_size", (16, 8))
    if trial.suggest_categorical("fine_tune", (True, False)):
        return asked | {"unfrozen_layers": trial.suggest_int("unfrozen_layers", 1, 60)}
    return asked | {"unfrozen_layers": 0}


def colour(images=24):
    dataset = small_dataset(images, size_px=32, channels=3)
    return dataset, small_folds(dataset, 2)


def test_the_largest_configuration_is_found_across_questions_that_hang_on_others():
    config = largest_config(space, size_of(*colour()))
    assert (config.model, config.image_size_px, config.batch_size, config.unfrozen_layers, config.ema) == (
        "mobilenetv2_035",
        64,
        16,
        60,
        0.9,
    )


def test_a_body_is_looked_at_once(monkeypatch):
    seen, original = [], packing._counted
    monkeypatch.setattr(packing, "_counted", lambda config, dataset: seen.append(config) or original(config, dataset))
    size = size_of(*colour())
    for changed in ({}, {"learning_rate": 1e-2}, {"batch_size": 4, "dense_widths": (9,)}, {"ema": 0.9}, {"flip": True}):
        size(small_config(**changed))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"batch_size": 8}, {"batch_size": 16}),
        ({"image_size_px": 32}, {"image_size_px": 64}),
        ({"unfrozen_layers": 0}, {"unfrozen_layers": 1}),
        ({"unfrozen_layers": 20}, {"unfrozen_layers": None}),
        ({"dense_widths": ()}, {"dense_widths": (64, 64)}),
        ({"ema": 0.0}, {"ema": 0.9}),
        ({"accumulate": 4}, {"accumulate": 1}),
    ],
)
def test_what_needs_more_memory_is_larger(less, more):
    size = size_of(*colour())
    assert size(small_config(**MOBILENET | less)) < size(small_config(**MOBILENET | more))


def test_the_estimate_of_a_network_that_can_be_counted():
    """By hand, of heads without their biases; of a body roughly."""
    dataset = small_dataset(24)
    folds, given = small_folds(dataset, 2), {"batch_size": 8, "image_size_px": 16}
    size = size_of(dataset, folds)
    mlp, wide = ({"model": "mlp", "dense_widths": widths} for widths in ((), (10, 5)))
    assert size(small_config(**given, **mlp)) == 8 * 4 * 256 + 2 * 4 * 4 * 256
    assert size(small_config(**given, **wide)) == 8 * 4 * (256 + 10 + 5 + 2 * 15) + 2 * 4 * 4 * (2560 + 50 + 5)
    body = packing._counted(small_config(model="digits_cnn"), dataset)
    weights = 4 * (9 * (32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64))
    assert (body.weights, body.trained, body.features, body.pixels) == (weights, weights, 64 * 8 * 8, 1)
    values = 256 * (1 + 2 * 32 + 2 * 32 + 2 * 64)  # into convolutions and batch norms; of ReLU what it gives goes on
    assert values * 4 <= body.per_image <= 2 * values * 4


@pytest.mark.parametrize("dataset", [small_dataset(240, classes=3), small_multitask(240), small_segmentation(240)])
@pytest.mark.parametrize("train_images", [1, 30, 10**6])
def test_shortened_folds_keep_their_classes_and_train_on_enough(dataset, train_images):
    folds = small_folds(dataset, 3, repeats=2)
    subset, short = shortened(dataset, folds, train_images)
    chosen = [dataset.table["image_id"].to_list().index(image) for image in subset.table["image_id"]]
    assert short.validated_in.tolist() == [folds.validated_in[0, chosen].tolist()]
    assert short.k == 3
    for trained, validated in short:
        assert len(trained) >= min(train_images, len(dataset) - -(-len(dataset) // 3))
        assert len(set(subset.targets[validated].ravel().tolist())) == len(set(dataset.targets.ravel().tolist()))
    if train_images < 100:
        assert len(subset) < 120


def fake_gpu(monkeypatch, reserved: int, others: int = 0, loaded: int = 0) -> None:
    """80 GB, a context of half a GB; `loaded`: by kernels, beside what torch reserves."""
    context, started = GB // 2, itertools.count()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: reserved)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved // 2)

    def mem_get_info():
        used = context + others + (next(started) and reserved // 2 + loaded)
        return 80 * GB - used, 80 * GB

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)


def test_a_trials_footprint_is_what_it_reserved_its_context_and_its_kernels(monkeypatch):
    dataset = small_dataset(24)
    config = small_config(head_epochs=2, unfrozen_layers=1, accumulate=2)
    arguments = (config, dataset, small_folds(dataset, 2), small_protocol())
    fake_gpu(monkeypatch, reserved=6 * GB, loaded=GB)
    found = footprint(*arguments)
    assert found == Footprint(7 * GB + GB // 2, 80 * GB)
    assert found.fitting == 10


def test_images_are_measured_from_the_store_of_the_node_that_measures(monkeypatch):
    dataset, of_the_driver = small_dataset(24), object()
    monkeypatch.setattr(packing, "on_this_node", {of_the_driver: dataset}.__getitem__)
    fake_gpu(monkeypatch, reserved=6 * GB)
    assert footprint(small_config(), of_the_driver, small_folds(dataset, 2), small_protocol()).peak_bytes > 6 * GB


def test_memory_of_others_is_no_room(monkeypatch):
    dataset = small_dataset(24)
    arguments = (small_config(), dataset, small_folds(dataset, 2), small_protocol())
    fake_gpu(monkeypatch, reserved=6 * GB, others=40 * GB)
    found = footprint(*arguments)
    assert found.room_bytes == pytest.approx(40 * GB, abs=GB)
    assert found.peak_bytes == pytest.approx(6.5 * GB, abs=GB / 2)


def test_a_trial_that_fits_in_parts_only_has_a_gpu_for_itself():
    assert Footprint(10 * GB, 80 * GB, parts=2).fitting == 1
    assert Footprint(90 * GB, 80 * GB).fitting == 1


def plan(**options) -> SimpleNamespace:
    dataset = small_dataset(24)
    return SimpleNamespace(
        options=Options(task="digits", **{"gpus_per_trial": "auto"} | options),
        dataset=dataset,
        folds=small_folds(dataset, 2),
        space=lambda trial: {"model": "mlp", "image_size_px": 16, "learning_rate": 0.1, "batch_size": 8},
        experiment=SimpleNamespace(trials=options.get("trials", 40)),
        protocol=lambda device: small_protocol(),
    )


def packed(monkeypatch, resources, measured=lambda *_: Footprint(8 * GB, 80 * GB), **options) -> tuple[int, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(packing, "_on_a_gpu", measured)
    return trials_per_gpu(plan(**options), resources, said.append), said


@pytest.mark.parametrize(
    ("resources", "options", "expected", "says"),
    [
        ({"CPU": 64.0, "GPU": 1.0}, {}, 9, "takes 8.0 GB of 80.0 GB: 9 per GPU"),
        ({"CPU": 16.0, "GPU": 4.0}, {}, 4, "which is room for 9; there are 16 CPUs and 40 trials: 4 per GPU"),
        ({"CPU": 64.0, "GPU": 2.0}, {"trials": 5}, 3, "64 CPUs and 5 trials: 3 per GPU"),
        ({"CPU": 1.0, "GPU": 4.0}, {}, 1, "1 per GPU"),
    ],
)
def test_as_many_share_a_gpu_as_there_is_room_and_cpus_and_trials_for(monkeypatch, resources, options, expected, says):
    per_gpu, said = packed(monkeypatch, resources, **options)
    assert per_gpu == expected
    assert len(said) == 1
    assert said[0].startswith(
        "--gpus-per-trial auto: the largest configuration (mlp, 16 px, batches of 8, all layers trained)"
    )
    assert said[0].endswith(says)


def test_what_cannot_be_measured_has_a_gpu_for_itself(monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("memory does not suffice\nand more")

    per_gpu, said = packed(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, fails)
    assert per_gpu == 1
    assert "could not be measured (memory does not suffice): 1 per GPU" in said[0]


def test_nothing_is_measured_unless_it_was_asked_for_and_there_is_a_gpu(monkeypatch):
    def never(*_):
        raise AssertionError

    assert packed(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, never, gpus_per_trial=0.5) == (1, [])
    per_gpu, said = packed(monkeypatch, {"CPU": 2.0}, never)
    assert (per_gpu, len(said)) == (1, 1)
    assert "no GPU here" in said[0]
    with pytest.raises(InputError, match="has no GPU now"):
        packed(monkeypatch, {}, never, address="auto")


@pytest.mark.parametrize(
    ("resources", "per_gpu", "expected"),
    [
        ({"CPU": 16.0, "GPU": 1.0}, 1, Share(16, 1.0, 1)),
        ({"CPU": 16.0, "GPU": 1.0}, 3, Share(5, 0.3333, 3)),
        ({"CPU": 16.0, "GPU": 1.0}, 7, Share(2, 0.1428, 7)),
        ({"CPU": 64.0, "GPU": 4.0}, 13, Share(1, 0.0769, 52)),
        ({"CPU": 2.0}, 1, Share(1, 0.0, 2)),
    ],
)
def test_a_packed_trials_share(resources, per_gpu, expected):
    assert share_of(Options(task="digits", gpus_per_trial="auto"), [resources], per_gpu) == expected


def test_the_option_takes_a_number_or_auto():
    assert Options(task="digits", gpus_per_trial="0.5").gpus_per_trial == 0.5
    for wrong in ("all", "-1", "nan"):
        with pytest.raises(InputError, match=f"--gpus-per-trial {wrong}"):
            Options(task="digits", gpus_per_trial=wrong)


def test_every_tasks_space_has_a_largest_configuration():
    """By a size that needs no network: batch, pixels, layers."""
    import search_spaces

    def size(config: TrialConfig) -> float:
        layers = 200 if config.unfrozen_layers is None else config.unfrozen_layers
        return config.batch_size * config.image_size_px**2 * (1 + layers) + sum(config.dense_widths)

    rng = np.random.default_rng(0)
    for task in search_spaces.tasks():
        task_space = search_spaces.space_of(task).search_space
        largest = size(largest_config(task_space, size))
        for _ in range(20):
            assert size(TrialConfig.of(task_space(_Drawn(rng)))) <= largest, task


class _Drawn:
    """A trial with random answers."""

    def __init__(self, rng):
        self._rng = rng

    def suggest_float(self, name, low, high, **_):
        return float(self._rng.uniform(low, high))

    def suggest_int(self, name, low, high, **_):
        return int(self._rng.integers(low, high + 1))

    def suggest_categorical(self, name, choices):
        return choices[int(self._rng.integers(len(choices)))]
