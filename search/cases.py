"""Single images for a report, as pictures: those on which the best networks are most wrong, and others beside them.

Every image is shown as the network sees it that has not been trained on it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reopened import Reopened

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.ensemble import Ensemble
    from trainables.out_of_fold import OutOfFold

CASES = 6
"""Pictures of each kind."""


def cases_of_classes(
    found: Reopened, ensemble: "Ensemble", number: int, folder: Path, with_maps: bool
) -> list[dict[str, Any]]:
    """The most confidently wrong images, and right ones: of each class in turn those of which it is most sure; at most
    one of a group."""
    from trainables.out_of_fold import OutOfFold

    dataset, probabilities_NC = found.dataset, found.results.out_of_fold(number)[: len(found.dataset)]
    predicted_N, confidence_N = probabilities_NC.argmax(1), probabilities_NC.max(1)
    right_N = predicted_N == dataset.targets
    surest = np.argsort(-confidence_N, kind="stable")
    place_N = np.empty(len(dataset), np.int64)  # among the right ones of its class
    for index in range(len(dataset.classes)):
        of_class = surest[right_N[surest] & (predicted_N[surest] == index)]
        place_N[of_class] = np.arange(len(of_class))
    right = surest[right_N[surest]]
    chosen = {"wrong": surest[~right_N[surest]], "right": right[np.argsort(place_N[right], kind="stable")]}
    unseen, told = OutOfFold(ensemble), []
    for kind, rows in chosen.items():
        for place, row in enumerate(_one_per_group(dataset.table["group"].to_list(), rows)):
            case = {
                "image_id": dataset.table["image_id"][row],
                "truth": dataset.classes[dataset.targets[row]],
                "predicted": dataset.classes[predicted_N[row]],
                "probability": float(confidence_N[row]),
            }
            name = f"{number:04d}-{kind}-{place + 1}"
            maps = (unseen, int(predicted_N[row])) if with_maps else None
            told.append(_case(found, ensemble, folder, row, kind, name, maps) | case)
    return told


def _case(
    found: Reopened,
    ensemble: "Ensemble",
    folder: Path,
    row: int,
    kind: str,
    name: str,
    maps: "tuple[OutOfFold, int] | None",
) -> dict[str, Any]:
    """Pictures of an image of classes, and what all cases tell. maps: where a network looks for which class."""
    from search.case_pictures import picture, save, with_heat

    fold = int(found.folds.validated_in[0][row])
    shown = picture(found.dataset, row)
    (folder / "pictures").mkdir(exist_ok=True)
    save(shown, folder / f"pictures/{name}.jpg")
    heated = None
    if maps is not None:
        unseen, predicted = maps
        square_1HWL = _square(found, ensemble, row)[None]
        saliency_HW = unseen.saliency(fold, square_1HWL, np.array([predicted]))[0]
        if saliency_HW.max() > 0:
            heated = f"pictures/{name}-saliency.jpg"
            save(with_heat(shown, saliency_HW), folder / heated)
    return {"kind": kind, "fold": fold, "picture": f"pictures/{name}.jpg", "saliency": heated}


def cases_of_masks(found: Reopened, ensemble: "Ensemble", number: int, folder: Path) -> list[dict[str, Any]]:
    """The images with the lowest and with the highest Dice, and truth and prediction outlined; one of a group."""
    from datasets.pixels import masks
    from search.case_pictures import picture, save, with_outlines
    from trainables.out_of_fold import OutOfFold

    dataset, unseen, told = found.dataset, OutOfFold(ensemble), []
    dice_N = found.results.predictions(number, ["dice"])[: len(dataset), 0]
    truth_NHW = masks(dataset, ensemble.description.config.image_size_px)
    groups = dataset.table["group"].to_list()
    (folder / "pictures").mkdir(exist_ok=True)
    for kind, order in (("worst", dice_N), ("best", -dice_N)):
        for place, row in enumerate(_one_per_group(groups, np.argsort(order, kind="stable"))):
            name, fold = f"pictures/{number:04d}-{kind}-{place + 1}.jpg", int(found.folds.validated_in[0][row])
            predicted_HW = unseen.predict(fold, _square(found, ensemble, row)[None])[0].argmax(0)
            save(with_outlines(picture(dataset, row), np.asarray(truth_NHW[row]), predicted_HW), folder / name)
            told.append(
                {
                    "image_id": dataset.table["image_id"][row],
                    "truth": None,
                    "predicted": None,
                    "probability": None,
                    "dice": float(dice_N[row]),
                    "kind": kind,
                    "fold": fold,
                    "picture": name,
                    "saliency": None,
                }
            )
    return told


def _square(found: Reopened, ensemble: "Ensemble", row: int) -> np.ndarray:
    """As the networks see it, uint8 (H, W, channels)."""
    from datasets.pixels import pixels

    description = ensemble.description
    squares = pixels(found.dataset, description.config.image_size_px, description.interpolation)
    square: np.ndarray = np.asarray(squares[row])
    return square


def _one_per_group(groups: list[str], rows: np.ndarray) -> list[int]:
    """The first `CASES` of these rows, no two of one group."""
    chosen: dict[str, int] = {}
    for row in rows.tolist():
        chosen.setdefault(groups[row], row)
        if len(chosen) == CASES:
            break
    return list(chosen.values())
