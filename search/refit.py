"""The best configuration of an experiment, trained on all of its development images.

python -m search.refit covid

refit/model.safetensors, model.json, README.md   the network, or as many as --seeds
refit/test.json, test_predictions.parquet        it, and the networks of the folds, on the test split, if there is one
refit/training/                                  what an interrupted one goes on from
"""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from analysis.results import last_checkpoint
from analysis.trials import best, trials
from datasets import InputError, interruption
from search.explain import Say
from search.records import alone_in, write_json
from search.reopened import Reopened, reopened

SAVED_EVERY_S = 60.0
MOST_SEEDS = 100


class Diverged(Exception):
    """The loss is no longer finite."""


def refit(
    found: Reopened,
    epochs: int | None = None,
    seeds: int = 1,
    say: Say = lambda text: None,
    saved_every_s: float = SAVED_EVERY_S,
) -> Path:
    """Trains, writes `refit/` of the results folder and returns its path; goes on where the same one was interrupted.

    epochs: None: the best of the cross-validation. seeds: networks, which differ by what is random. Raises `InputError`
    where no trial has a score, and `Diverged`.
    """
    import torch

    from search.model_card import write_model
    from trainables.ensemble import Ensemble
    from trainables.refit import AllImages, Refit

    results, folder = found.results, found.results.folder / "refit"
    winner = best(trials(results.folder), results.experiment["mode"])
    if winner is None:
        raise InputError(f"no trial of {results.folder.name} has a score: there is nothing to train")
    number = winner["number"]
    epochs = epochs or winner["best_epoch"]
    config, protocol = found.config(number), found.protocol("cuda" if torch.cuda.is_available() else "cpu")
    losses = results.curves(number).group_by("epoch").agg(pl.col("log_loss").mean()).sort("epoch")["log_loss"].to_list()
    training = _begun(
        folder / "training",
        {"trial": number, "epochs": epochs, "seeds": seeds, "digest": found.dataset.digest, "params": config.params()},
    )
    lockstep = Refit(config, found.dataset, protocol, networks=seeds, epochs=epochs, losses=losses)
    before = last_checkpoint(training)
    if before is not None and (before / "state.pt").exists():
        lockstep.load(before)
        say(f"going on after epoch {lockstep.epoch}")
    done = before is not None and not (before / "state.pt").exists()
    say(f"trial {number} on all {len(found.dataset):,} development images, {epochs} epochs")
    saved = time.monotonic()
    while not done and not lockstep.finished:
        lockstep.advance()
        losses_now = [entry["train_loss"] for entry in lockstep.curve[-seeds:]]
        say(f"epoch {lockstep.epoch} of {epochs}, training loss {sum(losses_now) / seeds:.3f}")
        if lockstep.diverged:
            shutil.rmtree(training)
            raise Diverged(f"the loss is not finite after epoch {lockstep.epoch}: choose fewer --epochs")
        if lockstep.finished or time.monotonic() - saved >= saved_every_s:
            before, saved = _saved(lockstep, training), time.monotonic()
    assert before is not None, "at least one epoch is trained"
    networks = AllImages.of(found.dataset, seeds)
    ensemble = Ensemble.of_trial(before, config, found.dataset, networks, found.protocol())
    about = {"images": len(found.dataset), "epochs": epochs, "seeds": seeds}
    write_model(folder, ensemble, results, number, refit=about)
    _compare(found, ensemble.to(protocol.device), number, about, folder, say)
    shutil.rmtree(training)
    return folder


def _begun(training: Path, asked: dict[str, Any]) -> Path:
    """The folder of the training that was asked for; what was there of another one is removed."""
    asked = json.loads(json.dumps(asked))
    try:
        same = json.loads((training / "asked.json").read_bytes()) == asked
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(training, ignore_errors=True)
        training.mkdir(parents=True)
        write_json(training / "asked.json", asked)
    return training


def _saved(lockstep: Any, training: Path) -> Path:
    """A checkpoint of the epoch; older ones are removed when it is whole."""
    checkpoint = training / f"checkpoint_{lockstep.epoch:06d}"
    shutil.rmtree(checkpoint, ignore_errors=True)  # of a process that died while it wrote
    checkpoint.mkdir()
    lockstep.save(checkpoint)
    for older in training.glob("checkpoint_*"):
        if older != checkpoint:
            shutil.rmtree(older)
    return checkpoint


def _compare(found: Reopened, ensemble: Any, number: int, about: dict[str, Any], folder: Path, say: Say) -> None:
    """refit/test.json: every metric of the test split, of the fold networks' mean and of the refit."""
    if not len(found.test):
        say("There is no test split: whether it is better than the networks of the folds is not known.")
        for stale in ("test.json", "test_predictions.parquet"):
            (folder / stale).unlink(missing_ok=True)
        return
    from trainables.held_out import held_out

    say(f"the test split, {len(found.test):,} images")
    _, of_folds = held_out(found.ensemble(number).to(str(ensemble.device)), found.test)
    predictions, of_refit = held_out(ensemble, found.test)
    part = folder / "test_predictions.part"
    predictions.write_parquet(part)
    part.replace(folder / "test_predictions.parquet")
    told = {"trial": number, **about, "test_images": len(found.test), "ensemble": of_folds, "refit": of_refit}
    write_json(folder / "test.json", told)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(no_args_is_help=True)
def main(
    name: Annotated[str, typer.Argument(help="An experiment below the results folder.")],
    epochs: Annotated[int | None, typer.Option(help="Unless the best of the cross-validation.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where its images are now, if they have moved.")] = None,
    seeds: Annotated[int, typer.Option(help="Networks to train, whose probabilities are averaged.")] = 1,
    results: Annotated[Path, typer.Option(help="Folder of all experiments.")] = Path("results"),
) -> None:
    """Train the best configuration of an experiment on all development images, and write the report again."""
    import analysis

    folder = results / name
    try:
        interruption.started()
        for option, value in (("--epochs", epochs), ("--seeds", seeds)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: must be at least 1")
        if seeds > MOST_SEEDS:
            raise InputError(f"--seeds {seeds}: {MOST_SEEDS} are the most")
        found = reopened(folder, data)
        with alone_in(folder.absolute()):
            written = refit(found, epochs, seeds, typer.echo)
            page = analysis.write_report(folder)
        typer.echo(f"Model:  {written}\nReport: {page}")
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except Diverged as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; the same command goes on from the last checkpoint.", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app(prog_name="python -m search.refit")
