"""The images, the weights and the configurations that `versus_ray_tune` and `versus_limit` search, and a search of ours
over them, called as a user would.

The images are phantoms of two kinds of blood cells, as JPEGs of the size that networks see, in two class folders. Their
network is a MobileNetV2 of random weights, made to behave as trained ones do. As they are drawn they tell nothing of
chest films, and scores that are all one half could not disagree; and they amplify rounding, so that features in
bfloat16 differ from those in float32 by four fifths of what one image differs from another. Made tame, they tell the
cells apart with an AUROC of more than 0.9, and bfloat16 changes them by two percent.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

import datasets
from analysis.results import reports
from benchmarks.agreement import Scores
from benchmarks.commands import Called, called
from datasets.folds import Folds

CLASSES, DRAWN = ("eosinophil", "neutrophil"), 1200
"""Of the task `blood`, and how many phantoms of it hold 162 of each."""
MODEL, IMAGE_SIZE_PX, FOLDS = "mobilenetv2_100", 224, 3
BATCH_SIZES = (16, 32)

Layers = int | tuple[int, int] | None
"""How many layers of the backbone are trained: so many, searched between two numbers, or all of them (None)."""

ON_BOTH_SIDES = {"CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
"""No GPU, and nothing told to Ray's makers."""

SPACE = """\
from search_spaces import Experiment

POINTS = {points!r}
EXPERIMENT = Experiment(metric="auroc", folds={folds}, trials=len(POINTS), max_epochs={epochs}, first=tuple(POINTS))


def search_space(trial):
    return {{
        "model": {model!r},
        "image_size_px": {image_size_px},
        "optimizer": "adamw",
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 3e-4, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        "batch_size": trial.suggest_categorical("batch_size", {batch_sizes}),
        "dense_widths": [trial.suggest_int("dense_width", 32, 512, log=True)],
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "unfrozen_layers": {unfrozen_layers},
    }}
"""


@dataclass(frozen=True)
class Task:
    """What is searched, and where everything that belongs to it lies."""

    folder: Path
    unfrozen_layers: Layers
    epochs: int
    points: list[dict[str, Any]]
    """The configurations, one per trial."""

    @property
    def images(self) -> Path:
        return self.folder / "cells"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def space(self) -> str:
        """A file for `--space`, whose first configurations are the points."""
        layers: Any = self.unfrozen_layers
        if isinstance(layers, tuple):
            layers = f'trial.suggest_int("unfrozen_layers", {layers[0]}, {layers[1]})'
        return SPACE.format(
            points=self.points,
            folds=FOLDS,
            epochs=self.epochs,
            model=MODEL,
            image_size_px=IMAGE_SIZE_PX,
            batch_sizes=BATCH_SIZES,
            unfrozen_layers=layers,
        )


@dataclass(frozen=True)
class Searched:
    """A whole command, and what came out."""

    called: Called
    start_up_s: float
    """Until the first images went through the frozen network, or the first trial began to train."""
    training_s: float
    """From then to the last report."""
    scores: dict[float, Scores]
    """By learning rate, in which all points differ; so are `params`."""
    params: dict[float, dict[str, Any]]
    """Of `TrialConfig`."""
    fold_of: dict[str, int]
    """In which each image was validated, by its path below the folder of the images."""
    precision: str


def points(trials: int, unfrozen_layers: Layers, seed: int = 0) -> list[dict[str, Any]]:
    """Configurations drawn once for both sides. Where layers are searched they come in pairs that have, together, as
    many as two have on average: so that the first few cost, per trial, what all of them do."""
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Any]] = []
    for number in range(trials):
        point = {
            "learning_rate": float(np.exp(rng.uniform(np.log(1e-5), np.log(3e-4)))),
            "weight_decay": float(np.exp(rng.uniform(np.log(1e-5), np.log(1e-1)))),
            "batch_size": BATCH_SIZES[(number + number // 2) % 2],
            "dense_width": int(np.exp(rng.uniform(np.log(32), np.log(512)))),
            "dropout": float(rng.uniform(0, 0.7)),
        }
        if isinstance(unfrozen_layers, tuple):
            low, high = unfrozen_layers
            first = round(low + (high - low) * ((0.25 + number / 2 * 0.618034) % 1))
            point["unfrozen_layers"] = first if number % 2 == 0 else low + high - drawn[-1]["unfrozen_layers"]
        drawn.append(point)
    return drawn


def write_images(folder: Path, images: int) -> None:
    """Phantoms of both classes, half of the images each."""
    dataset = datasets.load_all("blood", datasets.Request(demonstration=True, images=DRAWN))
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        rows = np.flatnonzero(dataset.targets == dataset.classes.index(name))
        assert len(rows) >= images // 2
        for row in rows[: images // 2].tolist():
            cell = Image.fromarray(dataset.decode(row)).resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BICUBIC)
            cell.save(folder / name / f"{row:04d}.jpg", quality=95)


def write_weights(file: Path, images: Path) -> None:
    """The backbone's random weights, less wild than they are drawn: depthwise filters that average, small residual
    branches, features well above zero, and batch norm that has the statistics of all images."""
    import timm  # here: the process that measures memory is not to hold them
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    body = timm.create_model(MODEL, num_classes=0).to(memory_format=torch.channels_last)
    known = body.pretrained_cfg
    mean, std = (torch.tensor(known[name])[:, None, None] for name in ("mean", "std"))
    for layer in body.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean over all batches
        elif isinstance(layer, torch.nn.Conv2d) and layer.groups > 1:
            layer.weight.data.abs_()
        elif getattr(layer, "has_skip", False):
            torch.nn.init.constant_(layer.bn3.weight, 0.2)
    torch.nn.init.constant_(body.bn2.bias, 2.0)
    files = np.random.default_rng(0).permutation(sorted(images.rglob("*.jpg")))
    with torch.no_grad():
        for batch in np.array_split(files, 6):
            pixels = torch.stack([torch.from_numpy(np.array(Image.open(each))) for each in batch])
            body((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    save_file({name: tensor.contiguous() for name, tensor in body.state_dict().items()}, file)


def prepared(folder: Path, images: int) -> None:
    """A folder with images and weights."""
    folder.mkdir()
    write_images(folder / "cells", images)
    write_weights(folder / "weights.safetensors", folder / "cells")


def search(task: Task, name: str, precision: str | None = None) -> Searched:
    """Ours, with an empty store: `python -m search images`."""
    folder = task.folder / name
    folder.mkdir()
    (folder / "space.py").write_text(task.space())
    command = [sys.executable, "-m", "search", "images", "--data", str(task.images), "--weights", str(task.weights)]
    command += [
        "--space",
        str(folder / "space.py"),
        "--no-explain",
        "--scheduler",
        "none",
        "--results",
        str(folder),
        "--name",
        "search",
    ]
    command += ["--precision", precision] if precision else []
    trials, store = folder / "search" / "trials", folder / "store"
    seen: dict[Path, float] = {}

    def look() -> None:
        for file in (*store.glob("features-*"), *trials.glob("*/reports.jsonl")):
            seen.setdefault(file, time.time())

    whole = called(command, ON_BOTH_SIDES | {"IMAGE_SEARCH_STORE": str(store)}, folder / "output.txt", look)
    told = {file: reports(file) for file in sorted(trials.glob("*/reports.jsonl"))}
    if errors := [report["error"] for lines in told.values() for report in lines if report.get("error")]:
        raise RuntimeError(f"a trial failed: {errors[0]}")
    assert len(told) == len(task.points), f"{len(told)} of {len(task.points)} trials were reported"
    # The pass through the frozen network, which opens its store, comes before the epochs that a report counts.
    began = min(when - (told[file][0]["seconds"] if file in told else 0) for file, when in seen.items())
    last_written = max(file.stat().st_mtime for file in told)
    by_rate = {lines[0]["params"]["learning_rate"]: lines for lines in told.values()}
    splits = pl.read_parquet(folder / "search" / "folds.parquet")
    return Searched(
        whole,
        began - whole.began,
        last_written - began,
        {rate: _scores([e for line in lines for e in line["curve"]], lines[0]) for rate, lines in by_rate.items()},
        {rate: lines[0]["params"] for rate, lines in by_rate.items()},
        dict(zip(splits["image_id"].to_list(), splits["fold"].to_list(), strict=True)),
        next(iter(told.values()))[0]["precision"],
    )


def _scores(curve: list[dict[str, float]], report: dict[str, Any]) -> Scores:
    ordered = sorted(curve, key=lambda entry: (entry["epoch"], entry["fold"]))
    aurocs, losses = (np.array([entry[name] for entry in ordered]).reshape(-1, FOLDS) for name in ("auroc", "log_loss"))
    return Scores(aurocs, losses, report["trainable_parameters"])


def trained(task: Task, params: dict[str, Any], fold_of: dict[str, int], seed: int) -> Scores:
    """One configuration of a search, with another seed in the same folds."""
    import torch  # here, as above

    from trainables.config import TrialConfig
    from trainables.lockstep import Lockstep
    from trainables.protocol import Protocol

    torch.set_num_threads(1)
    dataset = datasets.load("images", task.images)
    folds = Folds(np.array([[fold_of[image_id] for image_id in dataset.table["image_id"]]]))
    protocol = Protocol(metric="auroc", max_epochs=task.epochs, seed=seed, weights=str(task.weights))
    trial = Lockstep(TrialConfig.of(params), dataset, folds, protocol)
    while not trial.finished:
        trial.advance()
    return _scores(trial.curve, trial.report())


def by_the_book(task: Task, name: str, trials: int, fold_of: dict[str, int], workers: int) -> "ByTheBook":
    """The first so many trials of the same search, as the guides would have it written, in the same folds."""
    folder = task.folder / name
    folder.mkdir()
    asked = {
        "images": str(task.images),
        "weights": str(task.weights),
        "model": MODEL,
        "image_size_px": IMAGE_SIZE_PX,
        "unfrozen_layers": task.unfrozen_layers,
        "folds": FOLDS,
        "fold_of": fold_of,
        "epochs": task.epochs,
        "points": task.points[:trials],
        "workers": workers,
        "side_by_side": side_by_side(),
    }
    (folder / "task.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "benchmarks.by_the_book", str(folder)]
    whole = called(command, ON_BOTH_SIDES, folder / "output.txt")
    ended = json.loads((folder / "results.json").read_text())["trials"]
    scores = {
        trial["learning_rate"]: Scores(
            np.array(trial["aurocs"]), np.array(trial["log_losses"]), trial["trained_parameters"]
        )
        for trial in ended
    }
    began = min(trial["began"] for trial in ended)
    return ByTheBook(whole, began - whole.began, [trial["seconds"] for trial in ended], scores)


@dataclass(frozen=True)
class ByTheBook:
    called: Called
    start_up_s: float
    trial_seconds: list[float]
    """Of every trial, once its process had imported what it needs."""
    scores: dict[float, Scores]

    def whole_s(self, trials: int) -> float:
        """Of a search with so many trials. What was not called is taken to need, per trial, the mean of what was, and
        no time at all to start a process for it."""
        missing = trials - len(self.trial_seconds)
        return self.called.seconds + missing * self.per_trial_s

    @property
    def per_trial_s(self) -> float:
        return float(np.mean(self.trial_seconds)) / side_by_side()


def side_by_side() -> int:
    """Trials at a time: one per core, as Ray has it where nothing else is said."""
    return len(os.sched_getaffinity(0))
