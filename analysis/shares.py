"""Shares and means of images with a 95 % interval that knows groups and repeats."""

import math

import numpy as np

LEVEL, Z = 0.95, 1.959964
"""Of all intervals, and the quantile of the normal distribution that belongs to it."""


def wilson(share: float, count: float) -> tuple[float, float]:
    """The interval of a share of `count` independent images (Wilson 1927)."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def share(true_N: np.ndarray, group_N: np.ndarray, repeats: int = 1) -> dict[str, float | None]:
    """The `value` of a share, and `low` and `high` of its 95 % interval; all None of nothing.

    Wilson's interval (1927) for as many images as are worth these: those of one group (int64, from 0) and the repeats
    of an image are not independent, so their number is divided by the design effect (Kish 1965), the variance between
    groups over that of independent images. Where all are equal no variance is seen, and each group counts once.
    """
    if not len(true_N):
        return {"value": None, "low": None, "high": None}
    p, count = float(true_N.mean()), len(true_N)
    sizes, hits = np.bincount(group_N), np.bincount(group_N, true_N)
    groups = int((sizes > 0).sum())
    worth = float(groups)
    if 0 < p < 1 and groups > 1:
        variance = ((hits - p * sizes) ** 2).sum() * groups / (groups - 1) / count**2
        worth = max(1.0, min(count / repeats, p * (1 - p) / variance if variance else np.inf))
    low, high = wilson(p, worth)
    return {"value": p, "low": min(p, low), "high": max(p, high)}


def mean_interval(values_N: np.ndarray, group_N: np.ndarray) -> dict[str, float | None]:
    """The mean of scores of images with its 95 % interval, normal, from the variance between groups (None of one)."""
    if not len(values_N):
        return {"value": None, "low": None, "high": None}
    mean, sizes = float(values_N.mean()), np.bincount(group_N)
    groups = int((sizes > 0).sum())
    if groups < 2:
        return {"value": mean, "low": None, "high": None}
    between = ((np.bincount(group_N, values_N) - mean * sizes) ** 2).sum()
    half = Z * float(np.sqrt(between * groups / (groups - 1))) / len(values_N)
    return {"value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}
