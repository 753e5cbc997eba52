"""The k heads of a trial trained as one, in turn, and spread over processes: k of 3, 5 and 10, on a CPU and on a GPU.

    python -m benchmarks.folds            two minutes on two cores
    python -m benchmarks.folds --record   adds the rows to folds.md

Features are those of a frozen MobileNetV2 for 324 chest phantoms. Every form is trained for the same epochs with the
same numbers, which is checked. Spread has one process per core, each with its share of the folds, and nothing to pass
between them: the least that it could take.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

import datasets
from benchmarks.measurement import measured, record
from datasets.folds import make_folds
from trainables import fold_group
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep
from trainables.protocol import Protocol

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"dropout": 0.5},
    "128": {"dense_widths": (128,), "dense_batch_norm": True, "dropout": 0.3},
    "256-64": {"dense_widths": (256, 64), "dense_batch_norm": True, "dropout": 0.3},
}
FORMS = ("in turn", "fused", "spread")
COMPARED = 3
"""The epoch in which the losses of all forms must agree; training amplifies rounding, and thirty epochs much of it."""


def milliseconds(form: str, k: int, head: str, epochs: int, device: str) -> tuple[float, list[float]]:
    """Of an epoch of all folds, validation included, the median; and the training losses of the one compared."""
    if form == "spread":
        return _spread(k, head, epochs)
    lockstep = _lockstep(k, head, epochs, device, fused=form == "fused")
    times = []
    for _ in range(epochs):
        began = time.perf_counter()
        lockstep.advance()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), [entry["train_loss"] for entry in lockstep.curve if entry["epoch"] == COMPARED]


def _spread(k: int, head: str, epochs: int) -> tuple[float, list[float]]:
    processes = min(k, len(os.sched_getaffinity(0)))
    shares = [range(first, k, processes) for first in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_ready, repeat(k, processes), repeat(head), repeat(epochs)))  # not with another's time to begin
        parts = list(pool.map(_share, shares, repeat(k), repeat(head), repeat(epochs)))
    losses = {fold: loss for _, of_folds in parts for fold, loss in of_folds.items()}
    return max(time for time, _ in parts), [losses[fold] for fold in range(k)]


def _ready(k: int, head: str, epochs: int) -> None:
    torch.set_num_threads(1)
    _lockstep(k, head, epochs, "cpu", fused=False)


def _share(folds: Sequence[int], k: int, head: str, epochs: int) -> tuple[float, dict[int, float]]:
    """Of one process: the median time of an epoch of its folds, and the losses of the one compared."""
    lockstep, times, losses = _lockstep(k, head, epochs, "cpu", fused=False), [], {}
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        for fold in (lockstep._group.folds[place] for place in folds):
            loss = fold.train(epoch, lockstep._group.fetch, decays=0)
            losses |= {lockstep._group.folds.index(fold): loss} if epoch == COMPARED else {}
            lockstep._objective.scores(fold.validation_rows.numpy(), fold.predict(lockstep._group.fetch))
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), losses


def _lockstep(k: int, head: str, epochs: int, device: str, fused: bool) -> Lockstep:
    dataset = _films()
    chosen = {"model": "mobilenetv2_100", "image_size_px": 96, "learning_rate": 1e-3, "batch_size": 32}
    config = TrialConfig(**chosen, unfrozen_layers=0, patience=epochs, **HEADS[head])
    protocol = Protocol(metric="auroc", max_epochs=epochs, seed=0, precision="float32", device=device)
    can_be_fused = fold_group.can_be_fused
    if not fused:
        fold_group.can_be_fused = lambda *_: False
    try:
        return Lockstep(config, dataset, make_folds(dataset, k, seed=0), protocol)
    finally:
        fold_group.can_be_fused = can_be_fused


@lru_cache
def _films() -> datasets.ImageDataset:
    return datasets.load("covid", demonstration=True).part("development")


def compared(k: int, head: str, epochs: int, device: str, forms: Sequence[str]) -> dict[str, float]:
    """Milliseconds of every form, one after the other in a process that has warmed up. Raises where they disagree."""
    torch.set_num_threads(1)
    milliseconds(forms[0], k, head, COMPARED, device)
    found = {form: milliseconds(form, k, head, epochs, device) for form in forms}
    for form, (_, losses) in found.items():
        np.testing.assert_allclose(losses, found[forms[0]][1], rtol=1e-2, err_msg=form)
    return {form: time for form, (time, _) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            print("GPU: skipped, there is none")
            continue
        forms = FORMS if device == "cpu" else FORMS[:2]
        for head in HEADS:
            for k in (3, 5, 10):
                outcome = measured(compared, k, head, options.epochs, device, forms)
                row: dict[str, Any] = {"device": device, "head": head, "k": k}
                row |= {f"{form}, ms per epoch": round(outcome.result[form], 1) for form in forms}
                row |= {"spread, ms per epoch": row.get("spread, ms per epoch", "")}
                row |= {"fused against in turn": f"{outcome.result['in turn'] / outcome.result['fused']:.2f}"}
                row |= {"private MB": outcome.private_bytes // 2**20}
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
                if options.record:
                    record("folds", row)


if __name__ == "__main__":
    main()
