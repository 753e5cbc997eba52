"""How a trial fails at masks: the spread of the images' Dice, small structures, sources, groups, best and worst
images."""

from typing import Any

import numpy as np
import polars as pl

from analysis.failing_images import CASES, STRATA, Rows
from analysis.predictions import EDGES, distribution, extremes
from analysis.results import Results, Unavailable
from analysis.shares import mean_interval, share
from analysis.trials import mean_std

AREA_BINS = 8
"""Into which images are divided by the area of their mask, equally many in each."""


def of_masks(results: Results, number: int, rows: Rows) -> dict[str, Any]:
    """`dice` and `iou` (mean and std over folds), `distribution` and `quantiles` of the images' Dice, `missed` (images
    with a Dice of 0), `by_area`, `strata` by source, `of_groups` (groups with several images, the worst first), and the
    images with the `best` and the `worst` Dice."""
    dice_N, iou_N = results.predictions(number, ["dice", "iou"]).T
    fold_N, of_image = results.validated_in, rows.of_image(dice_N).mean(1)
    of_folds = {
        name: mean_std(values[fold_N == fold].mean() for fold in np.unique(fold_N))
        for name, values in (("dice", dice_N), ("iou", iou_N))
    }
    cases = extremes(results.folds["image_id"], {"dice": dice_N, "iou": iou_N}, CASES)
    row_of = {name: row for row, name in enumerate(rows.images["image_id"])}
    return {
        **{name: {"mean": mean, "std": std} for name, (mean, std) in of_folds.items()},
        "distribution": {"edges": EDGES.tolist(), "images": distribution(dice_N)},
        "quantiles": {str(q): float(np.quantile(of_image, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
        "missed": share(dice_N == 0, rows.group_N, rows.repeats),
        "by_area": _by_area(results, number, rows, dice_N),
        "strata": _of_sources(rows, dice_N),
        "of_groups": _of_groups(rows, of_image),
        **{
            name: [case | {"fold": rows.folds_of_image(fold_N, row_of[case["image_id"]])} for case in cases[name]]
            for name in ("best", "worst")
        },
    }


def areas(results: Results, number: int) -> np.ndarray:
    """The share of each image that is foreground, (N,). Raises `Unavailable` where predictions do not hold it."""
    try:
        return results.predictions(number, ["area"])[:, 0]
    except Unavailable:
        raise Unavailable("The predictions do not say how large the masks are.") from None


def _by_area(results: Results, number: int, rows: Rows, dice_N: np.ndarray) -> list[dict[str, Any]] | dict[str, str]:
    """From the smallest masks to the largest: `from` and `to` (share of the image that is foreground), `images`, `dice`
    with its interval, and the share that is `missed`; or a `note`. Images without foreground are a bin of their own."""
    try:
        area_N = areas(results, number)
    except Unavailable as reason:
        return {"note": str(reason)}
    there = area_N > 0
    inner = np.unique(np.quantile(area_N[there], np.linspace(0, 1, AREA_BINS + 1)[1:-1])) if there.any() else area_N
    bin_N = np.where(there, np.searchsorted(inner, area_N, side="right"), -1)
    return [
        {
            "from": float(area_N[inside].min()),
            "to": float(area_N[inside].max()),
            "images": int(inside.sum()) // rows.repeats,
            "dice": mean_interval(dice_N[inside], rows.group_N[inside]),
            "missed": share(dice_N[inside] == 0, rows.group_N[inside], rows.repeats),
        }
        for index in np.unique(bin_N)
        for inside in [bin_N == index]
    ]


def _of_sources(rows: Rows, dice_N: np.ndarray) -> list[dict[str, Any]]:
    """`by` source, where it is known: `left_out`, and `rows` of the largest, the worst first: `name`, `images`,
    `dice`."""
    if "source" not in rows.images.columns:
        return []
    name_N = np.tile(rows.images["source"].cast(pl.String).fill_null("not known").to_numpy(), rows.repeats)
    names, of_N, counts = np.unique(name_N.astype(str), return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:STRATA]
    told = [
        {
            "name": str(names[index]),
            "images": int(counts[index]) // rows.repeats,
            "dice": mean_interval(dice_N[of_N == index], rows.group_N[of_N == index]),
        }
        for index in largest
    ]
    told.sort(key=lambda row: row["dice"]["value"])  # type: ignore[index]
    return [{"by": "source", "left_out": len(names) - len(largest), "rows": told}]


def _of_groups(rows: Rows, dice_of_image: np.ndarray) -> dict[str, Any] | None:
    """Of the groups with several images: how many `several` are, and as `cases` those with the lowest mean Dice. None
    where there are none."""
    by_group = (
        rows.images.with_columns(dice=dice_of_image)
        .group_by("group")
        .agg(
            images=pl.len(), dice=pl.col("dice").mean(), best=pl.col("dice").max(), image_ids=pl.col("image_id").head(3)
        )
        .filter(pl.col("images") > 1)
        .sort("dice", "group")
    )
    return {"several": by_group.height, "cases": by_group.head(CASES).to_dicts()} if by_group.height else None
