"""Procedural digits, garments and things look like MNIST, Fashion-MNIST and CIFAR-10, and take some learning."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from datasets.phantoms.curves import enlarged, smoothed
from datasets.phantoms.digit import handwritten_digit
from datasets.phantoms.garment import garment
from datasets.phantoms.thing import thing

Drawing = Callable[[np.random.Generator, int], np.ndarray]
SHAPES = {handwritten_digit: (28, 28), garment: (28, 28), thing: (32, 32, 3)}
T_SHIRT, PULLOVER, COAT, SANDAL, SHIRT = 0, 2, 4, 5, 6
IMAGES = 1200

drawings = pytest.mark.parametrize("drawing", SHAPES, ids=lambda drawing: drawing.__name__)


@pytest.fixture(scope="module")
def drawn() -> dict[Drawing, np.ndarray]:
    """Of every drawing 1,200 images, uint8 (images, …), the kinds in turn."""
    return {draw: np.stack([draw(np.random.default_rng(i), i % 10) for i in range(IMAGES)]) for draw in SHAPES}


def accuracy(images: np.ndarray, classifier) -> tuple[float, np.ndarray]:
    """Of a classifier on the pixels, learned on one half and tested on the other; and its confusion matrix."""
    pixels, kinds = images.reshape(len(images), -1) / 255, np.arange(len(images)) % 10
    half = len(images) // 2
    said = classifier.fit(pixels[:half], kinds[:half]).predict(pixels[half:])
    return float((said == kinds[half:]).mean()), confusion_matrix(kinds[half:], said)


@drawings
def test_a_drawing_has_the_form_of_its_data_set(drawn, drawing):
    images = drawn[drawing]
    assert images.dtype == np.uint8
    assert images.shape[1:] == SHAPES[drawing]
    assert np.ptp(images.reshape(IMAGES, -1), axis=1).min() > 20


@drawings
@pytest.mark.parametrize("kind", range(10))
def test_the_same_seed_gives_the_same_drawing_and_another_seed_another(drawing, kind):
    first, again, other = (drawing(np.random.default_rng(seed), kind) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@drawings
def test_no_two_drawings_are_alike(drawn, drawing):
    """None is nearly the same as another one: they are drawn, not picked from a few."""
    for kind in range(10):
        pixels = drawn[drawing][kind::10].reshape(IMAGES // 10, -1).astype(float)
        alike = np.corrcoef(pixels) - np.eye(len(pixels))
        assert alike.max() < 0.995
        assert np.median(alike) < 0.9


def test_digits_are_white_strokes_on_black_with_as_much_ink_as_in_mnist(drawn):
    digits = drawn[handwritten_digit]
    assert digits.mean() / 255 == pytest.approx(0.1307, abs=0.02)  # MNIST's mean
    assert (digits > 0).mean() == pytest.approx(0.19, abs=0.06)
    assert (digits.max(axis=(1, 2)) > 200).mean() > 0.99
    rim = np.ones((28, 28), bool)
    rim[1:-1, 1:-1] = False
    assert digits[:, rim].mean() < 2
    rows, columns = np.mgrid[0:28, 0:28] - 13.5
    ink = digits.sum(axis=(1, 2))
    middle = np.array([(digits * rows).sum(axis=(1, 2)) / ink, (digits * columns).sum(axis=(1, 2)) / ink])
    assert np.abs(middle).mean() < 1.2
    assert digits[1::10].mean() < 0.75 * digits.mean()  # a 1 takes the least


def test_garments_lie_on_black_and_fill_the_picture(drawn):
    garments = drawn[garment]
    assert garments.mean() / 255 == pytest.approx(0.286, abs=0.07)  # Fashion-MNIST's mean
    assert np.median(garments[:, :, 0]) == 0
    heights = (garments.max(axis=2) > 0).sum(axis=1)
    assert np.median(heights[T_SHIRT::10]) > 22
    assert np.median(heights[SANDAL::10]) < 18


def test_shirts_are_what_garments_are_taken_for(drawn):
    """As in the real set: the confusions are between tops, shirts first."""
    found, confusion = accuracy(drawn[garment], KNeighborsClassifier(3))
    assert 0.65 < found < 0.9
    right = np.diag(confusion) / confusion.sum(axis=1)
    assert right.argmin() == SHIRT
    tops = [T_SHIRT, PULLOVER, COAT]
    assert confusion[SHIRT, tops].sum() > 0.7 * (confusion[SHIRT].sum() - confusion[SHIRT, SHIRT])


@pytest.mark.parametrize(
    ("drawing", "least", "most"), [(handwritten_digit, 0.80, 0.95), (garment, 0.78, 0.95), (thing, 0.40, 0.70)]
)
def test_a_straight_line_learns_much_but_not_all(drawn, drawing, least, most):
    """On 600 images; more of them, and networks, get further."""
    found, _ = accuracy(drawn[drawing], LogisticRegression(C=0.02, max_iter=60, tol=0.02))
    assert least < found < most


def test_colours_alone_tell_things_little(drawn):
    """Mean and spread of every channel: backgrounds and coats are shared between the kinds."""
    things = drawn[thing].reshape(IMAGES, -1, 3) / 255.0
    features = np.concatenate([things.mean(axis=1), things.std(axis=1)], axis=1)
    found, _ = accuracy(255 * features, KNeighborsClassifier(15))
    assert found < 0.4


def test_a_smooth_curve_goes_through_its_points():
    points = [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert np.allclose(smoothed(points, closed=True, steps=4)[::4], points)
    assert np.allclose(smoothed(points, steps=4)[::4], points)
    assert np.allclose(smoothed([(0, 0), (1, 2), (2, 4)], steps=5)[5], (1, 2))


def test_enlarging_keeps_flat_things_flat_and_slopes_straight():
    assert np.allclose(enlarged(np.full((3, 4), 7, np.float32), 28), 7, atol=1e-5)
    slope = enlarged(np.tile(np.arange(8, dtype=np.float32), (8, 1)), 32)
    assert slope.shape == (32, 32)
    assert np.allclose(np.diff(slope[16, 8:24]), 0.25, atol=1e-5)
