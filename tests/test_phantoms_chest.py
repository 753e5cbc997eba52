"""Procedural films look like chest films, and only the opacities tell the classes apart."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets import covid
from datasets.phantoms.chest import chest_film

SIZE = 112


def film(seed: int, opacities: bool = False, size_px: int = SIZE) -> np.ndarray:
    return chest_film(np.random.default_rng(seed), size_px, opacities)


@pytest.fixture(scope="module")
def twins() -> tuple[np.ndarray, np.ndarray]:
    """120 films without and with opacities, float (films, height, width)."""
    clear, opaque = ([film(seed, opacities) for seed in range(120)] for opacities in (False, True))
    return np.stack(clear).astype(float), np.stack(opaque).astype(float)


@pytest.mark.parametrize("size_px", [16, 96, 224, 320])
def test_film_has_the_size_asked_for(size_px: int) -> None:
    pixels = film(3, True, size_px)
    assert pixels.shape == (size_px, size_px)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 120


def test_same_seed_gives_the_same_film_and_another_seed_another() -> None:
    assert np.array_equal(film(5, True), film(5, True))
    assert not np.array_equal(film(5), film(6))


def test_size_does_not_change_what_is_seen() -> None:
    small, large = film(8, True, 112).astype(float), film(8, True, 224).astype(float)
    halved = large.reshape(112, 2, 112, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.97


def test_lungs_are_dark_and_the_heart_is_on_the_patients_left(twins: tuple[np.ndarray, np.ndarray]) -> None:
    mean_HW = twins[0].mean(axis=0)

    def at(y: float, x: float) -> float:
        return mean_HW[int(y * SIZE), int(x * SIZE)]

    right_lung, left_lung, spine, abdomen = at(0.45, 0.28), at(0.40, 0.75), at(0.5, 0.5), at(0.95, 0.4)
    assert max(right_lung, left_lung) + 60 < min(spine, abdomen)
    assert at(0.66, 0.66) > at(0.66, 0.34) + 50  # the patient's left is on the right side of the film
    assert at(0.02, 0.05) < 30  # air above the shoulders


def test_opacities_are_the_only_difference_and_lie_in_both_lungs(twins: tuple[np.ndarray, np.ndarray]) -> None:
    clear, opaque = twins
    whiter = opaque - clear
    assert (whiter >= 0).mean() > 0.999
    right, left = whiter[:, :, : SIZE // 2], whiter[:, :, SIZE // 2 :]
    assert whiter.max(axis=(1, 2)).min() > 20  # best_accuracy takes it that every one can be seen
    assert (right.max(axis=(1, 2)) > 15).mean() > 0.97
    assert (left.max(axis=(1, 2)) > 15).mean() > 0.95
    by_row = whiter.sum(axis=(0, 2))
    assert by_row[SIZE // 2 :].sum() > by_row[: SIZE // 2].sum()  # more below than above
    assert whiter[:, : SIZE // 8].max() <= 1  # neither above the lungs, nor at the side marker
    midline = slice(SIZE // 2 - 4, SIZE // 2 + 4)
    assert whiter[:, :, midline].mean() < 0.2 * whiter.mean()


def test_exposure_hides_the_class_from_a_light_meter(twins: tuple[np.ndarray, np.ndarray]) -> None:
    # 60 films each, of different patients: a twin would have its own exposure to be compared with.
    films = np.concatenate([twins[0][:60], twins[1][60:]])
    is_covid = np.repeat([0, 1], 60)
    for measure in (films.mean(axis=(1, 2)), films.std(axis=(1, 2)), np.median(films, axis=(1, 2))):
        auroc = roc_auc_score(is_covid, measure)
        assert max(auroc, 1 - auroc) < 0.75


def test_opacities_can_be_seen_against_the_patients_own_lungs(twins: tuple[np.ndarray, np.ndarray]) -> None:
    """Brightness of the lower outer lung against the upper, which needs no knowledge of the exposure."""
    films = np.concatenate([twins[0][:60], twins[1][60:]])
    rows_low, rows_high = slice(int(0.5 * SIZE), int(0.72 * SIZE)), slice(int(0.25 * SIZE), int(0.40 * SIZE))
    columns = np.r_[int(0.18 * SIZE) : int(0.35 * SIZE), int(0.70 * SIZE) : int(0.84 * SIZE)]
    low, high = films[:, rows_low][:, :, columns], films[:, rows_high][:, :, columns]
    contrast = np.percentile(low, 40, axis=(1, 2)) - np.percentile(high, 40, axis=(1, 2))
    assert roc_auc_score(np.repeat([0, 1], 60), contrast) > 0.75


def test_gray_values_alone_do_not_give_the_class_away():
    dataset = covid.phantoms()
    gray_NP = np.stack([dataset.decode(i)[:, :, 0].ravel() for i in range(len(dataset))])
    percentiles = np.percentile(gray_NP, [1, 10, 25, 50, 75, 90, 99], axis=1)
    features = np.stack([gray_NP.mean(1), gray_NP.std(1), *percentiles], axis=1)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    assert cross_val_score(classifier, features, dataset.targets, cv=5).mean() < 0.7
