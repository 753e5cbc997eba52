"""Automobiles and trucks: phantoms of CIFAR-10.

Coordinates and colours: `scene.py`.
"""

import numpy as np

from datasets.phantoms.scene import DARK, FORESTS, GRASSES, PAINTS, ROADS, SKIES, WALLS, Colour, Scene

_GLASS = ((70, 85, 100), (110, 130, 145), (45, 50, 58), (160, 175, 185))


def _street(scene: Scene) -> None:
    scene.backdrop(
        scene.colour(*SKIES, *FORESTS, *WALLS),
        scene.colour(*ROADS, *GRASSES[:2]),
        scene.vary(-0.1, 0.45),
        0.05,
        scene.vary(0.02, 0.2),
    )


def automobile(scene: Scene) -> float:
    _street(scene)
    paint = scene.colour(*PAINTS)
    glass = scene.colour(*_GLASS)
    vary = scene.vary
    scene.posed(vary(0.86, 1.0), vary(-0.04, 0.04), vary(0.0, 0.22), vary(-0.06, 0.06))
    if scene.chance(0.35):
        _front(scene, paint, glass, vary(0.62, 0.78), vary(-0.42, -0.3))
        return 0.02
    roof, bonnet = vary(-0.42, -0.28), vary(-0.12, -0.02)
    front, back = vary(-0.55, -0.42), vary(0.55, 0.8)
    scene.blob(0.02, 0.42, 0.98, 0.09, DARK, 0.8)
    cabin = [(front, bonnet + 0.03), (front + 0.3, roof), (back - 0.42, roof - 0.02), (back, bonnet + 0.02)]
    scene.shape([cabin[0], *cabin, cabin[-1]], paint, 0.92)
    scene.shape(
        [
            (-0.97, 0.12),
            (-0.92, bonnet + 0.08),
            (front, bonnet),
            (back, bonnet),
            (0.93, bonnet + 0.03),
            (0.98, 0.14),
            (0.95, 0.34),
            (0.95, 0.34),
            (-0.94, 0.35),
            (-0.94, 0.35),
        ],
        paint,
    )
    middle = 0.5 * (front + back) - 0.04
    scene.shape(
        [(front + 0.13, bonnet), (front + 0.33, roof + 0.06), (middle - 0.03, roof + 0.05), (middle - 0.03, bonnet)],
        glass,
        smooth=False,
    )
    scene.shape(
        [(middle + 0.03, bonnet), (middle + 0.03, roof + 0.05), (back - 0.42, roof + 0.05), (back - 0.14, bonnet)],
        glass,
        smooth=False,
    )
    scene.line([(-0.94, 0.24), (0.95, 0.23)], paint, 0.05, 0.7)
    scene.blob(-0.91, 0.1, 0.07, 0.05, np.array([240.0, 235, 200]))
    scene.blob(0.93, 0.09, 0.05, 0.06, np.array([170.0, 30, 30]))
    _wheels(scene, (-0.58, 0.56), 0.34, vary(0.17, 0.21))
    return 0.02


def _wheels(scene: Scene, places: tuple[float, ...], y: float, radius: float) -> None:
    rim = scene.colour((165, 168, 172), (90, 92, 95))
    for x in places:
        scene.blob(x, y, radius, radius, DARK)
        scene.blob(x, y, 0.55 * radius, 0.55 * radius, rim)


def _front(scene: Scene, paint: Colour, glass: Colour, half: float, roof: float) -> None:
    """A car from its front."""
    scene.blob(0, 0.56, half + 0.1, 0.08, DARK, 0.8)
    for x in (-half + 0.13, half - 0.13):
        scene.shape([(x - 0.11, 0.3), (x + 0.11, 0.3), (x + 0.11, 0.6), (x - 0.11, 0.6)], DARK, smooth=False)
    top = half * 0.72
    scene.shape([(-top, roof), (top, roof), (half - 0.03, 0.02), (0.03 - half, 0.02)], paint, 0.9, smooth=False)
    scene.shape(
        [(-top + 0.07, roof + 0.07), (top - 0.07, roof + 0.07), (half - 0.12, 0.0), (0.12 - half, 0.0)],
        glass,
        smooth=False,
    )
    scene.shape(
        [
            (-half, 0.1),
            (-half + 0.08, -0.02),
            (half - 0.08, -0.02),
            (half, 0.1),
            (half, 0.45),
            (half - 0.05, 0.5),
            (-half + 0.05, 0.5),
            (-half, 0.45),
        ],
        paint,
    )
    scene.shape([(-0.3, 0.16), (0.3, 0.16), (0.27, 0.29), (-0.27, 0.29)], DARK, smooth=False)
    for x in (-half + 0.16, half - 0.16):
        scene.blob(x, 0.2, 0.11, 0.07, np.array([240.0, 238, 220]))
    scene.line([(-half + 0.03, 0.4), (half - 0.03, 0.4)], paint, 0.07, 0.6)
    scene.shape([(-0.13, 0.35), (0.13, 0.35), (0.13, 0.42), (-0.13, 0.42)], np.array([230.0, 230, 220]), smooth=False)


def truck(scene: Scene) -> float:
    _street(scene)
    vary = scene.vary
    paint, glass = scene.colour(*PAINTS), scene.colour(*_GLASS)
    load = scene.colour((235, 235, 232), (200, 200, 200), *PAINTS)
    scene.posed(vary(0.86, 1.0), vary(-0.04, 0.04), vary(-0.02, 0.14), vary(-0.05, 0.05))
    if scene.chance(0.3):
        _lorry_front(scene, paint, glass)
        return 0.02
    scene.blob(0.0, 0.66, 0.98, 0.08, DARK, 0.8)
    high, cab = vary(-0.72, -0.4), vary(-0.5, -0.42)
    scene.shape([(-0.93, 0.42), (0.95, 0.42), (0.95, 0.54), (-0.93, 0.54)], DARK, smooth=False)
    what = scene.rng.integers(3)
    if what == 0:  # a box
        scene.shape([(cab + 0.06, high), (0.97, high), (0.97, 0.44), (cab + 0.06, 0.44)], load, smooth=False)
        scene.line([(cab + 0.08, 0.36), (0.96, 0.36)], load, 0.06, 0.65)
    elif what == 1:  # a tank
        scene.shape(
            [(cab + 0.08, 0), (cab + 0.16, -0.3), (0.86, -0.3), (0.97, 0), (0.86, 0.36), (cab + 0.16, 0.36)], load
        )
        scene.line([(cab + 0.16, -0.12), (0.9, -0.12)], load, 0.07, 1.3)
    else:  # a skip
        scene.shape(
            [(cab + 0.08, -0.12 + 0.2 * high), (0.98, -0.2 + 0.1 * high), (0.86, 0.4), (cab + 0.16, 0.4)],
            load,
            smooth=False,
        )
        for x in np.linspace(cab + 0.3, 0.8, 4):
            scene.line([(x, -0.2), (x, 0.38)], load, 0.04, 0.6)
    roof = vary(-0.42, -0.25)
    nose = scene.chance(0.4)
    if nose:
        scene.shape(
            [
                (-0.97, 0.5),
                (-0.97, 0.12),
                (-0.78, 0.02),
                (cab - 0.14, roof + 0.3),
                (cab - 0.1, roof),
                (cab + 0.06, roof),
                (cab + 0.06, 0.5),
            ],
            paint,
            smooth=False,
        )
        scene.shape(
            [(cab - 0.13, roof + 0.32), (cab - 0.08, roof + 0.08), (cab, roof + 0.08), (cab, roof + 0.32)],
            glass,
            smooth=False,
        )
    else:
        scene.shape(
            [(-0.96, 0.5), (-0.97, 0.1), (-0.86, roof), (cab + 0.04, roof), (cab + 0.04, 0.5)], paint, smooth=False
        )
        scene.shape([(-0.92, 0.08), (-0.84, roof + 0.08), (-0.62, roof + 0.08), (-0.62, 0.08)], glass, smooth=False)
    scene.blob(-0.93, 0.3, 0.05, 0.06, np.array([240.0, 235, 200]))
    _wheels(scene, (-0.68, 0.48, 0.8) if scene.chance(0.6) else (-0.68, 0.62), 0.54, vary(0.15, 0.19))
    return 0.02


def _lorry_front(scene: Scene, paint: Colour, glass: Colour) -> None:
    """A lorry from its front: tall, with mirrors and a large grille."""
    half, roof = scene.vary(0.48, 0.62), scene.vary(-0.88, -0.7)
    scene.blob(0, 0.78, half + 0.1, 0.08, DARK, 0.8)
    for x in (-half + 0.12, half - 0.12):
        scene.shape([(x - 0.12, 0.5), (x + 0.12, 0.5), (x + 0.12, 0.82), (x - 0.12, 0.82)], DARK, smooth=False)
    scene.shape([(-half + 0.03, roof), (half - 0.03, roof), (half, 0.62), (-half, 0.62)], paint, smooth=False)
    scene.shape(
        [(-half + 0.09, roof + 0.22), (half - 0.09, roof + 0.22), (half - 0.05, -0.1), (-half + 0.05, -0.1)],
        glass,
        smooth=False,
    )
    scene.shape([(-0.3, 0.02), (0.3, 0.02), (0.3, 0.4), (-0.3, 0.4)], DARK, 1.6, smooth=False)
    scene.line([(-half, 0.56), (half, 0.56)], np.array([190.0, 190, 190]), 0.1)
    for side in (-1, 1):
        scene.blob(side * (half - 0.12), 0.4, 0.09, 0.07, np.array([240.0, 238, 215]))
        scene.line([(side * (half + 0.08), -0.45), (side * (half + 0.08), -0.1)], DARK, 0.1)
