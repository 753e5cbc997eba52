"""A search of image files that has ended: planned, trained and written as `python -m search` does, less Ray."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from datasets import ImageDataset
from search.options import Options
from search.plan import Plan, make_plan
from search.records import make_record, write_record
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep


def write_images(dataset: ImageDataset, folder: Path, colour: bool = False) -> Path:
    """PNG files in folders of their classes; the last four are a test split."""
    for row in range(len(dataset)):
        split = "test" if row >= len(dataset) - 4 else "train"
        file = folder / split / dataset.classes[dataset.targets[row]] / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(dataset.decode(row)[:, :, 0])
        (image.convert("RGB") if colour else image).save(file)
    return folder


def planned(results: Path, **options: Any) -> Plan:
    """The keywords are those of `Options`."""
    given = {"task": "images", "folds": 3, "metric": "accuracy", "max_epochs": 2, "trials": 1, "weights": "none"}
    return make_plan(Options(**given | {"results": results, "precision": "float32"} | options))


def finished(plan: Plan, config: TrialConfig, epochs: int = 2) -> Path:
    """Trains one configuration, the only trial; returns the folder of the experiment."""
    folder = plan.options.folder
    checkpoint = folder / "trials" / "0000" / "checkpoint_000000"
    checkpoint.mkdir(parents=True)
    write_record(plan, make_record(plan))
    lockstep = Lockstep(config, plan.dataset, plan.folds, plan.protocol("cpu"))
    for _ in range(epochs):
        lockstep.advance()
    lockstep.save(checkpoint)
    report = lockstep.report() | {"number": 0, "published": None, "params": config.params(), "done": True}
    (checkpoint.parent / "reports.jsonl").write_text(json.dumps(report | {"curve": lockstep.curve}) + "\n")
    return folder
