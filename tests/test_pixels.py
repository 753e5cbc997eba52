"""The pixels of a data set: decoded once, squeezed to a square, found again."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets.facts import facts
from datasets.pixels import ENOUGH_PX, masks, pixels
from tests.small import small_dataset, small_segmentation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path))
    return tmp_path


def test_pixels_are_resized_to_a_square_and_change_with_the_images(folder):
    dataset = small_dataset(images=6, size_px=16, channels=3)
    stored = pixels(dataset, 8)
    assert stored.shape == (6, 8, 8, 3)
    assert stored.dtype == np.uint8
    whole = pixels(dataset, 16)
    assert (whole[2] == dataset.decode(2)).all()
    assert abs(stored[2].mean() - whole[2].mean()) < 3
    assert len(list(folder.glob("*.npy"))) == 2
    pixels(small_dataset(images=8, size_px=16, channels=3), 8)
    assert len(list(folder.glob("*.npy"))) == 3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_resized_as_asked_also_while_they_are_examined(interpolation, folder):
    dataset = small_dataset(images=6, size_px=16, channels=3)
    resampling = Image.Resampling[interpolation.upper()]
    expected = np.stack([Image.fromarray(dataset.decode(i)).resize((12, 12), resampling) for i in range(6)])
    facts(dataset, size_px=12, interpolation=interpolation)
    np.testing.assert_array_equal(pixels(dataset, 12, interpolation), expected)
    assert len(list(folder.glob("pixels-*.npy"))) == 1, "they had been stored"


def test_pixels_are_found_again_when_only_labels_or_groups_have_changed(folder):
    dataset = small_dataset(images=6, channels=3)
    pixels(dataset, 8)
    table = dataset.table.with_columns(target=1 - pl.col("target"), group=pl.lit("one"))
    pixels(dataclasses.replace(dataset, table=table), 8)
    assert len(list(folder.glob("*.npy"))) == 1


def test_a_larger_image_may_be_decoded_smaller_but_not_below_what_is_asked_for(folder):
    asked = []

    def decoder(row: dict[str, Any]) -> np.ndarray:
        asked.append(row.get("at_least_px"))
        return np.full((40, 60, 3), 9, np.uint8)

    dataset = small_dataset(images=4, channels=3).rows(np.arange(4), decoder=decoder)
    assert (pixels(dataset, 8) == 9).all()
    assert asked == [ENOUGH_PX] * 4
    pixels(dataset, 300)
    assert asked[4:] == [300] * 4


def test_masks_keep_their_classes(folder):
    def mask(row: dict[str, Any]) -> np.ndarray:
        halves = np.zeros((9, 9, 1), np.uint8)
        halves[4:] = 3
        return halves

    stored = masks(small_dataset(images=4).rows(np.arange(4), mask_decoder=mask), 6)
    assert (stored.shape, stored.dtype) == ((4, 6, 6), np.uint8)
    assert set(np.unique(stored)) == {0, 3}


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_number_of_channels_are_resized(channels, folder):
    def decoder(row: dict[str, Any]) -> np.ndarray:
        return np.broadcast_to(np.arange(channels, dtype=np.uint8) * 50, (20, 30, channels)).copy()

    dataset = small_dataset(images=3).rows(np.arange(3), decoder=decoder, channels=channels)
    assert (pixels(dataset, 8) == np.arange(channels) * 50).all()


def test_a_part_takes_its_pixels_from_the_store_of_the_whole(folder):
    calls = []

    def decoder(row: dict[str, Any]) -> np.ndarray:
        calls.append(row["image_id"])
        return np.full((9, 9, 1), int(row["image_id"][-3:]), np.uint8)

    whole = dataclasses.replace(small_dataset(images=6), decoder=decoder)
    part = whole.rows(np.array([True, False, True, True, False, True])).rows(np.array([3, 1]))
    pixels(whole, 8)
    calls.clear()
    assert pixels(part, 8)[:, 0, 0, 0].tolist() == [5, 2]
    assert not calls
    assert pixels(part, 7)[:, 0, 0, 0].tolist() == [5, 2], "another size is decoded"
    assert len(calls) == 2


def _inverted(row: dict[str, Any]) -> np.ndarray:
    return 255 - small_dataset(images=4).decoder(row)


def test_another_decoder_gives_other_pixels(folder):
    dataset = small_dataset(images=4)
    other = dataclasses.replace(dataset, decoder=_inverted)
    assert (pixels(other, 16) == 255 - pixels(dataset, 16)).all()


@dataclasses.dataclass(frozen=True)
class _Masks:
    """Of three classes, or of two."""

    classes: int

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        mask = np.zeros((6, 6, 1), np.uint8)
        mask[3:] = self.classes - 1
        return mask


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_masks_that_are_read_otherwise_are_other_masks(order, folder):
    for classes in order:
        dataset = dataclasses.replace(
            small_segmentation(images=4), mask_decoder=_Masks(classes), classes=("background", "a", "b")[:classes]
        )
        assert masks(dataset, 6).max() == classes - 1
