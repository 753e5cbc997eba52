"""The skeleton of a right arm in space, from the collar bone to the finger tips, and its flesh.

All lengths in cm, of a grown person of middle size: x to the outer (radial, thumb's) side, y down the arm, z to the
front (the palm's side). A joint's space is what the tubes leave open between them.
"""

import math
from dataclasses import dataclass

import numpy as np

from datasets.phantoms.arm_sections import (
    ACROMION,
    BLADE,
    CLAVICLE,
    GLENOID,
    HEAD,
    HUMERUS,
    LATERAL_BORDER,
    METACARPAL,
    PHALANX,
    RADIUS,
    RIB,
    TIP,
    ULNA,
)
from datasets.phantoms.bones import Section, Tube, pebble, rod, section, thicker

FINGERS = ("thumb", "index", "middle", "ring", "little")
METACARPAL_BASES = ((2.55, 2.55, 0.6), (1.38, 2.85, 0.1), (0.44, 3.05, 0.0), (-0.46, 2.95, 0.0), (-1.26, 2.80, 0.1))
DIRECTIONS = (0.62, 0.10, 0.01, -0.09, -0.20)
"""Of the metacarpals, to the thumb's side, radians."""
LENGTHS = ((4.6, 3.2, 2.3), (6.7, 4.2, 2.5, 1.8), (6.5, 4.7, 2.9, 1.9), (5.8, 4.3, 2.7, 1.9), (5.3, 3.4, 2.0, 1.7))
THICK = (1.12, 1.05, 1.05, 0.98, 0.86)
CARPALS = (
    # name, middle (x, y, z) from the wrist's middle, half-width, half depth, length, lean to the thumb's side
    ("scaphoid", (1.42, 0.72, 0.2), 0.74, 0.62, 2.50, 0.62),
    ("lunate", (-0.02, 0.42, 0.0), 0.86, 0.75, 1.50, 0.0),
    ("triquetrum", (-1.42, 0.86, -0.2), 0.74, 0.60, 1.45, -0.5),
    ("pisiform", (-1.62, 0.80, 0.9), 0.48, 0.45, 1.00, 0.0),
    ("trapezium", (2.22, 1.88, 0.4), 0.84, 0.65, 1.50, 0.5),
    ("trapezoid", (1.24, 2.12, 0.0), 0.62, 0.60, 1.35, 0.1),
    ("capitate", (0.34, 1.80, 0.0), 0.74, 0.75, 2.60, 0.0),
    ("hamate", (-0.90, 1.98, 0.2), 0.86, 0.75, 2.10, -0.30),
)


@dataclass(frozen=True)
class Body:
    """What is constant in one patient."""

    size: float
    """All lengths, 1: of middle size."""
    robust: float
    """Half-widths of the bones."""
    cortex: float
    """Thickness of the cortex: less of it in old age."""
    mineral: float
    """Density of the bones."""
    flesh: float
    """Half-widths of the limbs."""
    reach: np.ndarray
    """(8,) small changes of the lengths and the places of the bones, standard normal."""
    side: str
    """"L" or "R"."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Body":
        return cls(
            size=rng.uniform(0.88, 1.12),
            robust=rng.uniform(0.88, 1.12),
            cortex=rng.uniform(0.60, 1.20),
            mineral=rng.uniform(0.78, 1.12),
            flesh=rng.uniform(0.86, 1.22),
            reach=np.clip(rng.standard_normal(8), -2, 2),
            side="LR"[rng.integers(2)],
        )


@dataclass(frozen=True)
class Frame:
    """A place in space and three directions: where a part of the arm begins."""

    origin: np.ndarray
    axes: np.ndarray
    """(3, 3), columns: the directions of x, y and z."""

    def at(self, x: float, y: float, z: float = 0.0) -> np.ndarray:
        return self.origin + self.axes @ np.array([x, y, z], float)

    def moved(self, x: float, y: float, z: float = 0.0, aside: float = 0.0, bent: float = 0.0) -> "Frame":
        """At (x, y, z), turned to the outer side and bent to the front, radians."""
        cos, sin = np.cos(bent), np.sin(bent)
        bend = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        cos, sin = np.cos(aside), np.sin(aside)
        return Frame(self.at(x, y, z), self.axes @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ bend)

    def twisted(self, angle: float) -> "Frame":
        """About its own y, radians."""
        cos, sin = np.cos(angle), np.sin(angle)
        return Frame(self.origin, self.axes @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]))

    def tube(
        self, name: str, start: tuple, end: tuple, shape: Section, density: float = 1.0, joined: bool = False
    ) -> Tube:
        """A tube between two places; its sections lie to the frame's x and z, or to y and z if it runs along x."""
        ends_cm = self.origin + np.array([(*start, 0.0)[:3], (*end, 0.0)[:3]]) @ self.axes.T
        x, y, z = (float(value) for value in ends_cm[1] - ends_cm[0])
        length = math.sqrt(x * x + y * y + z * z)
        front = self.axes[:, 0]
        lean = (x * front[0] + y * front[1] + z * front[2]) / length
        if abs(lean) > 0.75:
            front = -self.axes[:, 1]
            lean = (x * front[0] + y * front[1] + z * front[2]) / length
        front = (front - lean / length * np.array([x, y, z])) / math.sqrt(1 - lean * lean)
        return Tube(name, ends_cm, front, shape, density, joined or name == "flesh")


TRUNK = Frame(np.zeros(3), np.eye(3))
"""Its origin is the middle of the shoulder joint."""


def girdle(raised: float) -> list[Tube]:
    """Ribs, shoulder blade and collar bone; `raised`: how far the arm is, radians."""
    up = 0.6 * np.sin(raised)
    ribs = [
        TRUNK.tube(f"rib {i}", (-16.5, -4.6 + 2.9 * i), (-6.6 - 3.6 * 0.55**i, 0.2 + 3.1 * i), RIB, 0.5)
        for i in range(5)
    ]
    return [
        *ribs,
        TRUNK.tube("scapula", (-6.9, -1.6), (-8.4, 11.0), BLADE, 0.8),
        TRUNK.tube("lateral border", (-3.4, 1.9), (-7.8, 10.2), LATERAL_BORDER, 0.9, joined=True),
        TRUNK.tube("glenoid", (-6.2, 0.3), (-2.62, 0.35), GLENOID, 0.8, joined=True),
        TRUNK.tube("spine of the scapula", (-11.0, -0.6), (-1.5, -3.6 - up), rod(0.42, 0.5), 0.4),
        TRUNK.tube("acromion", (-2.7, -4.3 - up, -1), (2.1, -3.0 - up, 0.6), ACROMION, 0.9),
        TRUNK.tube("coracoid", (-4.9, -2.3), (-2.4, -1.5, 2.5), pebble(0.75, 0.7, 2.6, 0.2), 0.8),
        TRUNK.tube("clavicle", (-14.5, -2.8), (-2.95, -4.5 - up), CLAVICLE),
    ]


def upper_arm(shoulder: Frame, twist: float) -> list[Tube]:
    """Shaft, head and fossa, from the shoulder at the frame's origin to the elbow, 31 cm below; twisted inwards."""
    shoulder = shoulder.twisted(twist)
    shaft = shoulder.tube("humerus", (0.45, -1.5), (0.0, 32.1), HUMERUS)
    head = shoulder.tube("humeral head", (-2.35, -0.9), (1.6, 1.8), HEAD, joined=True)
    fossa = shoulder.tube("olecranon fossa", (-0.05, 28.2), (-0.05, 30.0), pebble(0.95, 0.25, 1.8, 9), -0.55)
    return [shaft, head, fossa]


def forearm(elbow: Frame, body: Body) -> list[Tube]:
    """From the elbow's middle, at the frame's origin, to the wrist, 25 cm below."""
    variance = 0.25 * float(body.reach[0])
    return [
        elbow.tube("radius", (1.45, 1.45), (0.85, 24.75), RADIUS),
        elbow.tube("radial styloid", (1.35, 23.1), (1.92, 25.35), pebble(0.85, 0.7, 2.3, 0.14), joined=True),
        elbow.tube("ulna", (-0.55, -1.5), (-1.55, 24.35 + variance), ULNA),
        elbow.tube(
            "ulnar styloid",
            (-1.9, 23.9 + variance),
            (-2.05, 24.95 + variance),
            pebble(0.24, 0.24, 1.0),
            0.9,
            joined=True,
        ),
    ]


def wrist_bones(wrist: Frame) -> list[Tube]:
    bones = []
    for name, (x, y, z), half, deep, length, lean in CARPALS:
        dx, dy = np.sin(lean) * length / 2, np.cos(lean) * length / 2
        middle = (0.55, 0.04, 1.1 * half, 0, deep, 0.13)
        shape = section(
            (0.55 * length, 0.45 * length), (0, 0, half, 0, deep, 0.13), middle, (1, 0, half, 0, deep, 0.13)
        )
        bones.append(wrist.tube(name, (x - dx, y - dy, z), (x + dx, y + dy, z), shape))
    return bones


def finger(wrist: Frame, which: int, body: Body, spread: float, bent: float) -> tuple[list[Tube], list[Tube]]:
    """Bones and flesh of one finger with its metacarpal. `bent`: of every joint, radians."""
    thick = THICK[which]
    aside = DIRECTIONS[which] * (1 + 0.12 * body.reach[1]) + spread
    frame = wrist.moved(*METACARPAL_BASES[which], aside=aside, bent=0.25 * bent)
    gap, bones, flesh = 0.20, [], []
    if which == 0:
        frame = frame.twisted(0.9)  # its nail looks to the side
    longer = 1 + 0.02 * body.reach[2 + which]
    names = ("metacarpal", "proximal phalanx", "middle phalanx", "distal phalanx")
    lengths = LENGTHS[which]
    for place, length in enumerate(lengths):
        length *= longer
        name = names[3] if place == len(lengths) - 1 else names[place]
        kind = {"metacarpal": METACARPAL, "distal phalanx": TIP}.get(name, PHALANX)
        finer = thick * (1.0, 1.0, 0.86, 0.86)[place]
        bones.append(frame.tube(f"{FINGERS[which]} {name}", (0, gap / 2), (0, length - gap / 2), thicker(kind, finer)))
        if place or which == 0:
            half = (1.30, 1.02, 0.90, 0.80)[place] * thick
            tip = 0.55 if place == len(lengths) - 1 else 0.5
            flesh.append(frame.tube("flesh", (0, -0.5), (0, length + tip), rod(half, 0.92 * half, 0.9 * half)))
        frame = frame.moved(0, length, aside=-0.35 * spread, bent=bent)
    return bones, flesh
