"""Procedural chest films for `--demo`: what a frontal radiograph looks like, with a known truth.

A film is a sum of densities (air 0, bone about 1) along analytic curves in patient coordinates, put through a film's
characteristic curve. All anatomy, positioning and exposure varies from film to film and is drawn from the same
distributions in both classes; a COVID film has, in addition, patchy ground-glass opacities: bilateral, peripheral, in
the middle and lower zones (the characteristic pattern, Radiology: Cardiothoracic Imaging 2020, doi
10.1148/ryct.2020200280).

The best possible accuracy. A COVID film shows no opacity at all with probability q = `NO_OPACITY` (early disease shows
nothing on a film), and is then drawn exactly as a normal one. With classes of equal size a film without opacities is
COVID with probability q / (1 + q) < 1/2, so the perfect observer calls it normal. That observer has every normal film
right and 1 - q of the COVID films: accuracy (1 + 1 - q) / 2 = 1 - q / 2 = 0.97, over all films that can be drawn. Some
opacities are faint, so that a real observer stays below it. Of real first films about 27 % show nothing (same journal,
doi 10.1148/ryct.2020200337); q is smaller so that 324 films are enough to tell good configurations from bad ones.

The gray values alone (mean, spread, percentiles) tell little: a logistic regression on them stays below an accuracy of
0.7, which a test holds.

Axes: x from -1 (left edge of the film, the patient's right) to +1, y from -1 (top) to +1. Arrays of shape
(size_px, size_px) end in _HW.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

VERSION = "chest-film-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same film."""
NO_OPACITY = 0.06
"""q: the part of the COVID films that show nothing."""
BEST_ACCURACY = 1 - NO_OPACITY / 2
"""Of a perfect observer, with classes of equal size; derived above."""
ROWS = 56
"""Rows that are computed together: they stay in the cache, a third of the time less."""


def chest_film(rng: np.random.Generator, size_px: int, opacities: bool) -> np.ndarray:
    """A frontal chest film, uint8 of shape (size_px, size_px), drawn from `rng` alone.

    Opacities and grain have generators of their own, so that a seed gives the same patient and exposure with and
    without opacities, and at every size.
    """
    opacity_rng, grain_rng = rng.spawn(2)
    chest = _Chest.drawn(rng)
    x_HW, y_HW = _patient_coordinates(rng, size_px)
    air_HW = rng.uniform(0.52, 0.64) + 0.04 * _noise(rng, size_px, 5) + 0.035 * _noise(rng, size_px, 28)
    air_HW -= _vessels(rng, x_HW, y_HW)
    if opacities:
        air_HW -= _ground_glass(opacity_rng, chest, x_HW, y_HW)
    density_HW = np.empty_like(air_HW)
    for top in range(0, size_px, ROWS):
        rows = slice(top, top + ROWS)
        density_HW[rows] = chest.density(x_HW[rows], y_HW[rows], air_HW[rows])
    return _developed(rng, grain_rng, density_HW)


@dataclass(frozen=True)
class _Chest:
    """One patient. Lengths and places in halves of a film, densities as parts of the film's range."""

    width: float
    """From the midline to the chest wall, where the rib cage is widest."""
    apex: float
    """y of the tips of the lungs."""
    base_right: float
    base_left: float
    """y of the tops of the two domes of the diaphragm; the right one stands higher, above the liver."""
    dome: float
    """Height of a dome."""
    shoulder: float
    """y where the neck goes over into the shoulders."""
    heart: float
    """Half the transverse diameter of the heart shadow."""
    rib_gap: float
    """From one rib to the next."""
    rib_phase: float
    """Where the first rib stands, in gaps."""
    bone: float
    """Density of bone: age, sex, energy of the beam."""
    clavicle_tilt: float
    """How far the arms are raised."""
    breast: float
    """Density of the breasts over the lower zones; 0 for most."""
    stomach_gas: float
    """Density that is missing below the left dome; 0 for many."""
    fat: float
    """Thickness of the flanks, above the thinnest."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Chest":
        base_right = rng.uniform(0.38, 0.62)
        return cls(
            width=rng.uniform(0.70, 0.82),
            apex=rng.uniform(-0.80, -0.70),
            base_right=base_right,
            base_left=base_right + rng.uniform(0.0, 0.09),
            dome=rng.uniform(0.10, 0.22),
            shoulder=rng.uniform(-0.92, -0.82),
            heart=rng.uniform(0.30, 0.44),
            rib_gap=rng.uniform(0.150, 0.185),
            rib_phase=rng.uniform(0, 1),
            bone=rng.uniform(0.10, 0.19),
            clavicle_tilt=rng.uniform(0.08, 0.30),
            breast=rng.uniform(0.05, 0.13) * (rng.random() < 0.4),
            stomach_gas=rng.uniform(0.1, 0.35) * (rng.random() < 0.6),
            fat=rng.uniform(0.0, 0.12),
        )

    def wall(self, y: npt.ArrayLike) -> np.ndarray:
        """Distance of the chest wall from the midline: narrow at the apex, widest at the base."""
        depth = np.clip((np.asarray(y, np.float32) - self.apex) / (0.55 - self.apex), 1e-3, 1.0)
        return self.width * (0.40 + 0.60 * np.sqrt(1 - np.square(1 - depth)))

    def density(self, x_HW: np.ndarray, y_HW: np.ndarray, air_HW: np.ndarray) -> np.ndarray:
        """What the beam meets at every point, where `air_HW` is missing in the lungs."""
        wall_HW = self.wall(y_HW)
        body = self.soft_tissue(x_HW, y_HW) + self.bones(x_HW, y_HW, wall_HW)
        return body - self.lungs(x_HW, y_HW, wall_HW) * np.maximum(air_HW - self.breasts(x_HW, y_HW), 0.1)

    def lungs(self, x_HW: np.ndarray, y_HW: np.ndarray, wall_HW: np.ndarray) -> np.ndarray:
        """1 in the lungs, 0 elsewhere. They end at the wall, the diaphragm, the mediastinum and behind the heart."""
        across = np.abs(x_HW)
        roof = self.apex + 1.6 * (across - 0.29) ** 2
        base = np.where(x_HW < 0, np.float32(self.base_right), np.float32(self.base_left))
        floor = base + self.dome * ((across - 0.36) / 0.34) ** 2
        mediastinum = 0.125 + 0.04 * _bump(y_HW, -0.75, 0.2) + 0.06 * _bump(y_HW, 0.55, 0.3)
        lung = _edge(wall_HW - across, 0.018) * _edge(across - mediastinum, 0.022)
        lung *= _edge(y_HW - roof, 0.03) * _edge(floor - y_HW, 0.014)
        return lung * (1 - 0.93 * self._heart(x_HW, y_HW))

    def _heart(self, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
        """Two thirds of it lie to the patient's left; above it stands the knob of the aorta."""
        u = x_HW - 0.36 * self.heart + 0.25 * (y_HW - self.base_left)
        v = y_HW - 0.30 * x_HW - self.base_left + 0.14
        heart = np.sqrt((u / self.heart) ** 2 + (v / (0.30 + 0.2 * self.heart)) ** 2)
        knob = np.sqrt(((x_HW - 0.11) / 0.10) ** 2 + ((y_HW + 0.25) / 0.11) ** 2)
        return np.maximum(_edge(1 - heart, 0.05), 0.8 * _edge(1 - knob, 0.15))

    def soft_tissue(self, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
        """The body without lungs and bones; 0 outside of it."""
        across = np.abs(x_HW)
        shoulders = _edge(y_HW - self.shoulder - 0.30 * np.square(np.maximum(across - 0.20, 0)) - 0.10 * across, 0.03)
        neck = _edge(0.25 + 0.4 * np.maximum(y_HW + 0.95, 0) - across, 0.02)
        flanks = _edge(self.width + 0.16 + self.fat + 0.5 * np.maximum(-0.15 - y_HW, 0) - across, 0.02)
        thickness = 0.66 - 0.83 * np.maximum(across - self.width, 0) - 0.10 * across**2
        thickness += 0.10 * _bump(across, 0.0, 0.16) + 0.10 * _edge(y_HW - self.base_left, 0.08)
        thickness -= 0.13 * _bump(x_HW, -0.01, 0.035) * _edge(-0.22 - y_HW, 0.05)  # trachea
        gas_y = self.base_left + 0.3 * self.dome + 0.13
        thickness -= self.stomach_gas * _edge(1 - ((x_HW - 0.40) / 0.15) ** 2 - ((y_HW - gas_y) / 0.07) ** 2, 0.25)
        return np.maximum(shoulders, neck) * flanks * np.maximum(thickness, 0.05)

    def bones(self, x_HW: np.ndarray, y_HW: np.ndarray, wall_HW: np.ndarray) -> np.ndarray:
        across = np.abs(x_HW)
        reach = np.minimum(across / wall_HW, 1.2)  # 0 at the midline, 1 at the chest wall
        drop = np.square(np.square(reach))
        # Ribs run behind from the spine outwards, then steeply down the wall, and in front down to the midline.
        behind = (y_HW + 0.10 * np.sin(2.6 * reach) - 0.30 * drop) / self.rib_gap + self.rib_phase
        front = (y_HW + 0.42 * reach - 0.10 * drop) / (1.15 * self.rib_gap) + 1.7 * self.rib_phase
        ribs = _cortex(behind - np.floor(behind), 0.25) * _edge(across - 0.08, 0.03)
        ribs += 0.55 * _cortex(front - np.floor(front), 0.27) * _edge(reach - 0.52, 0.06) * _edge(y_HW + 0.62, 0.05)
        ribs *= _edge(wall_HW - across + 0.02, 0.015) * _edge(y_HW - self.apex - 0.06, 0.08)
        ribs *= 1 - 0.75 * _edge(y_HW - self.base_right, 0.3)  # hardly seen through the abdomen
        spine = _bump(x_HW, 0.0, 0.062) * (0.75 + 0.25 * np.cos(2 * np.pi * (y_HW / 0.135 + self.rib_phase)))
        clavicle_y = self.apex + 0.30 - self.clavicle_tilt * (across - 0.1) - 0.04 * np.sin(6.5 * (across - 0.1))
        clavicle = _cortex((y_HW - clavicle_y) / 0.12 + 0.5, 0.28)
        clavicle *= _edge(across - 0.085, 0.015) * _edge(0.80 - across, 0.03)
        scapula = self.width + 0.25 * (y_HW + 0.5) - across
        blade = (_edge(scapula, 0.04) - _edge(scapula - 0.03, 0.01)) * _edge(y_HW + 0.62, 0.05) * _edge(-y_HW, 0.05)
        return self.bone * (ribs + 0.9 * spine + 1.1 * clavicle + 0.3 * blade)

    def breasts(self, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
        """Haze over both lower zones, in both classes."""
        radius = np.sqrt(((np.abs(x_HW) - 0.45) / 0.34) ** 2 + ((y_HW - 0.22) / 0.36) ** 2)
        return self.breast * _edge(1 - radius, 0.08) * _edge(y_HW, 0.12)


def _patient_coordinates(rng: np.random.Generator, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel: the patient stands a little rotated and shifted, and no two have the same shape."""
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    turn, scale = rng.normal(0, 0.035), rng.uniform(0.90, 1.06)
    shift_x, shift_y = rng.normal(0, 0.035), rng.normal(0, 0.045)
    cos, sin = np.float32(np.cos(turn) / scale), np.float32(np.sin(turn) / scale)
    x_HW = cos * (axis - shift_x)[None, :] + sin * (axis - shift_y)[:, None]
    y_HW = cos * (axis - shift_y)[:, None] - sin * (axis - shift_x)[None, :]
    return x_HW + 0.020 * _noise(rng, size_px, 3), y_HW + 0.025 * _noise(rng, size_px, 3)


def _vessels(rng: np.random.Generator, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    """Vessels that leave the hila and taper, drawn as lines, and the hila themselves."""
    size_px = x_HW.shape[0]
    middle_x, middle_y = float(x_HW[size_px // 2, size_px // 2]), float(y_HW[size_px // 2, size_px // 2])
    canvas = Image.new("L", (size_px, size_px))
    draw = ImageDraw.Draw(canvas)
    steps = np.linspace(0, 1, 7)
    for side in (-1.0, 1.0):
        for angle in np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.12, 9):
            length, bend = rng.uniform(0.3, 0.62), rng.normal(0, 0.35)
            turning = angle + bend * steps
            x = side * (0.19 + length * steps * np.cos(turning))
            y = 0.02 + length * steps * np.sin(turning)
            pixels = np.stack([x - middle_x + 1, y - middle_y + 1], axis=1) * (size_px - 1) / 2
            for step in range(6):
                gray, width = int(150 * (1 - steps[step]) ** 0.8) + 20, round(size_px / 60 * (1 - steps[step])) + 1
                draw.line([tuple(pixels[step]), tuple(pixels[step + 1])], fill=gray, width=width)
    tree = np.asarray(canvas.resize((size_px // 2, size_px // 2), Image.Resampling.BOX).resize(canvas.size), np.float32)
    hila = _bump(np.abs(x_HW), 0.20, 0.07) * _bump(y_HW, 0.02, 0.13)
    return tree * np.float32(rng.uniform(0.10, 0.22) / 170) + rng.uniform(0.08, 0.20) * hila


def _ground_glass(rng: np.random.Generator, chest: _Chest, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    """Soft irregular patches of both lungs, most of them low and near the chest wall."""
    size_px = x_HW.shape[0]
    ragged_x = x_HW + 0.045 * _noise(rng, size_px, 9)
    ragged_y = y_HW + 0.045 * _noise(rng, size_px, 9)
    patches_HW = np.zeros_like(x_HW)
    severity = rng.uniform(0.20, 0.44)
    for side in (-1.0, 1.0):
        base = chest.base_right if side < 0 else chest.base_left
        for _ in range(rng.integers(2, 5)):
            y = base - rng.uniform(0.02, 0.55)
            x = side * float(chest.wall(y)) * rng.uniform(0.62, 0.95)
            wide, high = rng.uniform(0.10, 0.24), rng.uniform(0.10, 0.26)
            radius = ((ragged_x - x) / wide) ** 2 + ((ragged_y - y) / high) ** 2
            patches_HW = np.maximum(patches_HW, rng.uniform(0.6, 1.0) * np.exp(-radius * np.sqrt(radius)))
    texture = 0.85 + 0.22 * _noise(rng, size_px, 40) + 0.12 * _noise(rng, size_px, 16)
    return severity * patches_HW * texture


def _developed(rng: np.random.Generator, grain_rng: np.random.Generator, density_HW: np.ndarray) -> np.ndarray:
    """Densities to gray values: scatter, exposure, contrast, grain, collimator, side marker."""
    size_px = density_HW.shape[0]
    contrast, exposure = rng.uniform(3.4, 5.4), rng.normal(0.40, 0.055)
    density_HW = density_HW + 0.04 * _noise(rng, size_px, 2) + rng.uniform(0, 0.05)
    grain = grain_rng.standard_normal((size_px, size_px), dtype=np.float32)
    grain = grain + np.roll(grain, 1, axis=0) + np.roll(grain, 1, axis=1)  # grains are larger than pixels
    light_HW = 1 / (1 + np.exp(-contrast * (density_HW - exposure)))
    light_HW -= 1 / (1 + np.exp(contrast * exposure))  # air is black
    light_HW *= rng.uniform(0.95, 1.2)
    light_HW += rng.uniform(0.003, 0.011) * grain
    _put_marker(rng, light_HW)
    margin = (rng.uniform(0, 1 / 28, 4) * size_px * (rng.random() < 0.35)).astype(int)
    for edge, width in enumerate(margin):
        np.rot90(light_HW, edge)[:width] = 0.02
    return (np.clip(light_HW, 0, 1) * 255).round().astype(np.uint8)


def _put_marker(rng: np.random.Generator, light_HW: np.ndarray) -> None:
    """An L of lead at the patient's left, on most films of both classes."""
    size_px = light_HW.shape[0]
    top, left = (np.array([rng.uniform(0.04, 0.16), rng.uniform(0.86, 0.92)]) * size_px).astype(int)
    height, stroke = round(rng.uniform(0.045, 0.065) * size_px), max(size_px // 90, 1)
    bright = rng.uniform(0.75, 1.0)
    if rng.random() < 0.8:
        light_HW[top : top + height, left : left + stroke] = bright
        light_HW[top + height - stroke : top + height, left : left + round(0.6 * height)] = bright


def _noise(rng: np.random.Generator, size_px: int, cells: int) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1, with about `cells` bumps to a side."""
    coarse = 1.23 * rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)  # smoothing takes 1 - 1 / 1.23
    inner = (1, 1, cells + 1, cells + 1)
    return np.asarray(Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC, inner))


def _edge(inside: np.ndarray, softness: float) -> np.ndarray:
    """0 outside, 1 inside, one half on the line where `inside` is 0."""
    ramp = inside * (0.25 / softness)
    ramp += 0.5
    np.clip(ramp, 0, 1, out=ramp)
    return np.square(ramp) * (3 - 2 * ramp)


def _bump(value: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * np.square((value - centre) / width))


def _cortex(position: np.ndarray, half_width: float) -> np.ndarray:
    """A bone seen from its side, in the middle of the positions 0 to 1: its rims are denser than its marrow."""
    offset = np.abs(position - 0.5)
    return _edge(half_width - offset, 0.05) * (0.65 + 0.6 * _bump(offset, half_width - 0.06, 0.05))
