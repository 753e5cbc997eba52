"""Fractures: a line through a bone, and where the fragments lie."""

from dataclasses import replace

import numpy as np

from datasets.phantoms.bones import Camera, Cut, Tube
from datasets.phantoms.sites import Spot
from datasets.phantoms.texture import edge


def fracture_line(rng: np.random.Generator, at_cm: float, slope: float, ragged_cm: float, half_cm: float) -> Cut:
    """How far beyond the line a place lies, in cm; the line crosses the axis at `at_cm`."""
    phase, pitch = rng.uniform(0, 2 * np.pi, 2), np.array([2.1, 5.3]) * rng.uniform(0.7, 1.3, 2) / half_cm

    def beyond(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        line = slope * across + ragged_cm * np.sin(pitch[0] * across + phase[0])
        line += 0.5 * ragged_cm * np.sin(pitch[1] * across + phase[1])
        return along - (at_cm + line)

    return beyond


def split(
    bone: Tube, beyond: Cut, gap_cm: float, soft_cm: float, near_cm: np.ndarray, far_cm: np.ndarray
) -> list[Tube]:
    """Two fragments of `bone`; the far one lies `near_cm` off at its start and `far_cm` off at its end, (3,) each.

    The start is where the whole bone would start, even though the fragment begins at the line.
    """

    def before_line(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return edge(-beyond(along, across) - gap_cm / 2, soft_cm)

    def after_line(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return edge(beyond(along, across) - gap_cm / 2, soft_cm)

    return [
        replace(bone, cut=before_line),
        replace(bone, cut=after_line, ends_cm=bone.ends_cm + np.stack([near_cm, far_cm])),
    ]


def fractured(rng: np.random.Generator, bones: list[Tube], camera: Camera, spot: Spot, subtle: bool) -> list[Tube]:
    """`bones`, one of them broken: with a step, or with a hairline that may end on the way where it is subtle."""
    bone, field_cm = bones[spot.index], camera.half_field_cm
    length_cm = float(np.linalg.norm(bone.ends_cm[1] - bone.ends_cm[0]))
    slope = float(rng.choice([-1, 1]) * rng.choice([rng.uniform(0, 0.3), rng.uniform(0.4, 1.3)]))
    scale = float(np.hypot(*(camera.turn_33 @ spot.along)[:2]))  # cuts are in cm of the film
    beyond = fracture_line(rng, spot.place * length_cm * scale, slope, 0.10 * spot.half_cm, spot.half_cm)
    step = rng.choice([-1, 1]) * spot.half_cm * rng.uniform(0.22, 0.75)
    far_step, along_step = step * rng.uniform(0, 0.5) * (spot.place > 0.75), rng.uniform(-0.05, 0.25) * spot.half_cm
    gap_cm = field_cm * rng.uniform(0.018, 0.034)
    partial, dark, side = rng.random() < 0.4, rng.uniform(0.65, 0.85), rng.choice([-1, 1])
    if subtle:

        def crack(along: np.ndarray, across: np.ndarray) -> np.ndarray:
            line = np.exp(-np.square(beyond(along, across) / (0.5 * gap_cm)))
            if partial:
                line *= edge(side * across + 0.2 * spot.half_cm, 0.2 * spot.half_cm)
            return 1 - dark * line

        parts = [replace(bone, cut=crack)]
    else:
        at_start = step + (far_step - step) * (0 - spot.place) / max(1 - spot.place, 0.05)
        at_start = float(np.clip(at_start, -3 * abs(step), 3 * abs(step)))
        moved = -along_step * spot.along
        parts = split(bone, beyond, gap_cm, 0.008 * field_cm, at_start * spot.across + moved, far_step * spot.across)
    return [*bones[: spot.index], *parts, *bones[spot.index + 1 :]]
