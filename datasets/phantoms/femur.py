"""Procedural films of broken thigh bones for `--demo`: atypical (AFF) against normal (NFF) femoral fractures.

An atypical fracture (task force of the American Society for Bone and Mineral Research, J Bone Miner Res 2014, doi
10.1002/jbmr.1998) lies between the lesser trochanter and the condyles, is transverse where it begins, at the outer
cortex, may turn oblique towards a spike at the inner side, is not comminuted, and the outer cortex is thicker where it
begins ("beaking"). It may be incomplete. A normal fracture is oblique or spiral and mostly comminuted.

Patient, pose, level of the fracture, displacement, exposure and grain come from the same distributions and the same
part of the random stream in both classes.
"""

from dataclasses import dataclass, replace

import numpy as np

from datasets.phantoms.arm import TRUNK, Body
from datasets.phantoms.bones import Camera, Cut, Tube, draw_paths, pebble, rod, rotation, section
from datasets.phantoms.exposure import developed, warped_grid
from datasets.phantoms.fractures import fracture_line
from datasets.phantoms.texture import edge

VERSION = "femur-film-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same film."""
INCOMPLETE = 0.3
"""The part of the atypical fractures that do not reach the inner cortex."""
WEDGE = 0.75
"""The part of the normal fractures with a third large fragment."""
FLESH_CM, BONE_CM = 15.0, 2.9
"""What of either counts as 1: the exposure is set by it."""

FEMUR = section(
    (1.3, 1.5),
    (0.00, 0.55, 1.10, 0.0, 1.2, 0.14),
    (0.05, 0.35, 1.60, 0.0, 1.7, 0.16),
    (0.11, -0.30, 2.25, 0.0, 2.1, 0.26),
    (0.16, -0.35, 1.95, 0.2, 1.9, 0.45),
    (0.26, -0.10, 1.58, 0.5, 1.6, 0.68),
    (0.48, 0.25, 1.45, 0.9, 1.5, 0.80),
    (0.70, 0.10, 1.62, 0.5, 1.6, 0.60),
    (0.82, 0.00, 2.20, 0.0, 2.0, 0.30),
    (0.91, 0.00, 3.55, -0.6, 2.7, 0.18),
    (0.96, 0.00, 4.05, -1.0, 3.3, 0.16),
    (1.00, 0.00, 3.85, -1.0, 3.2, 0.16),
)
NECK = section((1.5, 2.0), (0, 0, 2.2, 0, 1.7, 0.14), (0.45, 0, 1.95, 0, 1.5, 0.22), (1, 0, 2.7, 0, 1.7, 0.16))
TIBIA = section(
    (0.6, 1.0),
    (0.0, 0, 3.7, 0, 2.6, 0.18),
    (0.12, 0, 3.5, 0, 2.5, 0.2),
    (0.35, 0, 2.0, 0, 1.9, 0.35),
    (1, 0, 1.5, 0, 1.6, 0.6),
)
THIGH_FLESH = section(
    (9.0, 4.0),
    (0, -0.5, 10.5, 0, 9.5, 99),
    (0.4, -0.3, 9.0, 0, 8.5, 99),
    (0.8, -0.2, 6.8, 0, 6.6, 99),
    (1, 0, 6.2, 0, 6, 99),
)
BONES = (
    TRUNK.tube("femur", (0.6, 0.3), (-0.9, 44.0), FEMUR),
    TRUNK.tube("neck", (-4.9, -0.4), (0.6, 4.6), NECK, joined=True),
    TRUNK.tube("head", (-7.1, -2.3), (-3.5, 1.2), pebble(2.5, 2.5, 5.0, 0.14), joined=True),
    TRUNK.tube("lesser trochanter", (-1.7, 5.6), (-1.6, 8.4), pebble(0.95, 0.9, 2.8, 0.2), 0.9, joined=True),
    TRUNK.tube("acetabulum", (-8.9, -3.4), (-3.2, -3.9), pebble(1.5, 1.6, 5.7, 0.35), 0.5),
    TRUNK.tube(
        "ilium", (-9.0, -15.0), (-6.5, -2.0), section((2, 1), (0, 0, 6, 0, 0.6, 0.25), (1, 0, 2.6, 0, 1.2, 0.3)), 0.6
    ),
    TRUNK.tube("pubis", (-6.8, 0.2), (-15.0, 2.2), pebble(1.15, 0.8, 8.4, 0.25), 0.7),
    TRUNK.tube("ischium", (-7.6, 1.0), (-9.2, 8.2), pebble(1.7, 1.2, 7.2, 0.3), 0.6),
    TRUNK.tube("ramus", (-9.0, 8.0), (-14.0, 4.4), pebble(0.8, 0.7, 6.2, 0.25), 0.7),
)
KNEE = (
    TRUNK.tube("patella", (-0.9, 38.6, 3.3), (-0.9, 42.6, 3.3), pebble(2.1, 1.1, 4.0, 0.25), 0.6),
    TRUNK.tube("tibia", (-0.9, 44.7), (-0.9, 70.0), TIBIA),
    TRUNK.tube("fibula", (2.3, 46.2, -1.2), (2.4, 70.0, -1.0), rod(0.7), 0.6),
)
FLESH = (
    TRUNK.tube("flesh", (-0.6, -26.0), (-0.6, 47.0), THIGH_FLESH),
    TRUNK.tube("flesh", (-0.8, 43.0), (-0.8, 75.0), rod(5.4)),
    TRUNK.tube("flesh", (-11, -40), (-11, 3), rod(12, 10, 5)),
)


@dataclass(frozen=True)
class _Break:
    """What a fracture of either class has. Lengths in half-widths of the bone where it breaks."""

    level: float
    """Along the bone, 0 to 1."""
    step: float
    """How far the far fragment lies to the side."""
    tilt: float
    """Of the far fragment in the plane of the film, radians."""
    shortened: float
    gap: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Break":
        subtrochanteric = rng.random() < 0.45
        return cls(
            level=rng.uniform(0.20, 0.30) if subtrochanteric else rng.uniform(0.32, 0.68),
            step=rng.choice([-1, 1]) * rng.choice([rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.6)]),
            tilt=rng.normal(0, 0.13),
            shortened=rng.uniform(-0.1, 0.5),
            gap=rng.uniform(0.16, 0.30),
        )


def femur_film(
    rng: np.random.Generator, size_px: int, atypical: bool, patient: np.random.Generator | None = None
) -> np.ndarray:
    """A radiograph of a thigh with a fracture, uint8 of shape (size_px, size_px).

    `patient`: a generator as fresh for every film of one patient; it gives the body, its side and the fracture, which
    are the same on all of them. Pose and exposure are drawn from `rng`; without `patient`, everything is.
    """
    grain_rng, patient_rng = rng.spawn(2)
    patient = patient_rng if patient is None else patient
    body, broken = Body.drawn(patient), _Break.drawn(patient)
    camera = _camera(rng, body, broken.level)
    grid_2HW = warped_grid(rng, size_px, 0.012)
    flesh_HW, bone_HW, metal_HW = (np.zeros((size_px, size_px), np.float32) for _ in range(3))
    frontal = abs(camera.turn_33[:2, 0]).max() > 0.7
    draw_paths(FLESH if frontal else FLESH[:2], camera, grid_2HW, flesh_HW, wide=body.flesh)
    bones = _broken(patient, broken, camera, body.robust, atypical)
    draw_paths(bones, camera, grid_2HW, bone_HW, wide=body.robust, wall=body.cortex)
    bone_HW *= body.mineral / BONE_CM
    return developed(rng, grain_rng, flesh_HW / FLESH_CM, bone_HW, metal_HW, body.side)


def _camera(rng: np.random.Generator, body: Body, level: float) -> Camera:
    """Frontal or from the side; the hip with the upper shaft, or the thigh. The fracture is on it."""
    lateral, close = rng.random() < 0.25, rng.random() < 0.6
    turned = rotation((1.25 if lateral else 0.0) + rng.normal(0, 0.1), rng.normal(0, 0.1))
    half_field_cm = rng.uniform(10, 14) if close else rng.uniform(17, 22)
    down = 44 * level + rng.uniform(-0.45, 0.45) * half_field_cm
    middle_cm = np.array([-1.5 + rng.normal(0, 1.0), down, 0.5])
    return Camera(turned, middle_cm, half_field_cm / body.size)


def _broken(rng: np.random.Generator, broken: _Break, camera: Camera, wide: float, atypical: bool) -> list[Tube]:
    """The bones of hip, thigh and knee, the thigh's in two fragments or more."""
    femur = BONES[0]
    axis = femur.ends_cm[1] - femur.ends_cm[0]
    length_cm = float(np.linalg.norm(axis))
    on_film = camera.turn_33 @ (axis / length_cm)
    flat = float(np.hypot(*on_film[:2]))
    across = camera.turn_33.T @ np.array([-on_film[1], on_film[0], 0]) / flat
    row = femur.section.table_KS[:, int(broken.level * 255)] * wide
    half_cm = float(row[1])
    at_cm = broken.level * length_cm * flat
    outer = 1.0 if across[0] > 0 else -1.0
    centre_cm = femur.ends_cm[0] + broken.level * axis + np.array([row[0], 0, row[2]])
    far = _Moved.by(broken, camera, centre_cm, across, axis / length_cm, half_cm)
    soft_cm, gap_cm = 0.007 * camera.half_field_cm, max(broken.gap * half_cm, 0.016 * camera.half_field_cm)
    line_rng, kind_rng = rng.spawn(2)
    more: list[Tube] = []
    if atypical:
        beyond = _transverse(line_rng, at_cm, half_cm, outer)
        whole = kind_rng.random() >= INCOMPLETE
        beak_cm = kind_rng.uniform(0.22, 0.42) * half_cm
        place = centre_cm + outer * (half_cm - 0.35 * beak_cm) * across
        reach = kind_rng.uniform(1.0, 1.6) * half_cm * axis / length_cm
        beak = Tube(
            "beak", np.stack([place - reach, place + reach]), femur.front, pebble(beak_cm, beak_cm, 2 * half_cm, 9), 1.1
        )
        if not whole:
            partial = _partial(beyond, gap_cm, outer, half_cm * kind_rng.uniform(-0.2, 0.5))
            return [
                replace(femur, cut=partial),
                *BONES[1:],
                *KNEE,
                replace(beak, cut=_shifted(partial, at_cm, beak, flat)),
            ]
        wedge: Cut | None = None
        more = [
            replace(beak, cut=_shifted(_side(beyond, -gap_cm / 2, soft_cm, None, -1), at_cm, beak, flat)),
            far.of(replace(beak, cut=_shifted(_side(beyond, gap_cm / 2, soft_cm, None, 1), at_cm, beak, flat))),
        ]
    else:
        slope = float(line_rng.choice([-1, 1]) * line_rng.uniform(1.1, 2.6))
        beyond = fracture_line(line_rng, at_cm, slope, 0.22 * half_cm, half_cm)
        wedge = _wedge(line_rng, beyond, half_cm) if kind_rng.random() < WEDGE else None
        if wedge is not None:
            away = across * kind_rng.choice([-1, 1]) * half_cm * kind_rng.uniform(0.3, 0.9)
            piece = far.of(femur, 0.5)
            more = [replace(piece, ends_cm=piece.ends_cm + away, cut=_kept(wedge, soft_cm))]
        for _ in range(int(kind_rng.integers(0, 5))):
            chip = centre_cm + kind_rng.normal(0, 1.2, 3) * half_cm + kind_rng.normal(0, 0.8) * axis / length_cm
            span = kind_rng.normal(0, 1, 3)
            span *= kind_rng.uniform(0.15, 0.5) * half_cm / np.linalg.norm(span)
            size = float(kind_rng.uniform(0.1, 0.25) * half_cm)
            front = np.cross(span, [0.1, 0.2, 1.0])
            ends = np.stack([chip - span, chip + span])
            more.append(Tube("chip", ends, front / np.linalg.norm(front), rod(size), 1.2))
    near = replace(femur, cut=_side(beyond, -gap_cm / 2, soft_cm, wedge, -1))
    distal = far.of(replace(femur, cut=_side(beyond, gap_cm / 2, soft_cm, wedge, 1)))
    return [near, *BONES[1:], distal, *more, *(far.of(tube) for tube in KNEE)]


@dataclass(frozen=True)
class _Moved:
    """Where the far fragment went: turned about the fracture in the plane of the film, and shifted."""

    turn_33: np.ndarray
    about_cm: np.ndarray
    shift_cm: np.ndarray

    @classmethod
    def by(
        cls, broken: _Break, camera: Camera, about_cm: np.ndarray, across: np.ndarray, along: np.ndarray, half_cm: float
    ) -> "_Moved":
        in_film = rotation(0, broken.tilt)
        shift_cm = half_cm * (broken.step * across - max(broken.shortened, 0) * abs(broken.step) * along)
        return cls(camera.turn_33.T @ in_film @ camera.turn_33, about_cm, shift_cm)

    def of(self, tube: Tube, part: float = 1.0) -> Tube:
        """`tube` where it went; with part 1/2 only half as far, unturned."""
        if part < 1:
            return replace(tube, ends_cm=tube.ends_cm + part * self.shift_cm)
        ends_cm = (tube.ends_cm - self.about_cm) @ self.turn_33.T + self.about_cm + self.shift_cm
        return replace(tube, ends_cm=ends_cm, front=self.turn_33 @ tube.front)


def _transverse(rng: np.random.Generator, at_cm: float, half_cm: float, outer: float) -> Cut:
    """Straight across from the outer cortex, then towards a spike at the inner side."""
    straight = fracture_line(rng, at_cm, rng.normal(0, 0.06), 0.03 * half_cm, half_cm)
    spike_cm = rng.choice([-1, 1]) * rng.uniform(0.3, 1.1) * half_cm

    def beyond(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        inner = np.clip(-outer * across / half_cm - 0.1, 0, 1)
        return straight(along, across) - spike_cm * np.square(inner)

    return beyond


def _partial(beyond: Cut, gap_cm: float, outer: float, reach_cm: float) -> Cut:
    """A crack from the outer cortex to `reach_cm` beyond the axis."""

    def left(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        crack = np.exp(-np.square(beyond(along, across) / (0.6 * gap_cm)))
        return 1 - 0.95 * crack * edge(outer * across + reach_cm, 0.3)

    return left


def _wedge(rng: np.random.Generator, beyond: Cut, half_cm: float) -> Cut:
    """A third fragment: a triangle whose base lies on one cortex, its tip in the fracture; how far inside, in cm."""
    side, base_cm, shift_cm = rng.choice([-1, 1]), rng.uniform(1.1, 2.2) * half_cm, rng.normal(0, 0.3) * half_cm

    def inside(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        height = np.clip(0.5 + 0.6 * side * across / half_cm, 0, 1)
        return base_cm * height - np.abs(beyond(along, across) - shift_cm) - 0.15 * base_cm

    return inside


def _side(beyond: Cut, from_cm: float, soft_cm: float, wedge: Cut | None, sign: int) -> Cut:
    """What lies before (sign -1) or beyond (+1) a line at `from_cm`, less the wedge."""

    def left(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        kept = edge(sign * (beyond(along, across) - from_cm), soft_cm)
        return kept if wedge is None else kept * (1 - edge(wedge(along, across), soft_cm))

    return left


def _kept(wedge: Cut, soft_cm: float) -> Cut:
    def left(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return edge(wedge(along, across) - 2 * soft_cm, soft_cm)

    return left


def _shifted(cut: Cut, at_cm: float, beak: Tube, flat: float) -> Cut:
    """A cut of the femur, for the beak, whose middle lies on the line."""
    half_length = float(np.linalg.norm(beak.ends_cm[1] - beak.ends_cm[0])) / 2 * flat

    def left(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return cut(along - half_length + at_cm, np.zeros_like(across))

    return left
