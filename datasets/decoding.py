"""Image files to pixels: 16-bit exports, palettes, transparent PNGs, films that lie on their side. A file becomes what
it looks like, or there is a reason why it cannot.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.errors import InputError

_PHOTOMETRIC = 262
"""TIFF tag; 0 says that the smallest value is white."""
_ORIENTATION = 0x0112
"""EXIF tag; 5 to 8 say that width and height are swapped."""

# For the whole process, as warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Odd metadata around sound pixels, which nobody can act on.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode_file(path: Path, mode: Literal["L", "RGB"], at_least_px: int | None = None) -> np.ndarray:
    """What the file looks like: uint8 of shape (height, width, 1 or 3).

    Of an animation the first frame. With `at_least_px` a JPEG may come smaller, by 2, 4 or 8, its shorter side not
    below that: decoding fewer frequencies takes half of the time or less. Raises `InputError` with the reason where a
    file does not decode fully.
    """

    def pixels(image: Image.Image) -> np.ndarray:
        if at_least_px is not None and min(image.size) > at_least_px:
            image.draft(None, (at_least_px, at_least_px))
        return np.array(_as_it_looks(image).convert(mode))

    pixels_HWC = _opened(path, pixels)
    return pixels_HWC.reshape(*pixels_HWC.shape[:2], -1)


def decode_mask(path: Path) -> np.ndarray:
    """The numbers in a mask, neither stretched nor coloured: int32 of shape (height, width).

    Of a palette its indices, but 0 for black; of colours the largest channel; what is transparent is 0. Of a JPEG,
    which blurs them, 0 or 255. Raises as `decode_file` does.
    """

    def numbers(image: Image.Image) -> np.ndarray:
        lossy = image.format in ("JPEG", "MPO")
        if image.mode in ("1", "L", "P", "F", "I") or image.mode.startswith("I;"):
            ImageOps.exif_transpose(image, in_place=True)
        else:
            image = _as_it_looks(image).convert("RGB")
        numbers = np.nan_to_num(np.asarray(image)).astype(np.int32)
        if image.mode == "P":
            numbers = _of_palette(numbers, image)
        numbers_HW = numbers.max(axis=2) if numbers.ndim == 3 else numbers
        return np.where(numbers_HW > 127, 255, 0).astype(np.int32) if lossy else numbers_HW

    return _opened(path, numbers)


def _of_palette(indices_HW: np.ndarray, image: Image.Image) -> np.ndarray:
    """A program that turns a picture into a palette may put black anywhere in it, and white at index 0."""
    colours = np.zeros((256, 3), int)
    palette = np.array(image.getpalette() or [], int).reshape(-1, 3)
    colours[: len(palette)] = palette
    black_HW = (colours[indices_HW] == 0).all(axis=2)
    if black_HW.all():
        return indices_HW
    return np.where(black_HW, 0, np.where(indices_HW == 0, 255, indices_HW)).astype(np.int32)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of what `decode_file` gives, from the header alone."""

    def size(image: Image.Image) -> np.ndarray:
        turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        return np.array(image.size[::-1] if turned else image.size)

    width, height = _opened(path, size).tolist()
    return width, height


@dataclass(frozen=True)
class FileDecoder:
    """The decoder of images in files, column `path`."""

    mode: Literal["L", "RGB"]

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        return decode_file(Path(row["path"]), self.mode, row.get("at_least_px"))


@dataclass(frozen=True)
class MaskDecoder:
    """The decoder of masks in files, column `mask_path`, in the size of the image."""

    classes: int | None = None
    """The numbers in the masks are indices below this; None: whatever is not 0 is the second of two classes."""

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        path = Path(row["mask_path"])
        numbers_HW = decode_mask(path)
        if self.classes is None:
            mask_HW = (numbers_HW != 0).astype(np.uint8)
        elif numbers_HW.min() < 0 or numbers_HW.max() >= self.classes:
            raise InputError(f"{path}: holds the class {numbers_HW.max()}; expected 0 to {self.classes - 1}")
        else:
            mask_HW = numbers_HW.astype(np.uint8)
        size = upright_size(Path(row["path"]))
        if mask_HW.shape != size[::-1]:
            mask_HW = np.asarray(Image.fromarray(mask_HW).resize(size, Image.Resampling.NEAREST))
        return mask_HW[:, :, None]


def _opened(path: Path, read: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """What `read` makes of an image file, or an `InputError` with the reason why it cannot."""
    try:
        # By handle, not by name: Pillow 13.0 maps an uncompressed TIFF of that name into memory with its sides swapped
        # where its orientation tag turns it, and scrambles it.
        with path.open("rb") as file, Image.open(file) as image:
            return read(image)
    except UnidentifiedImageError:
        reason = "not an image of a known format" if path.stat().st_size else "empty, 0 bytes"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be a decompression bomb"
    except OSError as error:
        reason = error.strerror or f"broken image: {error}"
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything, SyntaxError included
        reason = f"broken image: {type(error).__name__}: {error}"
    raise InputError(f"{path}: {reason}")


def _as_it_looks(image: Image.Image) -> Image.Image:
    """8 bit, upright, opaque; in whatever colours."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bit(image)
    if image.has_transparency_data:
        # Black is what surrounds a film, and what a viewer of radiographs shows; the colour below full transparency
        # is whatever the exporting program left there.
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Gray values of more than 8 bit, scaled by the image's own range.

    The range of the type says nothing: detectors put 10 to 14 bits into 16, and floating point has no white. Pillow's
    own conversion clips at 255, which makes nearly all of a film white.
    """
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    # Pillow inverts such TIFFs of up to 8 bit, but not these.
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        values = 1 - values
    return Image.fromarray((values * 255).round().astype(np.uint8))
