"""Procedural things in the form of CIFAR-10: ten kinds in their surroundings, in colour, 32 px.

Vehicles from the side or the front, animals standing, sitting or as a face; poses, colours, surroundings and light
vary, and overlap between the kinds: a bird may be before grass, a ship as gray as the sky. What a person needs for
telling them apart is their shape.
"""

from collections.abc import Callable

import numpy as np

from datasets.phantoms.animal import bird, cat, frog
from datasets.phantoms.craft import airplane, ship
from datasets.phantoms.quadruped import deer, dog, horse
from datasets.phantoms.scene import Scene
from datasets.phantoms.vehicle import automobile, truck

VERSION = "thing-1"
"""Part of the content of a phantom: raise it when the same seed no longer gives the same thing."""

_KINDS: tuple[Callable[[Scene], float], ...] = (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck)


def thing(rng: np.random.Generator, kind: int) -> np.ndarray:
    """A thing of the kind 0 to 9 of CIFAR-10, uint8 of shape (32, 32, 3), drawn from `rng` alone."""
    scene = Scene(rng)
    roughness = _KINDS[kind](scene)
    return scene.finished(roughness)
