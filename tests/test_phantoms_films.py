"""Drawn films of arms and thighs: only the finding tells the classes apart; what is put on top of an image."""

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.phantoms.femur import femur_film
from datasets.phantoms.findings import Found
from datasets.phantoms.limb import PARTS, film_and_finding, limb_film
from datasets.phantoms.marks import CORNERS, burnt_in_text, framed, joke_picture, reencoded

SIZE = 96
PATIENTS = 30
"""Of each part, with and without a finding."""


def limb(seed: int, part: str = "HAND", abnormal: bool = False, size_px: int = SIZE) -> np.ndarray:
    return limb_film(np.random.default_rng(seed), size_px, part, abnormal)


def femur(seed: int, atypical: bool = False, size_px: int = SIZE) -> np.ndarray:
    return femur_film(np.random.default_rng(seed), size_px, atypical)


@pytest.fixture(scope="module")
def twins() -> tuple[np.ndarray, np.ndarray, list[Found]]:
    """Films of the same patients without and with a finding, uint8 (films, height, width), and the findings."""
    normal, abnormal, findings = [], [], []
    for part in PARTS:
        for seed in range(PATIENTS):
            normal.append(limb(seed, part))
            pixels, found = film_and_finding(np.random.default_rng(seed), SIZE, part, True)
            assert found is not None
            abnormal.append(pixels)
            findings.append(found)
    return np.stack(normal), np.stack(abnormal), findings


@pytest.fixture(scope="module")
def thighs() -> tuple[np.ndarray, np.ndarray]:
    """Films of the same patients with a normal and with an atypical fracture, uint8 (films, height, width)."""
    normal, atypical = ([femur(seed, kind) for seed in range(150)] for kind in (False, True))
    return np.stack(normal), np.stack(atypical)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("size_px", [32, 128])
def test_limb_film_has_the_size_asked_for_and_uses_the_gray_scale(part: str, size_px: int) -> None:
    pixels = limb(3, part, True, size_px)
    assert pixels.shape == (size_px, size_px)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 100


@pytest.mark.parametrize("size_px", [32, 96, 224])
def test_femur_film_has_the_size_asked_for_and_uses_the_gray_scale(size_px: int) -> None:
    pixels = femur(3, True, size_px)
    assert pixels.shape == (size_px, size_px)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 100


def test_same_seed_gives_the_same_film_and_another_seed_another() -> None:
    for part in PARTS:
        assert np.array_equal(limb(5, part, True), limb(5, part, True))
        assert not np.array_equal(limb(5, part), limb(6, part))
    assert np.array_equal(femur(5), femur(5))
    assert not np.array_equal(femur(5), femur(6))


def test_parts_of_the_body_differ_and_an_unknown_one_is_refused() -> None:
    assert len({hashlib.sha256(limb(5, part)).hexdigest() for part in PARTS}) == len(PARTS)
    with pytest.raises(ValueError, match="KNEE"):
        limb(5, "KNEE")


@pytest.mark.parametrize("draw", [lambda size: limb(8, "HAND", True, size), lambda size: femur(8, True, size)])
def test_size_does_not_change_what_is_seen(draw) -> None:
    small, large = draw(112).astype(float), draw(224).astype(float)
    halved = large.reshape(112, 2, 112, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.97


def test_a_finding_changes_a_small_part_of_the_film_and_nothing_else(twins) -> None:
    normal, abnormal, _ = twins
    changed = (normal != abnormal).mean(axis=(1, 2))
    assert changed.max() < 0.25
    assert np.median(changed) < 0.04
    assert changed.min() > 0


def test_a_finding_lies_where_it_is_said_to_lie(twins) -> None:
    normal, abnormal, findings = twins
    axis = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    for before, after, found in zip(normal, abnormal, findings, strict=True):
        contrast = np.abs(after.astype(float) - before)
        near = np.zeros((SIZE, SIZE), bool)
        for x, y in found.places_film:
            for mirrored in (x, -x):  # left and right limbs
                near |= np.hypot(axis[None, :] - mirrored, axis[:, None] - y) < 0.3
        assert contrast[near].max() > 0.4 * contrast.max(), found.kind


def test_who_knows_the_patient_sees_every_finding_that_is_not_subtle(twins) -> None:
    normal, abnormal, findings = twins
    contrast = np.abs(abnormal.astype(float) - normal)
    seen = np.sort(contrast.reshape(len(contrast), -1), axis=1)[:, -8]  # at least eight pixels by so much
    plain = np.array([not found.subtle for found in findings])
    assert (seen[plain] > 10).mean() > 0.98
    assert np.median(seen[plain]) > 1.5 * np.median(seen[~plain])
    assert (seen[~plain] > 2).mean() > 0.9
    assert 0.05 < (~plain).mean() < 0.30


def test_all_kinds_of_findings_occur(twins) -> None:
    kinds = [found.kind for found in twins[2]]
    for kind in ("fracture", "metal", "hole", "worn joint"):
        assert kinds.count(kind) > 0.08 * len(kinds), kind


def test_metal_is_whiter_than_most_of_its_film(twins) -> None:
    for before, after, found in zip(*twins, strict=True):
        if found.kind == "metal":
            whiter = after.astype(float) - before
            metal = np.unravel_index(whiter.argmax(), whiter.shape)
            assert whiter[metal] > 20
            assert after[metal] > np.percentile(after, 75)


def accuracy_of_gray_values(negative_NHW: np.ndarray, positive_NHW: np.ndarray) -> float:
    """Of a logistic regression on mean, spread and percentiles; every second patient in either class."""
    films_NP = np.concatenate([negative_NHW[::2], positive_NHW[1::2]]).astype(float).reshape(-1, SIZE * SIZE)
    classes = np.repeat([0, 1], [len(negative_NHW[::2]), len(positive_NHW[1::2])])
    percentiles = np.percentile(films_NP, [1, 10, 25, 50, 75, 90, 99], axis=1)
    features = np.stack([films_NP.mean(1), films_NP.std(1), *percentiles], axis=1)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(classifier, features, classes, cv=5).mean())


def test_gray_values_alone_do_not_give_the_class_away(twins, thighs) -> None:
    assert accuracy_of_gray_values(*twins[:2]) < 0.7
    assert accuracy_of_gray_values(*thighs) < 0.7


def test_both_fractures_of_a_femur_are_of_the_same_patient(thighs) -> None:
    normal, atypical = thighs
    same = (normal == atypical).mean(axis=(1, 2))
    assert np.median(same) > 0.9
    assert same.max() < 1


def test_films_of_one_patient_share_the_patient_and_nothing_else() -> None:
    def finding(seed: int, patient: int) -> Found | None:
        return film_and_finding(np.random.default_rng(seed), SIZE, "HAND", True, np.random.default_rng(patient))[1]

    kinds = {finding(seed, 7).kind for seed in range(6)}
    assert len(kinds) == 1
    first, second = (femur_film(np.random.default_rng(i), SIZE, True, np.random.default_rng(7)) for i in range(2))
    assert not np.array_equal(first, second)
    trunks = [{side_of_the_trunk(film, patient) for film in range(4)} for patient in range(8)]
    assert all(len(sides) == 1 for sides in trunks)
    assert len(set.union(*trunks)) == 2  # left and right shoulders


def side_of_the_trunk(film: int, patient: int) -> str:
    """Of a film of a shoulder: below the joint there is air at the other side."""
    pixels = limb_film(np.random.default_rng(film), SIZE, "SHOULDER", False, np.random.default_rng(patient))
    low = pixels[SIZE // 5 : SIZE // 2].astype(float)
    return "left" if low[:, SIZE // 6 : SIZE // 3].mean() > low[:, -SIZE // 3 : -SIZE // 6].mean() else "right"


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("shape", [(96, 96), (128, 128, 1), (128, 160, 3), (512, 512, 2)])
def test_burnt_in_text_is_bright_and_stays_in_its_corner(corner: str, shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 60, np.uint8)
    marked = burnt_in_text(pixels, np.random.default_rng(4), "AFF", corner)
    assert marked.shape == shape
    assert marked.dtype == np.uint8
    assert (pixels == 60).all()  # a new array
    rows, columns = np.nonzero((marked != pixels).reshape(*shape[:2], -1).any(axis=2))
    top, left = rows.max() < 0.25 * shape[0], columns.max() < 0.5 * shape[1]
    bottom, right = rows.min() > 0.75 * shape[0], columns.min() > 0.5 * shape[1]
    assert {"top left": top and left, "top right": top and right}.get(corner, True)
    assert {"bottom left": bottom and left, "bottom right": bottom and right}.get(corner, True)
    assert marked.max() > 180
    assert 0.003 < (marked > 150).mean() < 0.03


def test_burnt_in_texts_can_be_told_apart() -> None:
    def inked(text: str) -> np.ndarray:
        return burnt_in_text(np.zeros((96, 96), np.uint8), np.random.default_rng(1), text, "top left") > 100

    assert (inked("AFF") != inked("NFF")).sum() > 8
    assert np.array_equal(inked("AFF"), inked("AFF"))


def test_long_text_fits_and_an_unknown_corner_is_refused() -> None:
    pixels = np.zeros((96, 96), np.uint8)
    marked = burnt_in_text(pixels, np.random.default_rng(1), "UNIVERSITY HOSPITAL 2019", "bottom right")
    assert marked[:, 0].max() == 0
    assert marked.max() > 150
    with pytest.raises(ValueError, match="middle"):
        burnt_in_text(pixels, np.random.default_rng(1), "L", "middle")


def test_frame_replaces_the_margin_alone() -> None:
    pixels = limb(2)[:, :, None]
    bordered = framed(pixels, 5, 255)
    assert bordered.shape == pixels.shape
    assert np.array_equal(bordered[5:-5, 5:-5], pixels[5:-5, 5:-5])
    outside = np.ones(pixels.shape, bool)
    outside[5:-5, 5:-5] = False
    assert (bordered[outside] == 255).all()
    assert np.array_equal(framed(pixels, 0, 255), pixels)


@pytest.mark.parametrize("channels", [None, 1, 2, 3])
def test_reencoded_image_is_near_but_not_the_same(channels: int | None) -> None:
    for seed in range(5):
        pixels = limb(seed, "WRIST", size_px=128)
        if channels:
            pixels = np.repeat(pixels[:, :, None], channels, axis=2)
        copy = reencoded(pixels, np.random.default_rng(seed))
        assert copy.shape == pixels.shape
        assert copy.dtype == np.uint8
        assert not np.array_equal(copy, pixels)
        assert np.corrcoef(copy.ravel(), pixels.ravel())[0, 1] > 0.98
        assert np.array_equal(copy, reencoded(pixels, np.random.default_rng(seed)))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_joke_is_no_medical_image(channels: int) -> None:
    joke = joke_picture(0, SIZE, channels)
    assert joke.shape == (SIZE, SIZE, channels)
    assert joke.dtype == np.uint8
    assert np.array_equal(joke, joke_picture(0, SIZE, channels))
    assert not np.array_equal(joke, joke_picture(1, SIZE, channels))
    likeness = [
        abs(np.corrcoef(joke[:, :, 0].ravel(), limb(seed, part).ravel())[0, 1]) for seed, part in enumerate(PARTS)
    ]
    assert max(likeness) < 0.6
    if channels == 3:
        assert np.ptp(joke.astype(int), axis=2).mean() > 60  # colourful
