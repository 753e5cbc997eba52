"""What several phantoms are drawn with: noise, soft edges, many small ellipses, blur.

Arrays of shape (size_px, size_px) end in _HW, with channels first in _CHW. Float32 throughout.
"""

import numpy as np
from PIL import Image

SMALLEST_PX = 72
"""Smaller images are drawn larger and averaged: below this, nuclei and granules would fall between the pixels."""


def oversampling(size_px: int) -> int:
    """How many times larger than asked for an image of `size_px` is drawn, to each side."""
    return max(1, -(-SMALLEST_PX // size_px))


def averaged(image_CHW: np.ndarray, times: int) -> np.ndarray:
    """Means of squares of `times` x `times` pixels."""
    if times == 1:
        return image_CHW
    channels, height, width = image_CHW.shape
    return image_CHW.reshape(channels, height // times, times, width // times, times).mean(axis=(2, 4))


def noise(rng: np.random.Generator, size_px: int, cells: int) -> np.ndarray:
    """Smooth noise, mean 0, standard deviation about 1, with about `cells` bumps to a side; the same at every size."""
    coarse = 1.23 * rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)  # smoothing takes 1 - 1 / 1.23
    inner = (1, 1, cells + 1, cells + 1)
    return np.asarray(Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC, inner))


def edge(inside: np.ndarray, softness: float) -> np.ndarray:
    """0 outside, 1 inside, one half on the line where `inside` is 0."""
    ramp = inside * np.float32(0.25 / softness)
    ramp += np.float32(0.5)
    np.clip(ramp, 0, 1, out=ramp)
    return np.square(ramp) * (3 - 2 * ramp)


def joined(inside: np.ndarray, other: np.ndarray, softness: float) -> np.ndarray:
    """The larger of two depths, rounded off where they are nearly equal: shapes that grow into one another."""
    near = np.maximum(np.float32(1) - np.abs(inside - other) * np.float32(1 / softness), 0)
    return np.maximum(inside, other) + np.float32(softness / 4) * np.square(near)


def ellipses(
    size_px: int,
    centre_NP: np.ndarray,
    long_px: np.ndarray,
    wide_px: np.ndarray,
    turn: np.ndarray,
    strength: np.ndarray,
) -> np.ndarray:
    """Many small ellipses on an empty canvas (size_px, size_px); where they overlap the stronger one is seen.

    `centre_NP` holds x and y in pixels, `long_px` and `wide_px` the half axes, `turn` the angle of the long one,
    `strength` the value inside.
    """
    canvas_HW = np.zeros((size_px + 2, size_px + 2), np.float32)  # what lies outside goes to the margin
    if not len(centre_NP):
        return canvas_HW[1:-1, 1:-1]
    centre_NP, long_px, wide_px, turn, strength = (
        np.asarray(a, np.float32) for a in (centre_NP, long_px, wide_px, turn, strength)
    )
    reach = int(np.ceil(long_px.max())) + 1
    offset = np.arange(-reach, reach + 1)
    column_NK, row_NK = (np.floor(centre_NP[:, axis, None]).astype(np.int64) + offset for axis in (0, 1))
    dx_NK, dy_NK = (
        (pixel_NK + 0.5 - centre_NP[:, axis, None]).astype(np.float32)
        for axis, pixel_NK in enumerate((column_NK, row_NK))
    )
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    along = (cos * dx_NK[:, None, :] + sin * dy_NK[:, :, None]) / long_px[:, None, None]
    across = (cos * dy_NK[:, :, None] - sin * dx_NK[:, None, :]) / wide_px[:, None, None]
    level = (1 - np.sqrt(np.square(along) + np.square(across))) * wide_px[:, None, None] + np.float32(0.5)
    # A border one pixel wide makes small ellipses larger: paler by as much, they take the same light at every size.
    area = np.where(wide_px > 0.5, np.square(wide_px) + np.float32(1 / 12), (wide_px + np.float32(0.5)) ** 3 / 3)
    level = np.clip(level, 0, 1) * (strength * np.square(wide_px) / area)[:, None, None]
    row, column = np.clip(row_NK + 1, 0, size_px + 1), np.clip(column_NK + 1, 0, size_px + 1)
    place = row[:, :, None] * (size_px + 2) + column[:, None, :]
    np.maximum.at(canvas_HW.reshape(-1), place.reshape(-1), level.reshape(-1))
    return canvas_HW[1:-1, 1:-1]


def transmitted(densities_DHW: np.ndarray, absorbance_DC: np.ndarray) -> np.ndarray:
    """The part of the light that passes, (C, size_px, size_px), by the law of Beer and Lambert.

    `densities_DHW`: of every absorber; `absorbance_DC`: of every channel by each absorber at density 1 (natural
    logarithm). Sums in this order and not in that of BLAS, which is another one on other machines.
    """
    absorbance_DC11 = absorbance_DC.astype(np.float32)[:, :, None, None]
    optical_CHW = densities_DHW[0] * absorbance_DC11[0]
    for density_HW, absorbance_C11 in zip(densities_DHW[1:], absorbance_DC11[1:], strict=True):
        optical_CHW += density_HW * absorbance_C11
    return np.exp(-optical_CHW)


def blurred(image_CHW: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur, the border repeated."""
    reach = max(1, int(np.ceil(2.5 * sigma_px)))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / max(sigma_px, 1e-3)))
    taps = (taps / taps.sum()).astype(np.float32)
    height, width = image_CHW.shape[1:]
    padded = np.pad(image_CHW, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    rows = taps[0] * padded[:, :height]
    for shift, tap in enumerate(taps[1:], 1):
        rows += tap * padded[:, shift : shift + height]
    columns = taps[0] * rows[:, :, :width]
    for shift, tap in enumerate(taps[1:], 1):
        columns += tap * rows[:, :, shift : shift + width]
    return columns


def developed(light_CHW: np.ndarray) -> np.ndarray:
    """Light from 0 to 1 to a picture, uint8 (height, width, C)."""
    pixels_CHW = (np.clip(light_CHW, 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
