"""What can be measured on every image without knowing its label: sizes, gray values, frames, a hash, a thumbnail.

Every image is decoded exactly once, in threads, and what was measured is kept in the store by content: the next audit
or search of the same images decodes nothing. 40,005 PNG files of 64 px take 12 s on two cores.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from datasets.dataset import ImageDataset, content_digest, decoder_name
from datasets.decoding import FORMATS
from datasets.errors import InputError, UnreadableError
from datasets.pixels import ENOUGH_PX, Interpolation, decode_into_store, squeezed
from datasets.stores import release, stored_array, stored_table

VERSION = "2"
"""Part of every key: raise it when other facts are measured, or the same ones otherwise."""
THUMBNAIL_PX = 32
BLOCK = 64
"""Images that a thread takes at a time."""
FLAT = 8
"""Gray values (of 256) within which JPEG leaves what was one value."""
FRAMED = 0.9
"""Part of the first row inside a frame that differs from it. Less is no frame, but an object on an even ground."""
SHOWS_THROUGH = 0.05
"""Part of what is inside a frame that may have its value, too."""
WIDEST_FRAME = 0.25
"""Part of the side; what is wider is ground, too."""

SCHEMA: dict[str, Any] = {
    "width_px": pl.Int64,
    "height_px": pl.Int64,
    "mode": pl.String,
    "format": pl.String,
    "bytes": pl.Int64,
    "error": pl.String,
    "mean": pl.Float64,
    "spread": pl.Float64,
    "constant_channels": pl.UInt8,
    "frame_top": pl.Float64,
    "frame_right": pl.Float64,
    "frame_bottom": pl.Float64,
    "frame_left": pl.Float64,
    "image": pl.String,
    "mask": pl.String,
    "mask_share": pl.Float64,
}
Progress = Callable[[int, int], None]
"""Told how many of how many images are done."""


@dataclass(frozen=True)
class Facts:
    """One row per image, in the order of the data set's table."""

    key: str
    """A digest of the images and of how they were measured."""
    table: pl.DataFrame
    """Null where an image does not decode:

    - `width_px`, `height_px`, `mode`, `format`, `bytes`: of the file; of an array, its shape;
    - `error`: why it does not decode, null if it does;
    - `mean`, `spread` (standard deviation): of its gray values, 0 to 255;
    - `constant_channels`: one bit per channel that has a single value;
    - `frame_top`, `frame_right`, …: strips of one value at the rim, as a part of the side, 0 where there is none;
    - `border_mean`: gray value of the outermost 3 %;
    - `hash`: a perceptual hash of 64 bits;
    - `image`, `mask`: a digest of either, and `mask_share`, what is not background, where masks are the target."""
    thumbnails_NHW: np.ndarray
    """uint8 (images, 32, 32), gray, squeezed to a square; 0 where an image does not decode."""

    @property
    def sound(self) -> np.ndarray:
        """bool (images,): which images decode."""
        return self.table["error"].is_null().to_numpy()

    @property
    def blank(self) -> np.ndarray:
        """bool (images,): which images decode and show nothing at all."""
        return (self.table["spread"].fill_null(np.inf) < 1).to_numpy()

    def __len__(self) -> int:
        return self.table.height


def facts(
    dataset: ImageDataset,
    progress: Progress | None = None,
    size_px: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> Facts:
    """Measures every image of a data set, or reads from the store what was measured before.

    Where images have to be decoded, their pixels are stored by the way, as `pixels.pixels` of `size_px` and
    `interpolation` wants them.
    """
    key = content_digest(["facts", VERSION, dataset.contents, decoder_name(dataset.mask_decoder), *dataset.classes])

    @functools.cache
    def measured() -> tuple[pl.DataFrame, np.ndarray]:
        found: list[tuple[pl.DataFrame, np.ndarray]] = []
        if size_px is None:
            return _measured(dataset, progress, None, interpolation)

        def decode_all(array: np.ndarray | None) -> None:
            found.append(_measured(dataset, progress, array, interpolation))

        decode_into_store(dataset, size_px, interpolation, decode_all)
        return found[0]

    shape = (len(dataset), THUMBNAIL_PX, THUMBNAIL_PX)
    table = stored_table(f"facts-{dataset.name}-{key}", lambda: measured()[0])
    thumbnails_NHW = stored_array(
        f"thumbnails-{dataset.name}-{key}", shape, np.uint8, lambda array: np.copyto(array, measured()[1])
    )
    return Facts(key, table, thumbnails_NHW)


def _measured(
    dataset: ImageDataset, progress: Progress | None, pixels_NHWC: np.ndarray | None, interpolation: Interpolation
) -> tuple[pl.DataFrame, np.ndarray]:
    """The facts and the thumbnails; the pixels are put into the array, where there is one."""
    thumbnails_NHW = np.zeros((len(dataset), THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)

    def block(start: int) -> list[tuple[Any, ...]]:
        rows = enumerate(dataset.table.slice(start, BLOCK).iter_rows(named=True), start)
        return [
            _fact(dataset, row, thumbnails_NHW[i], None if pixels_NHWC is None else pixels_NHWC[i], interpolation)
            for i, row in rows
        ]

    measured: list[tuple[Any, ...]] = []
    with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as threads:  # more than cores: some wait for a disk
        for rows in threads.map(block, range(0, len(dataset), BLOCK)):
            measured.extend(rows)
            if progress is not None:
                progress(len(measured), len(dataset))
            if pixels_NHWC is not None and len(measured) % (8 * BLOCK) == 0:
                release(pixels_NHWC)
    table = pl.DataFrame(measured, schema=SCHEMA, orient="row")
    rim = np.ones((THUMBNAIL_PX, THUMBNAIL_PX), bool)
    rim[1:-1, 1:-1] = False
    sound = pl.col("error").is_null()
    return table.with_columns(
        border_mean=pl.when(sound).then(pl.Series(thumbnails_NHW[:, rim].mean(1), dtype=pl.Float64)),
        hash=pl.when(sound).then(pl.Series(perceptual_hashes(thumbnails_NHW))),
    ), thumbnails_NHW


def _fact(
    dataset: ImageDataset,
    row: dict[str, Any],
    thumbnail_HW: np.ndarray,
    square_HWC: np.ndarray | None,
    interpolation: Interpolation,
) -> tuple[Any, ...]:
    """A row of `SCHEMA`; the thumbnail is filled, and the square."""
    of_file = _of_file(Path(row["path"])) if row.get("path") else None
    try:
        pixels_HWC = dataset.decoder(row | {"at_least_px": ENOUGH_PX})
        mask_HWC = None if dataset.mask_decoder is None else dataset.mask_decoder(row)
    except UnreadableError:
        raise  # to be remembered, it would have to be a fact
    except InputError as error:
        reason = str(error).removeprefix(f"{row.get('path')}: ").removeprefix(f"{row['image_id']}: ")
        return *(of_file or (None, None, None, None, None)), reason, *[None] * (len(SCHEMA) - 6)
    assert (pixels_HWC.dtype, *pixels_HWC.shape[2:]) == (np.uint8, dataset.channels), pixels_HWC.shape
    height, width, channels = pixels_HWC.shape
    if square_HWC is not None:
        square_HWC[:] = squeezed(pixels_HWC, square_HWC.shape[0], interpolation)
    gray = _gray(pixels_HWC)
    thumbnail_HW[:] = gray.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    counts = np.array(gray.histogram(), np.float64)
    mean = counts @ GRAY / counts.sum()
    return (
        *(of_file or (width, height, {1: "L", 3: "RGB"}.get(channels, f"{channels} channels"), "array")),
        *(() if of_file else (pixels_HWC.nbytes,)),
        None,
        mean,
        float(np.sqrt(counts @ np.square(GRAY - mean) / counts.sum())),
        _constant_channels(pixels_HWC),
        *_frame(np.asarray(gray)),
        *((None, None, None) if mask_HWC is None else _of_mask(pixels_HWC, mask_HWC)),
    )


GRAY = np.arange(256.0)


def _of_file(path: Path) -> tuple[Any, ...]:
    """Width, height, mode and format, from the first bytes of the file, and its size in bytes."""
    size = path.stat().st_size if path.exists() else None
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            return image.width, image.height, image.mode, image.format, size
    except Exception:  # a broken file makes Pillow raise nearly anything; the decoder says what it is
        return None, None, None, None, size


def _of_mask(pixels_HWC: np.ndarray, mask_HWC: np.ndarray) -> tuple[str, str, float]:
    """Digests of an image and of its mask, which together are the content of a row; what is not background."""
    image, mask = (hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest() for array in (pixels_HWC, mask_HWC))
    return image, mask, float((mask_HWC > 0).mean())


def _gray(pixels_HWC: np.ndarray) -> Image.Image:
    if pixels_HWC.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels_HWC[:, :, 0]))
    if pixels_HWC.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(pixels_HWC)).convert("L")
    return Image.fromarray(pixels_HWC.mean(2).round().astype(np.uint8))


def _constant_channels(pixels_HWC: np.ndarray) -> int:
    first = pixels_HWC[0, 0]
    suspects = [c for c, value in enumerate(first) if (pixels_HWC[0, :, c] == value).all()]
    return sum(1 << c for c in suspects if (pixels_HWC[:, :, c] == first[c]).all())


def _frame(gray_HW: np.ndarray) -> tuple[float, float, float, float]:
    """Top, right, bottom, left: the part of the side that a strip of one value takes, 0 where there is none."""
    rim = (gray_HW[0], gray_HW[:, -1], gray_HW[-1], gray_HW[:, 0])
    if not any(int(line.max()) - int(line.min()) <= FLAT for line in rim):
        return 0.0, 0.0, 0.0, 0.0
    rows_low, rows_high, columns_low, columns_high = (
        *(gray_HW.min(1).astype(int), gray_HW.max(1).astype(int)),
        *(gray_HW.min(0).astype(int), gray_HW.max(0).astype(int)),
    )
    top, bottom = _flat(rows_low, rows_high), _flat(rows_low[::-1], rows_high[::-1])
    left, right = _flat(columns_low, columns_high), _flat(columns_low[::-1], columns_high[::-1])
    height, width = gray_HW.shape
    top, bottom = (strip if strip <= WIDEST_FRAME * height else 0 for strip in (top, bottom))
    left, right = (strip if strip <= WIDEST_FRAME * width else 0 for strip in (left, right))
    inner_HW = gray_HW[top : height - bottom, left : width - right].astype(int)
    if (np.abs(inner_HW - int(gray_HW[0, 0])) <= FLAT).mean() > SHOWS_THROUGH:
        return 0.0, 0.0, 0.0, 0.0
    # Within three rows: JPEG softens the edge.
    sides = zip(
        (top, right, bottom, left),
        (gray_HW[0, 0], gray_HW[0, -1], gray_HW[-1, -1], gray_HW[-1, 0]),
        (inner_HW[:3], inner_HW[:, -3:].T, inner_HW[-3:], inner_HW[:, :3].T),
        (height, width, height, width),
        strict=True,
    )
    return tuple(  # type: ignore[return-value]
        strip / side if strip and (np.abs(rows - int(value)) > FLAT).mean(1).max() > FRAMED else 0.0
        for strip, value, rows, side in sides
    )


def _flat(lows: np.ndarray, highs: np.ndarray) -> int:
    """Leading lines that have one value, all the same."""
    flat = (np.minimum.accumulate(lows) + FLAT >= np.maximum.accumulate(highs)).astype(bool)
    return int(flat.argmin()) if not flat.all() else len(flat)


def perceptual_hashes(thumbnails_NHW: np.ndarray) -> np.ndarray:
    """uint64 (images,): which of the 64 lowest frequencies are above their median; near copies differ in few bits."""
    coefficients = low_frequencies(thumbnails_NHW)
    bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def low_frequencies(images_NHW: np.ndarray) -> np.ndarray:
    """float32 (images, 64): the 8 x 8 lowest coefficients of the orthonormal cosine transform of square images."""
    side = images_NHW.shape[1]
    frequency, place = np.arange(8)[:, None], np.arange(side)[None, :]
    cosines = np.sqrt(2 / side) * np.cos(np.pi * frequency * (2 * place + 1) / (2 * side))
    cosines[0] /= np.sqrt(2)
    rows = cosines.astype(np.float32)
    return np.concatenate(
        [
            (rows @ images_NHW[start : start + 4096].astype(np.float32) @ rows.T).reshape(-1, 64)
            for start in range(0, len(images_NHW), 4096)
        ]
        or [np.zeros((0, 64), np.float32)]
    )
