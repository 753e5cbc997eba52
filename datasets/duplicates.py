"""Exact and near copies of an image: re-encoded, brightened, resized, cropped by a pixel or two.

Two radiographs of two patients, or two handwritten ones, correlate at 0.95 and more, and so does an image with its own
copy once that is cropped a little: no threshold on a correlation or a perceptual hash tells them apart. So every image
is laid over its nearest neighbours by the best shift and stretch (Gauss-Newton on thumbnails), and what remains is
compared with what remains between neighbours in general: a copy is closer by an order of magnitude. Of the variance
remain, in 400 chest phantoms, at most 0.006 between copies and at least 0.035 between different films; in 4,000 digit
phantoms, at most 0.0015 (99 %) and at least 0.0039. 60,000 images take 20 s on two cores and 0.65 GB.

Suffixes: N images or pairs, H and W pixels of a thumbnail, K coefficients.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from datasets.dataset import ImageDataset, content_digest
from datasets.facts import THUMBNAIL_PX, Facts, low_frequencies
from datasets.stores import stored_array

VERSION = "1"
"""Part of every key: raise it when other images are taken for copies."""
NEIGHBOURS = 4
"""Nearest neighbours that every image is compared with."""
MOST_UNEXPLAINED = 0.01
"""Part of the variance between two thumbnails that may remain between copies, however different the images."""
CLOSER = 0.32
"""Of what remains between the nearest one in a hundred pairs of neighbours that are no copies, what may remain."""
FEW = 20
"""Neighbours from which nothing can be learned about all of them; then `OF_FEW` is what may remain."""
OF_FEW = 0.003
CHUNK = 512
PAIRS = 256
"""Compared at a time by a thread: what fits into a cache, which takes half the time of eight times as many."""
STEPS = 4
STRETCH, SHIFT_PX = 0.15, 2.5
"""Most that a copy may be stretched, and shifted in pixels of a thumbnail."""


@dataclass(frozen=True)
class Clusters:
    """For every image the row number of the first image that it is a copy of; its own, where it is the first."""

    exact: np.ndarray
    """int64 (images,), by equal content; of images that do not decode, their own."""
    near: np.ndarray
    """int64 (images,), exact copies included."""


def clusters(dataset: ImageDataset, facts: Facts) -> Clusters:
    """Which images are the same picture. Those that do not decode, or show nothing, have exact copies only."""
    # With masks, an image that has two of them is two contents.
    exact = first_of_each(facts.table["image"] if dataset.kind == "segmentation" else dataset.table["content"])
    exact = np.where(facts.sound, exact, np.arange(len(exact)))
    comparable = facts.sound & ~facts.blank
    key = content_digest(["clusters", VERSION, facts.key])

    def fill(array: np.ndarray) -> None:
        rows = np.flatnonzero((exact == np.arange(len(exact))) & comparable)
        array[:] = joined(exact, *near_pairs(facts.thumbnails_NHW[rows], rows))

    return Clusters(exact, stored_array(f"clusters-{dataset.name}-{key}", exact.shape, np.int64, fill))


def first_of_each(names: pl.Series) -> np.ndarray:
    """int64 (rows,): the first row that has the same name."""
    first = pl.DataFrame({"name": names, "row": np.arange(len(names))})
    return first.select(pl.col("row").min().over("name"))["row"].to_numpy().astype(np.int64)


def joined(number: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 (rows,): the lowest row of each connected component, where `number` (row -> a row of its component) and the
    pairs are the edges. Independent of the order of the pairs."""
    lowest = np.minimum(number, np.arange(len(number)))
    left, right = np.concatenate([left, np.arange(len(number))]), np.concatenate([right, number])
    while True:
        before = lowest.copy()
        np.minimum.at(lowest, left, before[right])
        np.minimum.at(lowest, right, before[left])
        lowest = lowest[lowest]
        if (lowest == before).all():
            return lowest


def near_pairs(thumbnails_NHW: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `rows` (one per thumbnail) that show the same picture, enough of them to connect all of its copies."""
    if len(rows) < 2:
        return rows[:0], rows[:0]
    images_NHW = _softened(thumbnails_NHW)
    left, right = _neighbours(images_NHW)
    unexplained = _unexplained(images_NHW, left, right)
    nearest = np.full(len(rows), np.inf)
    np.minimum.at(nearest, left, unexplained)
    np.minimum.at(nearest, right, unexplained)
    most = _most_unexplained(nearest)
    found = unexplained <= most
    # Of a picture with many copies each finds four others, which need not connect all: compare the clusters again.
    while True:
        component = joined(np.arange(len(rows)), left[found], right[found])
        sizes = np.bincount(component, minlength=len(rows))
        firsts = np.flatnonzero(sizes > 1)
        if len(firsts) < 2:
            break
        a, b = _neighbours(images_NHW[firsts])
        a, b = firsts[a], firsts[b]
        new = _unexplained(images_NHW, a, b) <= most
        if not new.any():
            break
        left, right = np.concatenate([left[found], a[new]]), np.concatenate([right[found], b[new]])
        found = np.ones(len(left), bool)
    return rows[left[found]], rows[right[found]]


def _most_unexplained(nearest: np.ndarray) -> float:
    """What may remain between copies, from what remains between every image and its nearest neighbour.

    Among drawn digits there are twins, among films of different chests there are none: the one-percent quantile is
    extrapolated from the ten-percent quantile and the median, which a few undetected copies do not move.
    """
    others = nearest[nearest > MOST_UNEXPLAINED]
    if len(others) < FEW:
        return OF_FEW
    tenth, half = np.quantile(others, [0.1, 0.5])
    hundredth = tenth * (tenth / half) ** (np.log(10) / np.log(5))
    return round(float(min(MOST_UNEXPLAINED, CLOSER * hundredth)), 4)


def _softened(images_NHW: np.ndarray) -> np.ndarray:
    """float32, with a 1-2-1 filter in both directions: what JPEG and resampling change lies above it."""
    soft_NHW = np.empty(images_NHW.shape, np.float32)
    for start in range(0, len(images_NHW), PAIRS):
        padded = np.pad(images_NHW[start : start + PAIRS].astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        soft_NHW[start : start + PAIRS] = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return soft_NHW


def _neighbours(images_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every image with its nearest ones by the correlation of low frequencies: pairs left < right, each once."""
    coefficients_NK = low_frequencies(images_NHW)
    coefficients_NK[:, 0] = 0  # brightness
    coefficients_NK /= np.maximum(np.linalg.norm(coefficients_NK, axis=1, keepdims=True), 1e-6)
    count, several = len(coefficients_NK), min(NEIGHBOURS, len(coefficients_NK) - 1)
    nearest = np.empty((count, several), np.int64)
    for start in range(0, count, CHUNK):
        similarity = coefficients_NK[start : start + CHUNK] @ coefficients_NK.T
        own = np.arange(len(similarity))
        similarity[own, start + own] = -2
        for nth in range(several):
            best = similarity.argmax(1)
            nearest[start : start + CHUNK, nth] = best
            similarity[own, best] = -2
    number = np.repeat(np.arange(count), several)
    pairs = np.unique(np.minimum(number, nearest.ravel()) * count + np.maximum(number, nearest.ravel()))
    return pairs // count, pairs % count


def _unexplained(images_NHW: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float (pairs,): part of the variance of one image that the other, laid over it, does not explain."""

    def of_some(start: int) -> np.ndarray:
        pairs = slice(start, start + PAIRS)
        one, other = images_NHW[left[pairs]], images_NHW[right[pairs]]
        remaining = _laid_over(one, other)
        again = np.flatnonzero(remaining < 10 * MOST_UNEXPLAINED)  # a crop is laid over the whole, not the reverse
        remaining[again] = np.minimum(remaining[again], _laid_over(other[again], one[again]))
        return remaining

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(of_some, range(0, len(left), PAIRS)))
    # Other processors round otherwise, and which images are copies is to be the same on all of them.
    return np.concatenate([np.empty(0, np.float32), *found]).round(4)


PLACE = np.arange(THUMBNAIL_PX, dtype=np.float32) - (THUMBNAIL_PX - 1) / 2


def _laid_over(moved_NHW: np.ndarray, still_NHW: np.ndarray) -> np.ndarray:
    """float (pairs,): 1 - r² between `still` and `moved`, shifted and stretched along both axes as fits best."""
    best = np.full(len(moved_NHW), np.inf, np.float32)
    if not len(best):
        return best
    still_NP = _centred(still_NHW)
    variance = np.maximum(np.square(still_NP).sum(1), 1e-6)
    stretch_x, shift_x, stretch_y, shift_y = moves = np.zeros((4, len(best)), np.float32)
    trying = np.arange(len(best))
    for step in range(STEPS + 1):
        warped_NHW = (
            _resampling(stretch_y[trying], shift_y[trying])
            @ moved_NHW[trying]
            @ _resampling(stretch_x[trying], shift_x[trying]).transpose(0, 2, 1)
        )
        warped_NP = _centred(warped_NHW)
        product = np.einsum("np,np->n", warped_NP, still_NP[trying])
        explained = product**2 / (np.maximum(np.square(warped_NP).sum(1), 1e-6) * variance[trying])
        best[trying] = np.minimum(best[trying], 1 - explained)
        # Whoever is far off after a first step or two does not come near.
        going_on = best[trying] < (1.0, 0.3, 0.1, 0.1)[min(step, 3)]
        if step == STEPS or not going_on.any():
            break
        trying, warped_NHW, warped_NP = trying[going_on], warped_NHW[going_on], warped_NP[going_on]
        slope_x, slope_y = np.zeros_like(warped_NHW), np.zeros_like(warped_NHW)
        slope_x[:, :, 1:-1] = (warped_NHW[:, :, 2:] - warped_NHW[:, :, :-2]) / 2
        slope_y[:, 1:-1] = (warped_NHW[:, 2:] - warped_NHW[:, :-2]) / 2
        basis_NKP = np.stack(
            [warped_NP] + [_centred(slope) for slope in (slope_x * PLACE, slope_x, slope_y * PLACE[:, None], slope_y)],
            axis=1,
        )
        gram_NKK = basis_NKP @ basis_NKP.transpose(0, 2, 1)
        ridge = 1e-3 * np.trace(gram_NKK, axis1=1, axis2=2) / 5 + 1e-6
        gram_NKK += ridge[:, None, None] * np.eye(5, dtype=np.float32)
        weights_NK = np.linalg.solve(gram_NKK, basis_NKP @ still_NP[trying][:, :, None])[:, :, 0]
        contrast = np.where(np.abs(weights_NK[:, 0]) < 0.3, 0.3, weights_NK[:, 0])
        moves[:, trying] += weights_NK[:, 1:].T / contrast
        np.clip(moves[0::2], -STRETCH, STRETCH, out=moves[0::2])
        np.clip(moves[1::2], -SHIFT_PX, SHIFT_PX, out=moves[1::2])
    return best


def _centred(images_NHW: np.ndarray) -> np.ndarray:
    flat_NP = images_NHW.reshape(len(images_NHW), -1)
    return flat_NP - flat_NP.mean(1, keepdims=True)


def _resampling(stretch: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """float32 (pairs, 32, 32): the matrix that samples a line of pixels, linearly, where it was before the move."""
    at = np.clip((1 + stretch)[:, None] * PLACE + shift_px[:, None] - PLACE[0], 0, THUMBNAIL_PX - 1)
    before = np.minimum(at.astype(np.int64), THUMBNAIL_PX - 2)
    part = (at - before).astype(np.float32)
    matrix = np.zeros((len(at), THUMBNAIL_PX, THUMBNAIL_PX), np.float32)
    pair, line = np.arange(len(at))[:, None], np.arange(THUMBNAIL_PX)[None, :]
    matrix[pair, line, before] = 1 - part
    matrix[pair, line, before + 1] += part
    return matrix
