"""Birds, cats and frogs: phantoms of CIFAR-10.

Coordinates and colours: `scene.py`.
"""

import numpy as np

from datasets.phantoms.scene import BARKS, DARK, FORESTS, GRASSES, ROADS, SKIES, WATERS, Colour, Scene


def bird(scene: Scene) -> float:
    vary = scene.vary
    coat = scene.colour(
        (120, 95, 70),
        (60, 55, 55),
        (160, 150, 140),
        (70, 100, 150),
        (180, 60, 45),
        (200, 175, 70),
        (90, 110, 70),
        (225, 222, 215),
    )
    belly = coat * 0.4 + scene.colour((235, 225, 205), (200, 150, 100)) * 0.6
    beak = scene.colour((220, 160, 50), (60, 55, 50), (110, 95, 80))
    if scene.chance(0.25):
        _flying(scene, coat, belly, beak)
        return 0.06
    scene.backdrop(
        scene.colour(*SKIES, *FORESTS, *GRASSES),
        scene.colour(*GRASSES, *FORESTS, *BARKS, *WATERS),
        vary(0.2, 0.9),
        0.1,
        vary(0.03, 0.2),
    )
    scene.posed(vary(0.78, 1.0), vary(-0.1, 0.1), vary(-0.06, 0.06), vary(-0.2, 0.3))
    if scene.chance(0.5):
        scene.line(
            [(-1.4, 0.62 + vary(-0.1, 0.1)), (1.4, 0.62 + vary(-0.1, 0.1))], scene.colour(*BARKS), vary(0.06, 0.14)
        )
    for x in (-0.02, 0.12):
        scene.line([(x, 0.3), (x - 0.02, 0.62)], beak, 0.035, 0.8)
    plump, tail = vary(0.24, 0.36), vary(0.75, 1.0)
    scene.shape(
        [(0.3, 0.0), (tail, vary(0.15, 0.4)), (tail - 0.08, vary(0.42, 0.5)), (0.26, 0.26)], coat, 0.75, smooth=False
    )
    scene.shape(
        [
            (-0.46, -0.3),
            (-0.2, -0.34),
            (0.1, -0.16),
            (0.46, 0.12),
            (0.3, 0.3),
            (0.0, 0.12 + plump),
            (-0.34, 0.22),
            (-0.5, -0.05),
        ],
        coat,
    )
    scene.blob(-0.18, 0.14, 0.3, 0.22, belly, turn=0.5)
    scene.shape([(-0.2, -0.12), (0.1, -0.1), (0.56, 0.2), (0.2, 0.26), (-0.1, 0.12)], coat, 0.65)
    head = vary(0.18, 0.25)
    scene.blob(-0.42, -0.38, head, head, coat, vary(0.75, 1.1))
    scene.shape([(-0.56, -0.46), (-0.56 - vary(0.18, 0.42), -0.34), (-0.55, -0.28)], beak, smooth=False)
    scene.blob(-0.48, -0.42, 0.045, 0.045, DARK)
    return 0.08


def _flying(scene: Scene, coat: Colour, belly: Colour, beak: Colour) -> None:
    vary = scene.vary
    sky = scene.colour(*SKIES)
    scene.backdrop(sky, scene.colour(*WATERS) if scene.chance(0.3) else sky, vary(0.4, 1.4), 0.05, vary(0.01, 0.07))
    scene.posed(vary(0.75, 1.0), vary(-0.1, 0.1), vary(-0.1, 0.2), vary(-0.4, 0.4))
    lift = vary(-0.95, -0.3)
    for side, part in ((1, 0.7), (-1, 0.9)):
        tip = 0.35 + side * 0.45
        scene.shape(
            [
                (-0.22, -0.04),
                (tip - 0.35, 0.55 * lift),
                (tip, lift * (1.0 if side > 0 else 0.85)),
                (tip + 0.08, 0.6 * lift),
                (0.25, 0.04),
            ],
            coat,
            part,
        )
    scene.shape([(0.3, 0), (0.85, -0.08), (0.9, 0.14), (0.3, 0.12)], coat, 0.75, smooth=False)
    scene.shape([(-0.66, 0), (-0.5, -0.12), (-0.1, -0.14), (0.4, 0), (0.1, 0.16), (-0.4, 0.14)], coat)
    scene.blob(-0.1, 0.08, 0.3, 0.07, belly)
    scene.shape([(-0.62, -0.06), (-0.86, 0.04), (-0.62, 0.07)], beak, smooth=False)


def cat(scene: Scene) -> float:
    vary = scene.vary
    scene.at_home()
    coat = scene.colour((125, 115, 105), (190, 130, 75), (40, 38, 38), (225, 218, 208), (150, 125, 95), (95, 85, 75))
    chest = coat * 0.4 + 140 if scene.chance(0.6) else coat * 1.1
    close = scene.chance(0.5)
    scene.posed(
        vary(0.9, 1.15) if close else vary(0.5, 0.6),
        vary(-0.15, 0.15),
        vary(-0.05, 0.2) if close else vary(-0.4, -0.25),
        vary(-0.2, 0.2),
    )
    if close:
        scene.shape([(-0.62, 1.3), (-0.5, 0.6), (0, 0.45), (0.55, 0.6), (0.75, 1.3)], coat, 0.85)
        scene.blob(0, 0.95, 0.3, 0.35, chest)
    else:  # sitting
        scene.line([(0.6, 1.75), (1.15, 1.6), (1.25, 1.1)], coat, 0.17, 0.8)
        scene.shape([(-0.5, 0.5), (0.45, 0.45), (0.85, 1.3), (0.75, 1.85), (-0.6, 1.85), (-0.66, 1.2)], coat, 0.92)
        scene.blob(-0.1, 1.1, 0.3, 0.5, chest)
        for x in (-0.35, 0.1):
            scene.shape([(x - 0.13, 1.0), (x + 0.15, 1.0), (x + 0.15, 1.88), (x - 0.15, 1.88)], coat, 1.05)
    stripes = scene.chance(0.45)
    for side in (-1, 1):
        scene.shape([(side * 0.62, -0.1), (side * 0.6, -0.82), (side * 0.12, -0.46)], coat, 0.9, smooth=False)
        scene.shape(
            [(side * 0.54, -0.3), (side * 0.53, -0.64), (side * 0.26, -0.44)],
            np.array([205.0, 150, 140]),
            0.85,
            smooth=False,
        )
    scene.shape(
        [(-0.68, 0.05), (-0.5, -0.42), (0, -0.52), (0.5, -0.42), (0.68, 0.05), (0.42, 0.46), (0, 0.58), (-0.42, 0.46)],
        coat,
    )
    if stripes:
        for x in (-0.2, 0.0, 0.2):
            scene.line([(x, -0.48), (0.7 * x, -0.2)], coat, 0.07, 0.5)
        for side in (-1, 1):
            scene.line([(side * 0.66, 0.12), (side * 0.42, 0.16)], coat, 0.06, 0.5)
    scene.blob(0, 0.3, 0.3, 0.2, chest)
    eyes = scene.colour((190, 190, 70), (110, 170, 110), (120, 170, 210), (210, 150, 50))
    for side in (-1, 1):
        scene.blob(side * 0.27, -0.04, 0.15, 0.12, eyes)
        scene.blob(side * 0.27, -0.04, 0.055, 0.11, DARK)
    scene.shape([(-0.09, 0.17), (0.09, 0.17), (0, 0.28)], np.array([205.0, 125, 120]), 0.9, smooth=False)
    scene.line([(0, 0.28), (0, 0.38)], DARK, 0.04)
    return 0.12


def frog(scene: Scene) -> float:
    vary = scene.vary
    scene.backdrop(
        scene.colour(*GRASSES, *FORESTS, *BARKS, *WATERS),
        scene.colour(*GRASSES, *FORESTS, *BARKS, *ROADS, (220, 215, 205)),
        vary(-0.6, 0.6),
        0.12,
        vary(0.05, 0.25),
    )
    skin = scene.colour((95, 140, 50), (125, 160, 60), (70, 95, 45), (130, 105, 65), (105, 95, 70), (150, 125, 80))
    throat = skin * 0.4 + scene.colour((225, 220, 175), (200, 190, 140)) * 0.6
    scene.posed(vary(0.8, 1.02), vary(-0.08, 0.08), vary(-0.05, 0.15), vary(-0.15, 0.15))
    if scene.chance(0.5):  # from the front
        for side in (-1, 1):
            scene.shape(
                [(side * 0.4, 0.0), (side * 0.85, 0.05), (side * 0.92, 0.4), (side * 0.6, 0.58), (side * 0.35, 0.4)],
                skin,
                0.8,
            )
            scene.line([(side * 0.92, 0.56), (side * 0.5, 0.6)], skin, 0.1, 0.7)
        scene.shape([(-0.52, 0.1), (-0.3, -0.3), (0.3, -0.3), (0.52, 0.1), (0.42, 0.5), (-0.42, 0.5)], skin)
        scene.shape([(-0.42, 0.12), (0, 0.2), (0.42, 0.12), (0.32, 0.48), (0, 0.54), (-0.32, 0.48)], throat)
        scene.line([(-0.46, 0.08), (0, 0.15), (0.46, 0.08)], DARK, 0.05, 1.5)
        for side in (-1, 1):
            scene.line([(side * 0.34, 0.3), (side * 0.42, 0.64)], skin, 0.13, 0.95)
            scene.line([(side * 0.3, 0.66), (side * 0.58, 0.66)], skin, 0.06, 0.9)
            scene.blob(side * 0.3, -0.32, 0.16, 0.16, skin, 1.1)
            scene.blob(side * 0.31, -0.33, 0.1, 0.1, np.array([215.0, 180, 70]))
            scene.blob(side * 0.31, -0.33, 0.06, 0.07, DARK)
    else:  # sitting, from the side
        scene.shape(
            [
                (-0.82, -0.06),
                (-0.62, -0.3),
                (-0.3, -0.36),
                (0.2, -0.1),
                (0.74, 0.42),
                (0.5, 0.56),
                (-0.3, 0.5),
                (-0.62, 0.24),
            ],
            skin,
        )
        scene.shape([(-0.8, 0.02), (-0.4, 0.08), (-0.2, 0.42), (-0.44, 0.42), (-0.68, 0.2)], throat)
        scene.shape([(0.02, 0.42), (0.1, 0.02), (0.5, 0.0), (0.82, 0.3), (0.6, 0.5)], skin, 0.78)
        scene.line([(0.72, 0.42), (0.1, 0.58), (-0.14, 0.62)], skin, 0.12, 0.7)
        scene.line([(-0.34, 0.3), (-0.3, 0.62), (-0.5, 0.64)], skin, 0.11, 0.85)
        scene.line([(-0.82, 0.02), (-0.42, 0.06)], DARK, 0.04, 1.5)
        scene.blob(-0.48, -0.34, 0.15, 0.14, skin, 1.1)
        scene.blob(-0.49, -0.35, 0.09, 0.09, np.array([215.0, 180, 70]))
        scene.blob(-0.49, -0.35, 0.055, 0.06, DARK)
        for _ in range(scene.rng.integers(0, 5)):
            scene.blob(vary(-0.3, 0.5), vary(-0.1, 0.25), 0.07, 0.05, skin, 0.55)
    return 0.09
