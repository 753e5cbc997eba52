"""The best configuration of an experiment, trained on all of its development images.

    python -m search.refit covid
    python -m search.refit covid --workers 4 --address auto

refit/model.safetensors, model.json, README.md   the network, or as many as --seeds
refit/test.json, test_predictions.parquet        it, and the networks of the folds, on the test split, if there is one
refit/training/                                  what an interrupted one goes on from
"""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from analysis.fetched import placed
from analysis.report import REPORT_FILES
from analysis.results import last_checkpoint
from analysis.trials import best, trials
from datasets import InputError, interruption
from datasets.fetching import root_of
from search.explain import Say
from search.records import alone_in, write_json
from search.refit_training import SAVED_EVERY_S, Diverged, Training, TrainingEnded, begun, trained_here
from search.reopened import Reopened, reopened

MOST_SEEDS = 100

Trained = Callable[[Training, Path, Say, float], None]
"""Who trains: see `search.refit_training.trained_here`."""


def refit(
    found: Reopened,
    epochs: int | None = None,
    seeds: int = 1,
    say: Say = lambda text: None,
    saved_every_s: float = SAVED_EVERY_S,
    trained: Trained = trained_here,
) -> Path:
    """Trains, writes `refit/` of the results folder and returns its path; goes on where the same one was interrupted,
    whoever trained then.

    epochs: None: the best of the cross-validation. seeds: networks, which differ by what is random. Raises `InputError`
    where no trial has a score, and `TrainingEnded`.
    """
    import torch

    from search.model_card import write_model
    from trainables.ensemble import Ensemble
    from trainables.refit import AllImages

    results, folder = found.results, found.results.folder / "refit"
    winner = best(trials(results.folder), results.experiment["mode"])
    if winner is None:
        raise InputError(f"no trial of {results.folder.name} has a score: there is nothing to train")
    number = winner["number"]
    epochs = epochs or winner["best_epoch"]
    config, protocol = found.config(number), found.protocol("cuda" if torch.cuda.is_available() else "cpu")
    losses = results.curves(number).group_by("epoch").agg(pl.col("log_loss").mean()).sort("epoch")["log_loss"].to_list()
    asked = {"trial": number, "epochs": epochs, "seeds": seeds, "digest": found.dataset.digest}
    checkpoints = folder / "training"
    begun(checkpoints, asked | {"params": config.params()})
    say(f"trial {number} on all {len(found.dataset):,} development images, {epochs} epochs")
    if not _is_finished(last_checkpoint(checkpoints)):
        training = Training(config, found.dataset, protocol, epochs, seeds, losses)
        try:
            trained(training, checkpoints, say, saved_every_s)
        except Diverged:
            shutil.rmtree(checkpoints)
            raise
    finished = last_checkpoint(checkpoints)
    assert finished is not None, "at least one epoch is trained"
    networks = AllImages.of(found.dataset, seeds)
    ensemble = Ensemble.of_trial(finished, config, found.dataset, networks, found.protocol())
    about = {"images": len(found.dataset), "epochs": epochs, "seeds": seeds}
    write_model(folder, ensemble, results, number, refit=about)
    _compare(found, ensemble.to(protocol.device), number, about, folder, say)
    shutil.rmtree(checkpoints)
    return folder


def _is_finished(checkpoint: Path | None) -> bool:
    """Whether there is nothing to go on with."""
    return checkpoint is not None and not (checkpoint / "state.pt").exists()


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


def _trained_by(
    found: Reopened, data: str | None, workers: int, gpus_per_worker: int | None, address: str | None
) -> Trained:
    """This process, unless there are to be several or a cluster's."""
    if workers == 1 and address is None:
        return trained_here
    from search.refit_workers import trained_by_workers

    experiment: dict[str, Any] = dict(found.results.experiment)
    told = experiment["request"]
    roots = [data, *(told[name] for name in ("root", "table") if told.get(name) is not None)]
    of_data = [root.absolute() for root in map(root_of, filter(None, roots)) if isinstance(root, Path)]
    return functools.partial(
        trained_by_workers,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        address=address,
        stay_behind=(found.results.folder.absolute().parent, *of_data),
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(no_args_is_help=True)
def main(
    name: Annotated[str, typer.Argument(help="An experiment below the results folder.")],
    epochs: Annotated[int | None, typer.Option(help="Unless the best of the cross-validation.")] = None,
    data: Annotated[str | None, typer.Option(help="Where its images are now, if they have moved.")] = None,
    seeds: Annotated[int, typer.Option(help="Networks to train, whose probabilities are averaged.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that train together, each a share of every batch.")] = 1,
    gpus_per_worker: Annotated[
        int | None, typer.Option(help="0 or 1, for --workers; unless given, 1 where there are any.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster that trains, `auto` or HOST:PORT; unless given, this machine."),
    ] = None,
    results: Annotated[str, typer.Option(help="Folder of all experiments, or its URL.")] = "results",
) -> None:
    """Train the best configuration of an experiment on all development images, and write the report again."""
    import analysis

    try:
        interruption.started()
        for option, value in (("--epochs", epochs), ("--seeds", seeds), ("--workers", workers)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: must be at least 1")
        if seeds > MOST_SEEDS:
            raise InputError(f"--seeds {seeds}: {MOST_SEEDS} are the most")
        if gpus_per_worker not in (None, 0, 1):
            raise InputError(
                f"--gpus-per-worker {gpus_per_worker}: must be 0 or 1; more GPUs are used by more --workers"
            )
        if gpus_per_worker is not None and workers == 1 and address is None:
            raise InputError(f"--gpus-per-worker {gpus_per_worker}: only with --workers or --address")
        place = placed(name, results)
        folder = place.folder
        found = reopened(folder, None if data is None else root_of(data), place.remote)
        with alone_in(folder.absolute()):
            trained = _trained_by(found, data, workers, gpus_per_worker, address)
            written = refit(found, epochs, seeds, typer.echo, trained=trained)
            page = analysis.write_report(folder)
            stored = place.send("refit", *REPORT_FILES)
        typer.echo(f"Model:  {written}\nReport: {page}")
        if stored is not None:
            typer.echo(f"Stored: {stored}")
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except TrainingEnded as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; the same command goes on from the last checkpoint.", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app(prog_name="python -m search.refit")
