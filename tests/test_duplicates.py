"""Copies are found, exact and near, and different images are not taken for copies."""

import io

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from PIL import Image

from datasets.duplicates import clusters, first_of_each, joined, near_pairs
from datasets.facts import facts
from datasets.phantoms.chest import chest_film
from datasets.phantoms.digit import handwritten_digit
from tests.pictures import BROKEN, dataset_of, photographs


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    return [chest_film(np.random.default_rng(i), 192, bool(i % 2)) for i in range(80)]


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    return [handwritten_digit(np.random.default_rng(i), i % 10) for i in range(400)]


def through_jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def brightened(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.08 + 8, 0, 255).astype(np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2)))


def cropped(image: np.ndarray) -> np.ndarray:
    return image[2:-1, 1:-2]


def near(images: list[np.ndarray]) -> np.ndarray:
    dataset = dataset_of(images)
    return clusters(dataset, facts(dataset)).near


@pytest.mark.parametrize("copied", [through_jpeg, brightened, halved, cropped])
def test_altered_copies_of_films_are_found_and_no_two_films_joined(chests, copied):
    found = near([*chests, *(copied(image) for image in chests[::4])])
    originals = np.arange(0, 80, 4)
    assert (found[80:] == originals).mean() > 0.95
    np.testing.assert_array_equal(found[:80], np.arange(80))


@pytest.mark.parametrize("copied", [through_jpeg, brightened])
def test_altered_copies_of_digits_are_found_and_no_two_digits_joined(digits, copied):
    found = near([*digits, *(copied(image) for image in digits[::8])])
    assert (found[400:] == np.arange(0, 400, 8)).mean() > 0.95
    assert (found[:400] == np.arange(400)).mean() > 0.99


def test_many_altered_copies_of_one_picture_are_one_cluster(chests):
    rng = np.random.default_rng(0)
    copies = [
        np.clip(chests[0] * rng.uniform(0.9, 1.05) + rng.uniform(-6, 6), 0, 255).astype(np.uint8) for _ in range(60)
    ]
    found = near([*chests, *copies])
    assert (found[80:] == 0).all()


def test_equal_content_is_an_exact_copy_and_a_near_one():
    images = photographs(12, seed=1)
    dataset = dataset_of([*images, images[3], images[7]])
    found = clusters(dataset, facts(dataset))
    expected = [*range(12), 3, 7]
    assert found.exact.tolist() == found.near.tolist() == expected


def test_what_does_not_decode_or_shows_nothing_has_no_near_copy():
    blank = [np.full((40, 40), value, np.uint8) for value in (0, 1, 200)]
    found = near([*photographs(6, seed=2), BROKEN, *blank, BROKEN])
    np.testing.assert_array_equal(found, np.arange(11))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_images_are_no_trouble(count):
    images = photographs(3, seed=3)[:count]
    np.testing.assert_array_equal(near([*images, *photographs(1)]), np.arange(count + 1))


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order_of_the_images(random):
    images = photographs(30, seed=4)
    images += [brightened(image) for image in images[:5]] + [through_jpeg(image) for image in images[3:8]]
    order = list(range(len(images)))
    random.shuffle(order)
    straight, shuffled = near(images), near([images[i] for i in order])
    expected = {frozenset(np.flatnonzero(straight == number)) for number in straight}
    assert {frozenset(order[j] for j in np.flatnonzero(shuffled == number)) for number in shuffled} == expected


pairs = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(pairs)
def test_joined_rows_are_the_connected_components(edges):
    left, right = (
        (np.array(side, np.int64) for side in zip(*edges, strict=True)) if edges else np.zeros((2, 0), np.int64)
    )
    found = joined(np.arange(20), left, right)
    expected = list(range(20))
    for _ in range(20):
        for one, other in edges:
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert found.tolist() == expected
    np.testing.assert_array_equal(joined(np.arange(20), right[::-1], left[::-1]), found)  # symmetric, in any order
    np.testing.assert_array_equal(joined(found, left, right), found)
    assert (found <= np.arange(20)).all()  # a partition named by first rows
    np.testing.assert_array_equal(found[found], found)


def test_pairs_connect_rows_by_their_own_numbers():
    images = photographs(8, seed=5)
    thumbnails = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in [*images, images[2]]])
    left, right = near_pairs(thumbnails, np.arange(100, 109))
    assert list(zip(left, right, strict=True)) == [(102, 108)]


def test_the_first_of_each_name():
    assert first_of_each(pl.Series(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 0, 3, 1]
