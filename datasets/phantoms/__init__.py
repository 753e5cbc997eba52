"""Data sets of procedural images, for `--demo`, for tests and for truths: the frame that all tasks share.

    phantom_dataset("covid", CLASSES, draw, development=(162, 162), confusion=sign_missing(0.06), seed=0)

makes the table of a data set of phantoms: classes, groups, parts, random seeds, and on demand the pitfalls of
`PITFALLS`. Image i depends on (seed, i, plant) alone, so more can always be drawn, up to as many as an estimate of a
bias needs. The drawings themselves are the other modules of this package; each draws from a numpy Generator alone, the
same on every machine.

The best possible accuracy. Every image shows the *appearance* of a class, mostly its own; the others are what makes a
task hard for everybody. The perfect observer sees the appearance a and nothing more, and says the class k that is most
probable then, the one with the largest P(k) P(a | k); right with probability sum over a of max over k of P(k) P(a | k).
That is `best_accuracy`, for the class shares of the development part. It is of the images as they were meant: no one
can do well on planted contradictions. Who reads a planted text, or knows a planted source, does better: then there is
none.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets.dataset import Decoder, ImageDataset, Target
from datasets.errors import InputError
from datasets.phantoms.draws import FEW, hashed, interleaved, uniform
from datasets.phantoms.pitfalls import PITFALLS, Rows, imbalanced, known_pitfalls, plant_into
from datasets.phantoms.shown import Shown, ShownMask

__all__ = ["PITFALLS", "best_accuracy", "mixed_up", "phantom_dataset", "planted", "sign_missing"]


SHORTCUTS = {"text", "source"}
"""Pitfalls that say more of the class than the image shows."""


def best_accuracy(shares: npt.ArrayLike, confusion: np.ndarray) -> float:
    """The accuracy of an observer who sees every appearance perfectly.

    `shares`: how many images or which part of all a class has, shape (classes,); or shape (contexts, classes) where the
    observer also sees a context, such as the part of the body. `confusion`: P(appearance | class), shape (classes,
    appearances), rows of sum 1.
    """
    shares = np.asarray(shares, float)
    joint = shares[..., None] * confusion
    return float(joint.max(axis=-2).sum() / shares.sum())


def sign_missing(probability: float) -> np.ndarray:
    """The confusion of two classes where a positive image shows no sign with this probability, and looks negative."""
    return np.array([[1, 0], [probability, 1 - probability]])


def mixed_up(classes: int, probability: float) -> np.ndarray:
    """The confusion of classes where an image looks like one of the others with this probability, whichever."""
    other = probability / (classes - 1)
    return np.full((classes, classes), other) + np.eye(classes) * (1 - probability - other)


def phantom_dataset(
    name: str,
    classes: tuple[str, ...],
    draw: Decoder,
    development: npt.ArrayLike,
    test: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    images: int | None = None,
    plant: Collection[str] = (),
    confusion: np.ndarray | None = None,
    version: str = "1",
    channels: Literal[1, 2, 3] = 3,
    target_name: str = "label",
    further: tuple[Target, ...] = (),
    columns: Sequence[pl.Expr] = (),
    mask: Decoder | None = None,
    looks: tuple[str, ...] = (),
    best_dice: float | None = None,
    same_patient: bool = False,
) -> ImageDataset:
    """A data set of phantoms.

    `draw`: a row to uint8 (height, width, channels), importable. It reads `draw` (the image's random seed),
    `patient_draw` (the seed of what all images of a patient share; equal to `draw` without patients), `appearance` (the
    class that the image shows), and the further targets.
    `development`, `test`: images per class of the real data set, shape (classes,); with further targets shape (classes
    of the first further target, …, classes). Without `test` there is no test part, unless `split_leak` needs one.
    `images`: how many development images; the test part and the classes keep their shares, and each class at least a
    few images. None: as many as the real one.
    `plant`: pitfalls, see `pitfalls.py`.
    `confusion`: P(appearance | class), shape (classes, appearances); None: every image shows its class.
    `version`: of the drawing, in `content`: raise it when the same seed no longer gives the same image.
    `columns`: of the task's own, from those that are there.
    `mask`: for segmentation, a row to uint8 (height, width, 1). Then `classes` are those of a pixel, `looks` the kinds
    of images that `development` counts and `appearance` says, and `best_dice` is stated as it is.
    `same_patient`: for a `draw` that knows no patients. The images of a patient are then one drawing, which lies a
    little differently and in another light; not with masks, which would not follow.

    Raises `InputError` for unknown pitfalls and for fewer images than there are classes.
    """
    assert mask is None or not same_patient
    plant = known_pitfalls(plant)
    labels = looks if mask is not None else classes
    shape = (*(len(target.classes) for target in further), len(labels))
    confusion = np.eye(len(labels)) if confusion is None else confusion
    counts = {"development": np.asarray(development)}
    if test is None and "split_leak" in plant:
        test = np.maximum(counts["development"] // 5, 1)
    if test is not None:
        counts["test"] = np.asarray(test)
    asked = int(counts["development"].sum()) if images is None else images
    if asked < np.prod(shape):
        raise InputError(
            f"{images} phantoms of {name} asked for, fewer than its {np.prod(shape)} "
            f"{'classes' if len(shape) == 1 else 'combinations of classes'}: ask for at least {np.prod(shape)}"
        )

    parts: dict[str, Rows] = {}
    for part, of_part in counts.items():
        assert of_part.shape == shape, (part, of_part.shape, shape)
        assert of_part.min() > 0, of_part
        here = asked
        if part == "test":
            share = asked / counts["development"].sum()
            here = max(round(share * of_part.sum()), min(FEW * of_part.size, of_part.sum()))
        wanted = of_part.reshape(-1, shape[-1])
        wanted = imbalanced(wanted) if "imbalance" in plant else wanted
        parts[part] = _rows(name, part, wanted.ravel(), here, labels, confusion, seed, mask is not None)
        plant_into(parts[part], plant, seed, parts.get("development") if part == "test" else None)
    of_stratum = np.bincount(parts["development"].stratum, minlength=int(np.prod(shape)))
    tables = {part: _table(rows, further, shape) for part, rows in parts.items()}
    if "test" in tables:
        tables = {part: table.with_columns(split=pl.lit(part)) for part, table in tables.items()}
    best = best_dice if mask is not None else best_accuracy(of_stratum.reshape(-1, shape[-1]), confusion)
    table = pl.concat(tables.values())
    table = table.with_columns(content=_content(f"{name}:{version}", table, further))
    return ImageDataset(
        name=name,
        table=table.with_columns(*columns),
        classes=classes,
        decoder=Shown(draw, same_patient),
        channels=channels,
        origin=f"phantoms, seed {seed}" + (f", planted: {', '.join(sorted(plant))}" if plant else ""),
        target_name=target_name,
        further=further,
        mask_decoder=None if mask is None else ShownMask(mask),
        demonstration=True,
        best_accuracy=best if mask is not None or SHORTCUTS.isdisjoint(plant) else None,
    )


def planted(dataset: ImageDataset, pitfall: str) -> np.ndarray:
    """Bool, shape (images,): the images of a data set of phantoms that this pitfall concerns."""
    return dataset.table["planted"].str.split(",").list.contains(pitfall).to_numpy()


def _rows(
    name: str,
    part: str,
    counts: np.ndarray,
    images: int,
    labels: tuple[str, ...],
    confusion: np.ndarray,
    seed: int,
    masks: bool,
) -> Rows:
    """The images of a part as they are before anything is planted."""
    number = np.arange(images)
    stratum = interleaved(counts, images)
    label = stratum % len(labels)
    stream = f"{name}/{part}"
    shown = np.cumsum(confusion, axis=1)[label]
    draw = hashed(seed, f"{stream}/draw", number)
    image_id = np.array([f"phantom-{'test-' * (part == 'test')}{i:05d}" for i in range(images)])
    return Rows(
        stream=stream,
        stratum=stratum,
        strata=len(counts),
        label=label,
        classes=labels,
        image_id=image_id,
        group=image_id.copy(),
        draw=draw,
        patient_draw=draw.copy(),
        appearance=(uniform(seed, f"{stream}/appearance", number)[:, None] >= shown[:, :-1]).sum(axis=1),
        mask_draw=draw.copy() if masks else None,
    )


def _table(rows: Rows, further: tuple[Target, ...], shape: tuple[int, ...]) -> pl.DataFrame:
    """The columns of `ImageDataset`, but for `split` and `content`, and what the decoders need."""
    indices = np.unravel_index(rows.stratum, shape)
    masks = {} if rows.mask_draw is None else {"mask_draw": rows.mask_draw}
    said = [pl.when(pl.lit(pl.Series(at))).then(pl.lit(pitfall)) for pitfall, at in sorted(rows.planted.items())]
    return pl.DataFrame(
        {
            "image_id": rows.image_id,
            "target": np.zeros_like(rows.label) if masks else rows.label,
            **{target.column: index for target, index in zip(further, indices[:-1], strict=True)},
            "group": rows.group,
            "appearance": rows.appearance,
            "draw": rows.draw,
            "patient_draw": rows.patient_draw,
            **masks,
            **rows.looks,
            "copy_of": rows.copy_of,
        }
    ).with_columns(planted=pl.concat_str(said, separator=",", ignore_nulls=True) if said else pl.lit(""))


def _content(drawn_by: str, table: pl.DataFrame, further: tuple[Target, ...]) -> pl.Expr:
    """What the pixels depend on, as one string: equal for two images only if the images are."""
    depends = [*(target.column for target in further), "appearance", "draw", "patient_draw"]
    depends += [look for look in ("mask_draw", "text", "source", "altered", "corrupt") if look in table.columns]
    content = pl.concat_str(pl.lit(drawn_by), *depends, separator=":")
    if "joke" not in table.columns:
        return content
    joke = pl.concat_str(pl.lit(f"{drawn_by}:joke"), "joke", separator=":")
    return pl.when(pl.col("joke") > 0).then(joke).otherwise(content)
