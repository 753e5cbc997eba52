"""Image files to pixels: 16-bit exports, palettes, transparent PNGs, films that lie on their side. A file becomes what
it looks like, or there is a reason why it cannot.
"""

import contextlib
import errno
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.errors import InputError, UnreadableError

PASSING = {
    errno.ENOENT,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ETIMEDOUT,
    errno.ENODEV,
}
"""Errors of a disk or a machine, which say nothing about a file."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: it also has a format that starts another program (EPS). JPEG is
MPO as well."""
MOST_PIXELS = 100_000_000
"""Of all images that are decoded at once in this process; a little more than the largest one may have."""
STRIP_PIXELS = 1 << 18
"""Pixels that are converted at a time: what it takes beside the image itself."""
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
        with _IN_FLIGHT.of(image):
            return _as_it_looks(image, mode)

    return _opened(path, pixels)


def decode_mask(path: Path) -> np.ndarray:
    """The numbers in a mask, neither stretched nor coloured: int32 of shape (height, width).

    Of a palette its indices, but 0 for black; of colours the largest channel; what is transparent is 0. Of a JPEG,
    which blurs them, 0 or 255. Raises as `decode_file` does.
    """

    def numbers(image: Image.Image) -> np.ndarray:
        with _IN_FLIGHT.of(image):
            lossy = image.format in ("JPEG", "MPO")
            if image.mode in ("1", "L", "P", "F", "I") or image.mode.startswith("I;"):
                ImageOps.exif_transpose(image, in_place=True)
                stored_HW = np.asarray(image)
                numbers_HW = (np.nan_to_num(stored_HW) if image.mode == "F" else stored_HW).astype(np.int32)
            else:
                numbers_HW = _as_it_looks(image, "RGB").max(axis=2).astype(np.int32)
            if image.mode == "P":
                numbers_HW = _of_palette(numbers_HW, image)
            return np.where(numbers_HW > 127, 255, 0).astype(np.int32) if lossy else numbers_HW

    return _opened(path, numbers)


def _of_palette(indices_HW: np.ndarray, image: Image.Image) -> np.ndarray:
    """A program that turns a picture into a palette may put black anywhere in it, and white at index 0."""
    colours = np.zeros((256, 3), int)
    palette = np.array(image.getpalette() or [], int).reshape(-1, 3)
    colours[: len(palette)] = palette
    black = (colours == 0).all(axis=1)
    if black[indices_HW].all():
        return indices_HW
    number = np.arange(256, dtype=np.int32)
    number[0] = 255
    number[black] = 0
    return number[indices_HW]


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
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            return read(image)
    except UnidentifiedImageError:
        reason = "not an image of a known format" if path.stat().st_size else "empty, 0 bytes"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be a decompression bomb"
    except OSError as error:
        if error.errno in PASSING:
            raise UnreadableError(
                f"{path}: cannot be read now ({error.strerror}); see to that and call again"
            ) from None
        reason = error.strerror or f"broken image: {error}"
    except MemoryError:
        raise UnreadableError(f"{path}: not enough memory to decode it now") from None
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything, SyntaxError included
        reason = f"broken image: {type(error).__name__}: {error}"
    raise InputError(f"{path}: {reason}")


class _InFlight:
    """Lets images be decoded at once as long as they have `MOST_PIXELS` together; the others wait."""

    def __init__(self) -> None:
        self._pixels = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, image: Image.Image) -> Iterator[None]:
        pixels = min(image.width * image.height, MOST_PIXELS)
        with self._changed:
            self._changed.wait_for(lambda: self._pixels + pixels <= MOST_PIXELS)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


_IN_FLIGHT = _InFlight()


def _as_it_looks(image: Image.Image, mode: Literal["L", "RGB"]) -> np.ndarray:
    """Upright, opaque, 8 bit: uint8 (height, width, 1 or 3). Strip by strip, as a conversion of the whole would take
    several times the memory of the image."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        gray_HW1 = _eight_bit(image)[:, :, None]
        return gray_HW1 if mode == "L" else np.repeat(gray_HW1, 3, axis=2)
    transparent = image.has_transparency_data
    image.load()
    pixels_HWC = np.empty((image.height, image.width, 1 if mode == "L" else 3), np.uint8)
    for rows, strip in _strips(image):
        if transparent:
            # Black is what surrounds a film, and what a viewer of radiographs shows; the colour below full transparency
            # is whatever the exporting program left there.
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "black"), strip.convert("RGBA"))
        pixels_HWC[rows] = np.asarray(strip.convert(mode)).reshape(strip.height, strip.width, -1)
    return pixels_HWC


def _eight_bit(image: Image.Image) -> np.ndarray:
    """Gray values of more than 8 bit, scaled by the image's own range: uint8 (height, width).

    The range of the type says nothing: detectors put 10 to 14 bits into 16, and floating point has no white. Pillow's
    own conversion clips at 255, which makes nearly all of a film white.
    """
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        low = high = 0.0
    # Pillow inverts such TIFFs of up to 8 bit, but not these.
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    pixels_HW = np.empty((image.height, image.width), np.uint8)
    for rows, strip in _strips(image):
        values = np.nan_to_num(np.asarray(strip).astype(np.float64), nan=low, posinf=high, neginf=low)
        values -= low
        values /= (high - low) or 1.0
        pixels_HW[rows] = ((1 - values if inverted else values) * 255).round()
    return pixels_HW


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """All rows of an image, some at a time."""
    height = max(STRIP_PIXELS // image.width, 1)
    if height >= image.height:
        yield slice(0, image.height), image
        return
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
