"""`failures`: how a trial fails on the images that its networks were not trained on, ready for JSON.

Scores of folds are mean and standard deviation over the folds (`mean`, `std`), as the score of a trial is. Shares of
images have a 95 % interval (`value`, `low`, `high`) that knows groups and repeats; see `analysis.shares`.
Counts of predictions hold every image once per repeat; of single images, groups and studies the probability is the mean
over repeats.
"""

from typing import Any

import numpy as np

from analysis.failing_images import CASES, Rows, groups, strata, studies, wrong
from analysis.mask_failures import of_masks
from analysis.predictions import (
    EDGES,
    FPR_GRID,
    RECALL_GRID,
    FoldCurves,
    OutOfFold,
    Ranked,
    brier,
    confusion_CC,
    distribution,
    guessed_precision,
    of_each_class,
    out_of_fold,
    reliability,
    thresholds_of,
)
from analysis.results import Results
from analysis.shares import share
from analysis.trials import mean_std
from trainables.metrics import calibration_error

SURE = 0.9
"""From which probability on the model is called sure."""
DRAWS = 20
"""Of answers that follow their probabilities, to see which calibration error would come from chance alone."""


def failures(results: Results, number: int) -> dict[str, Any]:
    """How a trial fails. Raises `Unavailable` where its predictions cannot be read.

    `kind`, `images`, `groups`, `repeats`, and of masks what `of_masks` tells; of classes `targets`, each as
    `of_target`.
    """
    rows = Rows.of(results)
    counts = {
        "trial": number,
        "kind": results.experiment["data"]["kind"],
        "images": rows.images.height,
        "groups": rows.images["group"].n_unique(),
        "repeats": rows.repeats,
    }
    if results.has_masks:
        return counts | of_masks(results, number, rows)
    targets = out_of_fold(results, number)
    return counts | {"targets": [of_target(target, rows, targets) for target in targets]}


def of_target(own: OutOfFold, rows: Rows, targets: list[OutOfFold]) -> dict[str, Any]:
    """`name`, `classes`, `scored`, `positive` (None of more than two), and: `confusion` (`counts` and `shares` of the
    true class, row: truth), `confused` (the commonest mistakes), `of_each_class`, `roc`, `precision_recall`,
    `calibration`, `thresholds` (of two classes), `distribution`, `sure` (images with a probability of at least
    `SURE`, and how many of them are `wrong`), `strata` (by source and by the classes of other targets), `of_groups`,
    `of_studies`, `wrong` (`images`, and of the most confidently wrong a list of `cases`)."""
    two = len(own.classes) == 2
    counts_CC, ranked = confusion_CC(own.targets_N, own.probabilities_NC), Ranked.of(*own.arrays)
    wrong_N = own.predicted_N != own.targets_N
    sure_N = own.probabilities_NC.max(1) >= SURE
    return {
        "name": own.name,
        "classes": own.classes,
        "scored": own.scored,
        "positive": own.classes[1] if two else None,
        "accuracy": share(~wrong_N, rows.group_N, rows.repeats),
        "confusion": {
            "counts": counts_CC.tolist(),
            "shares": (counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)).tolist(),
        },
        "confused": _confused(counts_CC, own.classes),
        "of_each_class": _each_class(own, ranked, counts_CC.sum(1) // rows.repeats),
        "roc": _curve(FPR_GRID, ranked.roc, guessing=0.5),
        "precision_recall": _curve(RECALL_GRID, ranked.precision_recall, guessing=guessed_precision(own)),
        "calibration": _calibration(own, rows),
        "thresholds": _thresholds(own, rows) if two else None,
        "distribution": {
            "of": f"probability of {own.classes[1]}" if two else "probability of the true class",
            "edges": EDGES.tolist(),
            "images": {
                name: distribution(own.probabilities_NC[own.targets_N == c, 1 if two else c])
                for c, name in enumerate(own.classes)
            },
        },
        "sure": {
            "from": SURE,
            "images": int(sure_N.sum()),
            "wrong": int((sure_N & wrong_N).sum()),
            "share_wrong": share(wrong_N[sure_N], rows.group_N[sure_N], rows.repeats),
        },
        "strata": strata(own, rows, targets),
        "of_groups": groups(own, rows),
        "of_studies": studies(own, rows),
        "wrong": wrong(own, rows),
    }


def _confused(counts_CC: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """The commonest mistakes: `truth`, `predicted`, `images`, and their `share` of the true class."""
    off_CC = counts_CC - np.diag(counts_CC.diagonal())
    order = np.argsort(-off_CC, axis=None, kind="stable")[:CASES]
    return [
        {
            "truth": classes[truth],
            "predicted": classes[predicted],
            "images": int(off_CC[truth, predicted]),
            "share": float(off_CC[truth, predicted] / counts_CC[truth].sum()),
        }
        for truth, predicted in zip(*np.unravel_index(order, off_CC.shape), strict=True)
        if off_CC[truth, predicted]
    ]


def _each_class(own: OutOfFold, ranked: Ranked, images_C: np.ndarray) -> list[dict[str, Any]]:
    """Each class against the rest: `name`, `images`, and mean and std of precision, recall, f1, auroc and
    average_precision over the folds that hold it."""
    found = []
    for c, (name, scored) in enumerate(zip(own.classes, of_each_class(*own.arrays), strict=True)):
        areas = {"auroc": ranked.auroc_FC[:, c], "average_precision": ranked.average_precision_FC[:, c]}
        spread = scored | {score: mean_std(area_F[~np.isnan(area_F)]) for score, area_F in areas.items()}
        told = {score: {"mean": mean, "std": std} for score, (mean, std) in spread.items()}
        found.append({"name": name, "images": int(images_C[c]), **told})
    return found


def _curve(x: np.ndarray, curves: FoldCurves, guessing: float) -> dict[str, Any]:
    """`x`, the `mean` and standard deviation (`std`) of the folds' curves there, their `areas` and the mean and std of
    these, `area`, and the height of `guessing`."""
    if not curves.areas:
        return {"note": "No fold holds images of two classes."}
    mean, std = mean_std(curves.areas)
    return {
        "x": x.tolist(),
        "mean": curves.values_FG.mean(0).round(5).tolist(),
        "std": curves.values_FG.std(0, ddof=1).round(5).tolist() if len(curves.areas) > 1 else None,
        "area": {"mean": mean, "std": std},
        "areas": curves.areas,
        "guessing": guessing,
    }


def _calibration(own: OutOfFold, rows: Rows) -> dict[str, Any]:
    """`bins` of `reliability` (of the positive class, or of more than two of the most probable one, named by `of`);
    `calibration_error` (ECE, Guo et al. 2017), beside
    `calibration_error_by_chance`, what a perfectly calibrated model would show on so few images; `excess_confidence`,
    the mean confidence less the accuracy; `brier`, beside `brier_of_shares`, that of a model which knows nothing but
    how common each class is."""
    two = len(own.classes) == 2
    probability_N = own.probabilities_NC[:, 1] if two else own.probabilities_NC.max(1)
    true_N = own.targets_N == 1 if two else own.predicted_N == own.targets_N
    errors, excess, by_chance, squares, of_shares = [], [], [], [], []
    rng = np.random.default_rng(0)
    for fold in np.unique(own.fold_N):
        targets, probabilities = own.targets_N[own.fold_N == fold], own.probabilities_NC[own.fold_N == fold]
        right, confidence = probabilities.argmax(1) == targets, probabilities.max(1)
        errors.append(calibration_error(right, confidence))
        excess.append(confidence.mean() - right.mean())
        by_chance += [calibration_error(rng.random(len(right)) < confidence, confidence) for _ in range(DRAWS)]
        squares.append(brier(targets, probabilities))
        shares_C = np.bincount(targets, minlength=len(own.classes)) / len(targets)
        of_shares.append(brier(targets, np.broadcast_to(shares_C, probabilities.shape)))
    spread = {"calibration_error": errors, "excess_confidence": excess, "brier": squares}
    return {
        "of": own.classes[1] if two else "the most probable class",
        "bins": reliability(probability_N, true_N, rows.group_N, rows.repeats),
        **{name: dict(zip(("mean", "std"), mean_std(values), strict=True)) for name, values in spread.items()},
        "calibration_error_by_chance": float(np.mean(by_chance)),
        "brier_of_shares": float(np.mean(of_shares)),
    }


def _thresholds(own: OutOfFold, rows: Rows) -> dict[str, Any]:
    """What to expect of a threshold on the probability of the positive class: `rows` with the `rule`, the `threshold`
    of all predictions together, and `sensitivity`, `specificity`, `ppv`, `npv` of all images, each of which is judged
    by the threshold that the other folds of its repeat give: an image has no say in the threshold it is judged by.
    Predictive values hold for the `prevalence` of these images only."""
    positive_N, score_N = own.targets_N == 1, own.probabilities_NC[:, 1]
    repeat_N = np.repeat(np.arange(rows.repeats), rows.images.height)
    others = [(own.fold_N == fold, repeat_N == repeat_N[own.fold_N == fold][0]) for fold in np.unique(own.fold_N)]
    try:
        of_all = thresholds_of(positive_N, score_N)
        chosen = [
            (inside, thresholds_of(positive_N[same & ~inside], score_N[same & ~inside])) for inside, same in others
        ]
    except ValueError:
        return {"note": "A fold holds all images of a class, so no threshold can be chosen without it."}
    judged = {"most probable class": (0.5, own.predicted_N == 1)}
    for rule, threshold in of_all.items():
        called_N = np.zeros(len(score_N), bool)
        for inside, of_fold in chosen:
            called_N[inside] = score_N[inside] >= of_fold[rule]
        judged[rule] = (threshold, called_N)
    return {
        "prevalence": float(positive_N.mean()),
        "rows": [
            {
                "rule": rule,
                "threshold": threshold,
                "sensitivity": _share(called_N, positive_N, rows),
                "specificity": _share(~called_N, ~positive_N, rows),
                "ppv": _share(positive_N, called_N, rows),
                "npv": _share(~positive_N, ~called_N, rows),
            }
            for rule, (threshold, called_N) in judged.items()
        ],
    }


def _share(true_N: np.ndarray, inside_N: np.ndarray, rows: Rows) -> dict[str, float | None]:
    return share(true_N[inside_N], rows.group_N[inside_N], rows.repeats)
