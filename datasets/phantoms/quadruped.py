"""Deer, horses and dogs: the phantoms of CIFAR-10 that are mostly seen from their side, on four legs.

Coordinates and colours: `scene.py`.
"""

from dataclasses import dataclass

import numpy as np

from datasets.phantoms.scene import DARK, FORESTS, FURS, GRASSES, SKIES, Colour, Scene


@dataclass(frozen=True)
class _Build:
    """The proportions of an animal on four legs, seen from its side; the ground is at y = 0.85."""

    length: float
    depth: float
    legs: float
    leg_width: float
    neck: tuple[float, float]
    """From the shoulder to the back of the head."""
    neck_width: float
    head: tuple[float, float]
    """Half length and half height."""
    nose_down: float
    """Turn of the head in radians."""


def _on_four_legs(scene: Scene, build: _Build, coat: Colour, belly: Colour, feet: Colour) -> tuple[float, float]:
    """Draws body, legs, neck and head; returns the middle of the head."""
    vary, long, deep = scene.vary, build.length, build.depth
    y = 0.85 - build.legs - 0.4 * deep
    stride = vary(0.0, 0.16)
    for near, part in ((False, 0.62), (True, 0.95)):
        for x, way in ((-0.78 * long, -1), (0.8 * long, 1)):
            x = x + (0.0 if near else 0.14)
            foot = x + way * stride * (1 if near else -0.8)
            wide = build.leg_width
            knee = 0.5 * (x + foot) + 0.05 * way
            scene.shape(
                [
                    (x - 1.5 * wide, y),
                    (knee - 0.7 * wide, y + 0.5 * build.legs + 0.2 * deep),
                    (foot - 0.6 * wide, 0.85),
                    (foot + 0.6 * wide, 0.85),
                    (knee + 0.7 * wide, y + 0.5 * build.legs + 0.2 * deep),
                    (x + 1.7 * wide, y),
                ],
                coat,
                part,
                smooth=False,
            )
            scene.line([(foot - 0.04, 0.84), (foot + 0.05, 0.84)], feet, 0.06)
    scene.shape(
        [
            (-long, y - 0.1 * deep),
            (-0.7 * long, y - 0.5 * deep),
            (0.1 * long, y - 0.42 * deep),
            (0.75 * long, y - 0.5 * deep),
            (1.02 * long, y - 0.15 * deep),
            (0.9 * long, y + 0.3 * deep),
            (0.3 * long, y + 0.36 * deep),
            (-0.5 * long, y + 0.5 * deep),
            (-0.95 * long, y + 0.25 * deep),
        ],
        coat,
    )
    scene.blob(-0.05, y + 0.3 * deep, 0.6 * long, 0.14 * deep, belly)
    shoulder = (-0.8 * long, y - 0.2 * deep)
    head = (shoulder[0] + build.neck[0], shoulder[1] + build.neck[1])
    wide = build.neck_width
    scene.shape(
        [
            (shoulder[0] - wide, shoulder[1] + 0.3 * deep),
            (head[0] - 0.5 * wide, head[1] + 0.3 * wide),
            (head[0] + 0.6 * wide, head[1] - 0.3 * wide),
            (shoulder[0] + 1.5 * wide, shoulder[1] - 0.2 * deep),
        ],
        coat,
        0.97,
        smooth=False,
    )
    half, high = build.head
    turn = -build.nose_down
    middle = (head[0] - 0.6 * half * np.cos(turn), head[1] - 0.6 * half * np.sin(turn))
    scene.blob(*middle, half, high, coat, 1.02, turn)
    nose = (middle[0] - 0.85 * half * np.cos(turn), middle[1] - 0.85 * half * np.sin(turn))
    scene.blob(*nose, 0.28 * half, 0.6 * high, feet)
    scene.blob(middle[0] + 0.15 * half, middle[1] - 0.4 * high, 0.03, 0.03, DARK)
    return head


def _meadow(scene: Scene) -> None:
    scene.backdrop(
        scene.colour(*SKIES[:5], *FORESTS, *FORESTS),
        scene.colour(*GRASSES),
        scene.vary(-0.6, 0.5),
        0.1,
        scene.vary(0.05, 0.25),
    )


def deer(scene: Scene) -> float:
    vary = scene.vary
    _meadow(scene)
    coat = scene.colour((150, 105, 65), (170, 125, 80), (125, 90, 60), (140, 115, 90))
    scene.posed(vary(0.8, 0.98), vary(-0.02, 0.12), vary(-0.02, 0.12))
    grazing = scene.chance(0.2)
    neck = (vary(-0.4, -0.3), vary(0.28, 0.42)) if grazing else (vary(-0.3, -0.12), vary(-0.62, -0.44))
    build = _Build(
        vary(0.42, 0.5),
        vary(0.34, 0.4),
        vary(0.52, 0.64),
        0.05,
        neck,
        0.09,
        (0.2, 0.085),
        vary(0.3, 0.6) if grazing else vary(0.1, 0.4),
    )
    head = _on_four_legs(scene, build, coat, coat * 0.5 + 110, coat * 0.35)
    y = 0.85 - build.legs - 0.6 * build.depth
    scene.blob(build.length + 0.03, y + 0.1, 0.06, 0.1, np.array([232.0, 225, 212]))
    for x in (-0.05, 0.1):
        scene.shape(
            [
                (head[0] + x - 0.05, head[1] - 0.03),
                (head[0] + 1.8 * x + 0.06, head[1] - 0.22),
                (head[0] + x + 0.07, head[1]),
            ],
            coat,
            0.8,
            smooth=False,
        )
    if scene.chance(0.65):
        horn, high = scene.colour((190, 170, 140), (110, 90, 70), spread=6), vary(0.35, 0.55)
        for way in (-1.0, 0.7):
            x, top = head[0] - 0.02, head[1] - 0.06
            scene.line([(x, top), (x + 0.22 * way + 0.05, top - 0.5 * high), (x + 0.2 * way, top - high)], horn, 0.04)
            for part in (0.45, 0.75):
                scene.line(
                    [(x + 0.2 * way + 0.03, top - part * high), (x + 0.2 * way - 0.14, top - (part + 0.25) * high)],
                    horn,
                    0.035,
                )
    return 0.08


def horse(scene: Scene) -> float:
    vary = scene.vary
    _meadow(scene)
    if scene.chance(0.25):
        scene.ground_HWC[vary(8, 16).__int__() :: 6][:2] = scene.colour((225, 222, 215), (120, 95, 70))  # a fence
    coat = scene.colour((110, 65, 35), (75, 45, 30), (40, 34, 32), (220, 215, 208), (150, 95, 50), (150, 145, 142))
    mane = coat * 0.4 if scene.chance(0.7) else coat * 0.5 + 110
    scene.posed(vary(0.84, 1.0), vary(0.02, 0.12), vary(-0.02, 0.12))
    grazing = scene.chance(0.2)
    neck = (vary(-0.4, -0.32), vary(0.25, 0.4)) if grazing else (vary(-0.38, -0.26), vary(-0.5, -0.36))
    build = _Build(
        vary(0.5, 0.58),
        vary(0.46, 0.54),
        vary(0.42, 0.52),
        0.075,
        neck,
        0.15,
        (0.26, 0.12),
        vary(0.3, 0.9) if grazing else vary(0.5, 0.9),
    )
    x, y = build.length, 0.85 - build.legs - 0.6 * build.depth
    scene.shape(
        [
            (x - 0.06, y),
            (x + 0.14, y + 0.05),
            (x + vary(0.12, 0.3), y + 0.5),
            (x + 0.1, y + vary(0.5, 0.72)),
            (x + 0.02, y + 0.3),
        ],
        mane,
    )
    head = _on_four_legs(scene, build, coat, coat * 0.9, coat * 0.45)
    crest = (-0.55 * x, y - 0.02)
    scene.shape(
        [
            (head[0] - 0.02, head[1] - 0.12),
            (head[0] + 0.12, head[1] - 0.04),
            (crest[0] + 0.12, crest[1]),
            (crest[0] - 0.06, crest[1] + 0.12),
        ],
        mane,
        smooth=False,
    )
    for shift in (0.0, 0.08):
        scene.shape(
            [
                (head[0] + shift - 0.04, head[1] - 0.06),
                (head[0] + shift + 0.02, head[1] - 0.2),
                (head[0] + shift + 0.06, head[1] - 0.04),
            ],
            coat,
            0.85,
            smooth=False,
        )
    if scene.chance(0.2):  # a rider
        shirt = scene.colour((180, 40, 40), (40, 60, 120), (230, 230, 230), (40, 40, 40))
        scene.shape([(-0.16, y - 0.04), (-0.14, y - 0.42), (0.1, y - 0.42), (0.14, y)], shirt)
        scene.line([(0.0, y), (-0.08, y + 0.36)], shirt, 0.1, 0.5)
        scene.blob(-0.02, y - 0.53, 0.09, 0.1, np.array([215.0, 170, 140]))
        scene.blob(-0.02, y - 0.58, 0.1, 0.06, DARK)
    return 0.06


def dog(scene: Scene) -> float:
    vary = scene.vary
    scene.at_home()
    coat = scene.colour(*FURS)
    light = coat * 0.5 + 115
    ear = coat * vary(0.5, 0.95)
    if scene.chance(0.4):  # from the side
        scene.posed(vary(0.84, 1.0), vary(0.02, 0.14), vary(-0.02, 0.12))
        build = _Build(
            vary(0.42, 0.5),
            vary(0.36, 0.44),
            vary(0.34, 0.46),
            0.075,
            (vary(-0.26, -0.16), vary(-0.36, -0.24)),
            0.14,
            (0.26, 0.14),
            vary(-0.05, 0.25),
        )
        x, y = build.length, 0.85 - build.legs - 0.6 * build.depth
        scene.line(
            [(x - 0.04, y + 0.04), (x + 0.2, y - vary(0.05, 0.2)), (x + vary(0.2, 0.36), y - vary(0.2, 0.42))],
            coat,
            0.09,
        )
        head = _on_four_legs(scene, build, coat, light if scene.chance(0.5) else coat, coat * 0.4)
        scene.shape(
            [
                (head[0] - 0.12, head[1] - 0.12),
                (head[0] + 0.05, head[1] - 0.14),
                (head[0] + 0.1, head[1] + 0.16),
                (head[0] - 0.05, head[1] + 0.14),
            ],
            ear,
        )
        return 0.1
    scene.posed(vary(0.85, 1.1), vary(-0.15, 0.15), vary(-0.12, 0.1), vary(-0.25, 0.25))
    scene.shape([(-0.6, 1.4), (-0.42, 0.5), (0.42, 0.5), (0.62, 1.4)], coat, 0.85)
    if scene.chance(0.5):
        scene.blob(0, 1.0, 0.26, 0.4, light)
    scene.shape(
        [(-0.5, -0.1), (-0.4, -0.52), (0, -0.62), (0.4, -0.52), (0.5, -0.1), (0.32, 0.36), (0, 0.5), (-0.32, 0.36)],
        coat,
    )
    if scene.chance(0.4):
        scene.shape([(-0.09, -0.6), (0.09, -0.6), (0.13, 0.1), (-0.13, 0.1)], light)
    upright = scene.chance(0.25)
    for side in (-1, 1):
        if upright:
            scene.shape([(side * 0.46, -0.3), (side * 0.5, -0.92), (side * 0.16, -0.52)], ear, smooth=False)
        else:
            scene.shape(
                [
                    (side * 0.3, -0.56),
                    (side * 0.56, -0.5),
                    (side * 0.74, 0.05),
                    (side * 0.6, 0.36),
                    (side * 0.46, 0.05),
                ],
                ear,
            )
        scene.blob(side * 0.22, -0.14, 0.08, 0.08, DARK)
    scene.blob(0, 0.28, 0.29, 0.27, light if scene.chance(0.7) else coat * 0.8)
    scene.blob(0, 0.14, 0.13, 0.09, DARK)
    scene.line([(0, 0.2), (0, 0.38)], DARK, 0.04)
    if scene.chance(0.4):
        scene.blob(0.02, 0.5, 0.1, 0.15, np.array([215.0, 110, 115]))
    return 0.1
