"""What is measured on every image, once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets import InputError, Request, load_all
from datasets.facts import SCHEMA, facts, perceptual_hashes
from datasets.images import from_class_folders
from datasets.pixels import pixels
from tests.pictures import BROKEN, dataset_of, photographs


def test_every_image_is_decoded_once_and_the_second_call_decodes_nothing():
    dataset = dataset_of(photographs(150, seed=1))
    first = facts(dataset)
    assert sorted(dataset.decoder.calls) == list(range(150))
    again = facts(dataset)
    assert len(dataset.decoder.calls) == 150
    assert again.table.equals(first.table)
    np.testing.assert_array_equal(again.thumbnails_NHW, first.thumbnails_NHW)


def test_other_images_are_other_facts():
    images = photographs(4, seed=2)
    one, other = dataset_of(images), dataset_of(images[::-1])
    assert facts(one).table["mean"].to_list() == facts(other).table["mean"].to_list()[::-1]


def test_what_does_not_decode_has_its_reason_and_nothing_else():
    dataset = dataset_of([*photographs(3, seed=3), BROKEN])
    found = facts(dataset)
    assert found.table["error"].to_list() == [None, None, None, "broken image: image file is truncated"]
    assert found.sound.tolist() == [True, True, True, False]
    assert found.table["mean"].null_count() == found.table["hash"].null_count() == 1
    assert not found.thumbnails_NHW[3].any()
    assert not found.blank.any()


def test_gray_values_are_those_of_the_image():
    image = photographs(1, seed=4)[0]
    colour = np.stack([image, image, image], axis=2)
    row = facts(dataset_of([colour, np.full_like(colour, 90)])).table
    assert row["mean"][0] == pytest.approx(image.mean())
    assert row["spread"][0] == pytest.approx(image.std())
    assert row["spread"][1] == 0
    assert facts(dataset_of([colour, np.full_like(colour, 90)])).blank.tolist() == [False, True]


def test_sizes_modes_and_formats_are_those_of_the_files(tmp_path: Path):
    image = Image.fromarray(photographs(1, seed=5, size_px=300)[0])
    for label, name, mode in (("a", "1.png", "L"), ("a", "2.jpg", "RGB"), ("b", "3.png", "P"), ("b", "4.bmp", "RGB")):
        (tmp_path / label).mkdir(exist_ok=True)
        image.resize((300, 200)).convert(mode).save(tmp_path / label / name)
    (tmp_path / "b" / "5.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:900])
    found = facts(from_class_folders("images", tmp_path)).table
    assert found["mode"].to_list() == ["L", "RGB", "P", "RGB", "L"]
    assert found["format"].to_list() == ["PNG", "JPEG", "PNG", "BMP", "PNG"]
    assert found.select("width_px", "height_px").unique().rows() == [(300, 200)]
    assert found["bytes"][4] == 900
    assert found["error"].is_null().to_list() == [True] * 4 + [False]
    assert str(tmp_path) not in found["error"][4]


@pytest.mark.parametrize(("pad", "expected"), [((0, 0, 0, 0), 0), ((8, 8, 8, 8), 4 * 8 / 80), ((16, 0, 0, 0), 16 / 80)])
def test_a_frame_is_a_strip_of_one_value_at_the_rim(pad, expected):
    top, bottom, left, right = pad
    inner = photographs(1, seed=6, size_px=80)[0][top : 80 - bottom, left : 80 - right].clip(60)
    image = np.pad(inner, ((top, bottom), (left, right)))
    row = facts(dataset_of([image])).table
    assert row.select(pl.sum_horizontal("^frame_.*$")).item() == pytest.approx(expected)


def test_an_object_on_black_ground_is_no_frame():
    image = np.zeros((28, 28), np.uint8)
    image[6:22, 12:15] = 255
    assert facts(dataset_of([image])).table.select(pl.sum_horizontal("^frame_.*$")).item() == 0


def test_constant_channels_are_named_by_their_bits():
    image = np.stack([*photographs(2, seed=7), np.zeros((64, 64), np.uint8)], axis=2)
    assert facts(dataset_of([image])).table["constant_channels"].to_list() == [0b100]


def test_masks_have_a_share_and_a_digest():
    images = photographs(3, seed=8)
    masks = [np.zeros((64, 64), np.uint8) for _ in images]
    masks[0][:32] = 1
    found = facts(dataset_of([images[0], *images[:2]], masks=masks)).table
    assert found["mask_share"].to_list() == [0.5, 0.0, 0.0]
    assert found["image"][0] == found["image"][1] != found["image"][2]
    assert found["mask"][1] == found["mask"][2] != found["mask"][0]


def test_the_hash_of_a_copy_differs_in_few_bits_and_of_another_image_in_many():
    one, other = (np.asarray(Image.fromarray(image).resize((32, 32))) for image in photographs(2, seed=9))
    brighter = np.clip(one.astype(int) + 12, 0, 255).astype(np.uint8)
    hashes = perceptual_hashes(np.stack([one, brighter, other]))
    assert int(hashes[0] ^ hashes[1]).bit_count() <= 4
    assert int(hashes[0] ^ hashes[2]).bit_count() >= 16


def test_progress_is_told_and_ends_with_all():
    told = []
    facts(dataset_of(photographs(130, seed=10)), lambda done, of: told.append((done, of)))
    assert told[-1] == (130, 130)
    assert sorted(told) == told


def test_no_images_are_no_facts():
    found = facts(dataset_of(photographs(1)).rows(np.zeros(1, bool)))
    assert len(found) == 0
    assert set(SCHEMA) <= set(found.table.columns)


def test_what_cannot_be_read_now_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_SEARCH_STORE", str(tmp_path / "store"))
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng([i, ord(label)]).integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / label / f"{i}.png")
    dataset = load_all("images", Request(root=tmp_path / "data"))
    away = (tmp_path / "data" / "b" / "1.png").rename(tmp_path / "away.png")
    with pytest.raises(InputError, match=r"b/1\.png: cannot be read now"):
        facts(dataset, size_px=8)
    away.rename(tmp_path / "data" / "b" / "1.png")
    assert facts(dataset, size_px=8).sound.all()
    assert pixels(dataset, 8).any((1, 2, 3)).all()
