"""What is planted into a table of phantoms: the pitfalls that real data sets of images have been found to have.

Every planted row says so in the column `planted` (names joined by commas, "" for none), so that what finds or mends a
pitfall can be checked against the truth; `copy_of` names the image that a row repeats.

- `duplicates`: every 50th image is a byte-identical copy of an earlier one of its class, in a group of its own (PBC has
  16 such pairs, the homework set of AN2DL 8);
- `near_duplicates`: as many are re-encoded, brightened copies (3.3 % of the test images of CIFAR-10 have one in the
  training part);
- `contradictions`: as many are byte-identical copies with another label; with masks, with the mask of another image;
- `corrupt`: as many do not decode, as a truncated file;
- `contaminants`: one absurd image under all labels, one picture in seven, and another under one label, one in seven of
  that class but more of its first ten, so that it is there four times (AN2DL has two: 1,600 times under eight labels,
  200 times under one);
- `patients`: three images per patient on average, which share a group, a class and `patient_draw`; groups are named
  `patient-00017`, where the number divided by the number of strata leaves the stratum;
- `split_leak`: every fourth test image is of a group that also stands in the development part (GlaS: 59 of 60);
- `text`: in nine of ten images the label is burnt into a corner (the bone films of the KTH course);
- `source`: two archives that differ in size, border and contrast; the second has nine of ten images of the second half
  of the classes, and one of ten of the others (the usual making of a COVID collection);
- `imbalance`: the rarest class has at most a fifth of the images of the most frequent one.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from datasets.errors import InputError
from datasets.phantoms.draws import earlier, hashed, ranks, uniform
from datasets.phantoms.shown import ARCHIVES

PITFALLS = (
    "duplicates",
    "near_duplicates",
    "patients",
    "text",
    "contaminants",
    "contradictions",
    "imbalance",
    "corrupt",
    "split_leak",
    "source",
)

_PERIOD = 50
_SLOTS = ("duplicates", "near_duplicates", "contradictions", "corrupt")
"""Planted one per `_PERIOD` rows, never into the same row."""
_IMBALANCE = 5
_JOKE_PERIOD = 15
"""Images of a class in which every joke comes twice."""
_JOKE_EARLY = (4, 6, 8)
"""Where the second joke comes beside that at first: of a small set it would be there once or twice."""


@dataclass
class Rows:
    """One part of a table in the making; arrays of shape (images,)."""

    stream: str
    """Task and part: the name under which everything random of it is drawn."""
    stratum: np.ndarray
    """The class and what stands beside it, such as the part of the body, in one number; the class varies fastest."""
    strata: int
    """How many of them there are."""
    label: np.ndarray
    """Index into `classes`."""
    classes: tuple[str, ...]
    image_id: np.ndarray
    group: np.ndarray
    draw: np.ndarray
    """uint64, the random seed of the image."""
    patient_draw: np.ndarray
    """uint64, the random seed of what all images of a patient share; equal to `draw` where they share nothing."""
    appearance: np.ndarray
    """What the image shows: a class, mostly its own."""
    mask_draw: np.ndarray | None = None
    """`draw` of the image that the mask belongs to, where there are masks."""
    looks: dict[str, np.ndarray] = field(default_factory=dict)
    """Further columns, which say what `Shown` does to the drawing."""
    copy_of: np.ndarray = field(init=False)
    """`image_id` of what the image repeats, or ""."""
    planted: dict[str, np.ndarray] = field(default_factory=dict)
    """By pitfall: bool, the rows concerned."""

    def __post_init__(self) -> None:
        self.copy_of = np.full_like(self.image_id, "")


def known_pitfalls(plant: Collection[str]) -> frozenset[str]:
    """`plant` as a set, or an `InputError` with the pitfalls that there are."""
    plant = [plant] if isinstance(plant, str) else plant
    for name in plant:
        if name not in PITFALLS:
            raise InputError(f"unknown pitfall {name!r}. The pitfalls that can be planted are: {', '.join(PITFALLS)}")
    return frozenset(plant)


def imbalanced(counts: np.ndarray) -> np.ndarray:
    """Counts of shape (contexts, classes) with the same sums and order, and at least 1 : 5 between the extremes."""
    order = np.argsort(np.argsort(-counts, axis=1, kind="stable"), axis=1)
    weights = counts * _IMBALANCE ** (-order / max(counts.shape[1] - 1, 1))
    shares = weights / weights.sum(axis=1, keepdims=True)
    fewer = np.maximum(np.floor(shares * counts.sum(axis=1, keepdims=True)).astype(np.int64), 1)
    fewer[order == 0] += counts.sum(axis=1) - fewer.sum(axis=1)
    return fewer


def plant_into(rows: Rows, plant: Collection[str], seed: int, development: Rows | None = None) -> None:
    """Plants into one part; `development` is the other part where `rows` is the test part, already planted into."""
    number = np.arange(len(rows.label))

    def chance(of_what: str) -> np.ndarray:
        return uniform(seed, f"{rows.stream}/{of_what}", number)

    if "patients" in plant:
        _gather_patients(rows, seed, chance("patient"))
    if "split_leak" in plant and development is not None:
        _leak(rows, development, chance("leak"))
    if "text" in plant:
        words = np.array(["".join(filter(str.isalnum, name))[:3].upper() for name in rows.classes])
        rows.looks["text"] = np.where(chance("text") < 0.9, words[rows.label], "")
    if "source" in plant:
        later = 2 * rows.label >= len(rows.classes)
        rows.looks["source"] = np.where(chance("source") < np.where(later, 0.9, 0.1), ARCHIVES[1], ARCHIVES[0])
    if "imbalance" in plant:
        rows.planted["imbalance"] = rows.label == np.bincount(rows.label, minlength=len(rows.classes)).argmin()
    chosen = _one_per_period(rows, seed)
    taken = np.logical_or.reduce(list(chosen.values()))
    if "contaminants" in plant:
        taken = taken | _contaminate(rows, ~taken)
    _copy(rows, {name: chosen[name] for name in _SLOTS[:3] if name in plant}, ~taken, seed, chance("copy"))
    if "corrupt" in plant:
        rows.planted["corrupt"] = rows.looks["corrupt"] = chosen["corrupt"]
    none = np.zeros(len(number), bool)
    unseen = rows.planted.get("corrupt", none) | rows.planted.get("contaminants", none)
    if "text" in plant:
        rows.planted["text"] = (rows.looks["text"] != "") & ~unseen
    if "source" in plant:
        rows.planted["source"] = (rows.looks["source"] == ARCHIVES[1]) & ~unseen


def _one_per_period(rows: Rows, seed: int) -> dict[str, np.ndarray]:
    """By pitfall, the rows where it goes: anywhere in every period, but early in the first, so that few images do."""
    number = np.arange(len(rows.label))
    period, place = np.divmod(number, _PERIOD)
    turn = (hashed(seed, f"{rows.stream}/period", period) % np.uint64(_PERIOD)).astype(np.int64)
    chosen = {}
    for slot, name in enumerate(_SLOTS):
        first = rows.strata + 2 * slot  # every stratum has been once, so that there is something to copy
        later = (period > first // _PERIOD) & (place == (turn + 11 * slot) % _PERIOD)
        chosen[name] = later | (number == first)
    return chosen


def _gather_patients(rows: Rows, seed: int, chance: np.ndarray) -> None:
    """Neighbours in a stratum become one patient; so that more images do not change who is whose."""
    rank = ranks(rows.stratum)
    begins = (rank == 0) | (chance < 1 / 3)
    order = np.argsort(rows.stratum, kind="stable")
    nth = np.cumsum(begins[order])
    nth -= nth[np.searchsorted(rows.stratum[order], rows.stratum[order])]  # from 0 in every stratum
    patient = np.empty(len(order), np.int64)
    patient[order] = nth * rows.strata + rows.stratum[order]
    of_test = "test-" * rows.stream.endswith("/test")
    rows.group = np.array([f"patient-{of_test}{number:05d}" for number in patient])
    rows.patient_draw = hashed(seed, f"{rows.stream}/patient draw", patient)
    rows.planted["patients"] = ~begins


def _leak(rows: Rows, development: Rows, chance: np.ndarray) -> None:
    """Gives every fourth test image to an earlier group of the same stratum in the development part."""
    number = np.flatnonzero(np.arange(len(rows.label)) % 4 == 1)
    source = earlier(number + 1, rows.stratum[number], chance[number], development.stratum)
    number, source = number[source >= 0], source[source >= 0]
    group = rows.group.astype(object)
    group[number] = development.group[source]
    rows.group = group.astype(str)
    rows.patient_draw[number] = development.patient_draw[source]
    rows.planted["split_leak"] = np.isin(np.arange(len(rows.label)), number)


def _contaminate(rows: Rows, free: np.ndarray) -> np.ndarray:
    """The rows that become one of the two jokes, bool; evenly over the labels, the second under the last label only."""
    rank = np.full(len(rows.label), -1)
    rank[free] = ranks(rows.label[free])
    place = np.where(free, rank % _JOKE_PERIOD, -1)
    everywhere = np.isin(place, (2, 9))
    once = (np.isin(place, (3, 10)) | np.isin(rank, _JOKE_EARLY)) & (rows.label == len(rows.classes) - 1)
    rows.looks["joke"] = np.where(everywhere, 1, np.where(once, 2, 0))
    rows.planted["contaminants"] = everywhere | once
    return everywhere | once


def _copy(rows: Rows, chosen: dict[str, np.ndarray], free: np.ndarray, seed: int, chance: np.ndarray) -> None:
    """Makes the chosen rows look as an earlier one, of another label for contradictions."""
    for name, at in chosen.items():
        number = np.flatnonzero(at)
        wanted = rows.stratum[number]
        if name == "contradictions":
            label, several = rows.label[number], len(rows.classes)
            shift = 1 + hashed(seed, f"{rows.stream}/shift", number).astype(np.int64) % max(several - 1, 1)
            wanted = wanted - label + (label + shift) % several
        source = earlier(number, wanted, chance[number], np.where(free, rows.stratum, -1))
        number, source = number[source >= 0], source[source >= 0]
        rows.planted[name] = np.isin(np.arange(len(at)), number)
        rows.copy_of[number] = rows.image_id[source]
        altered = rows.draw[number]
        copied = [rows.draw, rows.patient_draw, rows.appearance, *rows.looks.values()]
        if rows.mask_draw is not None and name != "contradictions":
            copied.append(rows.mask_draw)
        for column in copied:
            column[number] = column[source]
        if name == "near_duplicates":
            rows.looks["altered"] = np.zeros(len(at), np.uint64)
            rows.looks["altered"][number] = altered
