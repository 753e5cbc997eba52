"""What the phantoms of garments, shoes and bags are sewn from: pieces, seams and holes on a black sheet of 28 px.

Coordinates are pixels of the final image, x to the right and y down; tones are gray values.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from datasets.phantoms.curves import enlarged, smoothed

SIZE_PX = 28
MIDDLE = SIZE_PX / 2

OVER = 4
"""Drawn so much larger, then reduced."""


class Cloth:
    """What a garment is sewn on: a black sheet, a generator and the tone of the cloth."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        dark = rng.random() < 0.22
        self.tone = float(rng.uniform(25, 110) if dark else rng.triangular(110, 225, 255))
        self.canvas = Image.new("L", (SIZE_PX * OVER, SIZE_PX * OVER))
        self.pen = ImageDraw.Draw(self.canvas)
        # No two pieces are laid out and photographed alike: wider or longer, aside, askew.
        wide, long, askew = rng.uniform(0.9, 1.03), rng.uniform(0.93, 1.02), rng.normal(0, 0.03)
        self.laid_22 = OVER * np.array([[wide, askew], [-askew, long]])
        self.shift = OVER * (MIDDLE + rng.normal(0, 0.45, 2)) - MIDDLE * self.laid_22.sum(axis=0)

    def vary(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def gray(self, part: float) -> int:
        """A tone relative to the cloth's, never quite black."""
        return int(min(max(self.tone * part, 12), 255))

    def placed(self, points: npt.ArrayLike) -> list[float]:
        """Where points come to lie on the canvas: x, y, x, y, …"""
        return (np.asarray(points, float) @ self.laid_22 + self.shift).ravel().tolist()

    def piece(self, points: list[tuple[float, float]], part: float = 1.0, smooth: bool = False) -> None:
        outline = smoothed(points, closed=True) if smooth else points
        self.pen.polygon(self.placed(outline), fill=self.gray(part))

    def both(self, points: list[tuple[float, float]], part: float = 1.0) -> None:
        """A piece and its mirror image; x counts from the middle."""
        self.piece([(MIDDLE + x, y) for x, y in points], part)
        self.piece([(MIDDLE - x, y) for x, y in points], part)

    def seam(self, points: list[tuple[float, float]], part: float, width: float = 0.6) -> None:
        self.pen.line(self.placed(points), fill=self.gray(part), width=max(round(width * OVER), 1), joint="curve")

    def bow(self, x: float, y: float, half_width: float, half_height: float, part: float, width: float) -> None:
        """Half an ellipse: the upper one, or with a negative height the lower."""
        half = np.linspace(np.pi, 2 * np.pi, 11)
        self.seam(
            np.stack([x + half_width * np.cos(half), y + half_height * np.sin(half)], axis=1).tolist(), part, width
        )

    def neckline(self, y: float, half_width: float, depth: float) -> None:
        """Cut from the top; behind it the back of the collar, or nothing."""
        inside = self.gray(self.vary(0.35, 0.7)) if self.rng.random() < 0.5 else 0
        half = np.linspace(0, np.pi, 9)
        cut = np.stack([MIDDLE + half_width * np.cos(half), y + depth * np.sin(half)], axis=1)
        self.pen.polygon(self.placed(cut), fill=inside)

    def hole(self, x: float, y: float, half_width: float, half_height: float, gray: int = 0) -> None:
        middle_x, middle_y = self.placed((x, y))
        across, down = half_width * OVER, half_height * OVER
        self.pen.ellipse((middle_x - across, middle_y - down, middle_x + across, middle_y + down), fill=gray)

    def finished(self, pattern: np.ndarray | float) -> np.ndarray:
        """uint8 (28, 28): reduced, with the print, soft folds and a little grain."""
        small = np.asarray(self.canvas.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX), np.float32)
        folds_HW = enlarged(self.rng.standard_normal((5, 6), dtype=np.float32), SIZE_PX)
        grain_HW = self.rng.standard_normal((SIZE_PX, SIZE_PX), dtype=np.float32)
        lit_HW = small * (pattern * (1 + self.vary(0.02, 0.12) * folds_HW + self.vary(0.0, 0.05) * grain_HW))
        return np.where(small < 6, 0, np.clip(lit_HW, 1, 255)).astype(np.uint8)


def pattern(cloth: Cloth, plain: float) -> np.ndarray | float:
    """What is printed on or woven into the cloth, as a factor: stripes, checks, a scattered print, mostly nothing."""
    if cloth.rng.random() < plain:
        return 1.0
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float32)
    depth, period = cloth.vary(0.15, 0.5), cloth.vary(2.2, 6)
    what = cloth.rng.integers(4)
    if what == 3:
        return 1 - depth * (enlarged(cloth.rng.standard_normal((13, 13), dtype=np.float32), SIZE_PX) > 0.2)
    across = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * y / period))
    along = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (x - MIDDLE) / period))
    return 1 - depth * (across, 0.7 * along, 0.5 * (across + along))[what]
