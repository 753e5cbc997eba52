"""The eight kinds of blood cells, each a description that `datasets/phantoms/cell.py` draws.

The morphology is that of the haematology textbook; every measure is drawn anew for every cell. Lengths in micrometres,
x to the right and y downwards from the centre of the cell; densities of the dyes, about 1 in a nucleus.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

PURPLE, BLUE, EOSIN = range(3)
"""The dyes: of nuclei, of basophilic cytoplasm, of haemoglobin."""


@dataclass(frozen=True)
class Granules:
    number: int
    radius_um: float
    dye: int
    density: float
    spread: float = 0.15
    """Of the logarithm of the radius."""
    over_nucleus: float = 0.0
    """Part of the granules' density that is seen in front of the nucleus."""


@dataclass(frozen=True)
class Cell:
    """What belongs to a kind. Densities are those of the dyes."""

    radius_um: float
    cytoplasm: tuple[float, float, float]
    """Densities of purple, blue and eosin."""
    lobes_N5: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))
    """Of the nucleus: x, y, long and wide half axis, angle."""
    strand_um: float = 0.0
    """Half the width of the strands from lobe to lobe."""
    dent: tuple[float, float, float] | None = None
    """A circle that is cut out of the nucleus: x, y, radius."""
    nucleus: float = 1.0
    clumps: float = 0.2
    """Contrast of the chromatin."""
    clump_um: float = 0.9
    ragged_um: float = 0.15
    """How far the outlines wander."""
    elongation: float = 1.0
    granules: tuple[Granules, ...] = ()
    vacuoles: int = 0
    pallor: float = 0.0
    """How much paler the cytoplasm is beside the nucleus (the Golgi zone)."""


def _neutrophil(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(5.8, 6.9)
    lobes = int(rng.choice([3, 3, 4, 4, 5]))
    bend = rng.uniform(1.15, 1.45) * (3 / lobes) ** 0.35  # from one lobe to the next
    angle = rng.uniform(0, 2 * np.pi) + bend * np.arange(lobes) + rng.normal(0, 0.12, lobes)
    reach = radius * rng.uniform(0.42, 0.50) * (1 + rng.normal(0, 0.14, lobes))
    long = rng.uniform(1.75, 2.3, lobes) * (3.6 / lobes) ** 0.35
    lobes_N5 = np.stack(
        [reach * np.cos(angle), reach * np.sin(angle), long, long * rng.uniform(0.62, 0.85, lobes), angle + np.pi / 2],
        1,
    )
    lobes_N5[:, 4] += rng.normal(0, 0.5, lobes)
    dust = Granules(int(rng.integers(120, 220)), 0.16, PURPLE, rng.uniform(0.16, 0.30))
    return Cell(
        radius,
        (rng.uniform(0.04, 0.09), rng.uniform(0.0, 0.04), rng.uniform(0.13, 0.22)),
        lobes_N5,
        strand_um=rng.uniform(0.22, 0.45),
        nucleus=rng.uniform(0.98, 1.15),
        clumps=rng.uniform(0.16, 0.26),
        granules=(dust,),
    )


def _eosinophil(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(6.0, 7.2)
    lobes = 3 if rng.random() < 0.15 else 2
    angle = rng.uniform(0, 2 * np.pi) + (2.1 if lobes == 2 else 1.6) * (np.arange(lobes) + rng.normal(0, 0.08, lobes))
    reach = radius * rng.uniform(0.44, 0.52)
    long = rng.uniform(2.3, 2.9, lobes) * (1.0 if lobes == 2 else 0.82)
    lobes_N5 = np.stack(
        [reach * np.cos(angle), reach * np.sin(angle), long, long * rng.uniform(0.66, 0.82, lobes), angle + np.pi / 2],
        1,
    )
    grains = Granules(
        int(rng.integers(190, 260)), rng.uniform(0.36, 0.44), EOSIN, rng.uniform(0.62, 0.88), over_nucleus=0.25
    )
    return Cell(
        radius,
        (rng.uniform(0.03, 0.07), rng.uniform(0.02, 0.08), rng.uniform(0.22, 0.34)),
        lobes_N5,
        strand_um=rng.uniform(0.25, 0.5),
        nucleus=rng.uniform(0.92, 1.08),
        clumps=rng.uniform(0.14, 0.24),
        granules=(grains,),
    )


def _basophil(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(5.2, 6.4)
    lobes = int(rng.integers(2, 4))
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi / lobes * np.arange(lobes) + rng.normal(0, 0.3, lobes)
    reach = radius * rng.uniform(0.28, 0.36)
    long = rng.uniform(2.3, 2.9, lobes)
    lobes_N5 = np.stack(
        [reach * np.cos(angle), reach * np.sin(angle), long, long * rng.uniform(0.7, 0.9, lobes), angle + np.pi / 2], 1
    )
    grains = Granules(
        int(rng.integers(50, 105)),
        rng.uniform(0.36, 0.50),
        PURPLE,
        rng.uniform(1.3, 1.7),
        spread=0.32,
        over_nucleus=1.0,
    )
    return Cell(
        radius,
        (rng.uniform(0.12, 0.24), rng.uniform(0.04, 0.14), rng.uniform(0.08, 0.16)),
        lobes_N5,
        strand_um=rng.uniform(0.8, 1.4),
        nucleus=rng.uniform(0.68, 0.85),
        clumps=rng.uniform(0.10, 0.18),
        ragged_um=0.22,
        granules=(grains,),
    )


def _lymphocyte(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(4.2, 5.6)
    core = radius * rng.uniform(0.80, 0.90)
    turn = rng.uniform(0, 2 * np.pi)
    off = (radius - core) * rng.uniform(0.2, 0.85)
    lobes_N5 = np.array(
        [[off * np.cos(turn), off * np.sin(turn), core * rng.uniform(1.0, 1.05), core * rng.uniform(0.92, 1.0), turn]]
    )
    notch = turn + np.pi + rng.normal(0, 0.5)
    depth = core * rng.uniform(1.05, 1.2)
    dent = (depth * np.cos(notch) + lobes_N5[0, 0], depth * np.sin(notch) + lobes_N5[0, 1], core * 0.2)
    return Cell(
        radius,
        (0.02, rng.uniform(0.26, 0.44), rng.uniform(0.0, 0.05)),
        lobes_N5,
        dent=dent if rng.random() < 0.3 else None,
        nucleus=rng.uniform(1.0, 1.18),
        clumps=rng.uniform(0.18, 0.28),
        clump_um=1.5,
        ragged_um=0.12,
        elongation=rng.uniform(1.0, 1.08),
    )


def _monocyte(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(7.0, 8.3)
    turn = rng.uniform(0, 2 * np.pi)
    long, wide = radius * rng.uniform(0.62, 0.74), radius * rng.uniform(0.46, 0.56)
    off = radius * rng.uniform(0.05, 0.18)
    x, y = off * np.sin(turn), -off * np.cos(turn)
    cut = wide * rng.uniform(0.95, 1.25)  # the hilum of the kidney
    dent = (x - cut * np.sin(turn), y + cut * np.cos(turn), wide * rng.uniform(0.48, 0.70))
    return Cell(
        radius,
        (rng.uniform(0.10, 0.16), rng.uniform(0.18, 0.30), rng.uniform(0.04, 0.10)),
        np.array([[x, y, long, wide, turn]]),
        dent=dent,
        nucleus=rng.uniform(0.74, 0.90),
        clumps=rng.uniform(0.16, 0.24),
        clump_um=0.8,
        ragged_um=0.42,
        elongation=rng.uniform(1.0, 1.14),
        granules=(Granules(int(rng.integers(60, 140)), 0.15, PURPLE, rng.uniform(0.32, 0.46)),),
        vacuoles=int(rng.integers(3, 11)),
    )


def _erythroblast(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(4.0, 5.3)
    core = radius * rng.uniform(0.50, 0.66)
    turn = rng.uniform(0, 2 * np.pi)
    off = (radius - core) * rng.uniform(0.0, 0.5)
    ripe = rng.uniform(0, 1)  # from basophilic to haemoglobin
    return Cell(
        radius,
        (rng.uniform(0.05, 0.12), 0.34 - 0.22 * ripe, 0.10 + 0.16 * ripe),
        np.array([[off * np.cos(turn), off * np.sin(turn), core * rng.uniform(1.0, 1.06), core, turn]]),
        nucleus=rng.uniform(1.35, 1.65),
        clumps=rng.uniform(0.14, 0.26),
        clump_um=1.3,
        ragged_um=0.12,
        elongation=rng.uniform(1.0, 1.12),
    )


def _immature_granulocyte(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(6.6, 8.2)
    turn = rng.uniform(0, 2 * np.pi)
    age = rng.uniform(0, 1)  # from promyelocyte over myelocyte to metamyelocyte
    long = radius * (0.74 - 0.12 * age)
    wide = long * rng.uniform(0.74, 0.90)
    off = (radius - wide) * rng.uniform(0.55, 0.85)
    x, y = off * np.sin(turn), -off * np.cos(turn)
    cut = wide * (1.62 - 0.50 * age)
    grains = Granules(
        int(rng.integers(90, 190)),
        rng.uniform(0.19, 0.27),
        PURPLE,
        rng.uniform(0.50, 0.85),
        over_nucleus=0.55 * (1 - age),
    )
    return Cell(
        radius,
        (rng.uniform(0.08, 0.14), 0.30 - 0.24 * age, 0.05 + 0.12 * age),
        np.array([[x, y, long, wide, turn]]),
        dent=(x - cut * np.sin(turn), y + cut * np.cos(turn), 0.5 * wide),
        nucleus=rng.uniform(0.80, 0.98),
        clumps=rng.uniform(0.08, 0.16),
        clump_um=0.6,
        ragged_um=0.2,
        elongation=rng.uniform(1.0, 1.12),
        granules=(grains,),
        pallor=rng.uniform(0.3, 0.7),
    )


def _platelet(rng: np.random.Generator) -> Cell:
    radius = rng.uniform(1.2, 2.1)
    grains = Granules(int(rng.integers(14, 34)), rng.uniform(0.22, 0.32), PURPLE, rng.uniform(0.5, 0.85))
    return Cell(
        radius,
        (rng.uniform(0.14, 0.26), rng.uniform(0.10, 0.22), rng.uniform(0.02, 0.08)),
        ragged_um=0.32,
        elongation=rng.uniform(1.0, 1.45),
        granules=(grains,),
    )


KINDS: dict[str, Callable[[np.random.Generator], Cell]] = {
    "basophil": _basophil,
    "eosinophil": _eosinophil,
    "erythroblast": _erythroblast,
    "immature granulocyte": _immature_granulocyte,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "neutrophil": _neutrophil,
    "platelet": _platelet,
}
"""The classes, in the order of their labels 0 to 7 in BloodMNIST."""
