"""Metal in and on bones: plates with screws, wires, nails."""

from dataclasses import replace

import numpy as np

from datasets.phantoms.bones import Camera, Tube, rod
from datasets.phantoms.fractures import fracture_line
from datasets.phantoms.sites import Spot


def implanted(rng: np.random.Generator, bones: list[Tube], camera: Camera, spot: Spot) -> tuple[list[Tube], list[Tube]]:
    """The bones, one of them with a fracture that is healing, and the metal that holds it."""
    bone = bones[spot.index]
    half_cm = max(spot.half_cm, 0.02 * camera.half_field_cm)
    thin_cm = max(0.11 * half_cm, 0.012 * camera.half_field_cm)  # never thinner than about a pixel
    length_cm = float(np.linalg.norm(bone.ends_cm[1] - bone.ends_cm[0]))
    shaft = length_cm > 8 * half_cm and 0.15 < spot.place < 0.75
    what = rng.choice(3, p=(0.6, 0.25, 0.15) if shaft else (0.35, 0.65, 0))
    metal = (_plate, _wires, _nail)[what](rng, bone, spot, half_cm, thin_cm)
    metal = [replace(tube, density=0.45 / thin_cm) for tube in metal]
    scale = float(np.hypot(*(camera.turn_33 @ spot.along)[:2]))
    beyond = fracture_line(rng, spot.place * length_cm * scale, rng.normal(0, 0.4), 0.1 * half_cm, half_cm)
    dark, gap_cm = rng.uniform(0.0, 0.6), camera.half_field_cm * rng.uniform(0.015, 0.03)

    def healing(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return 1 - dark * np.exp(-np.square(beyond(along, across) / (0.6 * gap_cm)))

    return [*bones[: spot.index], replace(bone, cut=healing), *bones[spot.index + 1 :]], metal


def _plate(rng: np.random.Generator, bone: Tube, spot: Spot, half_cm: float, thin_cm: float) -> list[Tube]:
    """On any side of the bone, with screws that reach the opposite cortex."""
    length_cm = float(np.linalg.norm(bone.ends_cm[1] - bone.ends_cm[0]))
    angle = rng.uniform(0, 2 * np.pi)
    outward = np.cos(angle) * spot.across + np.sin(angle) * np.cross(spot.along, spot.across)
    screws, reach = int(rng.integers(4, 9)), float(min(half_cm * rng.uniform(2.5, 4.5), 0.42 * length_cm))
    shift = np.clip(0, reach - spot.place * length_cm, (1 - spot.place) * length_cm - reach)
    on_bone = spot.centre_cm + shift * spot.along + 1.05 * half_cm * outward
    ends = np.stack([on_bone - reach * spot.along, on_bone + reach * spot.along])
    metal = [Tube("plate", ends, np.cross(spot.along, outward), rod(0.48 * half_cm, 0.14 * half_cm, 0.3 * half_cm))]
    for at in np.linspace(-0.88, 0.88, screws):
        if abs(at) > 0.12:  # none in the fracture
            hole = on_bone + at * reach * spot.along
            askew = half_cm * rng.uniform(-0.15, 0.15) * spot.along
            screw = np.stack([hole, hole - outward * half_cm * rng.uniform(1.7, 2.15) + askew])
            head = np.stack([hole + 0.25 * half_cm * outward, hole - 0.1 * half_cm * outward])
            metal += [
                Tube("screw", screw, spot.along, rod(thin_cm)),
                Tube("head", head, spot.along, rod(2.1 * thin_cm)),
            ]
    return metal


def _wires(rng: np.random.Generator, bone: Tube, spot: Spot, half_cm: float, thin_cm: float) -> list[Tube]:
    """One to three Kirschner wires, obliquely through the bone and out of it."""
    metal = []
    for _ in range(int(rng.integers(1, 4))):
        lean, reach = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6), rng.uniform(2.2, 3.6) * half_cm
        direction = np.cos(lean) * spot.along + np.sin(lean) * spot.across
        via = spot.centre_cm + rng.uniform(-0.4, 0.4) * half_cm * spot.across
        ends = np.stack([via - reach * direction, via + 0.8 * reach * direction])
        metal.append(Tube("wire", ends, np.cross(direction, np.cross(spot.along, spot.across)), rod(0.85 * thin_cm)))
    return metal


def _nail(rng: np.random.Generator, bone: Tube, spot: Spot, half_cm: float, thin_cm: float) -> list[Tube]:
    """In the canal, with a bolt across either end."""
    axis = bone.ends_cm[1] - bone.ends_cm[0]
    in_canal = spot.centre_cm - spot.place * axis
    ends = in_canal + np.array([[0.06], [rng.uniform(0.8, 0.92)]]) * axis
    metal = [Tube("nail", ends, spot.across, rod(0.42 * half_cm, 0.42 * half_cm, 0.3))]
    for end, sign in ((0, 1), (1, -1)):
        at = ends[end] + sign * rng.uniform(1.0, 2.0) * half_cm * spot.along
        bolt = np.stack([at - 1.4 * half_cm * spot.across, at + 1.4 * half_cm * spot.across])
        metal.append(Tube("bolt", bolt, spot.along, rod(thin_cm)))
    return metal
