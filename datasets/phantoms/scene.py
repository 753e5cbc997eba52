"""What the phantoms of CIFAR-10 are painted on: a background of 32 px, and a figure of smooth shapes in front of it.

A figure is drawn in coordinates of its own, x from -1 (left) to 1 (right) and y from -1 (top) to 1 (bottom), facing
left; `Scene.posed` says where it stands, how large it is and whether it is mirrored. Colours are (red, green, blue) of
0 to 255. Arrays of shape (32, 32) end in _HW, of shape (32, 32, 3) in _HWC.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from datasets.phantoms.curves import enlarged, smoothed

SIZE_PX = 32

_OVER = 4
"""Figures are drawn so much larger, then reduced."""

Colour = np.ndarray
Points = Sequence[tuple[float, float]]

SKIES = (
    (120, 170, 225),
    (165, 195, 225),
    (90, 135, 200),
    (205, 212, 220),
    (230, 232, 235),
    (150, 160, 175),
    (225, 190, 160),
)
GRASSES = ((95, 140, 60), (120, 150, 75), (70, 110, 50), (150, 150, 85), (170, 155, 105), (190, 170, 120))
FORESTS = ((45, 75, 40), (65, 95, 50), (60, 65, 45), (90, 110, 70), (110, 100, 75))
ROADS = ((110, 110, 112), (140, 138, 135), (90, 92, 96), (165, 160, 152), (185, 180, 170))
WATERS = ((50, 95, 140), (75, 120, 150), (40, 75, 105), (95, 125, 135), (60, 110, 120), (130, 155, 175))
WALLS = (
    (205, 195, 180),
    (170, 150, 130),
    (225, 220, 212),
    (120, 100, 85),
    (90, 100, 120),
    (150, 165, 160),
    (180, 120, 100),
    (60, 55, 55),
)
PAINTS = (
    (185, 30, 30),
    (30, 60, 140),
    (225, 225, 225),
    (40, 40, 45),
    (150, 155, 160),
    (200, 170, 40),
    (50, 110, 70),
    (110, 25, 35),
)
FURS = ((120, 85, 55), (70, 55, 45), (190, 150, 105), (35, 32, 32), (215, 205, 190), (150, 145, 140), (165, 100, 50))
DARK = np.array([24.0, 22.0, 24.0])
BARKS = ((110, 85, 60), (90, 75, 60), (140, 115, 85))


class Scene:
    """A figure in the making, before a background."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        # Red, green, blue and opacity, 0 or 255; named CMYK because Pillow then reduces the four as they are.
        self.figure = Image.new("CMYK", (SIZE_PX * _OVER, SIZE_PX * _OVER))
        self.pen = ImageDraw.Draw(self.figure)
        self.ground_HWC = np.zeros((SIZE_PX, SIZE_PX, 3), np.float32)
        self.posed(1.0)

    def vary(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def colour(self, *choices: tuple[int, int, int], spread: float = 7) -> Colour:
        """One of the colours, a little lighter, darker and off."""
        chosen = np.array(choices[self.rng.integers(len(choices))], np.float64)
        return np.clip(chosen * self.vary(0.82, 1.15) + self.rng.normal(0, spread, 3), 4, 252)

    def posed(self, scale: float, x: float = 0.0, y: float = 0.0, turn: float = 0.0, mirror: bool = True) -> None:
        """From here on the figure has about this size and middle, and half of the time faces right. Turn in radians."""
        scale, x, y = scale * self.vary(0.74, 1.06), x + self.vary(-0.14, 0.14), y + self.vary(-0.1, 0.1)
        side = -1.0 if mirror and self.chance(0.5) else 1.0
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        half = SIZE_PX * _OVER / 2
        self.pose_22 = half * np.array([[side * cos, sin], [-side * sin, cos]])
        self.middle = np.array([(x + 1) * half, (y + 1) * half])

    def shape(self, points: Points, colour: Colour, part: float = 1.0, smooth: bool = True) -> None:
        outline = smoothed(points, closed=True, steps=3) if smooth else np.asarray(points, float)
        self.pen.polygon((outline @ self.pose_22 + self.middle).ravel().tolist(), fill=_fill(colour, part))

    def blob(
        self, x: float, y: float, wide: float, high: float, colour: Colour, part: float = 1.0, turn: float = 0
    ) -> None:
        """An ellipse of these half axes."""
        along, across = (np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))
        outline = wide * _ROUND[:, :1] * along + high * _ROUND[:, 1:] * across + (x, y)
        self.pen.polygon((outline @ self.pose_22 + self.middle).ravel().tolist(), fill=_fill(colour, part))

    def line(self, points: Points, colour: Colour, width: float, part: float = 1.0) -> None:
        """`width` in the figure's own coordinates."""
        pixels = width * float(np.hypot(*self.pose_22[0]))
        ends = (np.asarray(points) @ self.pose_22 + self.middle).ravel().tolist()
        self.pen.line(ends, fill=_fill(colour, part), width=max(round(pixels), 1), joint="curve")

    def backdrop(self, above: Colour, below: Colour, horizon: float, rough: float = 0.10, cloudy: float = 0.06) -> None:
        """Two tones that meet at `horizon` (y of the image, -1 to 1), `cloudy` above and `rough` below."""
        height = np.linspace(-1, 1, SIZE_PX, dtype=np.float32)[:, None]
        edge_HW = np.clip((height - horizon) * SIZE_PX / 2 + 0.5 + 0.6 * self.noise(6), 0, 1)[:, :, None]
        upper_HWC = above * (
            1 + self.vary(0.0, 0.12) * (height - horizon)[:, :, None] + cloudy * self.noise(4)[:, :, None]
        )
        texture_HW = 0.7 * self.noise(9) + 0.45 * self.rng.standard_normal((SIZE_PX, SIZE_PX), dtype=np.float32)
        lower_HWC = below * (1 + rough * texture_HW[:, :, None] + self.vary(-0.2, 0.2) * height[:, :, None])
        self.ground_HWC = (upper_HWC * (1 - edge_HW) + lower_HWC * edge_HW).astype(np.float32)

    def at_home(self) -> None:
        """A wall or a lawn behind, a floor or a carpet below, something that stands there."""
        self.backdrop(
            self.colour(*WALLS, *GRASSES),
            self.colour(*WALLS, *GRASSES, *ROADS, *BARKS),
            self.vary(-0.3, 0.9),
            0.06,
            self.vary(0.03, 0.16),
        )
        for _ in range(self.rng.integers(0, 3)):
            left, top = self.rng.integers(0, 26, 2)
            wide, high = self.rng.integers(4, 14, 2)
            self.ground_HWC[top : top + high, left : left + wide] = self.colour(*WALLS, *FURS)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise (32, 32) of about standard deviation 1, `cells` bumps to a side."""
        return enlarged(np.float32(1.2) * self.rng.standard_normal((cells, cells), dtype=np.float32), SIZE_PX)

    def finished(self, fur: float) -> np.ndarray:
        """uint8 (32, 32, 3): the figure before its background, in one light; `fur`: how rough its surface is."""
        figure_HWC = np.asarray(self.figure.reduce(_OVER), np.float32)
        opaque_HW1 = figure_HWC[:, :, 3:] * np.float32(1 / 255)
        # Lit from above: a soft relief of the figure is bright where it begins and dark where it ends below.
        relief_HW = enlarged(opaque_HW1.reshape(8, 4, 8, 4).mean(axis=(1, 3)), SIZE_PX)
        light_HW = 1 + fur * (0.7 * self.noise(11) + 0.5 * self.noise(5))
        light_HW[2:-2] += self.vary(0.2, 0.6) * (relief_HW[4:] - relief_HW[:-4])
        painted_HWC = self.ground_HWC * (1 - opaque_HW1) + figure_HWC[:, :, :3] * light_HW[:, :, None]
        painted_HWC *= 1 + np.float32(self.vary(0.02, 0.12)) * self.noise(3)[:, :, None]
        gray = float(painted_HWC.mean())
        painted_HWC = (painted_HWC - gray) * self.vary(0.75, 1.2) + gray * self.vary(0.8, 1.15)
        painted_HWC += (3 * self.rng.standard_normal(3)).astype(np.float32)
        painted_HWC += 2.5 * self.rng.standard_normal((SIZE_PX, SIZE_PX, 1), dtype=np.float32)
        return np.clip(painted_HWC, 0, 255).astype(np.uint8)


def _fill(colour: Colour, part: float) -> tuple[int, int, int, int]:
    red, green, blue = (int(min(max(value * part, 0), 255)) for value in colour)
    return red, green, blue, 255


_ROUND = np.stack([np.cos(np.arange(16) / 16 * 2 * np.pi), np.sin(np.arange(16) / 16 * 2 * np.pi)], axis=1)
