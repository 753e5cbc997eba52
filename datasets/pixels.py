"""The pixels of a data set: decoded once per machine, squeezed to a square, kept in the store.

The key is the content of the images, their order and how they are decoded; labels, groups and splits may change.
"""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.archives import touch
from datasets.dataset import ImageDataset, content_digest, decoder_name
from datasets.stores import NoRoomError, array_on_disk, found_array, release, stored_array

Interpolation = Literal["bilinear", "bicubic"]
"""How images are resized: either filter takes in all that a pixel covers."""
DECODER = "2"
"""Part of every pixel key: raise it when decoding or resizing changes what comes out."""
ENOUGH_PX = 224
"""A JPEG is decoded at a reduced size, but no smaller than this: the same for all purposes, so that one decoding serves
several and the pixels do not depend on which came first."""
ROWS = 256
"""Images that are decoded before their pixels are handed over to the page cache: what a fill holds in memory."""


def pixels(dataset: ImageDataset, size_px: int, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """All images of a data set, uint8 (images, size, size, channels), squeezed to a square."""

    _touch_archives(dataset)

    def decoded(index: int) -> np.ndarray:
        return squeezed(dataset.decode(index, at_least_px=max(size_px, ENOUGH_PX)), size_px, interpolation)

    def fill(array: np.ndarray) -> None:
        whole = _pixels_of_whole(dataset, size_px, interpolation)
        _filled(decoded if whole is None else whole.__getitem__)(array)

    return stored_array(_pixels_name(dataset, size_px, interpolation), _shape(dataset, size_px), np.uint8, fill)


def _touch_archives(dataset: ImageDataset) -> None:
    """An archive whose files may yet be decoded is in use: it must not make room for what is decoded."""
    for column in ("path", "array_file", "batch_file"):
        if column in dataset.table.columns and len(dataset):
            touch(Path(dataset.table[column][0]))


def _pixels_of_whole(dataset: ImageDataset, size_px: int, interpolation: Interpolation) -> "_Rows | None":
    """The pixels of these images in the store of the data set that they are a part of, if there is one."""
    if dataset.part_of is None:
        return None
    whole = found_array(f"pixels-{dataset.name}-{_pixels_key(dataset.part_of, size_px, interpolation)}")
    return None if whole is None else _Rows(whole, dataset.table["found_row"].to_numpy())


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array, by their numbers among these."""

    array: np.ndarray
    rows: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.array[self.rows[index]]


def decode_into_store(
    dataset: ImageDataset, size_px: int, interpolation: Interpolation, decode_all: Callable[[np.ndarray | None], None]
) -> None:
    """Calls `decode_all`, which decodes every image for a purpose of its own, with the array of the pixel store to put
    them into on the way, squeezed; with None where they are stored already, or there is no room for them."""
    _touch_archives(dataset)
    decoded = False

    def fill(array: np.ndarray) -> None:
        nonlocal decoded
        decode_all(array)
        decoded = True

    if size_px <= ENOUGH_PX:  # larger ones are decoded at another scale
        with contextlib.suppress(NoRoomError):
            array_on_disk(_pixels_name(dataset, size_px, interpolation), _shape(dataset, size_px), np.uint8, fill)
    if not decoded:
        decode_all(None)


def masks(dataset: ImageDataset, size_px: int) -> np.ndarray:
    """The masks of all images, uint8 (images, size, size), squeezed to a square, nearest neighbour."""

    _touch_archives(dataset)

    def decoded(index: int) -> np.ndarray:
        return _resized(dataset.decode_mask(index), size_px, Image.Resampling.NEAREST)[:, :, 0]

    read_as = content_digest([pixels_key(dataset, size_px), decoder_name(dataset.mask_decoder), *dataset.classes])
    return stored_array(f"masks-{dataset.name}-{read_as}", (len(dataset), size_px, size_px), np.uint8, _filled(decoded))


def _filled(decoded: Callable[[int], np.ndarray]) -> Callable[[np.ndarray], None]:
    """Fills an array row by row, in threads: Pillow decodes outside of Python's lock."""

    def fill(array: np.ndarray) -> None:
        def put(index: int) -> None:
            array[index] = decoded(index)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(array), ROWS):
                list(pool.map(put, range(start, min(start + ROWS, len(array)))))
                release(array)

    return fill


def pixels_key(dataset: ImageDataset, size_px: int, interpolation: Interpolation = "bilinear") -> str:
    """Changes when any stored pixel does; part of the key of whatever is computed from them."""
    return _pixels_key(dataset.contents, size_px, interpolation)


def _pixels_key(contents: str, size_px: int, interpolation: Interpolation) -> str:
    return content_digest(["pixels", DECODER, contents, str(size_px), interpolation])


def _pixels_name(dataset: ImageDataset, size_px: int, interpolation: Interpolation) -> str:
    return f"pixels-{dataset.name}-{pixels_key(dataset, size_px, interpolation)}"


def _shape(dataset: ImageDataset, size_px: int) -> tuple[int, int, int, int]:
    return (len(dataset), size_px, size_px, dataset.channels)


def squeezed(pixels_HWC: np.ndarray, size_px: int, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """uint8 (size, size, channels)."""
    return _resized(pixels_HWC, size_px, Image.Resampling[interpolation.upper()])


def _resized(pixels_HWC: np.ndarray, size_px: int, resampling: Image.Resampling) -> np.ndarray:
    if pixels_HWC.shape[:2] == (size_px, size_px):
        return pixels_HWC
    if pixels_HWC.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels_HWC).resize((size_px, size_px), resampling))
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels_HWC, 2, 0)]
    return np.stack([np.asarray(plane.resize((size_px, size_px), resampling)) for plane in planes], axis=2)
