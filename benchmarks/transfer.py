"""What pretrained weights, and unfreezing some layers, are worth on films that the weights have not seen.

    python -m benchmarks.transfer --record     about forty minutes on one CPU core; adds its rows to transfer.md

`test_resnet` on the chest films of the demonstration, at 224 px, from random weights and from those of
`benchmarks.pretrain`, with a head of one dense layer and none, some or all of the body's layers trained: whole blocks,
counted from the end. Every choice gets the learning rate that is best for it by AUROC on the phantoms of seed 0: of
half powers of ten one whose neighbours are no better. The figures are then of other phantoms, other folds and other
initial weights (seeds 1, 2 and 3), at the best epoch of each cross-validation, as in a search.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import datasets
from benchmarks.measurement import record
from benchmarks.pretrain import MODEL, WEIGHTS
from datasets.folds import Folds, make_folds
from trainables.config import TrialConfig
from trainables.lockstep import Lockstep
from trainables.protocol import Protocol

CHOSEN_ON, MEASURED_ON = 0, (1, 2, 3)
"""Seeds: of the phantoms, of the folds and of what is random in training."""
LAYERS = {0: "none", 6: "last block", 14: "last 2 blocks", 20: "last 3 blocks", 30: "all"}
"""Parametrised layers at the end of the body, and what they are."""


@dataclass(frozen=True)
class Amount:
    """How many films a network is trained on, and what for."""

    films: int
    swapped: bool
    """Whether a fold is what is trained on, and the other two what is validated."""
    epochs: int
    batch_size: int


AMOUNTS = {
    216: Amount(films=324, swapped=False, epochs=9, batch_size=16),
    54: Amount(films=162, swapped=True, epochs=12, batch_size=8),
}
"""By training films: as in the demonstration, and a quarter of it; three folds each."""


class Swapped(Folds):
    """Trained on the smaller part of each split and validated on the larger. Predictions out of fold have no sense."""

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((validated, trained) for trained, validated in super().__iter__())


@dataclass(frozen=True)
class Outcome:
    aurocs: np.ndarray
    """Of each fold, at the best epoch."""
    trainable_parameters: int
    seconds: float


def cross_validated(amount: Amount, weights: str, layers: int, rate: float, seed: int) -> Outcome:
    """One trial: this start, these layers, this rate."""
    films = datasets.load_all("covid", datasets.Request(demonstration=True, seed=seed, images=amount.films))
    folds = make_folds(films, 3, seed)
    config = TrialConfig(
        model=MODEL,
        image_size_px=224,
        learning_rate=rate,
        batch_size=amount.batch_size,
        schedule="cosine",
        unfrozen_layers=layers,
        dense_widths=(64,),
        dense_batch_norm=True,  # features are small: without it the head wants a hundred times the body's rate
    )
    protocol = Protocol(metric="auroc", max_epochs=amount.epochs, seed=seed, weights=weights)
    trial = Lockstep(config, films, Swapped(folds.validated_in) if amount.swapped else folds, protocol)
    while not trial.finished:
        trial.advance()
    report = trial.report()
    return Outcome(np.array(report["folds"]["auroc"]), report["trainable_parameters"], report["seconds"])


def best_rate(score: Callable[[float], float], first: int) -> float:
    """Climbs in half powers of ten, beginning with 10^(first / 2), until neither neighbour is better."""
    scores: dict[int, float] = {}
    best = first
    while untried := [power for power in (best, best + 1, best - 1) if power not in scores]:
        scores[untried[0]] = score(_rate(untried[0]))
        best = max(scores, key=lambda power: scores[power])
    return _rate(best)


def _rate(power: int) -> float:
    return float(f"{10 ** (power / 2):.1g}")


def compared(training_films: int, epochs: int | None, weights: str, layers: int) -> dict[str, str | int]:
    """A row of the table."""
    amount = AMOUNTS[training_films]
    amount = dataclasses.replace(amount, epochs=epochs or amount.epochs)
    best = best_rate(
        lambda rate: float(cross_validated(amount, weights, layers, rate, CHOSEN_ON).aurocs.mean()),
        first=-6 if layers else -4,  # a head alone takes more
    )
    outcomes = [cross_validated(amount, weights, layers, best, seed) for seed in MEASURED_ON]
    aurocs = np.stack([outcome.aurocs for outcome in outcomes])
    return {
        "training_films": training_films,
        "epochs": amount.epochs,
        "start": "random" if weights == "none" else "phantoms",
        "layers_trained": f"{LAYERS[layers]} ({layers})",
        "parameters": outcomes[0].trainable_parameters,
        "rate": f"{best:g}",
        "auroc": f"{aurocs.mean():.3f} ± {aurocs.std(ddof=1):.3f}",
        "of_seeds": " ".join(f"{mean:.3f}" for mean in aurocs.mean(axis=1)),
        "seconds": round(float(np.mean([outcome.seconds for outcome in outcomes]))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-films", type=int, choices=AMOUNTS, help="one of the amounts only")
    parser.add_argument("--epochs", type=int, help="more or fewer than usual for the amount")
    parser.add_argument("--start", choices=("none", "phantoms"), help="one of the starts only")
    parser.add_argument("--layers", type=int, choices=LAYERS, help="one of the choices only")
    parser.add_argument("--weights", type=Path, default=WEIGHTS / f"{MODEL}.safetensors", help="another file")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for training_films in [options.training_films] if options.training_films else AMOUNTS:
        for start in [options.start] if options.start else ("none", "phantoms"):
            for layers in LAYERS if options.layers is None else [options.layers]:
                if start == "none" and layers not in (0, 30):
                    continue  # to train the end of a random network is neither of the two
                weights = "none" if start == "none" else str(options.weights.absolute())
                row = compared(training_films, options.epochs, weights, layers)
                print(*(f"{value!s:<20}" for value in row.values()), flush=True)
                if options.record:
                    record("transfer", row)


if __name__ == "__main__":
    main()
