"""Features of a frozen prefix: computed once, of every view, in the precision that is fine enough, from the nearest."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from datasets.pixels import pixels, pixels_key
from tests.small import MOBILENET, small_config, small_dataset, small_protocol
from trainables import features as features_module
from trainables.augmentation import augmentation
from trainables.features import PrefixFeatures, begun
from trainables.images import AS_IT_IS, pixel_fetch


@pytest.fixture(autouse=True)
def empty_store(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    return tmp_path


def features(dataset=None, protocol=None, head_only=False, **given) -> PrefixFeatures:
    dataset, protocol = dataset or small_dataset(20, size_px=32, channels=3), protocol or small_protocol()
    config = small_config(**{**MOBILENET, "unfrozen_layers": 0, **given})
    frozen = begun(config, dataset.channels, protocol, head_only)
    shown = pixels(dataset, config.image_size_px)
    fetch = pixel_fetch(shown, dataset.targets[:, None], frozen.body, protocol.device, augmentation(config))
    return PrefixFeatures(frozen, config, protocol, fetch, pixels_key(dataset, 32), len(dataset))


def stored(folder) -> set[str]:
    return {file.name for file in folder.glob("features-*.npy")}


def directly(given: PrefixFeatures) -> torch.Tensor:
    with torch.inference_mode():
        return given._frozen.part(None, given._place)(given._fetch(torch.arange(given._images))[0])


@pytest.mark.parametrize("unfrozen_layers", [0, 4, 20])
def test_features_are_those_of_the_prefix(unfrozen_layers):
    given = features(unfrozen_layers=unfrozen_layers)
    torch.testing.assert_close(given().float(), directly(given), rtol=1e-4, atol=1e-5)
    assert given().shape == (20, *given._place.shape)


def test_a_later_place_is_computed_from_the_nearest_stored_one(monkeypatch, empty_store):
    earlier, later = features(unfrozen_layers=20), features(unfrozen_layers=4)
    afresh = later().clone()
    for file in empty_store.glob("features-*.npy"):
        file.unlink()
    earlier()
    again = features(unfrozen_layers=4)
    monkeypatch.setattr(again, "_fetch", None)  # no pixel is looked at
    assert again().equal(afresh)
    assert len(stored(empty_store)) == 2


def test_rounded_places_on_the_way_change_nothing(monkeypatch, empty_store):
    """Sums of a transformer's blocks are float32: what is stored of them in bfloat16 is not gone on from."""
    monkeypatch.setattr(features_module, "TOLERANCE", math.inf)
    for model in ("test_vit", "tsouderos_cnn"):
        given = {"model": model, "protocol": small_protocol(precision="bfloat16")}
        afresh = features(**given, unfrozen_layers=1)().clone()
        for file in empty_store.glob("features-*.npy"):
            file.unlink()
        features(**given, unfrozen_layers=2 if model == "tsouderos_cnn" else 5)()
        assert features(**given, unfrozen_layers=1)().equal(afresh)


def test_images_on_a_gpu_are_taken_by_rows_that_are_not():
    """On tensors that only pretend to be there."""
    given = features()
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(4, 3, 32, 32, device="cuda")
        given._protocol = dataclasses.replace(given._protocol, device="cuda")
        part = given._computed(torch.nn.Identity(), images, torch.float32, torch.arange(2))
        assert (part.shape, part.device.type) == ((2, 3, 32, 32), "cpu")


def test_views_differ_from_each_other_and_are_the_same_for_every_trial(empty_store):
    given = {"flip": True, "rotation_deg": 36.0, "views": 3}
    first, other_rate = features(**given), features(**given, learning_rate=0.5)
    views = [first(view) for view in (AS_IT_IS, 0, 1)]
    assert not any(one.equal(other) for one in views for other in views if one is not other)
    assert all(other_rate(view).equal(first(view)) for view in (AS_IT_IS, 0, 1))
    assert len(stored(empty_store)) == 3
    features(**given | {"rotation_deg": 9.0})(0)
    assert len(stored(empty_store)) == 4
    features()()
    assert len(stored(empty_store)) == 4, "images as they are do not depend on how others are augmented"


def test_drawing_views_leaves_torchs_generator_alone():
    given = features(noise=0.1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    given(0)
    assert torch.get_rng_state().equal(state)


def test_a_prefix_that_is_no_other_is_shared_by_what_comes_after_it(empty_store):
    """Pooling comes after the place where three layers are unfrozen, and not before that where none is."""
    for pooling in ("avg", "max"):
        features(pooling=pooling, unfrozen_layers=3)()
    assert len(stored(empty_store)) == 1
    for pooling in ("avg", "max"):
        features(pooling=pooling)()
    assert len(stored(empty_store)) == 3


def test_bfloat16_is_stored_where_it_is_fine_enough_and_float32_where_it_is_not(monkeypatch, caplog, empty_store):
    """Of random weights a small network tells images apart, and a deep one does not."""
    half = small_protocol(precision="bfloat16")
    apart = {"model": "tsouderos_cnn"}
    assert features(protocol=half, **apart)().dtype == torch.bfloat16
    (file,) = empty_store.glob("features-*.npy")
    assert np.load(file).nbytes == 2 * 20 * math.prod(features(**apart)._place.shape)
    monkeypatch.setattr(features_module, "TOLERANCE", 1e-6)
    exact = features(protocol=half, **apart)
    assert exact().dtype == torch.float32
    torch.testing.assert_close(exact(), directly(exact))
    assert features(protocol=half)().dtype == torch.float32
    assert "kept in float32" in caplog.text
    monkeypatch.setattr(PrefixFeatures, "_computed", None)
    assert features(protocol=half, **apart)().dtype == torch.float32, "found again, and not computed"
    earlier = features(protocol=half, unfrozen_layers=1, **apart)
    assert earlier._place != exact._place
    assert earlier._precision == torch.float32, "what was found of the body holds for all its places"


def test_whatever_features_are_computed_from_or_by_is_in_their_name():
    names = []
    for given in ({}, {"precision": "bfloat16"}, {"seed": 1}):
        names.append(features(protocol=small_protocol(**given)))
    for given in ({"pooling": "max"}, {"unfrozen_layers": 9}, {"model": "mobilenetv2_050"}):
        names.append(features(**given))
    names.append(features(small_dataset(11, size_px=32, channels=3)))
    assert (
        len({each._name(each._place, AS_IT_IS, features_module.compute_dtype(each._protocol)) for each in names}) == 7
    )
    augmented = [features(**given) for given in ({"flip": True}, {"zoom": 0.1}, {"flip": True, "zoom": 0.1})]
    assert len({each._name(each._place, 0, torch.float32) for each in augmented}) == 3
    assert len({each._name(each._place, AS_IT_IS, torch.float32) for each in augmented}) == 1


def test_memory_that_does_not_suffice_for_a_batch_is_enough_for_parts_of_it(monkeypatch):
    expected, given = (
        features()(),
        features(small_dataset(20, size_px=32, channels=3), small_protocol(), unfrozen_layers=4),
    )
    expected = directly(given)
    computed, sizes = given._computed, []

    def scarce(part, inputs, precision, rows):
        sizes.append(len(rows))
        if len(rows) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return computed(part, inputs, precision, rows)

    monkeypatch.setattr(given, "_computed", scarce)
    torch.testing.assert_close(given().float(), expected, rtol=1e-4, atol=1e-5)
    assert sizes[:3] == [20, 10, 5]
