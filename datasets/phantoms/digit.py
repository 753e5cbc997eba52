"""Procedural handwritten digits in the form of MNIST: white strokes on black, 28 px, centred by their mass.

A digit is written in one of a few styles (7 with a bar, 4 open or closed, 1 with a serif or a foot, 2 with a loop, …).
A style is strokes of a pen through control points; the curve through them is a fixed matrix times the points, so a
digit is the points of its style, moved by the writer, times that matrix. The writer moves single points, bends the
sheet, slants, turns and stretches; the pen has a width, which changes along the way. As in MNIST, what comes out is
fitted into 20 px with its proportions kept.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from datasets.phantoms.curves import catmull_rom

VERSION = "digit-1"
"""Part of the content of a phantom: raise it when the same seed no longer gives the same digit."""
SIZE_PX = 28
INK_PX = 20
"""The longer side of what is written."""

_OVER = 4
"""Drawn so much larger, then reduced."""
_STEP = 0.045
"""From one dab of the pen to the next, in heights of a digit."""

# Control points "x,y" in hundredths, x from the left, y from the top; "|" lifts the pen; a point twice is a corner.
_STYLES = (
    (  # 0
        "58,1 32,5 13,23 5,50 11,77 28,94 50,100 73,95 90,77 96,50 89,24 71,6 48,2",
        "46,0 22,10 8,34 5,62 18,88 40,99 64,96 84,80 94,54 90,28 74,9 54,4 40,8 32,18",
        "72,12 52,1 30,5 14,24 7,50 11,76 28,95 52,99 74,88 90,65 93,38 82,16 62,5",
    ),
    (  # 1
        "52,0 51,50 50,100",
        "58,0 52,35 50,70 46,100",
        "28,24 42,14 55,0 55,0 54,50 52,100",
        "30,20 54,0 54,0 53,60 52,100 | 28,100 52,99 78,100",
    ),
    (  # 2
        "8,24 26,4 58,0 82,20 70,48 38,76 6,98 6,98 50,96 96,98",
        "10,20 35,1 70,6 82,30 62,60 30,88 8,92 10,76 34,78 62,97 96,88",
        "12,30 20,8 52,0 80,14 78,40 48,70 12,97 12,97 40,90 94,94",
        "6,14 40,2 78,8 84,30 58,62 22,92 6,88 20,78 48,92 92,99",
    ),
    (  # 3
        "10,12 40,0 74,8 76,32 38,47 38,47 80,56 88,80 52,100 6,90",
        "14,4 50,2 84,4 84,4 62,24 40,42 40,42 80,50 88,78 54,100 8,92",
        "12,16 44,0 78,14 66,40 34,48 70,54 86,74 66,97 30,100 8,86",
    ),
    (  # 4
        "18,0 10,34 8,54 8,54 50,54 96,50 | 76,4 72,50 66,100",
        "66,0 36,34 4,64 4,64 50,64 98,62 | 66,0 65,50 64,100",
        "22,4 14,30 20,50 50,52 80,40 | 84,0 76,46 70,100",
        "12,6 10,46 10,46 48,50 78,46 | 78,0 76,50 74,100",
    ),
    (  # 5
        "90,2 50,3 20,3 20,3 17,40 17,40 50,36 84,54 80,86 40,100 4,90",
        "24,4 18,42 18,42 54,34 86,56 76,90 38,100 6,88 | 24,4 54,5 92,0",
        "84,0 54,4 34,6 34,6 24,40 50,44 78,62 66,92 30,100 2,90",
    ),
    (  # 6
        "68,0 32,24 8,60 20,94 56,100 84,82 74,58 42,54 14,72",
        "54,0 26,32 12,66 26,96 60,98 80,78 66,58 36,62 16,82",
        "82,4 46,10 14,44 10,80 40,100 76,88 82,64 54,52 22,66",
    ),
    (  # 7
        "6,8 48,6 92,4 92,4 64,44 44,100",
        "4,10 50,4 90,6 90,6 66,40 50,70 44,100 | 34,52 58,50 84,48",
        "8,24 8,6 8,6 50,8 92,4 92,4 70,50 62,100",
        "4,14 40,4 84,8 80,34 56,66 46,100",
    ),
    (  # 8
        "76,14 48,0 16,14 24,36 56,52 86,74 68,97 38,100 10,82 30,58 64,40 86,20 74,10",
        "50,0 20,16 28,40 50,48 76,34 74,10 48,0 | 48,48 14,68 20,96 56,100 86,82 74,56 50,48",
        "82,6 50,0 20,14 30,38 62,58 74,84 50,100 24,90 34,62 62,40 78,18 82,6",
    ),
    (  # 9
        "84,14 50,0 14,16 16,42 50,50 80,28 86,8 86,8 84,50 74,100",
        "80,10 44,2 16,24 26,48 58,44 80,16 80,16 82,56 66,94 28,96",
        "70,20 48,2 18,12 16,40 44,48 70,26 74,6 74,6 66,50 60,100",
    ),
)


def handwritten_digit(rng: np.random.Generator, digit: int) -> np.ndarray:
    """A digit 0 to 9, uint8 of shape (28, 28), drawn from `rng` alone."""
    style = _SKELETONS[digit][rng.integers(len(_SKELETONS[digit]))]
    dabs_N2 = style.curve_NP @ _written(rng, style.points_P2)
    thick = rng.gamma(14, 0.15) + 0.3  # of the pen, in px of the final image
    scale = (INK_PX - thick) / np.ptp(dabs_N2, axis=0).max()
    dabs_N2 = (dabs_N2 - dabs_N2.mean(axis=0)) * scale
    dabs_N2 += SIZE_PX / 2 + rng.normal(0, 0.4, 2)
    edge = thick / 2 + 0.5  # centred by its mass, it may stand out on the other side
    dabs_N2 += np.maximum(edge - dabs_N2.min(axis=0), 0) + np.minimum(SIZE_PX - edge - dabs_N2.max(axis=0), 0)
    return _inked(rng, dabs_N2, thick)


def _written(rng: np.random.Generator, points_P2: np.ndarray) -> np.ndarray:
    """The control points of one writer: shaken, bent, stretched, turned and slanted."""
    sloppy = rng.gamma(3, 0.011)
    x, y = (points_P2 + rng.normal(0, sloppy, points_P2.shape) - 0.5).T
    bend = rng.normal(0, 0.06, 4)
    x = x + bend[0] * np.sin(4 * y) + bend[1] * np.cos(5 * y + 3 * x)
    y = y + bend[2] * np.sin(4 * x) + bend[3] * np.cos(5 * x - 3 * y)
    narrow, slant, turn = rng.normal(0.72, 0.12), rng.normal(0.14, 0.24), rng.normal(0, 0.09)
    x = narrow * x - slant * y
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)


def _inked(rng: np.random.Generator, dabs_N2: np.ndarray, thick: float) -> np.ndarray:
    """Round dabs of a pen, reduced to gray values: full white in the middle of a stroke, soft at its rims."""
    canvas = Image.new("L", (SIZE_PX * _OVER, SIZE_PX * _OVER))
    pen = ImageDraw.Draw(canvas)
    phase, swell = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
    along = np.linspace(0, rng.uniform(3, 9), len(dabs_N2))
    radius_N = 0.5 * thick * (1 + swell * np.sin(along + phase))
    boxes = np.concatenate([dabs_N2 - radius_N[:, None], dabs_N2 + radius_N[:, None]], axis=1) * _OVER
    for box in boxes.tolist():
        pen.ellipse(box, fill=255)
    small = canvas.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)
    ink_HW = np.asarray(small, np.float32) * np.float32(rng.uniform(1.0, 1.3))
    return np.minimum(ink_HW, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Style:
    """One way to write a digit."""

    points_P2: np.ndarray
    """The control points."""
    curve_NP: np.ndarray
    """Dabs of the pen = `curve_NP` @ control points."""


def _style(strokes: str) -> _Style:
    """Reads the notation of `_STYLES`; a point that two strokes share stays shared however it is moved."""
    lines = [[tuple(int(n) for n in point.split(",")) for point in line.split()] for line in strokes.split("|")]
    points = sorted({point for line in lines for point in line})
    matrices = []
    for line in lines:
        places = np.array([points.index(point) for point in line])
        for begin, end in _smooth_pieces(line):
            matrices.append(_spline(places[begin:end], np.array(points) / 100))
    return _Style(np.array(points) / 100, np.concatenate(matrices))


def _smooth_pieces(line: list) -> list[tuple[int, int]]:
    corners = [i for i in range(1, len(line)) if line[i] == line[i - 1]]
    return list(zip([0, *corners], [*corners, len(line)], strict=True))


def _spline(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows that weigh the control points: a Catmull-Rom curve through those at `places`, evenly spaced."""
    rows = []
    for i in range(len(places) - 1):
        around = places[np.clip([i - 1, i, i + 1, i + 2], 0, len(places) - 1)]
        steps = max(round(float(np.linalg.norm(points[around[2]] - points[around[1]])) / _STEP), 1)
        for weights in catmull_rom(np.arange(steps) / steps):
            row = np.zeros(len(points))
            np.add.at(row, around, weights)
            rows.append(row)
    last = np.zeros(len(points))
    last[places[-1]] = 1
    return np.array([*rows, last])


_SKELETONS = tuple(tuple(_style(strokes) for strokes in styles) for styles in _STYLES)
