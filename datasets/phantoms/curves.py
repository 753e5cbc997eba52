"""Smooth curves through points and smooth surfaces through few values."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt


def smoothed(points: npt.ArrayLike, closed: bool = False, steps: int = 4) -> np.ndarray:
    """A Catmull-Rom curve through points of shape (points, 2), so many steps from each to the next.

    A point that stands twice in a row is a corner.
    """
    points_P2 = np.asarray(points, float)
    return _curve(len(points_P2), closed, steps) @ points_P2


@lru_cache(maxsize=128)
def _curve(points: int, closed: bool, steps: int) -> np.ndarray:
    """The matrix of shape (places on the curve, points)."""
    segments = points if closed else points - 1
    t = np.arange(steps) / steps
    weights_S4 = catmull_rom(t)
    rows = np.zeros((segments, steps, points))
    for segment in range(segments):
        for neighbour in range(4):
            at = segment - 1 + neighbour
            at = at % points if closed else min(max(at, 0), points - 1)
            rows[segment, :, at] += weights_S4[:, neighbour]
    matrix = rows.reshape(-1, points)
    return matrix if closed else np.concatenate([matrix, np.eye(points)[-1:]])


def enlarged(coarse: np.ndarray, size_px: int) -> np.ndarray:
    """A smooth surface of shape (size_px, size_px) from few values (rows, columns), float32.

    As a bicubic resize, but with nothing but sums and products of elements: the same bits on every machine.
    """
    for _ in range(2):
        at_S4, weights_S4 = _between(len(coarse), size_px)
        coarse = (coarse[at_S4] * weights_S4[:, :, None]).sum(axis=1).T
    return coarse


@lru_cache(maxsize=128)
def _between(cells: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel of a line the four cells around it and their weights, each (size_px, 4)."""
    place = (np.arange(size_px) + 0.5) * cells / size_px - 0.5
    first = np.floor(place).astype(np.int64)
    at_S4 = np.clip(first[:, None] + np.arange(-1, 3), 0, cells - 1)
    return at_S4, catmull_rom(place - first).astype(np.float32)


def catmull_rom(t: np.ndarray) -> np.ndarray:
    """Weights of shape (len(t), 4) of the point before, the two that t = 0 … 1 runs between, and the one after.

    Catmull and Rom 1974, with tension 1/2.
    """
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=-1
    )
