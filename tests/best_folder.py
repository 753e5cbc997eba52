"""best/ of a synthetic results folder, as `python -m search.explain` writes it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from analysis import Results, best, trials

LAYER, WARNING = "blocks.4", "The network looks at <the border>."


def add_best(folder: Path, test_images: int = 0, **changed: Any) -> dict[str, Any]:
    """Writes best/ for the best trial, with three pictures; `test_images` makes a test split, and `changed` are other
    values of seen.json, which is returned."""
    results = Results.open(folder)
    winner = best(trials(folder), results.experiment["mode"])
    assert winner is not None
    pictures = folder / "best" / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "a-seen.jpg", "b.jpg"):
        jpeg = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(jpeg, "JPEG")
        (pictures / name).write_bytes(jpeg.getvalue())
    negative, positive = results.classes[:2]
    case = {"truth": negative, "predicted": positive, "probability": 0.97, "fold": 1}

    def of(mean: float) -> dict[str, float]:
        return {"mean": mean, "std": 0.05}

    told: dict[str, Any] = {
        "trial": winner["number"],
        "layer": LAYER,
        "cases": [
            case | {"image_id": "a", "kind": "wrong", "picture": "pictures/a.jpg", "saliency": "pictures/a-seen.jpg"},
            case | {"image_id": "b", "kind": "right", "truth": positive, "picture": "pictures/b.jpg", "saliency": None},
        ],
        "attention": {
            "central": "the middle 70 % of width and height",
            "uniform": 0.51,
            "by_class": [
                {"class": name, "images": 40, "outside_share": 0.44, "low": 0.4, "high": 0.48}
                for name in results.classes
            ],
        },
        "border": {
            "metric": "auroc",
            "chance": 0.5,
            "images": 80,
            "score": of(0.91),
            "masked_border": of(0.83),
            "only_border": of(0.66),
            "border_exchanged": {"same": of(0.9), "other": of(0.8)},
            "only_corners": of(0.71),
            "corners_exchanged": {"same": of(0.9), "other": of(0.7)},
            "each_corner": [{"corner": "top left", "only": of(0.72)}],
        },
        "warnings": [WARNING],
        "test": None,
        "notes": [],
    }
    if test_images:
        target = np.arange(test_images) % len(results.classes)
        odds = np.exp(rng.normal(size=(test_images, len(results.classes))) + 3 * np.eye(len(results.classes))[target])
        columns = dict(zip(results.classes, (odds / odds.sum(1, keepdims=True)).T, strict=True))
        ids = [f"test{index}" for index in range(test_images)]
        pl.DataFrame({"image_id": ids, "target": target, "group": ids, **columns}).write_parquet(
            folder / "best" / "test_predictions.parquet"
        )
        told["test"] = {"images": test_images, "metrics": {results.experiment["metric"]: 0.9}}
    (folder / "best" / "seen.json").write_text(json.dumps(told | changed))
    return told | changed
