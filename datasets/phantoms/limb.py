"""Procedural films of the arm for `--demo`: what MURA's radiographs look like, with a known truth.

One skeleton in space (`arm.py`), posed and looked at from where radiographers do (`poses.py`), the path of the beam
through the cortex of every bone (`bones.py`), a film's characteristic curve (`exposure.py`), and in an abnormal film
one finding (`findings.py`): a fracture, metal, worn joints or a lytic lesion, one in five of them faint, but for metal.

What differs between normal and abnormal films is the finding alone: patient, pose, exposure and grain come from the
same distributions and the same part of the random stream, so that a seed gives the same film with and without it, the
same gray value for gray value wherever the finding is not.
"""

from collections.abc import Sequence

import numpy as np

from datasets.phantoms.arm import FINGERS, Body
from datasets.phantoms.bones import Camera, draw_paths
from datasets.phantoms.exposure import developed, warped_grid
from datasets.phantoms.findings import Found, with_finding
from datasets.phantoms.poses import posed
from datasets.phantoms.sites import Site

VERSION = "limb-film-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same film."""
PARTS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
FLESH_CM = {"ELBOW": 8.0, "FINGER": 2.4, "FOREARM": 8.0, "HAND": 3.6, "HUMERUS": 9.5, "SHOULDER": 10.0, "WRIST": 4.6}
BONE_CM = {"ELBOW": 1.9, "FINGER": 0.64, "FOREARM": 1.35, "HAND": 0.85, "HUMERUS": 1.9, "SHOULDER": 2.1, "WRIST": 1.3}
"""What of either counts as 1 on a film of the part: the exposure is set by it."""


def _of_fingers(fingers: Sequence[str], *places: tuple[str, float, float]) -> tuple[Site, ...]:
    return tuple(Site(f"{name} {bone}", low, high) for name in fingers for bone, low, high in places)


_PHALANGES = (("proximal phalanx", 0.2, 0.85), ("middle phalanx", 0.2, 0.8), ("distal phalanx", 0.25, 0.7))
_KNUCKLES = (
    *((f"{name} proximal phalanx", f"{name} middle phalanx") for name in FINGERS[1:]),
    *((f"{name} middle phalanx", f"{name} distal phalanx") for name in FINGERS[1:]),
    ("thumb proximal phalanx", "thumb distal phalanx"),
    ("thumb metacarpal", "thumb proximal phalanx"),
)
_SHOULDER_JOINTS = (("glenoid", "humeral head"), ("clavicle", "acromion"))
_ELBOW_JOINTS = (("humerus", "radius"),)
_WRIST_JOINTS = (("radius", "scaphoid"), ("radius", "lunate"), ("trapezium", "thumb metacarpal"))
SITES: dict[str, tuple[Site, ...]] = {
    "ELBOW": (Site("humerus", 0.80, 0.92), Site("radius", 0.05, 0.12), Site("ulna", 0.10, 0.25)),
    "FINGER": _of_fingers(FINGERS, *_PHALANGES),
    "FOREARM": (Site("radius", 0.2, 0.9), Site("ulna", 0.2, 0.9)),
    "HAND": _of_fingers(FINGERS, ("metacarpal", 0.2, 0.85), ("proximal phalanx", 0.2, 0.8)),
    "HUMERUS": (Site("humerus", 0.2, 0.85),),
    "SHOULDER": (
        Site("humerus", 0.12, 0.25),
        Site("clavicle", 0.35, 0.75),
        Site("humerus", 0.09, 0.15),
        Site("clavicle", 0.7, 0.9),
    ),
    "WRIST": (
        Site("radius", 0.86, 0.94),
        Site("radius", 0.86, 0.94),
        Site("ulna", 0.88, 0.94),
        Site("scaphoid", 0.45, 0.55),
    ),
}
JOINTS: dict[str, tuple[tuple[str, str], ...]] = {
    "ELBOW": _ELBOW_JOINTS,
    "FINGER": _KNUCKLES,
    "FOREARM": _ELBOW_JOINTS + _WRIST_JOINTS[:2],
    "HAND": _KNUCKLES + _WRIST_JOINTS[2:],
    "HUMERUS": _SHOULDER_JOINTS[:1] + _ELBOW_JOINTS,
    "SHOULDER": _SHOULDER_JOINTS,
    "WRIST": _WRIST_JOINTS,
}


def limb_film(
    rng: np.random.Generator, size_px: int, part: str, abnormal: bool, patient: np.random.Generator | None = None
) -> np.ndarray:
    """A radiograph of `part`, one of PARTS: uint8 of shape (size_px, size_px).

    `patient`: a generator as fresh for every film of one patient; it gives the body, its side and the finding, which
    are the same on all of them. Pose and exposure are drawn from `rng`; without `patient`, everything is.
    """
    return film_and_finding(rng, size_px, part, abnormal, patient)[0]


def film_and_finding(
    rng: np.random.Generator, size_px: int, part: str, abnormal: bool, patient: np.random.Generator | None = None
) -> tuple[np.ndarray, Found | None]:
    """The film, and the truth about it."""
    if part not in PARTS:
        raise ValueError(f"part {part!r}: should be one of {', '.join(PARTS)}")
    grain_rng, patient_rng = rng.spawn(2)
    patient = patient_rng if patient is None else patient
    body = Body.drawn(patient)
    pose = posed(rng, part, body)
    camera = Camera(pose.camera.turn_33, pose.camera.centre_cm, pose.camera.half_field_cm / body.size)
    grid_2HW = warped_grid(rng, size_px, 0.012)
    found = None
    if abnormal:
        sites = [site for site in SITES[part] if site.bone.startswith(pose.finger)]
        joints = [pair for pair in JOINTS[part] if pair[0].startswith(pose.finger)]
        found = with_finding(patient, pose.bones, camera, body.robust, sites, joints)
    flesh_HW, bone_HW, metal_HW = (np.zeros((size_px, size_px), np.float32) for _ in range(3))
    draw_paths(pose.flesh, camera, grid_2HW, flesh_HW, wide=body.flesh)
    if pose.air:
        draw_paths(pose.air, camera, grid_2HW, flesh_HW)
        np.maximum(flesh_HW, 0.12 * FLESH_CM[part], out=flesh_HW)
    draw_paths(found.bones if found else pose.bones, camera, grid_2HW, bone_HW, wide=body.robust, wall=body.cortex)
    np.maximum(bone_HW, 0, out=bone_HW)
    if found:
        draw_paths(found.metal, camera, grid_2HW, metal_HW)
    bone_HW *= body.mineral / BONE_CM[part]
    return developed(rng, grain_rng, flesh_HW / FLESH_CM[part], bone_HW, metal_HW, body.side), found
