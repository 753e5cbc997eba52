"""The training of a refit: what is asked for, epoch after epoch, and the checkpoints that it goes on from."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.results import last_checkpoint
from datasets import ImageDataset
from datasets.fetching import on_this_node
from search.explain import Say
from search.records import write_json
from trainables.config import TrialConfig
from trainables.protocol import Protocol

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.refit import Refit

SAVED_EVERY_S = 60.0


class TrainingEnded(Exception):
    """It cannot go on, and why."""


class Diverged(TrainingEnded):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class Training:
    """What is asked for. May be sent to other processes."""

    config: TrialConfig
    dataset: ImageDataset
    protocol: Protocol
    epochs: int
    seeds: int
    """Networks, which differ by what is random."""
    losses: list[float]
    """Of the cross-validation, see `trainables.refit.Refit`."""

    def on(self, device: Literal["cpu", "cuda"]) -> "Training":
        return dataclasses.replace(self, protocol=dataclasses.replace(self.protocol, device=device))


def trained_here(training: Training, folder: Path, say: Say, saved_every_s: float) -> None:
    """By this process, until `last_checkpoint(folder)` is a finished one."""

    def keep(lockstep: "Refit") -> None:
        kept(folder, lockstep.epoch, lockstep.save)

    train(training, last_checkpoint(folder), say, keep, saved_every_s)


def train(
    training: Training, before: Path | None, say: Say, keep: Callable[["Refit"], None], saved_every_s: float
) -> None:
    """From a checkpoint, if there is one, to the end. say: is told every epoch. keep: saves, now and then and at last.

    Raises `Diverged`.
    """
    from trainables.refit import Refit

    lockstep = Refit(
        training.config,
        on_this_node(training.dataset),
        training.protocol,
        networks=training.seeds,
        epochs=training.epochs,
        losses=training.losses,
    )
    if before is not None:
        lockstep.load(before)
        say(f"going on after epoch {lockstep.epoch}")
    saved = time.monotonic()
    while not lockstep.finished:
        lockstep.advance()
        losses = [entry["train_loss"] for entry in lockstep.curve[-training.seeds :]]
        say(f"epoch {lockstep.epoch} of {training.epochs}, training loss {sum(losses) / len(losses):.3f}")
        if lockstep.diverged:
            raise Diverged(f"the loss is not finite after epoch {lockstep.epoch}: choose fewer --epochs")
        if lockstep.finished or time.monotonic() - saved >= saved_every_s:
            keep(lockstep)
            saved = time.monotonic()


def begun(folder: Path, asked: dict[str, Any]) -> None:
    """Makes the folder of the training that is asked for; what was there of another one is removed."""
    asked = json.loads(json.dumps(asked))
    try:
        same = json.loads((folder / "asked.json").read_bytes()) == asked
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / "asked.json", asked)


def kept(folder: Path, epoch: int, write: Callable[[Path], None]) -> None:
    """A checkpoint after so many epochs; older ones are removed when it is whole.

    write: is given the checkpoint's folder, and writes its files, `checkpoint.json` last.
    """
    checkpoint = folder / f"checkpoint_{epoch:06d}"
    shutil.rmtree(checkpoint, ignore_errors=True)  # of a process that died while it wrote
    checkpoint.mkdir()
    write(checkpoint)
    for older in folder.glob("checkpoint_*"):
        if older != checkpoint:
            shutil.rmtree(older)
