"""What `skin` and `bone` have in common: the networks of KTH's course CM2003, laboratory 3 (cm2003lab3).

Their figures are those of the last epoch, and of no more than 200 and 96 images: repeats of one configuration by others
differ by up to five and a half points.
"""

from typing import Any

from search_spaces import Published, parts
from search_spaces.covid import BACKBONES

VGG16 = "vgg16"
OWN = ("svendsen_cnn", "kth_alexnet", "kth_vgg", "residual")
AUGMENTATION: dict[str, Any] = {
    "flip": True,
    "vertical_flip": True,
    "rotation_deg": 30.0,
    "zoom": 0.2,
    "intensity_percentile": 5.0,
}
"""Task 3 of the laboratory: angle 30, scale 0.2, flips, intensities from the percentile 5 to 95."""


def search_space(trial: Any) -> dict[str, Any]:
    """All but balance and augmentation."""
    model = trial.suggest_categorical("model", (*OWN, VGG16, *BACKBONES))
    return {
        **_body(trial, model),
        # As in the laboratory: VGG16's features are those of larger images.
        "image_size_px": 224 if model == VGG16 else 128,
        "patience": 30,
        **parts.optimisation(trial, 1e-6, 1e-2, batch_sizes=(8, 16, 32, 64)),
        **parts.dense_head(trial, most_layers=3, widths=(32, 512)),
        **parts.regularisation(trial),
    }


def _body(trial: Any, model: str) -> dict[str, Any]:
    if model in OWN:
        return {"model": model, **parts.options(trial, model)}
    if model == VGG16:
        return {"model": model, "pooling": "flatten", **parts.unfrozen(trial, most_layers=13)}
    pooling = trial.suggest_categorical("pooling", ("avg", "max"))
    return {"model": model, "pooling": pooling, **parts.unfrozen(trial, most_layers=BACKBONES[model])}


AUGMENTED: dict[str, Any] = {"augment": True, "magnitude": 1.0, "photometric": False, "mixing": "none"}


def published(
    task: str,
    summary: str,
    reported: float | None,
    images: int | None,
    epochs: int | None,
    *,
    split: str = "the validation images of the course",
    note: str = "",
    widths: tuple[int, ...] = (),
    **params: Any,
) -> Published:
    """Batches of 8 and Adam; no early stopping. widths: of the dense layers."""
    common = {
        "optimizer": "adam",
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 8,
        "regularisation": "none",
        "augment": False,
        "dense_layers": len(widths),
        **{f"dense_width_{i + 1}": width for i, width in enumerate(widths)},
        **({"dense_batch_norm": False} if widths else {}),
    }
    return Published(
        name=f"cm2003lab3-{task}",
        summary=summary,
        params=common | params,
        fixed={"defaults": "keras"} | ({"patience": epochs} if epochs else {}),
        metric="accuracy",
        reported=reported,
        images=images,
        split=split,
        epochs=epochs,
        how="last epoch" if epochs else "best checkpoint",
        note=note,
    )


def alexnet(
    task: str,
    summary: str,
    reported: float,
    epochs: int,
    note: str = "",
    widths: tuple[int, ...] = (64, 64),
    **params: Any,
) -> Published:
    """On the 200 skin images: width 8, no dropout, no batch norm unless given."""
    usual: dict[str, Any] = {
        "model": "kth_alexnet",
        "width": 8,
        "batch_norm": False,
        "body_dropout": 0.0,
        "dropout": 0.0,
    }
    return published(task, summary, reported, 200, epochs, note=note, widths=widths, **usual | params)
