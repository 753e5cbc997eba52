"""Contract tests: what every task promises, whichever it is. A new task is tested by being there."""

import pickle

import numpy as np
import optuna
import pytest

import datasets
import search
import search_spaces
from datasets import InputError, Request
from datasets.phantoms import PITFALLS
from datasets.remedies import DEFAULT_DROP, remedied
from search.spaces import models
from tests.small import small_dataset, small_segmentation
from trainables.config import TrialConfig
from trainables.metrics import METRICS, metrics_of
from trainables.network import network_size, pristine_body
from trainables.objectives import objective

TASKS = search_spaces.tasks()
WITH_PHANTOMS = [name for name in TASKS if hasattr(datasets.task(name), "phantoms")]
WITHOUT_DOWNLOAD = [name for name in TASKS if datasets.task(name).OBTAIN is None]
AT_HAND = WITH_PHANTOMS + WITHOUT_DOWNLOAD
"""Tasks whose images need not be obtained first."""
SPACES = [(name, False) for name in TASKS] + [("images", True)]
"""With whether it is the space of a user's own table with masks."""
PUBLISHED = [(name, entry) for name in TASKS for entry in getattr(search_spaces.space_of(name), "PUBLISHED", ())]


FEW = 44
"""Phantoms, for what need not be looked at in its full number."""


def load(name: str, images: int | None = FEW, seed: int = 0, plant: tuple[str, ...] = ()) -> datasets.ImageDataset:
    """As it is found, nothing decoded."""
    if name in WITHOUT_DOWNLOAD:
        return datasets.load_all(name, Request())
    return datasets.load_all(name, Request(demonstration=True, images=images, seed=seed, plant=plant))


def test_the_tasks_are_those_with_two_files():
    assert datasets.tasks() == TASKS
    seeds = {"covid", "mura", "blood", "skin", "bone", "mnist", "fashion_mnist", "cifar10", "warwick"}
    assert set(TASKS) >= seeds | {"digits", "images"}
    assert set(WITH_PHANTOMS) >= seeds


@pytest.mark.parametrize("name", AT_HAND)
def test_a_task_has_as_many_images_as_its_module_says(name):
    module, dataset = datasets.task(name), load(name, images=None)
    assert (dataset.name, len(dataset), dataset.classes) == (name, module.IMAGES, module.CLASSES)
    assert sum(dataset.splits.values()) == len(dataset)
    assert dataset.channels == module.CHANNELS


@pytest.mark.parametrize("name", AT_HAND)
def test_a_loaded_task_keeps_the_contract(name):
    dataset = load(name)
    assert dataset.demonstration == (name in WITH_PHANTOMS)
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        pixels = dataset.decode(index)
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, dataset.channels)
        if dataset.kind == "segmentation":
            mask = dataset.decode_mask(index)
            assert mask.shape == (*pixels.shape[:2], 1)
            assert mask.max() < len(dataset.classes)
    assert set(dataset.splits) == {"development", "test"}
    for target in dataset.further:
        assert dataset.table[target.column].is_between(0, len(target.classes) - 1).all()
    assert load(name).digest == dataset.digest
    assert dataset.part("development").digest != dataset.digest or not dataset.splits["test"]
    groups_of_parts = [set(dataset.part(split).table["group"]) for split in dataset.splits]
    assert not set.intersection(*groups_of_parts)


@pytest.mark.parametrize("name", AT_HAND)
def test_workers_can_unpickle_a_task_and_see_the_same_images(name):
    dataset = load(name)
    sent = pickle.loads(pickle.dumps(dataset))
    assert (sent.decode(3) == dataset.decode(3)).all()
    assert sent.digest == dataset.digest


@pytest.mark.parametrize("name", WITH_PHANTOMS)
def test_other_phantoms_are_other_images_and_more_of_them_begin_with_the_same(name):
    first, other, more = load(name), load(name, seed=1), load(name, images=FEW + 20)
    assert first.digest != other.digest
    assert (first.decode(0) != other.decode(0)).any()
    assert first.table["content"].head(FEW).to_list() == more.table["content"].head(FEW).to_list()
    assert 0.5 < first.best_accuracy <= 1


@pytest.mark.parametrize("name", WITH_PHANTOMS)
def test_every_pitfall_can_be_planted_into_every_task(name):
    dataset = load(name, images=104, plant=PITFALLS)
    planted = set(",".join(dataset.table["planted"]).split(",")) - {""}
    named_by_a_column = {"patients", "source", "imbalance", "text", "split_leak"}
    assert planted >= set(PITFALLS) - named_by_a_column
    mended = remedied(dataset, DEFAULT_DROP)
    assert len(mended) < len(dataset)
    assert {dropped.reason.partition(":")[0] for dropped in mended.dropped} >= {"corrupt"}
    for index in range(0, len(mended), 10):
        mended.decode(index)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PHANTOMS)
def test_every_demonstration_can_be_searched(name, tmp_path, ray_on_loopback):
    images = 160 if len(datasets.task(name).CLASSES) > 2 else 96
    result = search.run(name, demo=True, images=images, trials=1, folds=2, max_epochs=1, results=tmp_path, concurrent=1)
    (trial,) = result.trials.iter_rows(named=True)
    assert trial["error"] is None
    assert trial["state"] == "finished"
    assert trial["score"] is not None


@pytest.mark.parametrize("name", [name for name in TASKS if name not in WITHOUT_DOWNLOAD])
def test_without_data_a_task_says_what_to_get_and_where_to_put_it(name):
    with pytest.raises(InputError, match="--data DIR") as error:
        datasets.load(name)
    assert datasets.task(name).OBTAIN in str(error.value)
    assert ("--demo" in str(error.value)) == (name in WITH_PHANTOMS)


def space_for(name: str, masks: bool) -> search_spaces.Space:
    return search_spaces.search_space_of(name, "segmentation" if masks else "binary")


def of_its_kind(name: str, masks: bool) -> datasets.ImageDataset:
    """Of a task whose images have to be obtained, classes are assumed."""
    if name not in AT_HAND:
        return small_segmentation() if masks else small_dataset()
    return load(name)


def samples(space: search_spaces.Space, count: int) -> list[TrialConfig]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [TrialConfig.of(space(study.ask())) for _ in range(count)]


def test_masks_of_a_users_own_table_have_a_space_of_their_own():
    assert models(space_for("images", True)) == ["encoder_decoder"]
    assert "encoder_decoder" not in models(space_for("images", False))


@pytest.mark.parametrize(("name", "masks"), SPACES)
def test_every_sample_of_a_space_is_a_configuration_of_its_kind(name, masks):
    dataset = of_its_kind(name, masks)
    for config in samples(space_for(name, masks), 200):
        assert objective(dataset, config).dense == (dataset.kind == "segmentation")


@pytest.mark.parametrize(("name", "masks"), SPACES)
def test_every_model_of_a_space_can_be_built_and_answers_as_its_kind_needs(name, masks):
    space, module = space_for(name, masks), datasets.task(name)
    (size,) = {config.image_size_px for config in samples(space, 1)}
    for model in models(space):
        config = TrialConfig(model=model, image_size_px=size, learning_rate=1e-3, batch_size=2)
        trainable, total = network_size(config, module.CHANNELS, classes=2)
        assert trainable == total > 1000
        body = pristine_body(config, module.CHANNELS, weights="none", seed=0)
        assert body.dense == (of_its_kind(name, masks).kind == "segmentation")


@pytest.mark.parametrize("name", AT_HAND)
def test_balance_is_searched_where_classes_differ_and_only_there(name):
    """Of equal classes nothing is repeated, and trials that say they differ would be the same."""
    counts = load(name, images=None).part("development").counts.values()
    searched = {config.balance for config in samples(space_for(name, False), 100)}
    assert (len(searched) > 1) == (max(counts) / min(counts) > 1.3)


@pytest.mark.parametrize("name", TASKS)
def test_backbones_of_a_space_can_be_unfrozen_to_the_first_layer(name):
    space, module = search_spaces.space_of(name), datasets.task(name)
    for model, most in getattr(space, "BACKBONES", {}).items():
        assert model in models(space.search_space)
        for unfrozen, everything in ((most, True), (most - 1, False)):
            config = TrialConfig(
                model=model, image_size_px=224, learning_rate=1e-3, batch_size=2, unfrozen_layers=unfrozen
            )
            trainable, total = network_size(config, module.CHANNELS, classes=2)
            assert (trainable == total) == everything


@pytest.mark.parametrize("name", TASKS)
def test_experiments_are_possible(name):
    space = search_spaces.space_of(name)
    for experiment in (space.EXPERIMENT, getattr(space, "DEMO", space.EXPERIMENT)):
        assert experiment.metric in METRICS
        assert name not in AT_HAND or experiment.metric in metrics_of(load(name).kind)
        assert 2 <= experiment.folds <= 20
        assert experiment.trials >= 8
    assert not hasattr(space, "DEMO") or name in WITH_PHANTOMS


@pytest.mark.filterwarnings("error::UserWarning")  # optuna's, for a value outside the space
@pytest.mark.parametrize(("name", "entry"), PUBLISHED, ids=[entry.name for _, entry in PUBLISHED])
def test_a_published_configuration_lies_in_its_space_and_answers_every_question(name, entry):
    space = search_spaces.space_of(name).search_space
    study = optuna.create_study()
    study.enqueue_trial(entry.params)
    trial = study.ask()
    config = TrialConfig.of(space(trial))
    left_to_chance_or_never_asked_for = trial.params.keys() ^ entry.params.keys()
    assert not left_to_chance_or_never_asked_for
    assert trial.params == entry.params
    assert config == TrialConfig.of(space(optuna.trial.FixedTrial(entry.params)))
    assert entry.metric in METRICS
    # A reported accuracy is a whole number of images.
    assert entry.reported * entry.images == pytest.approx(round(entry.reported * entry.images))


def test_svendsens_configurations_are_those_of_the_report():
    """Learning rate, dropout, dense width, batch size and validation accuracy (of 81 images), as printed."""
    space = search_spaces.space_of("covid")
    printed = [
        ("svendsen_cnn", 1e-5, 0.2, 128, 32, 0.8148, True, None),
        ("mobilenetv2_100", 1e-4, 0.5, 128, 32, 0.9259, False, 0),
        ("mobilenetv2_100", 1e-6, 0.5, 128, 32, 0.9506, False, 14),
        ("mobilenetv2_100", 1e-6, 0.5, 128, 32, 0.8889, False, 104),
    ]
    for entry, row in zip(space.PUBLISHED, printed, strict=True):
        config = TrialConfig.of(space.search_space(optuna.trial.FixedTrial(entry.params)))
        assert (
            config.model,
            config.learning_rate,
            config.dropout,
            *config.dense_widths,
            config.batch_size,
            round(entry.reported, 4),
            config.flip,
            config.unfrozen_layers,
        ) == row


def test_unknown_tasks_are_refused_with_the_nearest_and_the_list():
    with pytest.raises(InputError, match="unknown task 'Covd'; did you mean 'covid'") as error:
        search_spaces.space_of("Covd")
    assert ", ".join(TASKS) in str(error.value)
    with pytest.raises(InputError, match=r"unknown task 'zzz'\. The tasks are"):
        datasets.load("zzz")
    with pytest.raises(InputError, match="unknown task 'folds'"):
        datasets.load("folds")


def test_data_and_demo_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match="leave out --demo or --data"):
        datasets.load("covid", tmp_path, demonstration=True)
    with pytest.raises(InputError, match="brings its own images"):
        datasets.load("digits", tmp_path)
    with pytest.raises(InputError, match="no demonstration data"):
        datasets.load("digits", demonstration=True)
