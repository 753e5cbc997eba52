"""Procedural blood cells, skin lesions and colon tissue look like what they stand for, not told by colour alone."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.phantoms import gland
from datasets.phantoms.cell import blood_cell
from datasets.phantoms.cell_kinds import KINDS
from datasets.phantoms.gland import gland_tissue, two_stains
from datasets.phantoms.lesion import Lesion, skin_lesion

NAMES = (*KINDS, "naevus", "melanoma", "benign", "malignant")


def drawn(name: str, seed: int, size_px: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if name in KINDS:
        return blood_cell(rng, size_px, name)
    if name in ("naevus", "melanoma"):
        return skin_lesion(rng, size_px, melanoma=name == "melanoma")
    return gland_tissue(rng, size_px, malignant=name == "malignant")[0]


def colours(images_NHWC: list[np.ndarray]) -> np.ndarray:
    """Mean and spread of every channel, (images, 6)."""
    return np.stack([np.r_[image.mean(axis=(0, 1)), image.std(axis=(0, 1))] for image in images_NHWC])


def accuracy(features: np.ndarray, classes: np.ndarray) -> float:
    """Of a logistic regression, 5-fold cross-validated."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return float(cross_val_score(classifier, features, classes, cv=5).mean())


@pytest.fixture(scope="module")
def tissues() -> dict[bool, list[tuple[np.ndarray, np.ndarray]]]:
    """40 benign and 40 malignant fields of 128 px with their masks."""
    return {
        malignant: [gland_tissue(np.random.default_rng(seed), 128, malignant) for seed in range(40)]
        for malignant in (False, True)
    }


@pytest.mark.parametrize("size_px", [16, 28, 96, 101, 224])
@pytest.mark.parametrize("name", ["monocyte", "platelet", "melanoma", "malignant"])
def test_picture_has_the_size_asked_for(name: str, size_px: int) -> None:
    pixels = drawn(name, 3, size_px)
    assert pixels.shape == (size_px, size_px, 3)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 60


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_picture_and_another_seed_another(name: str) -> None:
    assert np.array_equal(drawn(name, 5), drawn(name, 5))
    assert np.abs(drawn(name, 5).astype(float) - drawn(name, 6)).mean() > 3


@pytest.mark.parametrize("name", NAMES)
def test_size_does_not_change_what_is_seen(name: str) -> None:
    small, large = drawn(name, 8, 96).astype(float), drawn(name, 8, 192).astype(float)
    halved = large.reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    # A nucleus of tissue is smaller than a pixel, and whether it lies in a gland is seen to a pixel.
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > (0.88 if name in ("benign", "malignant") else 0.97)
    assert abs(small.mean() - halved.mean()) < 3


def test_classes_of_one_seed_share_the_field_around_them() -> None:
    """Light, stain, red cells, skin, hairs and stroma do not depend on the class."""
    for names in (("erythroblast", "lymphocyte"), ("naevus", "melanoma")):
        corners = [np.stack([drawn(name, seed)[:10, :10].astype(float) for seed in range(10)]) for name in names]
        assert np.abs(corners[0] - corners[1]).mean() < 3 < 10 < corners[0].std()


def test_stroma_is_the_same_around_benign_and_malignant_glands(
    tissues: dict[bool, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    stroma = {
        malignant: np.array([np.median(picture[mask == 0], axis=0) for picture, mask in fields])
        for malignant, fields in tissues.items()
    }
    assert np.abs(stroma[False] - stroma[True]).mean() < 0.5 * stroma[False].std(axis=0).mean()


def test_cells_differ_in_what_a_haematologist_looks_at() -> None:
    def seen(kind: str) -> tuple[float, float, float]:
        """Size of what is dark (the nucleus), of the whole cell, and redness of what is not dark within it."""
        dark, whole, redness = [], [], []
        for seed in range(12):
            image = drawn(kind, seed).astype(float)
            axis = np.linspace(-1, 1, 96)
            middle = np.hypot(axis[:, None], axis[None, :]) < 0.82
            nucleus = (image[:, :, 1] < 115) & middle
            # Purple or blue, unlike red cells and plasma; or redder than a red cell.
            cell = ((image[:, :, 2] - image[:, :, 1] > 12) | (image[:, :, 0] - image[:, :, 1] > 75)) & middle
            dark.append(nucleus.mean())
            whole.append((cell | nucleus).mean())
            inner = np.hypot(axis[:, None], axis[None, :]) < 0.45
            redness.append((image[:, :, 0] - image[:, :, 2])[inner & ~nucleus].mean())
        return float(np.mean(dark)), float(np.mean(whole)), float(np.mean(redness))

    nucleus, whole, redness = ({kind: seen(kind)[i] for kind in KINDS} for i in range(3))
    assert nucleus["platelet"] < 0.02 < 0.04 < min(nucleus[kind] for kind in KINDS if kind != "platelet")
    assert nucleus["erythroblast"] < nucleus["lymphocyte"]  # a small round nucleus against one that fills the cell
    assert nucleus["neutrophil"] < nucleus["immature granulocyte"]  # lobes against an oval
    assert whole["lymphocyte"] < whole["monocyte"]
    assert max(redness, key=redness.__getitem__) == "eosinophil"


def test_neutrophils_have_three_to_five_lobes_and_eosinophils_mostly_two() -> None:
    lobes = {kind: [len(KINDS[kind](np.random.default_rng(seed)).lobes_N5) for seed in range(200)] for kind in KINDS}
    assert set(lobes["neutrophil"]) == {3, 4, 5}
    assert np.mean(np.array(lobes["eosinophil"]) == 2) > 0.75
    assert set(lobes["platelet"]) == {0}
    assert set(lobes["lymphocyte"]) == set(lobes["monocyte"]) == set(lobes["erythroblast"]) == {1}


def test_colour_alone_does_not_give_the_kind_of_cell_away() -> None:
    kinds = np.arange(320) % len(KINDS)
    features = colours([blood_cell(np.random.default_rng(i), 72, list(KINDS)[kind]) for i, kind in enumerate(kinds)])
    assert accuracy(features, kinds) < 0.85


def test_colour_alone_does_not_tell_melanoma_from_naevus() -> None:
    melanoma = np.arange(300) % 2
    features = colours([skin_lesion(np.random.default_rng(i), 72, melanoma=bool(m)) for i, m in enumerate(melanoma)])
    assert accuracy(features, melanoma) < 0.75


def test_one_sign_does_not_tell_melanoma_from_naevus_and_four_do() -> None:
    naevi, melanomas = (
        np.array([(x.asymmetry, x.notches, x.abrupt, x.disorder) for x in lesions])
        for lesions in ([Lesion.drawn(np.random.default_rng(s), m) for s in range(2000)] for m in (False, True))
    )
    assert (naevi.max(axis=0) > melanomas.min(axis=0) + 0.1).all()
    assert naevi.mean(axis=1).max() < melanomas.mean(axis=1).min() - 0.1


def test_melanomas_are_less_symmetric_than_naevi() -> None:
    asymmetry: dict[str, float] = {}
    for name in ("naevus", "melanoma"):
        differences = []
        for seed in range(60):
            middle = drawn(name, seed, 72)[9:63, 9:63].astype(float).mean(axis=2)
            turned = np.abs(middle - middle[::-1, ::-1]).mean()
            differences.append(turned / middle.std())
        asymmetry[name] = float(np.median(differences))
    assert asymmetry["melanoma"] > 1.15 * asymmetry["naevus"]


def test_masks_cover_whole_glands(tissues: dict[bool, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    for fields in tissues.values():
        for picture, mask in fields:
            assert mask.shape == picture.shape[:2]
            assert mask.dtype == np.uint8
            assert set(np.unique(mask)) == {0, 1}
        eosin = [two_stains(picture)[:, :, 1].astype(float) for picture, _ in fields]
        more_outside = [
            stain[mask == 0].mean() > stain[mask == 1].mean() for stain, (_, mask) in zip(eosin, fields, strict=True)
        ]
        assert np.mean(more_outside) > 0.85  # the stroma is pink
        assert 0.3 < np.mean([mask.mean() for _, mask in fields]) < 0.7
        assert 0.1 < min(mask.mean() for _, mask in fields) < max(mask.mean() for _, mask in fields) < 0.9


def test_benign_glands_have_a_white_lumen_and_malignant_ones_more_nuclei(
    tissues: dict[bool, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    nuclei = {}
    for malignant, fields in tissues.items():
        inside = [two_stains(picture)[:, :, 0][mask == 1] for picture, mask in fields]
        nuclei[malignant] = np.mean([stain.mean() for stain in inside])
    assert nuclei[True] > 1.2 * nuclei[False]
    whites = [np.percentile(picture[mask == 1].min(axis=1), 97) for picture, mask in tissues[False]]
    assert np.median(whites) > 200
    in_glands = [
        mask[picture.min(axis=2) > 205].mean() for picture, mask in tissues[False] if picture.min(axis=2).max() > 210
    ]
    assert np.median(in_glands) > 0.8  # a mask covers the lumen, too


def test_best_dice_is_that_of_the_true_outlines() -> None:
    assert gland.simulated_best_dice(100) == pytest.approx(gland.BEST_DICE, abs=0.005)


def test_two_stains_of_pure_colours_are_one_each() -> None:
    for density in (0.3, 1.0):
        for stain in (0, 1):
            vector = gland.STAINS[stain] / np.linalg.norm(gland.STAINS[stain])
            pixels = np.full((4, 4, 3), 256 * np.exp(-density * vector) - 1).round().astype(np.uint8)
            stains = two_stains(pixels)
            assert stains.shape == (4, 4, 2)
            assert stains.dtype == np.uint8
            assert stains[0, 0, stain] == pytest.approx(255 * density / gland.DENSITY_AT_255, abs=3)
            assert stains[0, 0, 1 - stain] <= 3
    assert two_stains(np.full((2, 2, 3), 255, np.uint8)).max() == 0


def test_unmixing_is_the_inverse_of_the_stains() -> None:
    """Any mixture comes back, the third stain notwithstanding."""
    rows = gland.STAINS / np.linalg.norm(gland.STAINS, axis=1, keepdims=True)
    densities = np.random.default_rng(0).uniform(0, 0.8, (8, 8, 3))
    pixels = (256 * np.exp(-densities @ rows) - 1).round().astype(np.uint8)
    assert np.abs(two_stains(pixels) - 255 * densities[:, :, :2] / gland.DENSITY_AT_255).max() < 5
