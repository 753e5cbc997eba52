"""A small synthetic results folder, as a search writes it: predictions are drawn, scores computed from them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from sklearn import metrics as sk

from datasets import ImageDataset
from datasets.folds import Folds
from trainables.lockstep import Lockstep

SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-6, 1e-2, log=True),
    "batch_size": CategoricalDistribution([16, 32, 64]),
    "dropout": FloatDistribution(0.0, 0.7),
    "dense_layers": IntDistribution(0, 2),
    "unfrozen_layers": CategoricalDistribution([0, 20, 40]),
    "flip": CategoricalDistribution([False, True]),
}
PUBLISHED = ("svendsen2025-model1", "svendsen2025-model2", "svendsen2025-model3")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the folder shall hold. The first trials are published ones, the last ones fail."""

    name: str = "covid-demo"
    classes: tuple[str, ...] = ("NORMAL", "COVID")
    images: int = 120
    trials: int = 8
    published: int = 2
    failed: int = 1
    metric: str = "auroc"
    mode: str = "max"
    folds: int = 3
    max_epochs: int = 9
    demonstration: bool = True
    best_accuracy: float | None = 0.97
    seed: int = 0


def build(results: Path, wanted: Wanted | None = None) -> Path:
    """Writes results/<name>/ and returns it."""
    wanted = wanted or Wanted()
    rng = np.random.default_rng(wanted.seed)
    folder = results / wanted.name
    folder.mkdir(parents=True)
    targets = np.sort(np.arange(wanted.images) % len(wanted.classes))
    fold = np.arange(wanted.images) // len(wanted.classes) % wanted.folds
    ids = [f"{wanted.classes[target]}/{index:04d}.png" for index, target in enumerate(targets)]
    groups = [f"patient{index // 2:04d}" for index in range(wanted.images)]
    pl.DataFrame({"image_id": ids, "target": targets, "group": groups, "fold": fold}).write_parquet(
        folder / "folds.parquet"
    )
    (folder / "experiment.json").write_text(json.dumps(_experiment(wanted, targets), indent=2))
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(
        storage=storage, study_name=wanted.name, direction="maximize" if wanted.mode == "max" else "minimize"
    )
    for number in range(wanted.trials):
        suggested = _suggested(rng)
        failed = number >= wanted.trials - wanted.failed
        score = _write_trial(folder, wanted, number, suggested, targets, fold, failed)
        study.add_trial(
            optuna.create_trial(
                params=suggested,
                distributions=SPACE,
                value=score,
                state=optuna.trial.TrialState.COMPLETE if score is not None else optuna.trial.TrialState.FAIL,
            )
        )
    storage.remove_session()
    storage.engine.dispose()
    return folder


def build_from(results: Path, trial: Lockstep, dataset: ImageDataset, folds: Folds, metric: str, **data: Any) -> Path:
    """Writes results/<name>/ with one real trial, as `search` does; `data` goes into the record of the images."""
    wanted = Wanted(name=dataset.kind, classes=dataset.classes, trials=1, metric=metric, folds=folds.k)
    folder = results / wanted.name
    folder.mkdir(parents=True)
    folds.table(dataset).write_parquet(folder / "folds.parquet")
    experiment = _experiment(wanted, dataset.targets)
    experiment["data"] |= {
        "kind": dataset.kind,
        "counts": dataset.counts,
        "target_name": dataset.target_name,
        "further": [asdict(target) for target in dataset.further],
        "repeats": folds.repeats,
        **data,
    }
    (folder / "experiment.json").write_text(json.dumps(experiment))
    checkpoint = folder / "trials/0000/checkpoint_000000"
    checkpoint.mkdir(parents=True)
    trial.save(checkpoint)
    report = {"number": 0, "published": None, "params": trial._config.params(), "curve": trial.curve, "done": True}
    (folder / "trials/0000/reports.jsonl").write_text(json.dumps(report | trial.report()) + "\n")
    return folder


def params(suggested: dict[str, Any]) -> dict[str, Any]:
    """The TrialConfig fields of what was suggested."""
    return {
        "model": "mobilenetv2_100",
        "image_size_px": 96,
        "learning_rate": suggested["learning_rate"],
        "batch_size": suggested["batch_size"],
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "patience": 5,
        "dense_widths": [128, 64][: suggested["dense_layers"]],
        "dense_batch_norm": False,
        "dropout": suggested["dropout"],
        "pooling": "avg",
        "unfrozen_layers": suggested["unfrozen_layers"],
        "batch_norm": False,
        "flip": suggested["flip"],
        "rotation_deg": 10.0 if suggested["flip"] else 0.0,
        "zoom": 0.0,
        "contrast": 0.0,
        "balance": "none",
        "oversample_to": None,
        "auxiliary_weight": 1.0,
    }


def change(folder: Path, number: int, **values: Any) -> None:
    """Overwrites values in the last report of a trial."""
    file = folder / "trials" / f"{number:04d}" / "reports.jsonl"
    *before, last = file.read_text().splitlines()
    file.write_text("\n".join([*before, json.dumps(json.loads(last) | values)]) + "\n")


def scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predicted, labels = probabilities.argmax(1), np.arange(probabilities.shape[1])
    binary = len(labels) == 2
    return {
        "auroc": float(
            sk.roc_auc_score(targets, probabilities[:, 1])
            if binary
            else sk.roc_auc_score(targets, probabilities, multi_class="ovr", labels=labels)
        ),
        "accuracy": float((predicted == targets).mean()),
        "log_loss": float(-np.log(probabilities[np.arange(len(targets)), targets]).mean()),
    }


def _suggested(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "learning_rate": float(10 ** rng.uniform(-6, -2)),
        "batch_size": int(rng.choice([16, 32, 64])),
        "dropout": float(rng.uniform(0, 0.7)),
        "dense_layers": int(rng.integers(0, 3)),
        "unfrozen_layers": int(rng.choice([0, 20, 40])),
        "flip": bool(rng.random() < 0.5),
    }


def _write_trial(
    folder: Path,
    wanted: Wanted,
    number: int,
    suggested: dict[str, Any],
    targets: np.ndarray,
    fold: np.ndarray,
    failed: bool,
) -> float | None:
    """A trial whose quality follows from its learning rate; weak ones are stopped at epoch 3. Returns its score."""
    rng = np.random.default_rng([wanted.seed, number])
    trial = folder / "trials" / f"{number:04d}"
    trial.mkdir(parents=True)
    published = PUBLISHED[number] if number < wanted.published else None
    head = {"number": number, "published": published, "params": params(suggested)}
    if failed:
        (trial / "reports.jsonl").write_text(
            json.dumps(head | {"error": "RuntimeError: CUDA out of memory", "epoch": 0, "done": True}) + "\n"
        )
        return None
    quality = 1.9 - 0.5 * abs(np.log10(suggested["learning_rate"]) + 4) + 0.2 * suggested["flip"]
    end = wanted.max_epochs if quality > 1.25 else min(3, wanted.max_epochs)
    noise = rng.normal(size=(len(targets), len(wanted.classes)))
    skill = rng.normal(scale=0.15, size=wanted.folds)[fold]
    history, curve, lines = [], [], []
    for epoch in range(1, end + 1):
        sharp = quality * (1 - 0.7**epoch) + skill + rng.normal(scale=0.05)
        logits = noise + sharp[:, None] * np.eye(len(wanted.classes))[targets]
        odds = np.exp(0.9 * sharp.mean() * logits)
        probabilities = odds / odds.sum(1, keepdims=True)
        per_fold = [scores(targets[fold == f], probabilities[fold == f]) for f in range(wanted.folds)]
        history.append((float(np.mean([one[wanted.metric] for one in per_fold])), epoch, per_fold, probabilities))
        for f, one in enumerate(per_fold):
            train_loss = one["log_loss"] * 0.95**epoch
            curve.append({"epoch": epoch, "fold": f, "train_loss": train_loss, **one, "learning_rate": 1e-3})
        if epoch in (1, 3, wanted.max_epochs):
            pick = max if wanted.mode == "max" else min
            mean, best_epoch, best_scores, best_probabilities = pick(history, key=lambda entry: entry[0])
            folds = {name: [one[name] for one in best_scores] for name in best_scores[0]}
            report = head | {
                "epoch": epoch,
                "best_epoch": best_epoch,
                wanted.metric: mean,
                f"{wanted.metric}_std": float(np.std(folds[wanted.metric], ddof=1)),
                "folds": folds,
                "curve": curve,
                "seconds": 11.5 * epoch,
                "trainable_parameters": 164_226,
                "total_parameters": 2_388_098,
                "finished": epoch == wanted.max_epochs,
                "done": epoch == end,
                "node": "127.0.0.1",
            }
            lines.append(json.dumps(report))
            curve = []
            write_checkpoint(trial, epoch, best_epoch, dict(zip(wanted.classes, best_probabilities.T, strict=True)))
    (trial / "reports.jsonl").write_text("\n".join(lines) + "\n")
    return mean


def write_checkpoint(trial: Path, epoch: int, best_epoch: int, probabilities: dict[str, np.ndarray]) -> Path:
    checkpoint = trial / f"checkpoint_{epoch:06d}"
    checkpoint.mkdir()
    file = checkpoint / "predictions.parquet"
    pl.DataFrame({name: column.astype(np.float32) for name, column in probabilities.items()}).write_parquet(file)
    listed = {"epoch": epoch, "best_epoch": best_epoch, "files": {file.name: file.stat().st_size}}
    (checkpoint / "checkpoint.json").write_text(json.dumps(listed))
    return checkpoint


def _experiment(wanted: Wanted, targets: np.ndarray) -> dict[str, Any]:
    started = "2026-07-03T14:02:11+00:00"
    counts = dict(zip(wanted.classes, np.bincount(targets, minlength=len(wanted.classes)).tolist(), strict=True))
    return {
        "name": wanted.name,
        "task": "covid",
        "title": "COVID-19 against normal chest films",
        "demonstration": wanted.demonstration,
        "command": "python -m search covid --demo",
        "started": started,
        "sessions": [
            {"started": started, "command": "python -m search covid --demo"},
            {"started": "2026-07-03T15:40:00+00:00", "command": "python -m search covid --demo --resume"},
        ],
        "versions": {"python": "3.11.9", "torch": "2.14.1", "ray": "2.60.0", "optuna": "5.0.0"},
        "commit": None,
        "folds_digest": "0123456789abcdef",
        "rungs": [1, 3],
        "searcher": "tpe",
        "scheduler": "asha",
        "weights": "none",
        "precision": "bfloat16",
        "fixed": {"optimizer": "adam"},
        "data": {
            "images": len(targets),
            "classes": list(wanted.classes),
            "counts": counts,
            "kind": "binary" if len(wanted.classes) == 2 else "multiclass",
            "digest": "fedcba9876543210",
            "origin": "phantoms, seed 0" if wanted.demonstration else "a folder of films",
            "best_accuracy": wanted.best_accuracy,
            "skipped": [{"path": "COVID/broken.png", "reason": "the file ends too early"}],
        },
        "machine": {"cpus": 2, "gpus": 0},
        **{
            name: value
            for name, value in asdict(wanted).items()
            if name in ("seed", "metric", "mode", "folds", "max_epochs", "trials")
        },
    }
