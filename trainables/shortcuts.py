"""Does a network read the label off the border of an image, or out of a corner, in place of what the image shows?

Where it looks (Grad-CAM) is shown, but proves little: a network that lives on words in the corners may look at the
middle no less than another. So the places are changed, and out-of-fold networks asked again. A place is hidden behind
the mean image, or is all that is left of an image; and it is exchanged with the same place of another image, once of
the same class and once of another one (as in Goyal et al. 2019, "Counterfactual visual explanations"). Both exchanges
disturb an image alike, so what the score falls by from one to the other is what the place says of the class.

`benchmarks/shortcuts.md` has the rates at which it warns: with words planted into corners, and without.

Shapes: N images looked at, H height, W width, L channels, C classes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from trainables.metrics import scores

CENTRE = 0.7
"""Of the width and of the height: the central rectangle, in which radiographs and photographs have what they are about.
The border is what lies around it, half of the area."""
CORNER = (0.2, 0.34)
"""Height and width of a corner, in parts of the image's: burnt-in words fit in."""
CORNERS = ("top left", "top right", "bottom left", "bottom right")
SOFT = 1 / 60
"""Over so much of the side a changed place passes into the rest: a sharp edge would be something new to see."""
METRIC, CHANCE = "auroc", 0.5
"""A place alone gives probabilities that are all too low or too high; only their order says what it knows."""
BATCH = 64

CORNERS_TELL, BORDER_TELLS = 0.04, 0.11
"""What the AUROC must fall by between the two exchanges. Something of what an image shows reaches into its border."""
CERTAIN = 4.0
"""How many standard errors what is seen must be away from nothing. They know nothing of how the places to exchange were
drawn, so two would not be enough."""
EXCHANGES = 2
"""How often every image is given the places of others."""

Predict = Callable[[int, np.ndarray], np.ndarray]
"""A fold and uint8 images (n, H, W, L) to probabilities (n, C) of the network that has not seen that fold's images."""


@dataclass(frozen=True)
class Sample:
    """Images that are looked at, and the fold in which each was validated."""

    rows_N: np.ndarray
    """Of the data set."""
    pixels_NHWL: np.ndarray
    targets_N: np.ndarray
    folds_N: np.ndarray
    groups_N: np.ndarray

    def __len__(self) -> int:
        return len(self.targets_N)


def central(height: int, width: int) -> np.ndarray:
    """Bool (H, W): what belongs to the central rectangle."""
    inside = np.zeros((height, width), bool)
    top, left = (round((1 - CENTRE) / 2 * side) for side in (height, width))
    inside[top : height - top, left : width - left] = True
    return inside


def corner(name: str, height: int, width: int) -> np.ndarray:
    """Bool (H, W): what belongs to that one of `CORNERS`."""
    inside = np.zeros((height, width), bool)
    rows, columns = (max(1, round(part * side)) for part, side in zip(CORNER, (height, width), strict=True))
    inside[
        slice(0, rows) if name.startswith("top") else slice(height - rows, None),
        slice(0, columns) if name.endswith("left") else slice(width - columns, None),
    ] = True
    return inside


def outside_shares(saliency_NHW: np.ndarray) -> np.ndarray:
    """Share of each image's attention outside the centre, (N,); NaN where there is none at all."""
    total_N = saliency_NHW.sum((1, 2), dtype=np.float64)
    outside_N = saliency_NHW[:, ~central(*saliency_NHW.shape[1:])].sum(1, dtype=np.float64)
    return np.divide(outside_N, total_N, out=np.full(len(total_N), np.nan), where=total_N > 0)


def attention(
    saliency_NHW: np.ndarray, targets_N: np.ndarray, groups_N: np.ndarray, classes: Iterable[str]
) -> dict[str, Any]:
    """By class, the mean share of attention outside the centre, and its 95 % interval (normal, over groups); None where
    the images of fewer than two groups have any. `uniform`: what attention to everything alike would give."""
    share_N = outside_shares(saliency_NHW)
    by_class = []
    for index, name in enumerate(classes):
        inside = (targets_N == index) & np.isfinite(share_N)
        of_class = share_N[inside]
        _, group = np.unique(groups_N[inside], return_inverse=True)
        told: dict[str, Any] = {
            "class": name,
            "images": len(of_class),
            "outside_share": None,
            "low": None,
            "high": None,
        }
        if len(np.unique(group)) >= 2:
            mean = float(of_class.mean())
            sums_G = np.bincount(group, of_class - mean)
            error = float(np.sqrt((sums_G**2).sum() * len(sums_G) / (len(sums_G) - 1))) / len(of_class)
            told |= {"outside_share": mean, "low": max(0.0, mean - 1.96 * error), "high": min(1.0, mean + 1.96 * error)}
        by_class.append(told)
    return {
        "central": f"the central rectangle, {100 * CENTRE:.0f} % of the width and of the height",
        "uniform": float(1 - central(*saliency_NHW.shape[1:]).mean()),
        "by_class": by_class,
    }


def probed(sample: Sample, predict: Predict, probabilities_NC: np.ndarray) -> dict[str, Any]:
    """Scores with border and corners hidden, alone and exchanged, each with mean and standard deviation over folds.

    probabilities_NC: of the images as they are. A fold of which not every class is in the sample does not count; where
    none is left, scores are None.
    """
    height, width = sample.pixels_NHWL.shape[1:3]
    border = ~central(height, width)
    each = {name: corner(name, height, width) for name in CORNERS}
    corners = np.logical_or.reduce(list(each.values()))
    mean_image = sample.pixels_NHWL.mean(0, dtype=np.float64).astype(np.float32)

    def alone(place: np.ndarray) -> np.ndarray:
        return _changed(sample, predict, ~place, lambda rows: mean_image)

    exchanged = _exchanged(sample, predict, corners)
    return {
        "metric": METRIC,
        "chance": CHANCE,
        "images": len(sample),
        "score": _score(sample, probabilities_NC),
        "masked_border": _score(sample, _changed(sample, predict, border, lambda rows: mean_image)),
        "only_border": _score(sample, alone(border)),
        "border_exchanged": _exchanged(sample, predict, border),
        "only_corners": _score(sample, alone(corners)),
        "corners_exchanged": exchanged,
        "each_corner": [
            {"corner": name, "only": _score(sample, alone(place))}
            for name, place in each.items()
            if _tells(exchanged, CORNERS_TELL)
        ],
    }


def warnings(found: dict[str, Any]) -> list[str]:
    """In words, what `probed` has against a network; [] where nothing."""
    said = []
    for place, least in (("corners", CORNERS_TELL), ("border", BORDER_TELLS)):
        exchanged, alone = found[f"{place}_exchanged"], found[f"only_{place}"]
        if not _tells(exchanged, least):
            continue
        rest = "corners" if place == "corners" else "border"
        said.append(
            f"The network reads the class off the {rest} of the images: with the {rest} of an image of another class "
            f"in place of one of the same class the AUROC falls by {exchanged['fall']:.3f} "
            f"(from {exchanged['same']['mean']:.3f} to {exchanged['other']['mean']:.3f}), and the {rest} alone give "
            f"{_words(alone)} where chance gives {CHANCE}. Look there for lettering, markers or frames that go with "
            f"the class."
        )
    return said


def _tells(exchanged: dict[str, Any], least: float) -> bool:
    """Whether a place tells the class, and certainly so."""
    fall, standard_errors = exchanged["fall"], exchanged["standard_errors"]
    return fall is not None and fall >= least and standard_errors >= CERTAIN


def _exchanged(sample: Sample, predict: Predict, place: np.ndarray) -> dict[str, Any]:
    """The score with a place from other images of the same class, and from images of other classes; by how much it
    falls between the two, and how many standard errors of the mean over groups the log-odds of the truth fall by."""
    rng = np.random.default_rng(0)
    truth = (np.arange(len(sample)), sample.targets_N)
    scored: dict[bool, list[float]] = {True: [], False: []}
    stds: dict[bool, list[float]] = {True: [], False: []}
    falls_N = np.zeros(len(sample))
    for _ in range(EXCHANGES):
        for same_class in (True, False):
            donors = _donors(sample, same_class, rng)
            if donors is None:
                return _NOT_EXCHANGED
            probabilities_NC = _changed(sample, predict, place, sample.pixels_NHWL[donors].__getitem__)
            score = _score(sample, probabilities_NC)
            if score["mean"] is None:
                return _NOT_EXCHANGED
            scored[same_class].append(score["mean"])
            stds[same_class].append(score["std"] or 0.0)
            of_truth_N = probabilities_NC[truth].clip(1e-6, 1 - 1e-6)
            falls_N += (1 if same_class else -1) * np.log(of_truth_N / (1 - of_truth_N))
    _, group_N = np.unique(sample.groups_N, return_inverse=True)
    falls_G = np.bincount(group_N, falls_N) / np.bincount(group_N)
    if len(falls_G) < 2:
        return _NOT_EXCHANGED
    error = float(falls_G.std(ddof=1)) / math.sqrt(len(falls_G))
    same, other = ({"mean": float(np.mean(scored[each])), "std": float(np.mean(stds[each]))} for each in (True, False))
    return {
        "same": same,
        "other": other,
        "fall": same["mean"] - other["mean"],
        "standard_errors": float(falls_G.mean()) / max(error, 1e-9),
    }


def _donors(sample: Sample, same_class: bool, rng: np.random.Generator) -> np.ndarray | None:
    """For each image another one, int64 (N,): validated in the same fold, of the same class or of another one, of
    another group where there is any; none much more often than others. None where an image has no such other."""
    donors, used = np.empty(len(sample), np.int64), np.zeros(len(sample))
    for row in rng.permutation(len(sample)):
        fits = (sample.folds_N == sample.folds_N[row]) & ((sample.targets_N == sample.targets_N[row]) == same_class)
        fits[row] = False
        strangers = fits & (sample.groups_N != sample.groups_N[row])
        if not fits.any():
            return None
        possible = np.flatnonzero(strangers if strangers.any() else fits)
        donors[row] = rng.choice(possible[used[possible] == used[possible].min()])
        used[donors[row]] += 1
    return donors


def _changed(
    sample: Sample, predict: Predict, place: np.ndarray, other: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Probabilities (N, C) of the images with a place (H, W) of theirs from others.

    other: row numbers to images (n, H, W, L), or to one for all.
    """
    mask = Image.fromarray(place.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(SOFT * place.shape[0]))
    taken_HW1 = np.asarray(mask, np.float32)[:, :, None] / 255
    found: np.ndarray | None = None
    for fold in np.unique(sample.folds_N):
        of_fold = np.flatnonzero(sample.folds_N == fold)
        for rows in np.split(of_fold, range(BATCH, len(of_fold), BATCH)):
            mixed = sample.pixels_NHWL[rows] * (1 - taken_HW1) + other(rows) * taken_HW1
            predicted = predict(int(fold), mixed.round().astype(np.uint8))
            if found is None:
                found = np.empty((len(sample), predicted.shape[1]))
            found[rows] = predicted
    assert found is not None, "no images"
    return found


_NOTHING: dict[str, float | None] = {"mean": None, "std": None}
_NOT_EXCHANGED: dict[str, Any] = {"same": _NOTHING, "other": _NOTHING, "fall": None, "standard_errors": None}


def _score(sample: Sample, probabilities_NC: np.ndarray) -> dict[str, float | None]:
    """Mean and standard deviation over the folds that have every class."""
    of_folds = []
    for fold in np.unique(sample.folds_N):
        inside = sample.folds_N == fold
        score = scores(sample.targets_N[inside], probabilities_NC[inside])[METRIC]
        if math.isfinite(score):
            of_folds.append(score)
    if not of_folds:
        return _NOTHING
    return {"mean": float(np.mean(of_folds)), "std": float(np.std(of_folds, ddof=1)) if len(of_folds) > 1 else None}


def _words(score: dict[str, float | None]) -> str:
    if score["mean"] is None:
        return "no score"
    return f"{score['mean']:.3f}" + ("" if score["std"] is None else f" ± {score['std']:.3f}")
