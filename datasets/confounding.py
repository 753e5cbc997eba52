"""Can the class be told without looking at what the image shows?

A simple classifier sees only the size of an image, or its file format, its frame, its brightness, its source, or what
is written in its corners, and predicts the class, cross-validated with groups kept together. Where it is right far more
often than by chance, and than with shuffled labels, a network may learn that and not the disease: films of two archives
(DeGrave et al., Nature Machine Intelligence 2021), words burnt into a corner (the bone films of KTH).

On phantoms (covid, mura, blood, mnist, fashion_mnist, cifar10; 200 to 1,000 images, 6 draws each): planted text found
in 36 of 36 draws, a second archive in 18 of 18, anything where neither was planted in 0 of 36. Planted text tells two
classes apart at 0.88 to 0.95, clean corners at 0.78 at most, and then what lies beside them does as well.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
from PIL import Image, ImageFilter

from datasets.dataset import ImageDataset, content_digest
from datasets.facts import Facts
from datasets.stores import stored_array

FOLDS = 5
SHUFFLES = 12
STEPS = 16
RIDGE = 100.0
"""For patterns, of which there are many."""
MOST_IMAGES = 4000
"""Images whose facts are looked at; more would not change what they say."""
MOST_PICTURES = 600
"""Images whose corners are looked at."""
LEAST = 10
"""Images and groups of a class, below which it is left aside."""

PICTURE_PX = 96
CORNER_PX = (20, 36)
"""Height and width of a corner, at that size of the picture."""
OPENING_PX = 7
"""Bright lines up to about this width are strokes."""
PATCH_PX = 8
PATCHES = 150
BUSIEST = 8
"""Patches of a corner that may be among them."""
SOFT = 5.0
"""Gray values below which a stroke is noise."""


@dataclass(frozen=True)
class Probe:
    """How well something tells the class."""

    accuracy: float
    """Of telling two classes apart, balanced, cross-validated; of several classes the mean over their pairs. 0.5 is
    guessing."""
    shuffled_mean: float
    shuffled_std: float
    images: int

    @property
    def skill(self) -> float:
        """0 for chance, 1 for always right."""
        return 2 * self.accuracy - 1

    def exceeds(self, skill: float) -> bool:
        """Whether it is better than that, and than shuffled labels let expect."""
        return self.skill >= skill and self.accuracy > self.shuffled_mean + 4 * self.shuffled_std


def probe(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, ridge: float = 1.0) -> Probe | None:
    """How well `features` (images, features) tell `labels`; None where there is nothing to tell, or too little data.

    A linear regression on the classes with a ridge penalty, cross-validated with groups kept together, and the same
    with labels that have changed places, all in one: they differ in the right side of the equations only.
    """
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_label = labels == label
        if min(of_label.sum(), len(np.unique(groups[of_label]))) >= LEAST:
            kept |= of_label
    features, labels, groups = features[kept], labels[kept], groups[kept]
    classes, labels = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or not np.ptp(features, axis=0).any():
        return None
    group = np.unique(groups, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    order = np.argsort(group, kind="stable")
    of_groups = np.split(labels[order], np.flatnonzero(np.diff(group[order])) + 1)
    said = np.empty((len(labels), 1 + SHUFFLES), np.int64)
    said[:, 0] = labels
    for shuffle in range(1, 1 + SHUFFLES):
        # In the blocks of the groups: what images of one patient share proves nothing.
        said[order, shuffle] = np.concatenate([of_groups[i] for i in rng.permutation(len(of_groups))])
    fold = _dealt(np.array([of_group[0] for of_group in of_groups]), rng)[group]
    scores_NSC = np.zeros((*said.shape, len(classes)), np.float32)
    truth_NSC = np.eye(len(classes), dtype=np.float32)[said]
    for number in range(FOLDS):
        held_out = fold == number
        scores_NSC[held_out] = _predicted(features[~held_out], truth_NSC[~held_out], features[held_out], ridge)
    accuracy = [_accuracy(scores_NSC[:, shuffle], said[:, shuffle]) for shuffle in range(1 + SHUFFLES)]
    return Probe(accuracy[0], float(np.mean(accuracy[1:])), float(np.std(accuracy[1:])), len(labels))


def _dealt(label_of_group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (groups,): the fold of each, every class dealt out evenly."""
    order = np.lexsort((rng.random(len(label_of_group)), label_of_group))
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % FOLDS
    return fold


def _predicted(known: np.ndarray, truth_NSC: np.ndarray, new: np.ndarray, ridge: float) -> np.ndarray:
    """float32 (new images, shuffles, classes): how much more probable each class is than without any features."""
    mean = known.mean(0)
    gram = (known - mean).T @ (known - mean) + ridge * np.eye(known.shape[1])
    share_SC = np.maximum(truth_NSC.mean(0), 1e-6)
    sides = (known - mean).T @ (truth_NSC - share_SC).reshape(len(known), -1)
    found = (new - mean) @ np.linalg.solve(gram, sides)
    result: np.ndarray = 1 + found.reshape(len(new), *share_SC.shape) / share_SC
    return result


def _accuracy(scores_NC: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of telling two classes apart, the mean over all pairs of classes (Hand and Till 2001)."""
    several = scores_NC.shape[1]
    right = np.zeros((several, several))
    for label in range(several):
        own = scores_NC[labels == label]
        right[label] = (np.sign(own[:, [label]] - own).mean(0) + 1) / 2
    return float(right[~np.eye(several, dtype=bool)].mean())


def sampled(labels: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, as evenly over the classes as there are images, ascending."""
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(rows)
    place = np.empty(len(rows), np.int64)
    for label in np.unique(labels[shuffled]):
        of_label = np.flatnonzero(labels[shuffled] == label)
        place[of_label] = np.arange(len(of_label))
    return np.sort(shuffled[np.argsort(place, kind="stable")[:most]])


def facts_probes(dataset: ImageDataset, found: Facts, rows: np.ndarray) -> dict[str, Probe]:
    """By `size`, `format`, `frame`, `brightness` and `source`: how well that alone tells the class."""
    labels, groups = dataset.targets, dataset.table["group"].to_numpy()
    rows = sampled(labels, rows, MOST_IMAGES)
    features = _looks(found, rows)
    if "source" in dataset.table.columns:
        features["source"] = dataset.table[rows].select("source")
    return _probes(features, labels[rows], groups[rows])


def source_probes(dataset: ImageDataset, found: Facts, rows: np.ndarray) -> dict[str, Probe]:
    """By `size`, `format`, `frame` and `brightness`: how well that alone tells the source."""
    sources = np.unique(dataset.table["source"].to_numpy(), return_inverse=True)[1]
    rows = sampled(sources, rows, MOST_IMAGES)
    return _probes(_looks(found, rows), sources[rows], dataset.table["group"].to_numpy()[rows])


def stratum_probe(dataset: ImageDataset, rows: np.ndarray) -> Probe | None:
    """How well the source alone tells the stratum; None where there is none, or too little data."""
    if "stratum" not in dataset.table.columns:
        return None
    rows = sampled(dataset.strata, rows, MOST_IMAGES)
    sources = in_steps(dataset.table[rows].select("source"))
    return probe(sources, dataset.strata[rows], dataset.table["group"].to_numpy()[rows])


def _looks(found: Facts, rows: np.ndarray) -> dict[str, pl.DataFrame]:
    table = found.table[rows]
    return {
        "size": table.select("width_px", "height_px", ratio=pl.col("width_px") / pl.col("height_px")),
        "format": table.select(pl.concat_str("format", "mode", separator=" ", ignore_nulls=True)),
        "frame": table.select("frame_top", "frame_right", "frame_bottom", "frame_left"),
        "brightness": table.select("mean", "spread", "border_mean"),
    }


def _probes(features: dict[str, pl.DataFrame], labels: np.ndarray, groups: np.ndarray) -> dict[str, Probe]:
    """Without those that have nothing to tell."""
    probes = {name: probe(in_steps(columns), labels, groups) for name, columns in features.items()}
    return {name: told for name, told in probes.items() if told is not None}


def in_steps(columns: pl.DataFrame) -> np.ndarray:
    """float32 (rows, steps): 1 for the step of every column that a value is on, so that a line can be any curve.

    Of words and of few numbers each is a step, of many numbers there are `STEPS` with as many rows each.
    """
    features = []
    for column in columns.iter_columns():
        if column.dtype == pl.String:
            features.append(column.fill_null("").to_dummies().to_numpy().astype(np.float32))
            continue
        values, number = np.unique(column.fill_null(0).to_numpy(), return_inverse=True)
        if len(values) > STEPS:
            number = np.searchsorted(np.sort(number), number) * STEPS // len(number)
        features.append(np.eye(STEPS, dtype=np.float32)[number])
    return np.concatenate(features, axis=1)


@dataclass(frozen=True)
class TextProbe:
    corners: Probe
    """How well bright strokes in the corners tell the class."""
    beside: Probe
    """The same of four places of the same size that are no corners: what belongs to the image is there as well."""
    rows: np.ndarray
    """Row numbers of the images looked at, those with most strokes in a corner first, the classes in turn."""


def text_probe(dataset: ImageDataset, found: Facts, rows: np.ndarray) -> TextProbe | None:
    """None where there is too little data."""
    labels, groups = dataset.targets, dataset.table["group"].to_numpy()
    rows = sampled(labels, rows, MOST_PICTURES)
    if not len(rows):
        return None
    key = content_digest(["corners", found.key, rows.astype("<i8").tobytes()])
    height, width = CORNER_PX

    def fill(array: np.ndarray) -> None:
        def put(place: int) -> None:
            array[place] = strokes(dataset.decode(int(rows[place]), at_least_px=PICTURE_PX))

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(put, range(len(rows))))

    shape = (len(rows), 2, 4, height, width)
    places = stored_array(f"corners-{dataset.name}-{key}", shape, np.uint8, fill)
    corners, beside = (
        probe(pattern_maxima(np.asarray(places[:, where])), labels[rows], groups[rows], RIDGE) for where in (0, 1)
    )
    if corners is None or beside is None:
        return None
    order = np.argsort(-np.asarray(places[:, 0], np.float32).mean((2, 3)).max(1), kind="stable")
    turn = np.zeros(len(order), np.int64)
    for label in np.unique(labels[rows]):
        of_label = labels[rows][order] == label
        turn[of_label] = np.arange(of_label.sum())
    return TextProbe(corners, beside, rows[order[np.argsort(turn, kind="stable")]])


def strokes(pixels_HWC: np.ndarray) -> np.ndarray:
    """uint8 (2, 4, height, width): bright thin lines in the four corners, and in four places beside them."""
    gray = Image.fromarray(pixels_HWC.astype(np.float32).mean(2).astype(np.uint8))
    gray = gray.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BILINEAR)
    opened = gray.filter(ImageFilter.MinFilter(OPENING_PX)).filter(ImageFilter.MaxFilter(OPENING_PX))
    lines_HW = np.asarray(gray) - np.minimum(np.asarray(gray), np.asarray(opened))
    height, width = CORNER_PX
    up, left = (PICTURE_PX - height) // 2, (PICTURE_PX - width) // 2
    tops = (
        ((0, 0), (0, -width), (-height, 0), (-height, -width)),
        ((up, 0), (up, -width), (height, left), (-2 * height, left)),
    )
    return np.stack(
        [
            np.stack([lines_HW[y % PICTURE_PX :, x % PICTURE_PX :][:height, :width] for y, x in places])
            for places in tops
        ]
    )


def pattern_maxima(places_NCHW: np.ndarray) -> np.ndarray:
    """float32 (images, patches): how well each of some patches, cut out of the strokes themselves, fits somewhere;
    in standard deviations.

    One layer of a convolutional network with the images' own patches for filters (Coates and Ng 2012), and the maximum
    over all corners: a word is found wherever it stands.
    """
    windows = np.lib.stride_tricks.sliding_window_view(places_NCHW, (PATCH_PX, PATCH_PX), axis=(2, 3))
    rng = np.random.default_rng(0)
    some = rng.permutation(len(windows))[:PATCHES]
    candidates = windows[some].reshape(len(some) * windows.shape[1], -1, PATCH_PX**2).astype(np.float32)
    candidates -= candidates.mean(2, keepdims=True)
    strength = np.linalg.norm(candidates, axis=2)
    busiest = np.argsort(-strength, axis=1)[:, :BUSIEST]
    place, window = np.repeat(np.arange(len(busiest)), BUSIEST), busiest.ravel()
    chosen = rng.permutation(np.flatnonzero(strength[place, window] > SOFT))[:PATCHES]
    if not len(chosen):
        return np.zeros((len(places_NCHW), 1), np.float32)
    filters = (candidates[place, window] / np.maximum(strength[place, window, None], SOFT))[chosen].T
    found = np.empty((len(places_NCHW), len(chosen)), np.float32)
    for start in range(0, len(found), 16):
        patches = windows[start : start + 16].astype(np.float32).reshape(-1, PATCH_PX**2)
        patches -= patches.mean(1, keepdims=True)
        fits = (patches @ filters) / (np.linalg.norm(patches, axis=1, keepdims=True) + SOFT * PATCH_PX)
        found[start : start + 16] = fits.reshape(-1, math.prod(windows.shape[1:4]), len(chosen)).max(1)
    spread: np.ndarray = found.std(0)
    return found / np.maximum(spread, 1e-3)
