"""What makes a limb film abnormal: fractures, metal, worn joints, holes in the bone.

A finding changes one bone, or one or a few joints; everything else on the film stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from datasets.phantoms.bones import Camera, Tube, pebble, section, thicker
from datasets.phantoms.fractures import fractured
from datasets.phantoms.implants import implanted
from datasets.phantoms.sites import Site, Spot, shows_joint, spot_on
from datasets.phantoms.texture import edge

Kind = Literal["fracture", "metal", "worn joint", "hole"]
SUBTLE = 0.2
"""How often a finding that is no metal is faint."""
SPUR = section((0.05, 0.12), (0, 0, 1.0, 0, 1.0, 0.2), (1, 0, 0.35, 0, 0.35, 0.2))


@dataclass(frozen=True)
class Found:
    """A limb with its finding."""

    bones: list[Tube]
    kind: Kind
    subtle: bool
    places_film: tuple[tuple[float, float], ...]
    """x and y on the film, from -1 to 1, before it is mirrored."""
    metal: list[Tube] = field(default_factory=list)


def with_finding(
    rng: np.random.Generator,
    bones: list[Tube],
    camera: Camera,
    wide: float,
    sites: Sequence[Site],
    joints: Sequence[tuple[str, str]],
) -> Found:
    """One finding, drawn from `rng`, at one of the sites or joints that the film shows."""
    kinds: tuple[Kind, ...] = ("fracture", "metal", "worn joint", "hole")
    kind = kinds[rng.integers(4)]
    subtle = rng.random() < SUBTLE and kind != "metal"
    seen = [
        spot for site in sites if (spot := spot_on(bones, camera, wide, site.bone, rng.uniform(site.low, site.high)))
    ]
    worn = [pair for pair in joints if shows_joint(bones, camera, wide, *pair)]
    chosen, order = int(rng.integers(1 << 30)), rng.permutation(len(worn))
    if kind == "worn joint" and worn:
        several = int(rng.integers(2, 5))
        return _worn(rng, bones, camera, wide, [worn[i] for i in order[:several]], subtle)
    assert seen, "the film shows none of its sites"
    spot = seen[chosen % len(seen)]
    if kind == "metal":
        held, metal = implanted(rng, bones, camera, spot)
        return Found(held, kind, False, (spot.film,), metal)
    if kind == "hole":
        return Found(_eaten(rng, bones, camera, spot, subtle), kind, subtle, (spot.film,))
    return Found(fractured(rng, bones, camera, spot, subtle), "fracture", subtle, (spot.film,))


def _eaten(rng: np.random.Generator, bones: list[Tube], camera: Camera, spot: Spot, subtle: bool) -> list[Tube]:
    """A lytic lesion: one hole or a few that run into one another, some with a denser rim."""
    bone = bones[spot.index]
    scale = float(np.hypot(*(camera.turn_33 @ spot.along)[:2]))
    at_cm = spot.place * scale * float(np.linalg.norm(bone.ends_cm[1] - bone.ends_cm[0]))
    holes = int(rng.integers(1, 4))
    wide = np.maximum(spot.half_cm * rng.uniform(0.5, 0.9, holes), 0.03 * camera.half_field_cm)
    long = np.maximum(wide * rng.uniform(0.9, 1.9, holes), 0.05 * camera.half_field_cm)
    where = at_cm + np.cumsum(rng.normal(0, 1.1, holes)) * spot.half_cm * (np.arange(holes) > 0)
    aside = rng.normal(0, 0.45, holes) * spot.half_cm
    depth = rng.uniform(0.35, 0.5) if subtle else rng.uniform(0.75, 0.97)
    rim, phase, lobes = rng.uniform(0, 0.5) * (rng.random() < 0.5), rng.uniform(0, 6), int(rng.integers(3, 6))

    def left(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        inside = np.full_like(along, -9)
        for x, y, a, b in zip(where, aside, long, wide, strict=True):
            u, v = (along - x) / np.float32(a), (across - y) / np.float32(b)
            ragged = 1 + 0.13 * np.sin(lobes * np.arctan2(v, u) + phase)
            np.maximum(inside, 1 - np.sqrt(u * u + v * v) * ragged, out=inside)
        return 1 - depth * edge(inside, 0.16) + rim * np.exp(-np.square(inside / 0.12))

    return [*bones[: spot.index], replace(bone, cut=left), *bones[spot.index + 1 :]]


def _worn(
    rng: np.random.Generator,
    bones: list[Tube],
    camera: Camera,
    wide: float,
    pairs: Sequence[tuple[str, str]],
    subtle: bool,
) -> Found:
    """Degenerative joints: the space is gone, the bone beneath it is denser, spurs grow at its margins."""
    changed, more, places = list(bones), [], []
    strength = rng.uniform(0.35, 0.5) if subtle else rng.uniform(0.85, 1.35)
    for upper, lower in pairs:
        above, below = spot_on(bones, camera, wide, upper, 1.0), spot_on(bones, camera, wide, lower, 0.0)
        assert above is not None
        assert below is not None
        closed = 0.5 * min(strength, 0.9) * (above.centre_cm - below.centre_cm)
        reach = float(np.linalg.norm(closed))
        closed *= min(1, 0.3 * below.half_cm / max(reach, 1e-6))
        for spot, shift, end in ((above, -closed, 1), (below, closed, 0)):
            bone = changed[spot.index]
            ends = bone.ends_cm.copy()
            ends[end] += shift
            changed[spot.index] = replace(bone, ends_cm=ends)
            outward = spot.along * (1 if end else -1)
            half = max(spot.half_cm, 0.045 * camera.half_field_cm)
            margin = spot.centre_cm + shift - 0.22 * half * outward
            plate = np.stack([margin - 0.85 * half * spot.across, margin + 0.85 * half * spot.across])
            more.append(
                Tube("sclerosis", plate, spot.along, pebble(0.20 * half, 0.4 * half, 1.7 * half, 9), 0.3 * strength)
            )
            for side in (-1, 1):
                size = half * strength * rng.uniform(0.30, 0.65)
                root = margin + side * 0.80 * half * spot.across
                tip = root + side * (size + 0.15 * half) * spot.across + 0.5 * size * rng.uniform(-0.2, 1) * outward
                shape = thicker(SPUR, 0.26 * half)
                more.append(Tube("spur", np.stack([root, tip]), spot.along, shape, 1.3, joined=True))
        places.append(below.film)
    return Found([*changed, *more], "worn joint", subtle, tuple(places))
