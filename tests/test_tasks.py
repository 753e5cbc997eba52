"""Contract tests: what every task promises, whichever it is. A new task is tested by being there."""

import dataclasses
import pickle

import numpy as np
import optuna
import pytest

import datasets
import search
import search.explain
import search_spaces
from datasets import InputError, Request
from datasets.phantoms import PITFALLS
from datasets.remedies import DEFAULT_DROP, remedied
from search.published import published
from search.spaces import models, parameters, published_config
from tests.small import small_dataset, small_folds, small_protocol, small_segmentation
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep
from trainables.metrics import METRICS, metrics_of
from trainables.models import options_of
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
def test_every_demonstration_can_be_searched_and_its_winner_explained(name, tmp_path, monkeypatch, ray_on_loopback):
    monkeypatch.setattr(search.explain, "LOOKED_AT", (24,))
    images = 160 if len(datasets.task(name).CLASSES) > 2 else 96
    result = search.run(name, demo=True, images=images, trials=3, folds=2, max_epochs=1, results=tmp_path, concurrent=2)
    assert result.trials.height == 3
    for trial in result.trials.iter_rows(named=True):
        assert trial["error"] is None, trial["param.model"]
        assert trial["state"] == "finished"
        assert trial["score"] is not None
    assert search.explain.explained(result.folder) == result.best["number"]


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
    assert models(space_for("images", True)) == ["encoder_decoder", "unet"]
    assert "encoder_decoder" not in models(space_for("images", False))


@pytest.mark.parametrize(("name", "masks"), SPACES)
def test_every_sample_of_a_space_is_a_configuration_of_its_kind(name, masks):
    dataset = of_its_kind(name, masks)
    for config in samples(space_for(name, masks), 200):
        assert objective(dataset, config).dense == (dataset.kind == "segmentation")


@pytest.mark.parametrize(("name", "masks"), SPACES)
def test_every_model_of_a_space_can_be_built_and_answers_as_its_kind_needs(name, masks):
    space, module = space_for(name, masks), datasets.task(name)
    drawn = {config.model: config for config in samples(space, 200)}
    assert sorted(drawn) == models(space)
    for sample in drawn.values():
        of_body = {option: getattr(sample, option) for option in options_of(sample.model)}
        config = TrialConfig(
            model=sample.model,
            image_size_px=sample.image_size_px,
            pooling=sample.pooling,
            learning_rate=1e-3,
            batch_size=2,
            **of_body,
        )
        trainable, total = network_size(config, module.CHANNELS, classes=2)
        assert trainable == total > (1000 if sample.model != "mlp" else 100)
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
                model=model, image_size_px=96, learning_rate=1e-3, batch_size=2, unfrozen_layers=unfrozen
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


@pytest.mark.parametrize(("name", "entry"), PUBLISHED, ids=[entry.name for _, entry in PUBLISHED])
def test_a_published_configuration_lies_in_its_space_and_answers_every_question(name, entry):
    space = search_spaces.space_of(name).search_space
    config = published_config(space, entry)  # raises for an answer outside of the space
    study = optuna.create_study()
    study.enqueue_trial(entry.params)
    trial = study.ask()
    assert TrialConfig.of(space(trial) | entry.unasked) == config
    left_to_chance_or_never_asked_for = trial.params.keys() ^ entry.params.keys()
    assert not left_to_chance_or_never_asked_for
    assert trial.params == entry.params
    assert not entry.unasked.keys() & set(parameters(space)), "what is asked for is answered and not put in its place"


@pytest.mark.parametrize(("name", "entry"), PUBLISHED, ids=[entry.name for _, entry in PUBLISHED])
def test_a_reported_figure_is_possible_or_a_note_says_that_it_is_not(name, entry):
    """An accuracy is a whole number of images, as far as its digits go."""
    assert entry.metric in METRICS
    assert entry.split
    if entry.reported is None:
        assert "figure" in entry.note
    elif entry.metric == "accuracy" and entry.images:
        digits = len(repr(round(entry.reported, 4)).partition(".")[2])
        nearest = round(entry.reported * entry.images) / entry.images
        possible = abs(nearest - entry.reported) <= 0.5 * 10**-digits + 1e-9
        assert possible != ("no multiple" in entry.note)


def test_every_configuration_of_the_reports_is_there_with_its_figure():
    """The tables of the five reports: learning rate, batch size, dropout and figure, as printed or None."""
    printed = {
        "covid": [
            ("svendsen2025-model1", 1e-5, 32, 0.2, 66 / 81),
            ("svendsen2025-model2", 1e-4, 32, 0.5, 75 / 81),
            ("svendsen2025-model3", 1e-6, 32, 0.5, 77 / 81),
            ("svendsen2025-model4", 1e-6, 32, 0.5, 72 / 81),
        ],
        "blood": [
            ("kamaneh2024-mobilenet-frozen", 1e-4, 128, 0.3, 0.9532),
            ("kamaneh2024-mobilenet-finetuned", 1e-5, 64, 0.3, 0.9707),
            ("kamaneh2024-mobilenet-tuned", 1e-4, 128, 0.3, None),
            ("kamaneh2024-unet", 1e-4, 64, 0.0, 0.9783),
            ("kamaneh2024-vgg16-frozen", 1e-4, 128, 0.3, 0.7692),
            ("kamaneh2024-vgg16-finetuned", 1e-5, 64, 0.3, 0.9532),
            ("kamaneh2024-vgg19-frozen", 1e-4, 128, 0.3, 0.7542),
            ("kamaneh2024-vgg19-finetuned", 1e-5, 64, 0.3, 0.9397),
            ("kamaneh2024-inceptionv3-frozen", 1e-4, 128, 0.3, 0.8372),
            ("kamaneh2024-inceptionv3-finetuned", 1e-5, 64, 0.3, 0.9514),
            ("kamaneh2024-resnet50-frozen", 1e-4, 128, 0.3, 0.2803),
            ("kamaneh2024-resnet50-finetuned", 1e-5, 64, 0.3, 0.5042),
            ("kamaneh2024-efficientnetb0-frozen", 1e-4, 128, 0.3, 0.2671),
            ("kamaneh2024-efficientnetb0-finetuned", 1e-5, 64, 0.3, 0.4833),
        ],
        "skin": [
            ("cm2003lab3-1a", 1e-4, 8, 0.0, 0.785),
            ("cm2003lab3-1a-dropout", 1e-4, 8, 0.4, 0.83),
            ("cm2003lab3-1b", 1e-4, 8, 0.0, 0.795),
            ("cm2003lab3-1b-dropout", 1e-4, 8, 0.4, 0.79),
            ("cm2003lab3-1c-batchnorm", 1e-5, 8, 0.4, 0.83),
            ("cm2003lab3-1c", 1e-5, 8, 0.4, 0.795),
            ("cm2003lab3-1d-batchnorm", 1e-5, 8, 0.4, 0.81),
            ("cm2003lab3-1d", 1e-5, 8, 0.4, 0.785),
            ("cm2003lab3-2a-spatial", 1e-5, 8, 0.4, 0.81),
            ("cm2003lab3-2a", 1e-5, 8, 0.4, 0.83),
            ("cm2003lab3-2b-spatial", 1e-5, 8, 0.4, 0.80),
            ("cm2003lab3-2b", 1e-5, 8, 0.4, 0.815),
            ("cm2003lab3-4", 1e-5, 8, 0.4, 0.825),
            ("cm2003lab3-5-skin", 1e-5, 8, 0.2, 0.3333),
            ("cm2003lab3-6-skin", 1e-5, 8, 0.5, None),
        ],
        "bone": [
            ("cm2003lab3-5-bone", 1e-5, 8, 0.2, 0.75),
            ("cm2003lab3-6-bone", 1e-5, 8, 0.5, 1.0),
            ("cm2003lab3-8", 1e-5, 8, 0.2, 0.4375),
            ("cm2003lab3-bonus", 1e-3, 8, 0.0, 0.6746),
        ],
        "mnist": [
            ("tsouderos2024-1.1", 1e-3, 128, 0.0, None),
            ("tsouderos2024-1.2", 1e-2, 128, 0.0, 0.9878),
            ("tsouderos2024-1.3a", 1e-2, 128, 0.0, 0.9857),
            ("tsouderos2024-1.3b", 1e-2, 128, 0.0, 0.8517),
            ("tsouderos2024-1.4", 1e-2, 128, 0.0, 0.982),
            ("tsouderos2024-1.5.1", 1e-3, 128, 0.0, 0.99),
            ("tsouderos2024-1.5.2", 1e-3, 128, 0.0, 0.99),
            ("tsouderos2024-1.5.3", 1e-3, 128, 0.0, 0.992),
        ],
        "warwick": [
            ("tsouderos2024-2.1", 1e-2, 32, 0.0, 0.66),
            ("tsouderos2024-2.2.1", 1e-2, 32, 0.0, 0.82),
            ("tsouderos2024-2.2.2", 1e-2, 16, 0.0, 0.85),
            ("tsouderos2024-2.2.3", 1e-2, 16, 0.0, 0.88),
        ],
        "fashion_mnist": [("asproudis2025-fashion", 1e-3, 128, 0.3, 0.887)],
        "cifar10": [("asproudis2025-cifar", 1e-3, 128, 0.5, 0.71)],
        "mura": [
            ("asproudis2025-mura-cnn", 1e-3, 64, 0.0, 0.649),
            ("asproudis2025-mura-efficientnetb0", 1e-4, 32, 0.3, 0.043),
            ("asproudis2025-mura-inceptionv3", 1e-5, 32, 0.3, None),
        ],
    }
    found: dict[str, list[tuple]] = {}
    for name, entry in PUBLISHED:
        config = published_config(search_spaces.space_of(name).search_space, entry)
        row = (entry.name, config.learning_rate, config.batch_size, config.dropout, entry.reported)
        found.setdefault(name, []).append(row)
    assert found == printed


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mnist", {"1.1": 79_510, "1.2": 21_578, "1.3b": 21_578, "1.5.3": 21_690}),
        ("fashion_mnist", {"fashion": 235_146}),
        ("cifar10", {"cifar": 666_986}),
        # In colour as the file has it, where the report counts one channel: 2 x 9 x width more.
        (
            "skin",
            {"1a": 286_193 + 144, "1b": 286_401 + 144, "2a": 1_366_913 + 576, "4": 5_460_353, "6-skin": 3_211_521},
        ),
        ("bone", {"8": 304_409, "5-bone": 15_246_273, "6-bone": 3_211_521}),
        ("blood", {"mobilenet-tuned": 1_124_232, "unet": 31_032_200}),
        # One channel in the place of three, 2 x 9 x 32 fewer; and seven parts: the report's eighth is OTHER.
        ("mura", {"mura-cnn": 12_940_041 - 576 - 129}),
    ],
)
def test_published_networks_have_as_many_trained_parameters_as_counted(name, sizes):
    chosen = {entry["name"].partition("-")[2]: entry["trainable_parameters"] for entry in published(name)}
    assert {key: chosen[key] for key in sizes} == sizes


def few_of_each_class(name: str) -> datasets.ImageDataset:
    """About sixteen phantoms of the development part."""
    dataset = load(name, images=160).part("development")
    each = max(2, 16 // len(dataset.classes))
    table = dataset.table.with_row_index("at")
    kept = table.group_by("target", maintain_order=True).head(each)["at"].to_numpy()
    return dataset.rows(np.sort(kept))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in PUBLISHED}))
def test_every_published_configuration_trains(name):
    """One epoch in each of its phases, on a few phantoms."""
    space, dataset = search_spaces.space_of(name).search_space, few_of_each_class(name)
    folds = small_folds(dataset, k=2)
    tried: list[TrialConfig] = []
    for entry in search_spaces.published_of(name):
        config = published_config(space, entry)
        short = {"head_epochs": 1 if config.head_epochs else 0, "patience": 30}
        short |= {"oversample_to": 3} if config.oversample_to else {}
        config = dataclasses.replace(config, **short)
        if config in tried:
            continue  # given another number of epochs
        tried.append(config)
        protocol = small_protocol(metric=entry.metric, max_epochs=1 + config.head_epochs, precision="auto")
        lockstep = Lockstep(config, dataset, folds, protocol)
        while not lockstep.finished:
            lockstep.advance()
        report = lockstep.report()
        assert report["epoch"] == protocol.max_epochs
        assert 0 <= report[entry.metric] <= 1, entry.name


@pytest.mark.parametrize("name", TASKS)
def test_what_is_tried_first_lies_in_its_space_and_answers_every_question(name):
    space = search_spaces.space_of(name)
    for experiment in (space.EXPERIMENT, getattr(space, "DEMO", space.EXPERIMENT)):
        for point in experiment.first:
            study = optuna.create_study()
            study.enqueue_trial(point)
            trial = study.ask()
            assert TrialConfig.of(space.search_space(trial)).model in experiment.models
            assert trial.params == point


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
