"""Which images are predicted wrongly: single ones, of which groups, studies and sources. As in `analysis.failures`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analysis.predictions import OutOfFold, Ranked, confusion_CC
from analysis.results import Results
from analysis.scoring import numbered
from analysis.shares import share
from analysis.trials import mean_std

CASES = 12
"""Images, groups, studies and confused classes that are named."""
STRATA = 30
"""Sources, or classes of another target, that have a row of their own, those with the most images."""


@dataclass(frozen=True)
class Rows:
    """Which images the predictions are of: those of the first repeat, and what they share with others."""

    images: pl.DataFrame
    """image_id, group, and where known source and study; one row per image."""
    repeats: int
    group_N: np.ndarray
    """From 0, of every prediction."""
    fold_names: list[str]

    @staticmethod
    def of(results: Results) -> "Rows":
        repeats, folds = results.experiment["data"]["repeats"], results.folds
        kept = [name for name in ("image_id", "group", "source", "study") if name in folds.columns]
        images = folds.head(folds.height // repeats).select(kept)
        return Rows(images, repeats, numbered(folds["group"]), results.fold_names)

    def of_image(self, values_N: np.ndarray) -> np.ndarray:
        """(images, repeats, …) of what is known of every prediction."""
        return values_N.reshape(self.repeats, self.images.height, *values_N.shape[1:]).swapaxes(0, 1)

    def folds_of_image(self, fold_N: np.ndarray, image: int) -> str:
        """`fold 2`; with repeats `fold 2, fold 4`."""
        return ", ".join(self.fold_names[fold] for fold in self.of_image(fold_N)[image])


def strata(own: OutOfFold, rows: Rows, targets: list[OutOfFold]) -> list[dict[str, Any]]:
    """By source, and by the classes of every other target, where there are any: `by`, `left_out` (how many are too
    small to be shown), and `rows` of the largest, the worst first: `name`, `images`, `shares` of the classes among
    them, `accuracy`, `recall` of each class, and the `auroc` over the folds that hold two classes of it."""
    columns: list[tuple[str, np.ndarray]] = []
    if "source" in rows.images.columns:
        columns.append(
            ("source", np.tile(rows.images["source"].cast(pl.String).fill_null("not known").to_numpy(), rows.repeats))
        )
    columns += [(other.name, np.array(other.classes)[other.targets_N]) for other in targets if other is not own]
    found = []
    for by, name_N in columns:
        names, of_N, counts = np.unique(name_N.astype(str), return_inverse=True, return_counts=True)
        largest = np.argsort(-counts, kind="stable")[:STRATA]
        told = [_stratum(str(names[index]), of_N == index, own, rows) for index in largest]
        told.sort(key=lambda row: row["accuracy"]["value"])
        found.append({"by": by, "left_out": len(names) - len(largest), "rows": told})
    return found


def _stratum(name: str, inside: np.ndarray, own: OutOfFold, rows: Rows) -> dict[str, Any]:
    targets, right = own.targets_N[inside], own.probabilities_NC[inside].argmax(1) == own.targets_N[inside]
    group = rows.group_N[inside]
    counts = np.bincount(targets, minlength=len(own.classes))
    mean, std = mean_std(Ranked.of(targets, own.probabilities_NC[inside], own.fold_N[inside]).roc.areas)
    return {
        "name": name,
        "images": int(inside.sum()) // rows.repeats,
        "shares": (counts / counts.sum()).tolist(),
        "accuracy": share(right, group, rows.repeats),
        "recall": [share(right[targets == c], group[targets == c], rows.repeats) for c in range(len(own.classes))],
        "auroc": {"mean": mean, "std": std},
    }


def _of_images(own: OutOfFold, rows: Rows) -> pl.DataFrame:
    """One row per image: its columns, truth, predicted, probability (of the predicted class), of_truth, wrong."""
    mean_NC = rows.of_image(own.probabilities_NC).mean(1)
    truth, predicted, each = own.targets_N[: len(mean_NC)], mean_NC.argmax(1), np.arange(len(mean_NC))
    return rows.images.with_columns(
        row=each,
        truth=truth,
        predicted=predicted,
        probability=mean_NC[each, predicted],
        of_truth=mean_NC[each, truth],
        wrong=predicted != truth,
    )


def wrong(own: OutOfFold, rows: Rows) -> dict[str, Any]:
    """How many `images` are wrong, and as `cases` those with the highest probability of the wrong class: image_id,
    group, source, study, truth, predicted, probability (of the predicted class), of_truth, fold."""
    wrong = _of_images(own, rows).filter(pl.col("wrong")).drop("wrong")
    cases = wrong.sort("probability", "image_id", descending=[True, False]).head(CASES)
    return {
        "images": wrong.height,
        "cases": [
            case
            | {name: own.classes[case[name]] for name in ("truth", "predicted")}
            | {"fold": rows.folds_of_image(own.fold_N, case.pop("row"))}
            for case in cases.iter_rows(named=True)
        ],
    }


def groups(own: OutOfFold, rows: Rows) -> dict[str, Any] | None:
    """Of the groups with several images (of a patient, or copies): how many `several` are, and of them `all_right`,
    `some_wrong`, `all_wrong`; `all_wrong_by_chance` were to be expected if the same number of mistakes fell on their
    images at random. `cases` are groups that are wrong as a whole, those with the most images first. None where no
    group has several images."""
    by_group = _of_images(own, rows).group_by("group").agg(
        images=pl.len(),
        wrong=pl.col("wrong").sum(),
        truth=pl.col("truth").unique().sort(),
        of_truth=pl.col("of_truth").mean(),
        image_ids=pl.col("image_id").head(3),
    ).filter(pl.col("images") > 1)  # fmt: skip
    if by_group.is_empty():
        return None
    whole = by_group.filter(pl.col("wrong") == pl.col("images")).sort("images", "group", descending=[True, False])
    rate = float(by_group["wrong"].sum()) / float(by_group["images"].sum())
    return {
        "several": by_group.height,
        "all_right": by_group.filter(pl.col("wrong") == 0).height,
        "some_wrong": by_group.filter((pl.col("wrong") > 0) & (pl.col("wrong") < pl.col("images"))).height,
        "all_wrong": whole.height,
        "all_wrong_by_chance": float((rate ** by_group["images"].to_numpy()).sum()),
        "cases": [
            case | {"truth": [own.classes[c] for c in case["truth"]]}
            for case in whole.head(CASES).iter_rows(named=True)
        ],
    }


def studies(own: OutOfFold, rows: Rows) -> dict[str, Any] | None:
    """Of studies, whose probability is the mean over their images: how many `studies` there are, `accuracy`, in how
    many the images `disagree` on the class, `confusion` counts, and the most confidently wrong `cases`. None where
    studies are not known."""
    if "study" not in rows.images.columns:
        return None
    names, first, study_N = np.unique(rows.images["study"].to_numpy(), return_index=True, return_inverse=True)
    mean_NC, size_S = rows.of_image(own.probabilities_NC).mean(1), np.bincount(study_N)
    mean_SC = np.stack([np.bincount(study_N, column) for column in mean_NC.T], axis=1) / size_S[:, None]
    truth_S, predicted_S = own.targets_N[first], mean_SC.argmax(1)
    wrong_S, said_N = predicted_S != truth_S, mean_NC.argmax(1)
    agreed_S = np.bincount(study_N, said_N == said_N[first][study_N]) == size_S
    top_S = mean_SC.max(1)
    order = np.flatnonzero(wrong_S)
    order = order[np.argsort(-top_S[order], kind="stable")][:CASES]
    return {
        "studies": len(names),
        "accuracy": share(~wrong_S, rows.group_N[: len(study_N)][first]),
        "disagree": int((~agreed_S).sum()),
        "confusion": confusion_CC(truth_S, mean_SC).tolist(),
        "cases": [
            {
                "study": str(names[s]),
                "images": int(size_S[s]),
                "truth": own.classes[truth_S[s]],
                "predicted": own.classes[predicted_S[s]],
                "probability": float(top_S[s]),
                "fold": rows.folds_of_image(own.fold_N, int(first[s])),
            }
            for s in order
        ],
    }
