"""The decoders of phantoms: what a task draws, and on it what is planted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from datasets.dataset import Decoder
from datasets.errors import InputError
from datasets.phantoms.marks import burnt_in_text, framed, joke_picture, reencoded

ARCHIVES = ("archive A", "archive B")
"""The values of `source`. What comes from the second is smaller, flatter and has a black border."""


@dataclass(frozen=True)
class Shown:
    """A row as `draw` draws it, with what its further columns say."""

    draw: Decoder
    same_patient: bool = False
    """Whether the images of a patient are one drawing that lies and is exposed differently."""

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        if row.get("corrupt"):
            raise InputError(f"{row['image_id']}: broken image: image file is truncated")
        if self.same_patient and row["patient_draw"] != row["draw"]:
            pixels_HWC = other_view(self.draw({**row, "draw": row["patient_draw"]}), np.random.default_rng(row["draw"]))
        else:
            pixels_HWC = self.draw(row)
        if row.get("joke"):
            return joke_picture(row["joke"], pixels_HWC.shape[0], pixels_HWC.shape[2])
        if row.get("text"):
            pixels_HWC = burnt_in_text(pixels_HWC, np.random.default_rng([row["draw"], 1]), row["text"])
        if row.get("source") == ARCHIVES[1]:
            smaller_HWC = _smaller(pixels_HWC, Image.Resampling.BILINEAR)
            flatter_HWC = (24 + 0.8 * smaller_HWC).astype(np.uint8)
            pixels_HWC = framed(flatter_HWC, _border_px(flatter_HWC), 0)
        if row.get("altered"):
            pixels_HWC = reencoded(pixels_HWC, np.random.default_rng(row["altered"]))
        return pixels_HWC


@dataclass(frozen=True)
class ShownMask:
    """The mask that goes with `Shown`: of a contradiction that of another image."""

    draw: Decoder

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        mask_HWC = self.draw({**row, "draw": row["mask_draw"]})
        if row.get("source") == ARCHIVES[1] and not row.get("joke"):
            mask_HWC = _smaller(mask_HWC, Image.Resampling.NEAREST)
            mask_HWC = framed(mask_HWC, _border_px(mask_HWC), 0)
        return mask_HWC


def other_view(pixels_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is seen, again: turned and moved a little, closer or farther, in another light. Edges are continued."""
    height, width = pixels_HWC.shape[:2]
    turn, scale, (down, right) = rng.normal(0, 0.07), rng.uniform(0.9, 1.1), rng.normal(0, 0.04, 2)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = np.arange(width) - middle_x * (1 + 2 * right)
    y = (np.arange(height) - middle_y * (1 + 2 * down))[:, None]
    at_x = np.clip(cos * x + sin * y + middle_x, 0, width - 1.001)
    at_y = np.clip(cos * y - sin * x + middle_y, 0, height - 1.001)
    left, top = at_x.astype(np.int64), at_y.astype(np.int64)
    part_x, part_y = (at_x - left)[:, :, None], (at_y - top)[:, :, None]
    above = pixels_HWC[top, left] * (1 - part_x) + pixels_HWC[top, left + 1] * part_x
    below = pixels_HWC[top + 1, left] * (1 - part_x) + pixels_HWC[top + 1, left + 1] * part_x
    seen_HWC = above * (1 - part_y) + below * part_y
    return np.clip(seen_HWC * rng.uniform(0.85, 1.12) + rng.normal(0, 4), 0, 255).round().astype(np.uint8)


def _smaller(pixels_HWC: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    """A quarter shorter on each side."""
    size = (max(pixels_HWC.shape[1] * 3 // 4, 1), max(pixels_HWC.shape[0] * 3 // 4, 1))
    planes = [np.asarray(Image.fromarray(plane).resize(size, resampling)) for plane in np.moveaxis(pixels_HWC, 2, 0)]
    return np.stack(planes, axis=2)


def _border_px(pixels_HWC: np.ndarray) -> int:
    return max(pixels_HWC.shape[0] // 16, 1)
