"""Airplanes and ships: phantoms of CIFAR-10.

Coordinates and colours: `scene.py`.
"""

import numpy as np

from datasets.phantoms.scene import DARK, GRASSES, PAINTS, ROADS, SKIES, WATERS, Colour, Scene


def airplane(scene: Scene) -> float:
    vary = scene.vary
    sky = scene.colour(*SKIES)
    parked = scene.chance(0.25)
    scene.backdrop(
        sky,
        scene.colour(*ROADS, *GRASSES) if parked else sky * vary(0.85, 1.1),
        0.45 if parked else vary(0.3, 1.5),
        0.05,
        vary(0.01, 0.09),
    )
    hull = scene.colour((235, 235, 238), (190, 195, 200), (120, 125, 130), (70, 75, 80), (205, 205, 195))
    stripe = scene.colour(*PAINTS)
    if parked or scene.chance(0.5):
        _airliner(scene, hull, stripe, parked)
    else:
        _from_below(scene, hull, stripe)
    return 0.03


def _airliner(scene: Scene, hull: Colour, stripe: Colour, parked: bool) -> None:
    """From its side."""
    vary = scene.vary
    scene.posed(
        vary(0.82, 0.98), vary(-0.06, 0.06), 0.12 if parked else vary(-0.3, 0.3), 0 if parked else vary(-0.35, 0.2)
    )
    thick, tail = vary(0.09, 0.15), vary(0.34, 0.48)
    scene.shape([(0.0, 0.0), (0.34, -0.28), (0.46, -0.26), (0.3, 0.0)], hull, 0.75, smooth=False)  # the far wing
    scene.shape([(0.66, -0.5 * thick), (0.86, -tail), (1.0, -tail), (0.94, -0.3 * thick)], stripe, smooth=False)
    scene.shape(
        [
            (-0.98, 0.04),
            (-0.86, -0.7 * thick),
            (-0.6, -thick),
            (0.5, -thick),
            (0.98, -0.6 * thick),
            (0.9, 0.0),
            (0.5, 0.8 * thick),
            (-0.6, thick),
            (-0.88, 0.8 * thick),
        ],
        hull,
    )
    scene.line([(-0.7, -0.35 * thick), (0.7, -0.45 * thick)], stripe if scene.chance(0.5) else DARK, 0.045)
    scene.shape([(-0.93, -0.02), (-0.84, -0.6 * thick), (-0.76, -0.5 * thick), (-0.8, -0.05)], DARK)
    scene.shape(
        [(-0.2, 0.3 * thick), (0.08, 0.2 * thick), (0.5, vary(0.3, 0.5)), (0.36, vary(0.36, 0.52))],
        hull,
        0.82,
        smooth=False,
    )
    scene.shape([(0.7, -0.1), (0.86, -0.1), (1.02, 0.08), (0.92, 0.1)], hull, 0.7, smooth=False)
    scene.blob(-0.02, 0.22, 0.13, 0.06, hull, 0.55)
    if parked:
        for x in (-0.7, 0.05):
            scene.line([(x, thick), (x, 0.36)], DARK, 0.03)
            scene.blob(x, 0.36, 0.05, 0.05, DARK)


def _from_below(scene: Scene, hull: Colour, stripe: Colour) -> None:
    """Banking overhead: both wings are seen."""
    vary = scene.vary
    scene.posed(vary(0.72, 0.96), vary(-0.1, 0.1), vary(-0.15, 0.15), vary(-0.7, 0.7))
    sweep, span, near = vary(0.05, 0.55), vary(0.6, 0.92), vary(0.45, 1.0)
    for side, part in ((-near, 0.8), (1.0, 0.95)):
        scene.shape(
            [(-0.25, 0.04 * side), (sweep - 0.1, span * side), (sweep + 0.06, span * side), (0.25, 0.04 * side)],
            hull,
            part,
            smooth=False,
        )
        scene.shape([(0.7, 0), (0.88, 0.33 * side), (0.99, 0.33 * side), (0.9, 0)], hull, part, smooth=False)
    thick = vary(0.08, 0.13)
    scene.shape(
        [
            (-1, 0),
            (-0.85, -0.8 * thick),
            (-0.4, -thick),
            (0.5, -0.8 * thick),
            (0.98, 0),
            (0.5, 0.8 * thick),
            (-0.4, thick),
            (-0.85, 0.8 * thick),
        ],
        hull,
        1.05,
    )
    scene.blob(-0.76, -0.02, 0.09, 0.5 * thick, DARK)
    scene.shape([(0.66, 0), (0.9, -0.3 * near), (1, -0.3 * near), (0.94, 0)], stripe, smooth=False)
    if scene.chance(0.5):
        for y in (-0.35 * near, 0.35):
            scene.blob(-0.08 + 0.35 * sweep, y, 0.11, 0.045, hull, 0.5)


def ship(scene: Scene) -> float:
    vary = scene.vary
    horizon = vary(-0.35, 0.35)
    scene.backdrop(scene.colour(*SKIES), scene.colour(*WATERS), horizon, 0.07, vary(0.01, 0.08))
    hull = scene.colour((40, 50, 75), (130, 35, 35), (235, 235, 235), (60, 60, 65), (30, 80, 110), (110, 70, 45))
    white = scene.colour((235, 235, 232), (205, 205, 200), (170, 170, 170), spread=6)
    line = max(horizon + vary(0.12, 0.4), 0.15)
    scene.posed(vary(0.75, 0.98), vary(-0.08, 0.08), line, vary(-0.05, 0.05))
    what = scene.rng.random()
    deck = vary(-0.26, -0.14)
    if what < 0.35:  # a sailing boat
        mast, boom = vary(-1.05, -0.8), vary(0.45, 0.75)
        sail = scene.colour((240, 238, 230), (235, 232, 225), (190, 60, 50), spread=5)
        scene.line([(0, 0), (0, mast)], DARK, 0.035)
        scene.shape([(0.05, deck - 0.06), (0.05, mast + 0.04), (boom, deck - 0.08)], sail, smooth=False)
        scene.shape([(-0.05, deck - 0.04), (-0.04, mast + 0.12), (-0.75, deck)], sail, 0.85, smooth=False)
        scene.shape([(-0.85, deck), (0.7, deck + 0.02), (0.6, 0.06), (-0.6, 0.06)], hull, smooth=False)
    else:
        scene.shape(
            [(-1, deck - 0.1), (-0.7, deck), (0.92, deck), (0.96, deck - 0.04), (0.9, 0.08), (-0.8, 0.08)],
            hull,
            smooth=False,
        )
        scene.line([(-0.82, 0.06), (0.9, 0.06)], np.array([140.0, 50, 45]), 0.05)
        if what < 0.65:  # a liner or a ferry: decks with windows
            for level in range(scene.rng.integers(2, 4)):
                y, x = deck - 0.13 * level, -0.62 + 0.14 * level
                scene.shape(
                    [(x, y), (x + 0.06, y - 0.13), (0.8 - 0.1 * level, y - 0.13), (0.84 - 0.1 * level, y)],
                    white,
                    1 - 0.04 * level,
                    smooth=False,
                )
                scene.line([(x + 0.1, y - 0.06), (0.74 - 0.1 * level, y - 0.06)], DARK, 0.04, 2.2)
            scene.shape(
                [(0.1, deck - 0.36), (0.14, deck - 0.6), (0.34, deck - 0.6), (0.34, deck - 0.36)], hull, smooth=False
            )
        else:  # a freighter: a bridge behind, its cargo before
            for x in np.arange(-0.62, 0.3, 0.23):
                scene.shape(
                    [(x, deck), (x, deck - vary(0.06, 0.3)), (x + 0.21, deck - vary(0.06, 0.3)), (x + 0.21, deck)],
                    scene.colour(*PAINTS),
                    smooth=False,
                )
            scene.shape([(0.42, deck), (0.42, deck - 0.46), (0.8, deck - 0.46), (0.8, deck)], white, smooth=False)
            scene.line([(0.45, deck - 0.35), (0.77, deck - 0.35)], DARK, 0.06)
            scene.line([(0.6, deck - 0.46), (0.6, deck - 0.75)], DARK, 0.04)
            scene.line([(-0.8, deck), (-0.8, deck - 0.5)], DARK, 0.03)
    foam = scene.colour((200, 215, 222), spread=6)
    scene.line([(-0.85, 0.1), (0.9, 0.1)], foam, 0.03)
    return 0.02
