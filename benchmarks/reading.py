"""How long a large experiment takes to be read: 10,000 trials on 60,000 images, of a search that was never made.

    python -m benchmarks.reading            two minutes on one core; --trials 1000 for a first look
    python -m benchmarks.reading --record   adds the row to reading.md

The folder is what a search of `search_spaces/mnist.py` by random points and successive halving would have left: 5
folds, rungs at 1, 3, 9, 27 and 81 epochs, each passed by a third of the trials, all metrics of every fold and epoch,
the study, one checkpoint with predictions per trial. Only the networks are missing, which no report reads, and the
predictions of all trials are links to twenty files. It is read from the page cache, as after a search: each part in a
fresh process, without this module's own imports.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl

import analysis
from analysis.budget import budget
from analysis.effect_figures import PAGE as EFFECT_FIGURES
from analysis.effects import effects
from analysis.figures import optimization_history
from benchmarks.measurement import measured, record
from search.storage import StudyFile
from search_spaces.mnist import search_space
from trainables.config import TrialConfig
from trainables.metrics import OF_CLASSES

NAME, CLASSES, FOLDS, RUNGS = "reading", 10, 5, (1, 3, 9, 27, 81)
KINDS = 20
"""Files of predictions, to which those of all trials are links."""


def write_experiment(folder: Path, trials: int, images: int) -> Path:
    """Writes results/<NAME>/ and returns it."""
    rng = np.random.default_rng(0)
    folder = folder / NAME
    folder.mkdir()
    targets_N = rng.integers(CLASSES, size=images)
    ids = pl.Series("image_id", range(images)).cast(pl.String)
    folds = {"image_id": ids, "target": targets_N, "group": ids, "repeat": 0, "fold": np.arange(images) % FOLDS}
    pl.select(**{name: pl.lit(column) for name, column in folds.items()}).write_parquet(folder / "folds.parquet")
    (folder / "experiment.json").write_text(json.dumps(_experiment(trials, targets_N)))
    for kind in range(KINDS):
        logits_NC = rng.normal(size=(images, CLASSES)) + (1 + 5 * kind / KINDS) * np.eye(CLASSES)[targets_N]
        odds_NC = np.exp(logits_NC)
        probabilities_NC = (odds_NC / odds_NC.sum(1, keepdims=True)).astype(np.float32)
        pl.DataFrame(probabilities_NC, schema=[str(c) for c in range(CLASSES)]).write_parquet(
            folder / f"{kind}.parquet"
        )
    storage = StudyFile(folder / "study.db")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    passed: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    with storage.together():
        study = optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        for number in range(trials):
            trial = study.ask()
            params = TrialConfig.of(search_space(trial)).params()
            lines = _trial(rng, number, params, passed)
            study.tell(trial, lines[-1]["accuracy"])
            _write_trial(folder, lines)
    storage.close()
    return folder


def _trial(
    rng: np.random.Generator, number: int, params: dict[str, Any], passed: dict[int, list[float]]
) -> list[dict[str, Any]]:
    """The reports of a trial, whose quality is made by its learning rate, its dropout and its model, and by chance."""
    quality = 0.98 - 0.02 * (np.log10(params["learning_rate"]) + 2.5) ** 2 - 0.05 * params["dropout"] ** 2
    quality -= 0.03 * (params["model"] == "mlp") + abs(rng.normal(scale=0.01))
    lines, before, seconds = [], 0, 2.0
    for rung in RUNGS:
        curve = [
            {"epoch": epoch, "fold": fold, "train_loss": 0.9**epoch, "learning_rate": params["learning_rate"]}
            | dict(
                zip(
                    OF_CLASSES,
                    (quality - 0.3 * 0.7**epoch + rng.normal(scale=0.005, size=len(OF_CLASSES))).tolist(),
                    strict=True,
                )
            )
            for epoch in range(before + 1, rung + 1)
            for fold in range(FOLDS)
        ]
        of_folds = {name: [point[name] for point in curve[-FOLDS:]] for name in OF_CLASSES}
        score = float(np.mean(of_folds["accuracy"]))
        passed[rung].append(score)
        ended = rung == RUNGS[-1] or score < float(np.quantile(passed[rung], 2 / 3))
        seconds += 0.4 * (rung - before)
        lines.append(
            {
                "epoch": rung,
                "best_epoch": rung,
                "accuracy": score,
                "accuracy_std": float(np.std(of_folds["accuracy"], ddof=1)),
                "folds": of_folds,
                "seconds": seconds,
                "trainable_parameters": 164_226,
                "total_parameters": 2_388_098,
                "parts": 1,
                "notes": [],
                "diverged": False,
                "finished": rung == RUNGS[-1],
                "curve": curve,
                "done": ended,
                "number": number,
                "published": None,
                "params": params,
                "node": "0" * 56,
            }
        )
        before = rung
        if ended:
            break
    return lines


def _drawn(rng: np.random.Generator, mean: float) -> dict[str, float]:
    """All metrics of one fold in one epoch."""
    return {
        name: mean + value for name, value in zip(OF_CLASSES, rng.normal(scale=0.005, size=10).tolist(), strict=True)
    }


def _write_trial(folder: Path, lines: list[dict[str, Any]]) -> None:
    number, epoch = lines[-1]["number"], lines[-1]["epoch"]
    checkpoint = folder / "trials" / f"{number:04d}" / f"checkpoint_{epoch:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint.parent / "reports.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kind = min(KINDS - 1, int(KINDS * max(0.0, lines[-1]["accuracy"])))
    file = checkpoint / "predictions.parquet"
    os.link(folder / f"{kind}.parquet", file)
    listed = {"epoch": epoch, "best_epoch": epoch, "files": {file.name: file.stat().st_size}}
    (checkpoint / "checkpoint.json").write_text(json.dumps(listed))


def _experiment(trials: int, targets_N: np.ndarray) -> dict[str, Any]:
    counts = {str(c): int(count) for c, count in enumerate(np.bincount(targets_N, minlength=CLASSES))}
    started = "2026-11-21T12:00:00+00:00"
    return {
        "name": NAME,
        "task": "mnist",
        "title": "handwritten digits",
        "demonstration": True,
        "seed": 0,
        "command": "python -m benchmarks.reading",
        "started": started,
        "versions": {},
        "commit": None,
        "sessions": [{"started": started, "command": "python -m benchmarks.reading"}],
        "metric": "accuracy",
        "mode": "max",
        "folds": FOLDS,
        "folds_digest": "",
        "max_epochs": RUNGS[-1],
        "rungs": RUNGS,
        "trials": trials,
        "searcher": "random",
        "scheduler": "asha",
        "weights": "none",
        "precision": "float32",
        "fixed": {},
        "machine": {},
        "data": {
            "images": len(targets_N),
            "classes": list(counts),
            "counts": counts,
            "kind": "multiclass",
            "digest": "",
            "origin": "drawn for a benchmark",
            "best_accuracy": None,
            "skipped": [],
        },
    }


def table(folder: Path) -> int:
    return analysis.trials(folder).height


def what_mattered(folder: Path) -> int:
    """Importances, effects and budget, and their figures; returns the bytes of these."""
    results, rows = analysis.Results.open(folder), analysis.trials(folder)
    effects(results, rows)
    budget(results, rows)
    return sum(len(figure(results, rows).to_json()) for figure in (optimization_history, *EFFECT_FIGURES))


def report(folder: Path) -> int:
    """The whole; returns the bytes of the page."""
    return analysis.write_report(folder).stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_experiment(Path(temporary), options.trials, options.images)
        by_table, by_what, by_report = (measured(side, folder) for side in (table, what_mattered, report))
    assert by_table.result == options.trials
    row = {
        "trials": options.trials,
        "images": options.images,
        "table_s": round(by_table.seconds, 1),
        "what_mattered_s": round(by_what.seconds, 1),
        "report_s": round(by_report.seconds, 1),
        "figures_kB": by_what.result // 1000,
        "page_MB": round(by_report.result / 10**6, 1),
        "private_MB": by_report.private_bytes // 10**6,
    }
    for name, value in row.items():
        print(f"{name:<24}{value}")
    if options.record:
        record("reading", row)


if __name__ == "__main__":
    main()
