"""Benign and malignant glands of the colon, each field a description that `datasets/phantoms/gland.py` draws.

Benign: round or oval crypts side by side, each with one row of nuclei at its base, goblet cells and one lumen in the
middle. Malignant: crowded glands of no particular shape that grow into one another, slit-like or many small round
(cribriform) lumens, large uneven nuclei in several rows, hardly any mucin, dead cells in the lumens.

Lengths in micrometres, x to the right and y downwards from the centre of the field.
"""

from dataclasses import dataclass

import numpy as np

FIELD_UM = 440.0
"""Width of a picture at magnification 1."""


@dataclass(frozen=True)
class Tissue:
    """Where the glands of a field are and what their cells are like. Ellipses: x, y, long and wide half axis, angle."""

    glands_N5: np.ndarray
    lumens_N5: np.ndarray
    wander_um: float
    """How far outlines are off an ellipse."""
    melt_um: float
    """How far apart glands grow into one another."""
    wall_um: float
    """Where the epithelium would be thicker than this, a lumen opens."""
    rows_um: float
    """Depth of the epithelium that nuclei lie in, from its base."""
    ring: float
    """1: nuclei stand in one row at the base; 0: anywhere."""
    nucleus_um: float
    """Half the length of a nucleus."""
    nucleus_spread: float
    """Of the logarithm of its size."""
    goblets: float
    """Part of the epithelium's cells that are full of mucin."""
    cytoplasm: tuple[float, float]
    """Densities of haematoxylin and eosin."""
    debris: float
    """Dead cells in the lumens."""


def _lattice(rng: np.random.Generator, pitch_um: float, jitter: float, stretch: float, turn: float) -> np.ndarray:
    """Places (N, 2) about `pitch_um` apart all over a field, in rows that lie one in the gaps of the other."""
    count = int(np.ceil(0.75 * FIELD_UM / pitch_um)) + 1
    column, row = np.meshgrid(np.arange(-count, count + 1), np.arange(-count, count + 1))
    places = np.stack([(column + 0.5 * (row % 2)) * stretch, row * 0.87], axis=2).reshape(-1, 2).astype(float)
    places += rng.uniform(-0.5, 0.5, 2) + jitter * rng.normal(0, 1, places.shape)
    cos, sin = np.cos(turn), np.sin(turn)
    places = pitch_um * places @ np.array([[cos, sin], [-sin, cos]])
    return places[np.abs(places).max(axis=1) < 0.5 * FIELD_UM + pitch_um * stretch]


def benign(rng: np.random.Generator) -> Tissue:
    pitch, turn = rng.uniform(88, 135), rng.uniform(0, np.pi)
    stretch = 1 + rng.exponential(0.28) * (rng.random() < 0.7)  # how obliquely the crypts are cut
    places_N2 = _lattice(rng, pitch, 0.07, min(stretch, 2.4), turn)
    places_N2 = places_N2[rng.random(len(places_N2)) < rng.uniform(0.72, 1.0)]
    number = len(places_N2)
    wide = pitch * rng.uniform(0.36, 0.42) * np.clip(rng.normal(1, 0.13, number), 0.65, 1.2)
    long = wide * (min(stretch, 2.4) * 1.1 - 0.1) * rng.uniform(0.95, 1.15, number)
    angle = turn + rng.normal(0, 0.15, number)
    hollow = rng.uniform(0.22, 0.48) * rng.uniform(0.7, 1.25, number)
    glands_N5 = np.column_stack([places_N2, long, wide, angle])
    lumens_N5 = np.column_stack(
        [places_N2 + rng.normal(0, 2, (number, 2)), long - wide * (1 - hollow), wide * hollow, angle]
    )
    return Tissue(
        glands_N5,
        lumens_N5,
        wander_um=rng.uniform(2.5, 5),
        melt_um=1.0,
        wall_um=99.0,
        rows_um=rng.uniform(8, 11),
        ring=1.0,
        nucleus_um=rng.uniform(3.8, 4.8),
        nucleus_spread=0.12,
        goblets=rng.uniform(0.15, 0.95),
        cytoplasm=(rng.uniform(0.14, 0.28), rng.uniform(0.22, 0.42)),
        debris=rng.uniform(0, 0.15),
    )


def malignant(rng: np.random.Generator) -> Tissue:
    pitch, turn = rng.uniform(120, 190), rng.uniform(0, np.pi)
    sites_N2 = _lattice(rng, pitch, 0.16, rng.uniform(1.0, 1.3), turn)
    sites_N2 = sites_N2[rng.random(len(sites_N2)) < rng.uniform(0.75, 1.0)]
    parts = rng.integers(1, 5, len(sites_N2))
    places_N2 = np.repeat(sites_N2, parts, axis=0)
    number = len(places_N2)
    spread = np.repeat(0.17 * (parts > 1), parts)[:, None]
    places_N2 = places_N2 + pitch * spread * rng.normal(0, 1, (number, 2))
    wide = pitch * rng.uniform(0.18, 0.37, number)
    long = wide * rng.uniform(1.0, 2.0, number)
    angle = rng.uniform(0, np.pi, number)
    cribriform = rng.random() < 0.45
    holes = rng.poisson(rng.uniform(2.0, 4.0) if cribriform else 0.7, number)
    hollow = np.repeat(wide, holes) * (rng.uniform(0.12, 0.28) if cribriform else rng.uniform(0.2, 0.45))
    hollow *= np.exp(rng.normal(0, 0.3, len(hollow)))
    away = np.repeat(wide, holes) * (
        rng.uniform(0, 0.6, len(hollow)) if cribriform else rng.uniform(0, 0.2, len(hollow))
    )
    side = rng.uniform(0, 2 * np.pi, len(hollow))
    slit = rng.uniform(1.0, 1.6, len(hollow)) if cribriform else rng.uniform(1.2, 3.2, len(hollow))
    where_N2 = np.repeat(places_N2, holes, axis=0) + away[:, None] * np.stack([np.cos(side), np.sin(side)], axis=1)
    return Tissue(
        np.column_stack([places_N2, long, wide, angle]),
        np.column_stack([where_N2, hollow * np.sqrt(slit), hollow / np.sqrt(slit), np.repeat(angle, holes)]),
        wander_um=rng.uniform(8, 14),
        melt_um=10.0,
        wall_um=99.0 if cribriform else rng.uniform(24, 36),
        rows_um=rng.uniform(13, 26),
        ring=rng.uniform(0.0, 0.5),
        nucleus_um=rng.uniform(4.2, 5.6),
        nucleus_spread=0.26,
        goblets=rng.uniform(0.0, 0.12),
        cytoplasm=(rng.uniform(0.22, 0.42), rng.uniform(0.28, 0.48)),
        debris=rng.uniform(0, 0.8),
    )
