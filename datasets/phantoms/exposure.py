"""From what the beam meets to the gray values of a film: scatter, exposure, characteristic curve, grain, collimation.

Nothing here looks at the film as a whole: a finding changes gray values where it is and nowhere else.
"""

from dataclasses import dataclass

import numpy as np

from datasets.phantoms.marks import lettering
from datasets.phantoms.texture import noise

DENSEST, LEVELS = 3.0, 4096
"""The characteristic curve is a table: raising every pixel to a power would take a fifth of the time."""


@dataclass(frozen=True)
class Exposure:
    """How one film was taken and developed."""

    flesh: float
    """Gray per reference thickness of soft tissue, before the curve."""
    bone: float
    contrast: float
    gamma: float
    bright: float
    fog: float
    """Gray of the empty part of the film: scatter, poor collimation."""
    grain: float
    sharpened: float
    """Strength of the edge enhancement of digital films; 0 for analogue ones."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Exposure":
        return cls(
            flesh=rng.uniform(0.26, 0.48),
            bone=rng.uniform(0.60, 0.88),
            contrast=rng.uniform(0.8, 1.7),
            gamma=rng.uniform(0.85, 1.35),
            bright=rng.uniform(0.86, 1.06),
            fog=rng.uniform(0.0, 0.10) * (rng.random() < 0.7),
            grain=rng.uniform(0.006, 0.020),
            sharpened=rng.uniform(0.3, 1.0) * (rng.random() < 0.5),
        )

    def curve(self) -> np.ndarray:
        """The characteristic curve: gray from 0 to about 1 for densities from 0 to DENSEST, float32 (LEVELS,)."""
        density = np.linspace(0, DENSEST, LEVELS)
        light = (1 - np.exp(-self.contrast * density)) / (1 - np.exp(-self.contrast * 1.45))
        light = light**self.gamma * self.bright
        light = np.where(light > 0.75, 1 - 0.25 * np.exp(-(light - 0.75) / 0.25), light)  # no bone is quite white
        return (light * (1 - self.fog)).astype(np.float32)


def warped_grid(rng: np.random.Generator, size_px: int, strength: float) -> np.ndarray:
    """x and y of every pixel's middle, float32 (2, size_px, size_px), a little warped: no bone is a straight tube."""
    axis = ((np.arange(size_px, dtype=np.float32) + 0.5) * (2 / size_px) - 1).astype(np.float32)
    bent_HW = np.float32(strength) * noise(rng, size_px, 4)
    return np.stack([axis[None, :] + bent_HW, axis[:, None] + bent_HW.T])


def softened(image_HW: np.ndarray) -> np.ndarray:
    """The focal spot has a size: blurred with weights 1 2 1 both ways."""
    padded = np.pad(image_HW, 1, mode="edge")
    rows = padded[:-1] + padded[1:]
    rows = rows[:-1] + rows[1:]
    columns = rows[:, :-1] + rows[:, 1:]
    return np.float32(1 / 16) * (columns[:, :-1] + columns[:, 1:])


def developed(
    rng: np.random.Generator,
    grain_rng: np.random.Generator,
    flesh_HW: np.ndarray,
    bone_HW: np.ndarray,
    metal_HW: np.ndarray,
    side: str,
) -> np.ndarray:
    """Densities to gray values, uint8 (size_px, size_px).

    `flesh_HW` and `bone_HW` are in parts of the thickest place of a usual limb; metal lets nothing through. `side` is
    the lead letter on the film; what is drawn is a right limb, which is mirrored for "L".
    """
    size_px = flesh_HW.shape[0]
    film = Exposure.drawn(rng)
    texture_HW = noise(rng, size_px, 44)
    mottle_HW = noise(rng, size_px, 9)
    bone_HW = bone_HW * (np.float32(film.bone) * (1 + 0.07 * texture_HW))
    density_HW = np.float32(film.flesh) * flesh_HW * (1 + 0.035 * mottle_HW) + bone_HW
    density_HW += np.minimum(metal_HW, np.float32(1.6))
    density_HW = softened(density_HW if side == "R" else density_HW[:, ::-1])
    if film.sharpened:
        density_HW += np.float32(film.sharpened) * (density_HW - softened(softened(density_HW)))
    light_HW = film.curve().take((density_HW * np.float32(LEVELS / DENSEST)).astype(np.intp), mode="clip")
    if film.fog:
        light_HW += np.float32(film.fog) * (1 + 0.25 * noise(rng, size_px, 2))
    put_marker(rng, light_HW, side)
    grain = grain_rng.standard_normal((size_px, size_px), dtype=np.float32)
    grain = grain + np.roll(grain, 1, axis=0)  # grains are larger than pixels
    light_HW += np.float32(film.grain) * grain
    collimate(rng, light_HW)
    return (np.clip(light_HW, 0, 1) * 255).round().astype(np.uint8)


def put_marker(rng: np.random.Generator, light_HW: np.ndarray, side: str) -> None:
    """A letter of lead beside the limb, on most films."""
    size_px = light_HW.shape[0]
    there, bright = rng.random() < 0.6, rng.uniform(0.8, 1.0)
    across, down = rng.choice([rng.uniform(0.08, 0.2), rng.uniform(0.8, 0.92)]), rng.uniform(0.1, 0.9)
    ink = lettering(side, round(size_px * rng.uniform(0.05, 0.085)))
    if there:
        top, left = (int(middle * size_px - half) for middle, half in ((down, len(ink) / 2), (across, len(ink[0]) / 2)))
        place = light_HW[max(top, 0) : top + len(ink), max(left, 0) : left + len(ink[0])]
        place += ink[: place.shape[0], : place.shape[1]] * (bright - place)


def collimate(rng: np.random.Generator, light_HW: np.ndarray) -> None:
    """Lead leaves keep the beam from the margins of some films, a little askew."""
    size_px = light_HW.shape[0]
    closed = rng.random(4) < 0.30
    margin, askew = rng.uniform(0.01, 0.09, 4), rng.normal(0, 0.012)
    value = rng.uniform(0.0, 0.05)
    ramp = np.linspace(-askew, askew, size_px, dtype=np.float32)
    axis = np.linspace(0, 1, size_px, dtype=np.float32)
    for leaf in np.flatnonzero(closed).tolist():
        deep = min(int((margin[leaf] + abs(askew)) * size_px) + 2, size_px)
        strip = np.rot90(light_HW, leaf)[:deep]
        light = np.clip((axis[:deep, None] - margin[leaf] - ramp[None, :]) * size_px + 0.5, 0, 1)
        strip -= (1 - light) * (strip - value)
