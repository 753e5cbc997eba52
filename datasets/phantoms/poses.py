"""How an arm lies before the film: what is seen of it, from where, for each part of the body that MURA has."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.phantoms.arm import (
    TRUNK,
    Body,
    Frame,
    finger,
    forearm,
    girdle,
    upper_arm,
    wrist_bones,
)
from datasets.phantoms.arm_sections import FOREARM_FLESH, PALM_FLESH, UPPER_ARM_FLESH
from datasets.phantoms.bones import Camera, Tube, rod, rotation

LATERAL = 0.4
"""How often elbows, forearms, wrists and fingers are taken from the side."""
CHEST_WALL = TRUNK.tube("flesh", (-26, 18), (-2.8, 19), rod(18.5, 4, 2.5))
SHOULDER_FLESH = TRUNK.tube("flesh", (-14, -6.5), (0.2, -1.5), rod(5.2, 4.5, 5))
NECK = TRUNK.tube("flesh", (-17, -16), (-15, 4), rod(6, 5))
LUNG = TRUNK.tube("lung", (-14.6, -6.0), (-14.6, 45), rod(7.5, 5.0, 12), -0.75)


@dataclass(frozen=True)
class Pose:
    bones: list[Tube]
    flesh: list[Tube]
    camera: Camera
    air: tuple[Tube, ...] = ()
    """Missing in the flesh."""
    finger: str = ""
    """Which finger a film of a finger is about."""


def posed(rng: np.random.Generator, part: str, body: Body) -> Pose:
    """One way to take a film of `part`."""
    return _POSES[part](rng, body)


def _shoulder(rng: np.random.Generator, body: Body) -> Pose:
    raised, twist = rng.uniform(0.05, 0.55), rng.uniform(-0.5, 0.9)
    arm = TRUNK.moved(0, 0, aside=raised)
    bones = [*girdle(raised), *upper_arm(arm, twist)[:2]]
    flesh = [arm.tube("flesh", (0.3, -3.5), (0, 32), UPPER_ARM_FLESH), CHEST_WALL, SHOULDER_FLESH, NECK]
    camera = _camera(rng, np.array([-3.8, 2.6, 0]), (9.5, 12.5), 0.08, 0.07, 0.7)
    return Pose(bones, flesh, camera, air=(LUNG,))


def _humerus(rng: np.random.Generator, body: Body) -> Pose:
    raised, twist = rng.uniform(0.02, 0.35), rng.choice([0.0, 1.4]) + rng.normal(0, 0.15)
    arm = TRUNK.moved(0, 0, aside=raised)
    elbow = arm.moved(0, 31, aside=0.1, bent=rng.uniform(0, 0.5))
    bones = [*girdle(raised)[5:], *upper_arm(arm, twist), *forearm(elbow, body)]
    flesh = [arm.tube("flesh", (0.3, -3.5), (0, 34), UPPER_ARM_FLESH), CHEST_WALL, SHOULDER_FLESH]
    flesh.append(elbow.tube("flesh", (0, -3.0), (-0.3, 26), FOREARM_FLESH))
    return Pose(bones, flesh, _camera(rng, arm.at(-0.6, 15.3), (17.5, 20), 0.1, 0.08, 0.7, roll=raised))


def _elbow(rng: np.random.Generator, body: Body) -> Pose:
    lateral = rng.random() < LATERAL
    bent, aside = (rng.uniform(1.3, 1.75), 0.0) if lateral else (rng.uniform(0, 0.12), rng.uniform(0.05, 0.22))
    elbow = TRUNK.moved(0, 31, aside=aside, bent=bent)
    bones, flesh = [*upper_arm(TRUNK, 0), *forearm(elbow, body)], _straight_flesh(elbow)
    roll = rng.choice([0, 0.5, 1.0, 1.5]) * np.pi
    turn = np.pi / 2 if lateral else 0
    return Pose(bones, flesh, _camera(rng, elbow.at(0.2, 1.2), (7.5, 10), 0.08, 0.15, 0.6, turn, roll))


def _forearm(rng: np.random.Generator, body: Body) -> Pose:
    lateral = rng.random() < LATERAL
    elbow = TRUNK.moved(0, 31, aside=0.0 if lateral else rng.uniform(0.05, 0.2), bent=rng.uniform(0, 0.12))
    wrist = elbow.moved(0, 25.2)
    fingers = [finger(wrist, which, body, 0, 0.05) for which in range(5)]
    bones = [*upper_arm(TRUNK, 0), *forearm(elbow, body), *wrist_bones(wrist)]
    bones += [bone for of_finger, _ in fingers for bone in of_finger[:2]]
    flesh = [*_straight_flesh(elbow), wrist.tube("flesh", (-0.2, -1.5), (-0.1, 9.6), PALM_FLESH), fingers[0][1][0]]
    turn = rng.uniform(1.1, 1.6) if lateral else 0
    roll = rng.integers(2) * np.pi
    return Pose(bones, flesh, _camera(rng, elbow.at(0, 12.6), (14.5, 17), 0.1, 0.12, 0.6, turn, roll))


def _wrist(rng: np.random.Generator, body: Body) -> Pose:
    lateral = rng.random() < LATERAL
    bones, flesh, wrist, _ = _hand_on_table(rng, body)
    turn = rng.uniform(0.6, 1.6) if lateral else 0
    return Pose(bones, flesh, _camera(rng, wrist.at(0.2, 0.9), (5.6, 7.8), 0.09, 0.13, 0.4, turn, np.pi))


def _hand(rng: np.random.Generator, body: Body) -> Pose:
    oblique = rng.random() < 0.3
    bones, flesh, wrist, _ = _hand_on_table(rng, body)
    turn = rng.uniform(0.45, 0.75) if oblique else 0
    return Pose(bones, flesh, _camera(rng, wrist.at(0.7, 7.7), (10.6, 12.4), 0.08, 0.12, 0.4, turn, np.pi))


def _finger(rng: np.random.Generator, body: Body) -> Pose:
    lateral, chosen = rng.random() < LATERAL, int(rng.integers(5))
    bones, flesh, wrist, fingers = _hand_on_table(rng, body)
    if lateral:  # the others are folded away
        bones, flesh = fingers[chosen]
        flesh = [wrist.tube("flesh", (0, 4), tuple(_in_frame(wrist, flesh[0].ends_cm[1])), rod(1.5)), *flesh]
    turn = (np.pi / 2 if chosen else 0.6) if lateral else 0.9 * (chosen == 0)
    tip = fingers[chosen][1][-1].ends_cm[1]
    knuckle = fingers[chosen][0][1].ends_cm[0]
    roll = np.pi + 0.8 * np.arctan2(*(tip - knuckle)[[0, 1]])
    camera = _camera(rng, 0.55 * knuckle + 0.45 * tip, (4.4, 5.6), 0.1, 0.12, 0.25, turn, roll)
    return Pose(bones, flesh, camera, finger=fingers[chosen][0][0].name.split()[0])


def _hand_on_table(
    rng: np.random.Generator, body: Body
) -> tuple[list[Tube], list[Tube], Frame, list[tuple[list[Tube], list[Tube]]]]:
    """Bones and flesh from the forearm to the finger tips, the wrist, and the fingers alone."""
    wrist = TRUNK.moved(0, 25.2, aside=rng.normal(0, 0.06))
    spread, bent = rng.uniform(-0.01, 0.07), rng.uniform(0.0, 0.16)
    bends = bent + rng.uniform(0, 0.06, 5)
    fingers = [finger(wrist, which, body, spread * (2 - which), bends[which]) for which in range(5)]
    bones = [*forearm(TRUNK, body), *wrist_bones(wrist), *(bone for of_finger, _ in fingers for bone in of_finger)]
    flesh = [TRUNK.tube("flesh", (0, -3.0), (-0.1, 26.5), FOREARM_FLESH)]
    flesh += [wrist.tube("flesh", (0.1, -1.2), (-0.1, 9.6), PALM_FLESH)]
    return bones, [*flesh, *(tube for _, of_finger in fingers for tube in of_finger)], wrist, fingers


def _straight_flesh(elbow: Frame) -> list[Tube]:
    arm = TRUNK.tube("flesh", (0, -3.5), (0, 34), UPPER_ARM_FLESH)
    return [arm, elbow.tube("flesh", (0, -3.0), (-0.3, 27), FOREARM_FLESH)]


def _in_frame(frame: Frame, point_cm: np.ndarray) -> np.ndarray:
    return frame.axes.T @ (point_cm - frame.origin)


def _camera(
    rng: np.random.Generator,
    middle_cm: np.ndarray,
    half_field_cm: tuple[float, float],
    turn_spread: float,
    roll_spread: float,
    shift_cm: float,
    turn: float = 0.0,
    roll: float = 0.0,
) -> Camera:
    """Around `turn` and `roll` (radians) and a place, as exactly as radiographers manage."""
    turned = rotation(turn + rng.normal(0, turn_spread), roll + rng.normal(0, roll_spread))
    return Camera(turned, middle_cm + rng.normal(0, shift_cm, 3), rng.uniform(*half_field_cm))


_POSES: dict[str, Callable[[np.random.Generator, Body], Pose]] = {
    "ELBOW": _elbow,
    "FINGER": _finger,
    "FOREARM": _forearm,
    "HAND": _hand,
    "HUMERUS": _humerus,
    "SHOULDER": _shoulder,
    "WRIST": _wrist,
}
