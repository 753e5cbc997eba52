"""What people and machines put on an image: lettering, borders, second copies, jokes.

The lettering is that of Pillow's built-in font, so that it is the same on every machine.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CORNERS = ("top left", "top right", "bottom left", "bottom right")
LETTER_HEIGHT = 1 / 11
"""Of burnt-in letters, in parts of the image's shorter side."""


def lettering(text: str, height_px: int) -> np.ndarray:
    """How much of every pixel is ink, float32 (height, width) from 0 to 1, cropped to the letters."""
    return _lettering(text, max(height_px, 6)).copy()


@lru_cache(maxsize=256)
def _lettering(text: str, height_px: int) -> np.ndarray:
    large = ImageFont.load_default(size=4 * height_px)  # drawn large and reduced: even at 6 px it can be read
    left, top, right, bottom = (int(edge) for edge in large.getbbox(text))
    page = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(page).text((-left, -top), text, fill=255, font=large)
    width_px = max(round(height_px * page.width / page.height), 1)
    small = page.resize((width_px, height_px), Image.Resampling.BOX)
    return np.minimum(np.asarray(small, np.float32) / 200, 1)


def burnt_in_text(pixels: np.ndarray, rng: np.random.Generator, text: str, corner: str | None = None) -> np.ndarray:
    """`pixels` (H, W) or (H, W, C), uint8, with `text` in a corner: a new array.

    The letters are white as of a lead marker or light gray as of a console, on the image itself or on a dark label.
    `corner` is one of CORNERS; without it the corner is drawn. Long texts are made smaller: they always fit.
    """
    corner = CORNERS[rng.integers(4)] if corner is None else corner
    if corner not in CORNERS:
        raise ValueError(f"corner {corner!r}: should be one of {', '.join(CORNERS)}")
    height, width = pixels.shape[:2]
    letter_px = max(round(min(height, width) * LETTER_HEIGHT * rng.uniform(0.85, 1.15)), 6)
    ink = lettering(text, letter_px)
    if ink.shape[1] > 0.6 * width:
        ink = lettering(text, max(int(letter_px * 0.6 * width / ink.shape[1]), 6))[:, : int(0.9 * width)]
    margin_y, margin_x = (rng.uniform(0.02, 0.05, 2) * (height, width)).round().astype(int) + 1
    top = height - margin_y - ink.shape[0] if corner.startswith("bottom") else margin_y
    left = width - margin_x - ink.shape[1] if corner.endswith("right") else margin_x
    gray, label = rng.uniform(205, 255), rng.random() < 0.3
    marked = pixels.astype(np.float32)
    if label:  # a dark plate behind the letters, as consoles draw it
        edge = max(letter_px // 5, 1)
        plate = (
            slice(max(top - edge, 0), top + ink.shape[0] + edge),
            slice(max(left - edge, 0), left + ink.shape[1] + edge),
        )
        marked[plate] *= 0.15
    place = marked[top : top + ink.shape[0], left : left + ink.shape[1]]
    ink = ink[: place.shape[0], : place.shape[1]].reshape(*place.shape[:2], *[1] * (pixels.ndim - 2))
    place += ink * (gray - place)
    return marked.round().astype(np.uint8)


def framed(pixels: np.ndarray, width_px: int, value: int) -> np.ndarray:
    """`pixels` whose outermost `width_px` rows and columns are `value`: a scanned or collimated film; a new array."""
    framed = np.full_like(pixels, value)
    inside = slice(width_px, -width_px or None)
    framed[inside, inside] = pixels[inside, inside]
    return framed


def reencoded(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A near duplicate, same shape: cropped by a pixel or less, a little brighter or flatter, through JPEG."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = rng.uniform(0, min(0.008 * min(height, width), 2), 4)
    contrast, brightness, quality = rng.uniform(0.97, 1.03), rng.uniform(-5, 5), int(rng.integers(60, 91))
    planes = [pixels] if pixels.ndim == 2 else [pixels] if pixels.shape[2] == 3 else list(np.moveaxis(pixels, 2, 0))
    copies = []
    for plane in planes:
        changed = (plane.astype(np.float32) - 128) * contrast + 128 + brightness
        image = Image.fromarray(np.clip(changed, 0, 255).round().astype(np.uint8))
        image = image.resize((width, height), Image.Resampling.BILINEAR, (left, top, width - right, height - bottom))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        copies.append(np.asarray(Image.open(file)))
    if len(copies) == 1:
        return copies[0].reshape(pixels.shape).copy()
    return np.stack(copies, axis=2)


def joke_picture(seed: int, size_px: int, channels: int) -> np.ndarray:
    """A grinning cartoon face, uint8 (size_px, size_px, channels): nothing that a hospital would have taken."""
    rng = np.random.default_rng(seed)
    side = 4 * size_px  # drawn large and reduced
    sky, skin, ink = (
        ((40, 160, 240), (130, 200, 60), (30, 60, 20)),
        ((255, 120, 200), (255, 220, 60), (90, 40, 20)),
    )[seed % 2]
    page = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(page)
    line = side // 50
    turn = rng.uniform(0, np.pi)
    for ray in range(12):  # sunburst
        angle = turn + ray * np.pi / 6
        ends = [(side * (0.5 + 1.5 * np.cos(a)), side * (0.5 + 1.5 * np.sin(a))) for a in (angle, angle + np.pi / 12)]
        draw.polygon([(side / 2, side / 2), *ends], fill=tuple(255 - (255 - value) // 2 for value in sky))

    def oval(x: float, y: float, wide: float, high: float, fill: tuple[int, ...]) -> None:
        box = [side * (x - wide), side * (y - high), side * (x + wide), side * (y + high)]
        draw.ellipse(box, fill=fill, outline=ink, width=line)

    height, eye, squint = rng.uniform(0.33, 0.38), rng.uniform(0.08, 0.11), rng.uniform(-0.03, 0.03)
    for ear in (-1, 1):
        oval(0.5 + ear * 0.34, 0.28, 0.10, 0.07, skin)
    oval(0.5, 0.50, 0.36, height, skin)
    for which in (-1, 1):
        oval(0.5 + which * 0.14, 0.42, eye, 1.2 * eye, (255, 255, 255))
        oval(0.5 + which * 0.14 + squint, 0.44, 0.035, 0.045, ink)
        brow = [side * (0.5 + which * x) for x in (0.05, 0.25)]
        draw.line([(brow[0], side * 0.31), (brow[1], side * 0.26)], fill=ink, width=2 * line)
    red, green, blue = skin
    oval(0.5, 0.56, 0.06, 0.045, (red * 3 // 4, green * 3 // 4, blue * 3 // 4))
    mouth = [side * 0.27, side * 0.52, side * 0.73, side * 0.82]
    draw.chord(mouth, 10, 170, fill=(255, 255, 255), outline=ink, width=line)
    for tooth in np.linspace(0.36, 0.64, 5):
        draw.line([(side * tooth, side * 0.71), (side * tooth, side * 0.79)], fill=ink, width=line // 2 + 1)
    word = ImageFont.load_default(size=side // 8)
    draw.text((side * 0.5, side * 0.935), ("LOL", "WOW")[seed % 2], fill=(255, 255, 255), font=word, anchor="mm")
    small = np.asarray(page.resize((size_px, size_px), Image.Resampling.BOX))
    if channels == 3:
        return small.copy()
    gray = np.asarray(Image.fromarray(small).convert("L"))
    return np.repeat(gray[:, :, None], channels, axis=2)
