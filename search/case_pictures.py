"""Small pictures of single images for a report: as they are, with where a network looks, with masks outlined."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from datasets import ImageDataset

LONGEST_PX = 224
SHORTEST_PX = 96
"""Of the longer side: what is smaller is enlarged, in whole pixels."""
QUALITY = 80
HEAT = ((255, 60, 0), (255, 230, 60))
"""From some attention to the most."""
TRUTH, PREDICTION = (60, 220, 90), (255, 70, 200)
"""Outlines."""


def picture(dataset: ImageDataset, row: int) -> Image.Image:
    """An image of a data set in its own proportions, in colours; two channels are shown as green and magenta."""
    pixels_HWC = dataset.decode(row, at_least_px=LONGEST_PX)
    if pixels_HWC.shape[2] == 2:
        pixels_HWC = pixels_HWC[:, :, [0, 1, 0]]
    whole = Image.fromarray(pixels_HWC if pixels_HWC.shape[2] == 3 else pixels_HWC[:, :, 0]).convert("RGB")
    longest = max(whole.size)
    if longest < SHORTEST_PX:
        times = -(-SHORTEST_PX // longest)
        return whole.resize((whole.width * times, whole.height * times), Image.Resampling.NEAREST)
    if longest <= LONGEST_PX:
        return whole
    size = tuple(max(1, round(side * LONGEST_PX / longest)) for side in whole.size)
    return whole.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def with_heat(shown: Image.Image, saliency_HW: np.ndarray) -> Image.Image:
    """Where a network looks, over a gray picture; as it is where it looks nowhere.

    saliency_HW: at least 0, of the whole image squeezed to a square.
    """
    most = float(saliency_HW.max())
    heat = Image.fromarray(saliency_HW.astype(np.float32) / (most or 1.0)).resize(shown.size, Image.Resampling.BILINEAR)
    heat_HW1 = np.asarray(heat, np.float32).clip(0, 1)[:, :, None]
    little, much = np.array(HEAT, np.float32)
    gray = np.asarray(shown.convert("L").convert("RGB"), np.float32)
    laid_over = gray * (1 - 0.65 * heat_HW1) + 0.65 * heat_HW1 * (little + heat_HW1 * (much - little))
    return Image.fromarray(laid_over.round().clip(0, 255).astype(np.uint8))


def with_outlines(shown: Image.Image, truth_HW: np.ndarray, predicted_HW: np.ndarray) -> Image.Image:
    """Outlines of what is in a mask (green) and of what was found (magenta); where both are, they are white."""
    drawn = np.asarray(shown.convert("L").convert("RGB")).copy()
    lines = [_outline(mask, shown.size) for mask in (truth_HW, predicted_HW)]
    for line, colour in zip((*lines, lines[0] & lines[1]), (TRUTH, PREDICTION, (255, 255, 255)), strict=True):
        drawn[line] = colour
    return Image.fromarray(drawn)


def save(shown: Image.Image, file: Path) -> None:
    """As a JPEG, under a temporary name first."""
    part = file.with_suffix(".part")
    shown.save(part, "JPEG", quality=QUALITY, optimize=True)
    part.replace(file)


def _outline(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bool, of a picture of that (width, height): the pixels of a class that border on another, from inside."""
    classes = Image.fromarray(mask_HW.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    neighbours = [np.asarray(classes.filter(kind(3))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter)]
    here = np.asarray(classes)
    return (here > 0) & (neighbours[0] != neighbours[1])
