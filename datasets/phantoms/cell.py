"""Procedural blood cells: one stained white cell, erythroblast or platelet of a peripheral-blood smear.

The field is about 20 µm wide, as the central 200 pixels of a PBC picture (Acevedo et al., Data in Brief 2020, doi
10.1016/j.dib.2020.105474) of which BloodMNIST is made. May-Grünwald-Giemsa: methylene blue and its azures stain nuclei
purple and the cytoplasm of young cells blue, eosin stains haemoglobin and the granules of eosinophils. A picture is a
sum of the densities of three dyes, put through the law of Beer and Lambert.

The eight kinds are described in `datasets/phantoms/cell_kinds.py`. Red cells, place, magnification, stain, light, focus
and grain come from generators of their own and have the same distributions in all kinds; with one seed they are the
same for all kinds, but for the red cells, which make room for a larger cell.

Colours alone tell much, because a platelet leaves most of the picture pale and a monocyte does not: a logistic
regression on their means and spreads has three quarters right, and stays below 0.85, which a test holds.

Lengths in micrometres, x to the right and y downwards from the centre of the cell. Arrays of shape (size_px, size_px)
end in _HW, of three densities in _DHW.
"""

import numpy as np

from datasets.phantoms.cell_kinds import BLUE, EOSIN, KINDS, PURPLE, Cell, Granules
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

VERSION = "blood-cell-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same cell."""
FIELD_UM = 20.0
"""Width of a picture at magnification 1."""
ABSORBANCE = np.array([[0.74, 1.32, 0.48], [0.95, 0.60, 0.12], [0.16, 0.90, 0.96]], np.float32)
"""Of red, green and blue light by each dye at density 1 (natural logarithm)."""


def blood_cell(rng: np.random.Generator, size_px: int, kind: str) -> np.ndarray:
    """A cell of one of `KINDS` in the middle of a smear, uint8 (size_px, size_px, 3), drawn from `rng` alone."""
    field_rng, cell_rng, shape_rng, grain_rng = rng.spawn(4)
    times = oversampling(size_px)
    drawn_px = size_px * times
    cell = KINDS[kind](cell_rng)
    width_um = FIELD_UM * field_rng.uniform(0.94, 1.08)
    axis = ((np.arange(drawn_px, dtype=np.float32) + 0.5) / drawn_px - 0.5) * np.float32(width_um)
    shift_x, shift_y = field_rng.normal(0, 0.45, 2).astype(np.float32)
    x_HW, y_HW = np.meshgrid(axis - shift_x, axis - shift_y)
    densities_DHW = _smear(field_rng, x_HW, y_HW, cell.radius_um)
    _put_cell(shape_rng, densities_DHW, cell, x_HW, y_HW)
    return _photographed(field_rng, grain_rng, densities_DHW, drawn_px / width_um, times)


def _smear(rng: np.random.Generator, x_HW: np.ndarray, y_HW: np.ndarray, room_um: float) -> np.ndarray:
    """Densities of the three dyes of a smear of red cells that leaves room for a cell of radius `room_um`."""
    size_px = x_HW.shape[0]
    densities_DHW = np.zeros((3, size_px, size_px), np.float32)
    number = int(rng.integers(5, 12))
    angle = rng.uniform(0, 2 * np.pi) + np.sort(rng.uniform(0, 2 * np.pi, number))
    distance, radius = rng.uniform(3, 13, number), rng.normal(3.6, 0.2, number)
    squeeze, turn = rng.uniform(0.88, 1.0, number), rng.uniform(0, np.pi, number)
    distance = np.maximum(distance, room_um + radius * rng.uniform(0.94, 1.15, number))
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    wander_x, wander_y = 0.25 * noise(rng, size_px, 6), 0.25 * noise(rng, size_px, 6)
    nearest_HW = np.full((size_px, size_px), 9, np.float32)
    placed: list[int] = []
    for i in range(number):
        if any((x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2 < (0.85 * (radius[i] + radius[j])) ** 2 for j in placed):
            continue
        placed.append(i)
        u, v = _turned(x_HW + wander_x, y_HW + wander_y, x[i], y[i], turn[i])
        away_HW = np.sqrt(np.square(u) + np.square(v / np.float32(squeeze[i]))) / np.float32(radius[i])
        np.minimum(nearest_HW, away_HW, out=nearest_HW)
    pallor = rng.uniform(0.3, 0.85)
    red = edge(1 - nearest_HW, 0.05) * (1 - pallor * np.exp(-np.square(nearest_HW / 0.45)))
    densities_DHW[EOSIN] = rng.uniform(0.20, 0.34) * red
    densities_DHW[BLUE] = rng.uniform(0.0, 0.10) * red
    return densities_DHW


def _put_cell(
    rng: np.random.Generator, densities_DHW: np.ndarray, cell: Cell, x_HW: np.ndarray, y_HW: np.ndarray
) -> None:
    """Adds the cell to the densities of a smear."""
    size_px = x_HW.shape[0]
    scale = 1 / float(x_HW[0, 1] - x_HW[0, 0])  # pixels per micrometre
    centre_2 = 0.5 - scale * np.array([x_HW[0, 0], y_HW[0, 0]], float)
    wander_x, wander_y = noise(rng, size_px, 7), noise(rng, size_px, 7)
    ragged = np.float32(cell.ragged_um)
    u, v = _turned(x_HW + ragged * wander_x, y_HW + ragged * wander_y, 0, 0, rng.uniform(0, np.pi))
    x_HW, y_HW = x_HW + np.float32(0.14) * wander_x, y_HW + np.float32(0.14) * wander_y
    body = edge(cell.radius_um - np.sqrt(u**2 / cell.elongation + v**2 * cell.elongation), 0.14)
    densities_DHW *= 1 - body
    nucleus, depth = _nucleus(cell, x_HW, y_HW)
    grounds_HW = 1 + 0.10 * noise(rng, size_px, 18) + 0.05 * noise(rng, size_px, 40)
    grounds_HW -= cell.pallor * np.exp(-np.square((depth + 1.2) / 1.0)) * edge(-depth, 0.3)
    grounds_HW *= body * (1 - nucleus)
    for _ in range(cell.vacuoles):
        angle, away, radius = rng.uniform(0, 2 * np.pi), cell.radius_um * rng.uniform(0.3, 0.92), rng.uniform(0.25, 0.6)
        u, v = x_HW - np.float32(away * np.cos(angle)), y_HW - np.float32(away * np.sin(angle))
        grounds_HW *= 1 - 0.8 * edge(radius - np.sqrt(np.square(u) + np.square(v)), 0.12)
    for dye, density in enumerate(cell.cytoplasm):
        densities_DHW[dye] += np.float32(density) * grounds_HW
    cells = round(FIELD_UM / cell.clump_um)
    chromatin = cell.clumps * np.tanh(1.2 * noise(rng, size_px, cells)) + 0.06 * noise(rng, size_px, 2 * cells)
    chromatin += 0.12 * np.exp(-np.square(depth / 0.35)) + 1  # the membrane
    densities_DHW[PURPLE] += np.float32(cell.nucleus) * nucleus * chromatin
    for granules in cell.granules:
        grain_HW = _scattered(rng, granules, cell.radius_um, centre_2, size_px, scale)
        seen = 1 - (1 - granules.over_nucleus) * nucleus
        layer = densities_DHW[granules.dye]
        layer += seen * body * grain_HW * np.maximum(granules.density - layer, 0.35 * granules.density)


def _turned(x_HW: np.ndarray, y_HW: np.ndarray, x: float, y: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across the direction `turn`, from the point (x, y)."""
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx_HW, dy_HW = x_HW - np.float32(x), y_HW - np.float32(y)
    return cos * dx_HW + sin * dy_HW, cos * dy_HW - sin * dx_HW


def _nucleus(cell: Cell, x_HW: np.ndarray, y_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nucleus, 0 to 1, and how deep in it a point lies in micrometres, less than 0 outside."""
    depth_HW = np.full(x_HW.shape, -9, np.float32)
    for x, y, long, wide, turn in cell.lobes_N5:
        u, v = _turned(x_HW, y_HW, x, y, turn)
        inside = (1 - np.sqrt(np.square(u / np.float32(long)) + np.square(v / np.float32(wide)))) * np.float32(wide)
        depth_HW = joined(depth_HW, inside, 0.3)
    for (x, y), (x_next, y_next) in zip(cell.lobes_N5[:-1, :2], cell.lobes_N5[1:, :2], strict=True):
        length = np.hypot(x_next - x, y_next - y)
        u, v = _turned(x_HW, y_HW, x, y, np.arctan2(y_next - y, x_next - x))
        beyond = u - np.clip(u, 0, np.float32(length))
        depth_HW = joined(depth_HW, np.float32(cell.strand_um) - np.sqrt(np.square(beyond) + np.square(v)), 0.5)
    if cell.dent:
        x, y, radius = (np.float32(value) for value in cell.dent)
        depth_HW = -joined(-depth_HW, radius - np.sqrt(np.square(x_HW - x) + np.square(y_HW - y)), 1.6)
    return edge(depth_HW, 0.13), depth_HW


def _scattered(
    rng: np.random.Generator, granules: Granules, radius_um: float, place_2: np.ndarray, size_px: int, scale: float
) -> np.ndarray:
    """Granules all over a cell around `place_2`, 0 to 1."""
    angle = rng.uniform(0, 2 * np.pi, granules.number)
    away = radius_um * np.sqrt(rng.uniform(0, 1, granules.number))
    radius_px = scale * granules.radius_um * np.exp(rng.normal(0, granules.spread, granules.number))
    centre_NP = place_2 + scale * np.stack([away * np.cos(angle), away * np.sin(angle)], 1)
    strength = rng.uniform(0.6, 1.0, granules.number)
    return ellipses(size_px, centre_NP, radius_px, radius_px, angle, strength)


def _photographed(
    rng: np.random.Generator, grain_rng: np.random.Generator, densities_DHW: np.ndarray, scale: float, times: int
) -> np.ndarray:
    """Densities to colours: the stain of the day, the lamp, the focus, the camera."""
    size_px = densities_DHW.shape[1]
    stain = ABSORBANCE * rng.normal(1, 0.05, (3, 3)) * rng.normal(1, 0.09, (3, 1)) * rng.normal(1, 0.07)
    lamp = np.array([0.955, 0.905, 0.875]) * rng.normal(1, 0.018, 3) * rng.normal(1, 0.03)
    film = np.array([0.012, 0.03, 0.02]) * rng.uniform(0, 2)  # plasma
    light_CHW = transmitted(densities_DHW, stain) * (lamp * (1 - film)).astype(np.float32)[:, None, None]
    light_CHW *= 1 + rng.uniform(0.005, 0.025) * noise(rng, size_px, 2)
    light_CHW = averaged(blurred(light_CHW, scale * rng.uniform(0.08, 0.22)), times)
    grain = grain_rng.standard_normal(light_CHW.shape, dtype=np.float32)
    light_CHW += np.float32(rng.uniform(0.003, 0.010)) * grain
    return developed(light_CHW)
