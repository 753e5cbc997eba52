"""The page of an audit: one file that opens offline and fetches nothing, with pictures of what it speaks of."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from datasets.audit import Audit
from datasets.dataset import ImageDataset
from datasets.errors import InputError
from datasets.findings import SEVERITIES, counted
from datasets.remedies import labels_in_words

Augmented = Callable[[np.ndarray], list[np.ndarray]]
"""An image, uint8 (H, W, channels), to some augmented versions of it."""

PICTURE_PX = 168
"""Longer side; shown at half of that on screens with two pixels in one."""
QUALITY = 78
SHORT = 15
"""Letters that fit below a picture."""
PER_FINDING = 10
PER_CLASS = 14
MOST_ON_SHEETS = 280
"""Pictures on all contact sheets together, so that a hundred classes do not make a page of 20 MB."""
SIZES_TOLD = 8
FILES_TOLD = 12
REASONS_TOLD = 20
SOURCES_TOLD = 40


@dataclass(frozen=True)
class Picture:
    """An image as it stands on the page."""

    data_uri: str
    name: str
    words: str
    """What it is said to be."""

    @property
    def short(self) -> str:
        """The end of its name, which differs."""
        return self.name if len(self.name) <= SHORT else f"…{self.name[1 - SHORT :]}"


def audit_page(audit: Audit, title: str, augmented: Augmented | None = None) -> str:
    """HTML; `title` says what the images are."""
    dataset = audit.dataset
    row_of = {image_id: row for row, image_id in enumerate(dataset.table["image_id"].to_list())}
    findings = []
    for finding in audit.findings:
        rows = [row_of[image_id] for image_id in finding.images[: 4 * PER_FINDING] if image_id in row_of]
        shown = list(_pictures(dataset, rows, PER_FINDING))
        files = [] if shown else list(finding.images[:FILES_TOLD])
        findings.append({"is": finding, "pictures": shown, "files": files,
                         "more": len(finding.images) - len(shown) - len(files)})  # fmt: skip
    return _environment.get_template("audit.html.j2").render(
        title=title,
        a=audit,
        d=dataset,
        severities=Counter(finding.severity for finding in audit.findings),
        order=SEVERITIES,
        findings=findings,
        sheets=list(_sheets(audit)),
        preview=_preview(audit, augmented),
        parts=audit.parts,
        sizes=_sizes(audit),
        left_out=Counter(dropped.reason.partition(":")[0] for dropped in audit.dropped).most_common(),
        files_told=REASONS_TOLD,
        sources=dict(list((audit.sources or {}).items())[:SOURCES_TOLD]),
    )


def _sheets(audit: Audit) -> Iterable[dict[str, Any]]:
    """Some images of every class, drawn by lot, of different groups as far as there are some."""
    dataset = audit.dataset
    sound = audit.facts.sound
    labels: Sequence[str] = dataset.classes if dataset.kind != "segmentation" else ("all images",)
    each = max(4, min(PER_CLASS, MOST_ON_SHEETS // len(labels)))
    if dataset.kind == "segmentation":
        each = 2 * PER_CLASS
    rng = np.random.default_rng(0)
    groups = dataset.table["group"].to_numpy()
    for number, label in enumerate(labels[:MOST_ON_SHEETS]):
        rows = np.flatnonzero(sound & ((dataset.targets == number) | (dataset.kind == "segmentation")))
        drawn = rng.permutation(rows)
        _, first = np.unique(groups[drawn], return_index=True)
        chosen = np.concatenate([drawn[np.sort(first)], np.delete(drawn, first)])[:each]
        yield {"label": label, "images": len(rows), "pictures": list(_pictures(dataset, chosen.tolist(), each))}


def _pictures(dataset: ImageDataset, rows: Iterable[int], most: int) -> Iterable[Picture]:
    """At most so many of the rows, without those that cannot be opened."""
    for row in rows:
        if most == 0:
            return
        try:
            shown = picture(dataset, row)
        except InputError:
            continue
        most -= 1
        words = "" if dataset.kind == "segmentation" else ", ".join(labels_in_words(dataset, row))
        yield Picture(shown, dataset.table["image_id"][row], words)


def picture(dataset: ImageDataset, row: int) -> str:
    """A data URI of an image, masks outlined. Raises `InputError` where it does not decode."""
    shown_HWC = _in_colour(dataset.decode(row, at_least_px=PICTURE_PX))
    if dataset.mask_decoder is not None:
        mask = Image.fromarray(dataset.decode_mask(row)[:, :, 0])
        size = (shown_HWC.shape[1], shown_HWC.shape[0])
        shown_HWC = _outlined(shown_HWC, np.asarray(mask.resize(size, Image.Resampling.NEAREST)))
    return _data_uri(shown_HWC)


def _in_colour(pixels_HWC: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), the longer side as on the page; two stains are red and green."""
    height, width, channels = pixels_HWC.shape
    if channels == 1:
        pixels_HWC = np.repeat(pixels_HWC, 3, axis=2)
    elif channels == 2:
        pixels_HWC = np.concatenate([pixels_HWC, np.zeros_like(pixels_HWC[:, :, :1])], axis=2)
    factor = PICTURE_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Few pixels are shown as pixels.
    resampling = Image.Resampling.NEAREST if factor > 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).resize(size, resampling))


def _outlined(shown_HWC: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """With the rims of what is marked in yellow."""
    padded = np.pad(mask_HW, 1, mode="edge")
    differs = [padded[1:-1, 1:-1] != padded[1 + y : 1 + y + mask_HW.shape[0], 1 + x : 1 + x + mask_HW.shape[1]]
               for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))]  # fmt: skip
    outlined = shown_HWC.copy()
    outlined[np.logical_or.reduce(differs)] = (255, 221, 0)
    return outlined


def _data_uri(shown_HWC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(shown_HWC).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _preview(audit: Audit, augmented: Augmented | None) -> dict[str, Any] | None:
    """One image and versions of it that a network is shown in its place."""
    dataset = audit.dataset
    sound = np.flatnonzero(audit.facts.sound & ~audit.facts.blank)
    if augmented is None or not len(sound):
        return None
    row = int(sound[np.argmax(audit.facts.table["spread"].to_numpy()[sound])])
    pixels_HWC = dataset.decode(row, at_least_px=PICTURE_PX)
    return {
        "original": _data_uri(_in_colour(pixels_HWC)),
        "versions": [_data_uri(_in_colour(version)) for version in augmented(pixels_HWC)],
        "name": dataset.table["image_id"][row],
    }


def _sizes(audit: Audit) -> dict[str, Any]:
    sizes = audit.sizes
    widths, heights = [size["width_px"] for size in sizes], [size["height_px"] for size in sizes]
    told = sizes[:SIZES_TOLD]
    return {
        "told": told,
        "more": sum(size["images"] for size in sizes[SIZES_TOLD:]),
        "several": len(sizes),
        "widths": (min(widths), max(widths)) if widths else (0, 0),
        "heights": (min(heights), max(heights)) if heights else (0, 0),
    }


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"counted": counted, "thousands": lambda number: f"{number:,}"}
