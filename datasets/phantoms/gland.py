"""Procedural colon tissue: glands in stroma, stained with haematoxylin and eosin, with the mask that an annotator drew.

A field is about 440 µm wide, as the pictures of GlaS (Sirinukunwattana et al., Medical Image Analysis 2017, 35:489)
are, squeezed to a square. What benign and malignant glands are like stands in `datasets/phantoms/gland_kinds.py`.
Stroma, stain, light, focus, grain and the annotator have generators of their own and the same distributions in both
classes.

The best possible Dice. The mask is the true outline of the glands (epithelium and lumen together), displaced by an
annotator's smooth error of mean 0 and standard deviation `ANNOTATOR_UM`. The perfect observer says the true outline;
its mean Dice with the annotator's masks is `BEST_DICE`, measured by `simulated_best_dice` on 2,000 fields of 128 px,
half of them malignant (over fields: standard deviation 0.013; benign 0.942, malignant 0.959). An outline that
is moved outwards or inwards by any constant does no better than that, to within 0.001.

Lengths in micrometres, x to the right and y downwards from the centre. Arrays of shape (size_px, size_px) end in _HW,
of the two stains' densities in _DHW.
"""

import numpy as np

from datasets.phantoms import gland_kinds
from datasets.phantoms.gland_kinds import FIELD_UM, Tissue
from datasets.phantoms.texture import (
    averaged,
    blurred,
    developed,
    edge,
    ellipses,
    joined,
    noise,
    oversampling,
    transmitted,
)

VERSION = "gland-tissue-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same tissue."""
ANNOTATOR_UM = FIELD_UM / 128
"""Standard deviation of the annotator's error: a pixel of 128."""
BEST_DICE = 0.951
"""Mean Dice of a perfect observer, with as many benign as malignant fields; see above."""
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
"""Optical densities of red, green and blue of haematoxylin, eosin and what is left (diaminobenzidine), of Ruifrok and
Johnston, Analytical and Quantitative Cytology and Histology 2001, 23:291."""
DENSITY_AT_255 = 1.6
"""The stain density (natural logarithm) that `two_stains` maps to 255."""


def gland_tissue(rng: np.random.Generator, size_px: int, malignant: bool) -> tuple[np.ndarray, np.ndarray]:
    """A field of colon tissue, uint8 (size_px, size_px, 3), and the glands' mask, uint8 0 or 1 (size_px, size_px)."""
    picture_HWC, mask_HW, _ = _field(rng, size_px, malignant)
    return picture_HWC, mask_HW


def simulated_best_dice(fields: int, size_px: int = 128) -> float:
    """Mean Dice of the true outlines with the annotator's masks; half of the fields are malignant."""
    dice = []
    for seed in range(fields):
        _, mask_HW, true_HW = _field(np.random.default_rng(seed), size_px, malignant=seed % 2 == 1)
        dice.append(2 * float((mask_HW & true_HW).sum()) / float(mask_HW.sum() + true_HW.sum()))
    return float(np.mean(dice))


def two_stains(rgb_HWC: np.ndarray) -> np.ndarray:
    """Densities of haematoxylin and eosin, uint8 of shape (height, width, 2): none is 0, `DENSITY_AT_255` is 255.

    Colour deconvolution after Ruifrok and Johnston (2001): by the law of Beer and Lambert the optical density of a
    pixel is a sum of the stains' densities times `STAINS`, a system of three equations. `rgb_HWC`: uint8.
    """
    haematoxylin, eosin, left = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    # The inverse of a 3 x 3 matrix with these rows has the cross products of two rows each as columns.
    volume = haematoxylin @ np.cross(eosin, left)
    unmixing = np.stack([np.cross(eosin, left), np.cross(left, haematoxylin)], axis=1) / volume
    optical_HWC = -np.log((rgb_HWC.astype(np.float32) + 1) / 256)
    densities_HWC = np.stack([(optical_HWC * column).sum(axis=2) for column in unmixing.T.astype(np.float32)], axis=2)
    return (np.clip(densities_HWC / DENSITY_AT_255, 0, 1) * 255).round().astype(np.uint8)


def _field(rng: np.random.Generator, size_px: int, malignant: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture, the annotator's mask and the true one."""
    place_rng, tissue_rng, stroma_rng, camera_rng, annotator_rng = rng.spawn(5)
    times = oversampling(size_px)
    drawn_px = size_px * times
    tissue = (gland_kinds.malignant if malignant else gland_kinds.benign)(tissue_rng)
    width_um = FIELD_UM * place_rng.uniform(0.85, 1.15)
    axis = ((np.arange(drawn_px, dtype=np.float32) + 0.5) / drawn_px - 0.5) * np.float32(width_um)
    x_HW, y_HW = np.meshgrid(axis, axis)
    x_HW += tissue.wander_um * noise(tissue_rng, drawn_px, 9) + 0.3 * tissue.wander_um * noise(tissue_rng, drawn_px, 24)
    y_HW += tissue.wander_um * noise(tissue_rng, drawn_px, 9) + 0.3 * tissue.wander_um * noise(tissue_rng, drawn_px, 24)
    depth_HW = _depth(tissue.glands_N5, x_HW, y_HW, axis, tissue.melt_um)
    lumen_HW = _depth(tissue.lumens_N5, x_HW, y_HW, axis, 4.0)
    step_um = width_um / drawn_px
    slope_y, slope_x = np.gradient(depth_HW, np.float32(step_um))
    steep_HW = np.sqrt(np.square(slope_x) + np.square(slope_y)) + np.float32(0.05)
    distance_HW = depth_HW / np.clip(steep_HW, 0.4, 2.5)
    ceiling_HW = tissue.wall_um * (1 + 0.15 * noise(tissue_rng, drawn_px, 12))
    np.maximum(lumen_HW, depth_HW - ceiling_HW, out=lumen_HW)
    flow_HW2 = np.stack([slope_x, slope_y], axis=2) / steep_HW[:, :, None]
    densities_DHW = _stained(tissue_rng, stroma_rng, tissue, distance_HW, lumen_HW)
    densities_DHW *= 1 - 0.8 * _goblets(tissue_rng, tissue, distance_HW, lumen_HW, flow_HW2, step_um)
    nuclei_HW = _nuclei(tissue_rng, tissue, distance_HW, lumen_HW, flow_HW2, step_um)
    nuclei_HW = np.maximum(nuclei_HW, _stroma_nuclei(stroma_rng, distance_HW, flow_HW2, step_um))
    densities_DHW[0] += nuclei_HW * np.maximum(1.45 - densities_DHW[0], 0.4)
    error_HW = ANNOTATOR_UM * width_um / FIELD_UM * noise(annotator_rng, drawn_px, 12)
    inside_2HW = (np.stack([distance_HW + error_HW, distance_HW]) > 0).astype(np.float32)
    mask_HW, true_HW = (averaged(inside_2HW, times) > 0.5).astype(np.uint8)
    return _photographed(camera_rng, densities_DHW, times), mask_HW, true_HW


def _depth(shapes_N5: np.ndarray, x_HW: np.ndarray, y_HW: np.ndarray, axis: np.ndarray, melt_um: float) -> np.ndarray:
    """How deep in one of the ellipses a point lies, less than 0 outside, never below -40."""
    depth_HW = np.full(x_HW.shape, -40, np.float32)
    for x, y, long, wide, turn in shapes_N5.astype(np.float32):
        reach = 1.4 * long + 45
        rows, columns = (slice(*np.searchsorted(axis, [middle - reach, middle + reach])) for middle in (y, x))
        dx, dy = x_HW[rows, columns] - x, y_HW[rows, columns] - y
        cos, sin = np.cos(turn), np.sin(turn)
        along, across = (cos * dx + sin * dy) / long, (cos * dy - sin * dx) / wide
        inside = (1 - np.sqrt(np.square(along) + np.square(across))) * wide
        depth_HW[rows, columns] = joined(depth_HW[rows, columns], inside, melt_um)
    return depth_HW


def _stained(
    rng: np.random.Generator,
    stroma_rng: np.random.Generator,
    tissue: Tissue,
    distance_HW: np.ndarray,
    lumen_HW: np.ndarray,
) -> np.ndarray:
    """Densities of haematoxylin and eosin (2, size_px, size_px) of all but the nuclei."""
    size_px = distance_HW.shape[0]
    gland_HW, hollow_HW = edge(distance_HW, 1.2), edge(lumen_HW, 1.5)
    fibres_HW = 1 + 0.16 * noise(stroma_rng, size_px, 14) + 0.16 * noise(stroma_rng, size_px, 44)
    fibres_HW *= 1 - 0.8 * edge(noise(stroma_rng, size_px, 22) - stroma_rng.uniform(1.3, 2.4), 0.4)  # clefts
    stroma = stroma_rng.uniform(0.05, 0.14), stroma_rng.uniform(0.34, 0.60)
    grounds_HW = 1 + 0.10 * noise(rng, size_px, 40) + 0.10 * noise(rng, size_px, 12)
    apical_HW = 1 + 0.35 * np.exp(-np.square(lumen_HW / 3))
    clots_HW = tissue.debris * edge(noise(rng, size_px, 8) - 0.2, 0.8) * (0.7 + 0.3 * noise(rng, size_px, 36))
    layers = []
    for dye in (0, 1):
        epithelium_HW = tissue.cytoplasm[dye] * grounds_HW * apical_HW
        inner_HW = epithelium_HW + hollow_HW * ((0.45, 0.55)[dye] * clots_HW + 0.015 - epithelium_HW)
        outer_HW = stroma[dye] * fibres_HW
        layers.append(outer_HW + gland_HW * (inner_HW - outer_HW))
    return np.stack(layers)


def _candidates(
    rng: np.random.Generator, distance_HW: np.ndarray, spacing_um: float, step_um: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Points (N, 2) in pixels, about `spacing_um` apart, and the rows and columns of their pixels."""
    size_px = distance_HW.shape[0]
    count = int(np.ceil(size_px * step_um / spacing_um))
    grid = (np.arange(count) + 0.5) / count * size_px
    points_NP = np.stack(np.meshgrid(grid, grid), axis=2).reshape(-1, 2)
    points_NP = points_NP + rng.uniform(-0.45, 0.45, points_NP.shape) * size_px / count
    column, row = np.clip(points_NP.astype(int), 0, size_px - 1).T
    return points_NP, (row, column)


def _goblets(
    rng: np.random.Generator,
    tissue: Tissue,
    distance_HW: np.ndarray,
    lumen_HW: np.ndarray,
    flow_HW2: np.ndarray,
    step_um: float,
) -> np.ndarray:
    """Drops of mucin between the nuclei and the lumen, 0 to 1."""
    points_NP, at = _candidates(rng, distance_HW, 10.5, step_um)
    keep = (distance_HW[at] > 13) & (lumen_HW[at] < -4) & (rng.random(len(points_NP)) < tissue.goblets)
    points_NP, flow_N2 = points_NP[keep], flow_HW2[at][keep]
    long = rng.uniform(4.5, 8.0, len(points_NP)) / step_um
    wide = rng.uniform(3.2, 4.8, len(points_NP)) / step_um
    turn = np.arctan2(flow_N2[:, 1], flow_N2[:, 0])
    return ellipses(len(distance_HW), points_NP, long, wide, turn, rng.uniform(0.7, 1, len(points_NP)))


def _nuclei(
    rng: np.random.Generator,
    tissue: Tissue,
    distance_HW: np.ndarray,
    lumen_HW: np.ndarray,
    flow_HW2: np.ndarray,
    step_um: float,
) -> np.ndarray:
    """Nuclei of the epithelium, upright on its base, 0 to 1."""
    points_NP, at = _candidates(rng, distance_HW, 1.45 * tissue.nucleus_um, step_um)
    distance, number = distance_HW[at], len(points_NP)
    near = np.where(distance < tissue.rows_um, 0.95, 0.25 * (1 - tissue.ring))
    keep = (distance > 2.2) & (lumen_HW[at] < -tissue.nucleus_um) & (rng.random(number) < near)
    points_NP, flow_N2, distance = points_NP[keep], flow_HW2[at][keep], distance[keep]
    number = len(points_NP)
    move = tissue.ring * (1.35 * tissue.nucleus_um + rng.normal(0, 0.8, number) - distance) / step_um
    points_NP = points_NP + move[:, None] * flow_N2 * (distance < tissue.rows_um)[:, None]
    size = tissue.nucleus_um / step_um * np.exp(rng.normal(0, tissue.nucleus_spread, number))
    wide = size * rng.uniform(0.48, 0.68, number)
    turn = np.arctan2(flow_N2[:, 1], flow_N2[:, 0]) + rng.normal(0, 0.2 + tissue.nucleus_spread, number)
    return ellipses(
        len(distance_HW), points_NP, size, wide, turn, rng.uniform(0.9 - 1.6 * tissue.nucleus_spread, 1, number)
    )


def _stroma_nuclei(
    rng: np.random.Generator, distance_HW: np.ndarray, flow_HW2: np.ndarray, step_um: float
) -> np.ndarray:
    """Spindle-shaped nuclei that follow the outlines of the glands, and round ones of lymphocytes, 0 to 1."""
    points_NP, at = _candidates(rng, distance_HW, rng.uniform(10, 17), step_um)
    inflamed = rng.uniform(0.1, 0.7)
    round_N = rng.random(len(points_NP)) < inflamed
    angle = rng.normal(0, 0.35, len(points_NP))
    length, width = rng.uniform(4, 8, len(points_NP)), rng.uniform(1.2, 2.0, len(points_NP))
    strength = rng.uniform(0.5, 1, len(points_NP))
    keep = distance_HW[at] < -4
    flow_N2 = flow_HW2[at]
    angle += np.arctan2(flow_N2[:, 0], -flow_N2[:, 1])
    length, width = np.where(round_N, 2.9, length) / step_um, np.where(round_N, 2.7, width) / step_um
    return ellipses(len(distance_HW), points_NP[keep], length[keep], width[keep], angle[keep], strength[keep])


def _photographed(rng: np.random.Generator, densities_DHW: np.ndarray, times: int) -> np.ndarray:
    """Densities to colours: the stain of the day, the lamp, the focus, the camera."""
    size_px = densities_DHW.shape[1]
    grain_rng = rng.spawn(1)[0]
    stains = STAINS[:2] + np.array([[0.0, 0.04, 0.02], [0.05, -0.12, 0.28]]) + rng.normal(0, 0.025, (2, 3))
    stains *= rng.normal(1, 0.13, (2, 1)) * rng.normal(1, 0.08)
    lamp = np.array([0.95, 0.94, 0.955]) * rng.normal(1, 0.015, 3)
    light_CHW = transmitted(densities_DHW, stains) * lamp.astype(np.float32)[:, None, None]
    light_CHW *= 1 + rng.uniform(0.005, 0.02) * noise(rng, size_px, 2)
    light_CHW = averaged(blurred(light_CHW, size_px / FIELD_UM * rng.uniform(0.9, 2.0)), times)
    light_CHW += rng.uniform(0.003, 0.010) * grain_rng.standard_normal(light_CHW.shape, dtype=np.float32)
    return developed(light_CHW)
