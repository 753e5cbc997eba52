"""Files on disk to pixels, and a folder of class folders to a list of files that decode.

People's folders hold more than images: 16-bit exports, palettes, transparent PNGs, films that lie on their side, and
what archivers and file managers leave behind. A file becomes what it looks like, or is left out with its reason.
"""

import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.dataset import Skipped
from datasets.errors import InputError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""First-level folders of these names are parts of a data set, not classes."""

_PHOTOMETRIC = 262
"""TIFF tag; 0 says that the smallest value is white."""
_THREADS = 4
"""Pillow decodes outside of Python's lock, so that a few threads do."""

# For the whole process, as warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Odd metadata around sound pixels, which nobody can act on.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode_file(path: Path, mode: Literal["L", "RGB"]) -> np.ndarray:
    """What the file looks like: uint8 of shape (height, width, 1 or 3).

    Of an animation the first frame. Raises `InputError` with the reason where a file does not decode fully.
    """
    decoded = _pixels_or_reason(path, mode)
    if isinstance(decoded, str):
        raise InputError(f"{path}: {decoded}")
    return decoded


def undecodable(path: Path) -> str | None:
    """Why a file does not decode fully, or None if it does."""
    decoded = _pixels_or_reason(path, "RGB")
    return decoded if isinstance(decoded, str) else None


def _pixels_or_reason(path: Path, mode: Literal["L", "RGB"]) -> np.ndarray | str:
    try:
        # By handle, not by name: Pillow 13.0 maps an uncompressed TIFF of that name into memory with its sides swapped
        # where its orientation tag turns it, and scrambles it.
        with path.open("rb") as file, Image.open(file) as image:
            pixels = np.array(_as_it_looks(image).convert(mode))
    except UnidentifiedImageError:
        return "not an image of a known format" if path.stat().st_size else "empty, 0 bytes"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be a decompression bomb"
    except OSError as error:
        return error.strerror or f"broken image: {error}"
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything, SyntaxError included
        return f"broken image: {type(error).__name__}: {error}"
    return pixels.reshape(*pixels.shape[:2], -1)


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


def find_images(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Files below `root` that end like images, and all else that lies there with the reason why it is left out.

    Both in the order of their path below `root`, which is the same on every machine. A junk folder is one entry.
    Links to folders are followed, except up into a folder that is being read.
    """
    found: list[Path] = []
    skipped: list[Skipped] = []

    def read(folder: Path, reading: frozenset[Path]) -> None:
        try:
            inside = list(folder.iterdir())
        except OSError as error:
            below = folder.relative_to(root).as_posix()
            skipped.append(Skipped(below, f"a folder that cannot be read: {error.strerror}"))
            return
        for path in inside:
            below = path.relative_to(root).as_posix()
            printable = os.fsencode(below).decode(errors="replace")
            if path.name.startswith(".") or path.name == "__MACOSX":
                skipped.append(Skipped(printable, "hidden, or left behind by a file manager"))
            elif printable != below:
                skipped.append(Skipped(printable, "its name is not valid UTF-8: rename it"))
            elif path.is_dir():
                target = path.resolve()
                if target in reading:
                    skipped.append(Skipped(below, "a link in a circle"))
                else:
                    read(path, reading | {target})
            elif path.suffix.lower() not in ENDINGS:
                skipped.append(Skipped(below, "not an image"))
            elif not path.is_file():
                skipped.append(Skipped(below, "a link to nothing"))
            else:
                found.append(path)

    read(root, frozenset({root.resolve()}))
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    return found, sorted(skipped, key=lambda file: file.path)


@dataclass(frozen=True)
class ClassFolders:
    """A folder with one folder of images per class."""

    root: Path
    """The folder right above the class folders: the one asked for, or the only one in it."""
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    """One per path: the class that its first folder below `root` stands for."""
    classes: tuple[str, ...]
    """Names of the class folders by target."""
    skipped: tuple[Skipped, ...]
    """Paths below the folder asked for."""


def class_folders(root: Path, classes: Mapping[str, int] | None = None) -> ClassFolders:
    """The images below `root` that decode, each with the class that its folder stands for.

    The first folder below the root is the class, and folders in it change nothing (`COVID/COVID/x.png`). `classes` maps
    names of folders, in upper or lower case, to targets 0, 1, …; without it every folder is a class, in the order
    of `sorted`, as in Keras and torchvision. A root that is one level too high, an unpacked archive, is understood.
    """
    expected = "one folder of images per class" + (f": {', '.join(classes)}" if classes else "")
    if not root.exists():
        raise InputError(f"{root}: no such folder; expected a folder that holds {expected}")
    if not root.is_dir():
        raise InputError(f"{root}: a file; expected a folder that holds {expected}")
    found, skipped = find_images(root)
    if not found:
        raise InputError(f"{root}: no images in it ({', '.join(ENDINGS)}); expected {expected}")

    below = [path.relative_to(root).parts for path in found]
    wanted = None if classes is None else {name.casefold(): target for name, target in classes.items()}
    inner = _way_to_classes(below, wanted)
    target_of = _targets(root, _folders_in(inner, below), wanted, expected)
    of_class: list[tuple[Path, int]] = []
    for path, parts in zip(found, below, strict=True):
        if _lies_in_folder(parts, inner) and parts[len(inner)] in target_of:
            of_class.append((path, target_of[parts[len(inner)]]))
        else:
            skipped.append(Skipped("/".join(parts), f"not in a class folder ({', '.join(classes or target_of)})"))

    with ThreadPoolExecutor(_THREADS) as threads:
        reasons = list(threads.map(undecodable, (path for path, _ in of_class)))
    sound = []
    for (path, target), reason in zip(of_class, reasons, strict=True):
        if reason is None:
            sound.append((path, target))
        else:
            skipped.append(Skipped(path.relative_to(root).as_posix(), reason))
    if not sound:
        raise InputError(f"{root}: none of its {len(of_class)} images decodes; the first one: {reasons[0]}")
    return ClassFolders(
        root=root.joinpath(*inner),
        paths=tuple(path for path, _ in sound),
        targets=tuple(target for _, target in sound),
        classes=tuple(sorted(classes or target_of, key=(classes or target_of).__getitem__)),
        skipped=tuple(sorted(skipped, key=lambda file: file.path)),
    )


def _lies_in_folder(parts: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    """Whether a file lies in some folder of the folder `inner`, at any depth."""
    return parts[: len(inner)] == inner and len(parts) > len(inner) + 1


def _folders_in(inner: tuple[str, ...], below: list[tuple[str, ...]]) -> list[str]:
    return sorted({parts[len(inner)] for parts in below if _lies_in_folder(parts, inner)})


def _way_to_classes(below: list[tuple[str, ...]], wanted: Mapping[str, int] | None) -> tuple[str, ...]:
    """The folders to go down before the class folders come, as long as there is just one with images to go into.

    Stops where every class is (without `wanted`: where two folders are), else where one is (`COVID/COVID` alone).
    """
    inner: tuple[str, ...] = ()
    partial: tuple[str, ...] | None = None
    while True:
        names = _folders_in(inner, below)
        if wanted is None:
            complete, some = len(names) > 1, False
        else:
            matched = {wanted[name.casefold()] for name in names if name.casefold() in wanted}
            complete, some = matched == set(wanted.values()), bool(matched)
        if complete:
            return inner
        if some and partial is None:
            partial = inner
        if len(names) != 1:
            return partial or ()
        inner += (names[0],)


def _targets(root: Path, names: list[str], wanted: Mapping[str, int] | None, expected: str) -> dict[str, int]:
    """Target by the name of a class folder as it is on the disk."""
    if wanted is not None:
        target_of = {name: wanted[name.casefold()] for name in names if name.casefold() in wanted}
        if not target_of:
            raise InputError(f"{root}: holds {', '.join(names) or 'images but no folders'}; expected {expected}")
        return target_of
    if len(names) < 2:
        here = f"one folder with images, {names[0]}" if names else "images but no folders"
        raise InputError(f"{root}: holds {here}; expected at least two, {expected}")
    if {name.casefold() for name in names} <= SPLITS:
        raise InputError(f"{root}: {', '.join(names)} are parts of a data set, not classes; pass one of them")
    return {name: target for target, name in enumerate(names)}
