"""Where findings are found: places on bones, as a film shows them."""

from dataclasses import dataclass

import numpy as np

from datasets.phantoms.bones import PLACES, Camera, Tube


@dataclass(frozen=True)
class Site:
    """Where findings are found: a bone and the part of its length, 0 to 1."""

    bone: str
    low: float
    high: float


@dataclass(frozen=True)
class Spot:
    """A place on a bone, as the film shows it. Directions are unit vectors in the patient's space."""

    index: int
    place: float
    """Along the bone, 0 to 1."""
    centre_cm: np.ndarray
    along: np.ndarray
    across: np.ndarray
    """In the plane of the film."""
    half_cm: float
    """Half-width on the film."""
    film: tuple[float, float]


def spot_on(bones: list[Tube], camera: Camera, wide: float, name: str, place: float) -> Spot | None:
    """None where there is no such bone, the film does not show the place, or shows it end on."""
    index = next((i for i, bone in enumerate(bones) if bone.name == name), None)
    if index is None:
        return None
    bone = bones[index]
    length_cm = float(np.linalg.norm(bone.ends_cm[1] - bone.ends_cm[0]))
    along = (bone.ends_cm[1] - bone.ends_cm[0]) / length_cm
    on_film = camera.turn_33 @ along
    flat = float(np.hypot(*on_film[:2]))
    across = camera.turn_33.T @ (np.array([-on_film[1], on_film[0], 0]) / max(flat, 1e-6))
    side = np.cross(bone.front, along)
    row = bone.section.table_KS[:, round(place * (PLACES - 1))] * wide
    front, sideways = float(bone.front @ across), float(side @ across)
    half_cm = float(np.hypot(row[1] * front, row[3] * sideways))
    offset = bone.front * row[0] + side * row[2]
    centre_cm = bone.ends_cm[0] + place * length_cm * along + offset
    x, y, _ = (float(value) for value in camera.on_film(centre_cm))
    if max(abs(x), abs(y)) > 0.8 or flat < 0.6:
        return None
    return Spot(index, place, centre_cm, along, across, half_cm, (x, y))


def shows_joint(bones: list[Tube], camera: Camera, wide: float, upper: str, lower: str) -> bool:
    """From the side, other bones lie over all joints but those of the fingers."""
    above, below = spot_on(bones, camera, wide, upper, 1.0), spot_on(bones, camera, wide, lower, 0.0)
    if above is None or below is None:
        return False
    return "phalanx" in upper or abs(float(above.across @ bones[above.index].front)) > 0.75
