"""What the best trial's networks look at, where they fail, and the networks themselves: `best/` of a results folder.

    python -m search.explain covid

    best/model.safetensors, model.json, README.md   the networks of the folds
    best/seen.json, pictures/*.jpg                   what a report shows of them
    best/test_predictions.parquet                    the test split, where there is one

Every network is asked only about images that it has not been trained on.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

from analysis.fetched import placed
from analysis.report import REPORT_FILES
from analysis.results import Results, Unavailable
from analysis.trials import best, trials
from datasets import InputError, interruption
from datasets.fetching import root_of
from search.cases import cases_of_classes, cases_of_masks
from search.records import write_json
from search.reopened import Reopened, reopened

if TYPE_CHECKING:  # imports torch, which takes seconds
    from trainables.ensemble import Ensemble

SECONDS = 8.0
"""What the test for shortcuts may take, unless it is said how many images it looks at."""
PASSES = 14
"""How often it looks at an image, about."""
LOOKED_AT = (600, 300)
"""It looks at so many images: as many as there is time for, and at the last number in any case, for which
`benchmarks/shortcuts.md` says how often it warns."""

Say = Callable[[str], None]


def explain(found: Reopened, images: int | None = None, say: Say = lambda text: None) -> Path:
    """Writes `best/` of the best trial and returns its path.

    images: how many the test for shortcuts looks at; None: as many as there is time for. say: is told what is done.
    Raises `InputError` where no trial has a score, or its networks cannot be had.
    """
    import torch

    from search.model_card import write_model

    results = found.results
    table = trials(results.folder)
    winner = best(table, results.experiment["mode"])
    if winner is None:
        raise InputError(f"no trial of {results.folder.name} has a score: there is nothing to explain")
    number, folder = winner["number"], results.folder / "best"
    say(f"the networks of trial {number}")
    ensemble = found.ensemble(number)
    write_model(folder, ensemble, results, number, _estimate(results, table))
    ensemble.to("cuda" if torch.cuda.is_available() else "cpu")
    notes: list[str] = []
    test = _test(found, ensemble, folder, say)
    told: dict[str, Any] = {"trial": number, "layer": None, "attention": None, "border": None, "warnings": []}
    if results.has_masks:
        cases = cases_of_masks(found, ensemble, number, folder)
        notes.append("Networks that find masks are shown by their outlines; the test for shortcuts is one of classes.")
    else:
        say("what they look at")
        told |= _looked(found, ensemble, images, notes)
        cases = cases_of_classes(found, ensemble, number, folder, with_maps=told["layer"] is not None)
    told |= {"cases": cases, "test": test, "tested_before": _tested_before(folder, number), "notes": notes}
    write_json(folder / "seen.json", told)
    shown = {name for case in cases for name in (case["picture"], case["saliency"])}
    for file in (folder / "pictures").glob("*"):
        if f"pictures/{file.name}" not in shown:
            file.unlink()
    return folder


def _estimate(results: Results, table: pl.DataFrame) -> dict[str, Any] | None:
    """For the model card; None where there is none."""
    from analysis.estimate import estimate

    try:
        return estimate(results, table)
    except Unavailable:
        return None


def _test(found: Reopened, ensemble: "Ensemble", folder: Path, say: Say) -> dict[str, Any] | None:
    """The scores of the networks' mean on the test split, and its predictions as a file; None where there is none."""
    if not len(found.test):
        return None
    from trainables.held_out import held_out

    say(f"the test split, {len(found.test):,} images")
    predictions, metrics = held_out(ensemble, found.test)
    part = folder / "test_predictions.part"
    predictions.write_parquet(part)
    part.replace(folder / "test_predictions.parquet")
    return {"images": len(found.test), "metrics": metrics}


def _tested_before(best: Path, number: int) -> list[int]:
    """The other trials that the test split has been scored with: who chose after having seen that has no untouched
    images left, however often it is explained again."""
    before = _before(best)
    tested = before.get("tested_before") or []
    if before.get("test") and before.get("trial") != number:
        tested = [*tested, before.get("trial")]
    return sorted({trial for trial in tested if isinstance(trial, int)} - {number})


def _before(best: Path) -> dict[str, Any]:
    """seen.json as it is; empty where there is none, or it is damaged."""
    try:
        told = json.loads((best / "seen.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _looked(found: Reopened, ensemble: "Ensemble", images: int | None, notes: list[str]) -> dict[str, Any]:
    """`layer`, `attention`, `border` and `warnings` of seen.json."""
    from trainables.out_of_fold import OutOfFold, in_each_fold, some_images
    from trainables.shortcuts import attention, probed, warnings

    unseen = OutOfFold(ensemble)
    if images is None:
        first = some_images(ensemble, found.dataset, found.folds, LOOKED_AT[-1])
        seconds = unseen.seconds(first.pixels_NHWL) * PASSES
        images = next((count for count in LOOKED_AT if count * seconds <= SECONDS), LOOKED_AT[-1])
    sample = some_images(ensemble, found.dataset, found.folds, images)
    if len(sample) < len(found.dataset):
        notes.append(
            f"Attention and the test for shortcuts are of {len(sample):,} of the {len(found.dataset):,} images, as "
            f"evenly over classes and folds as there are; --images looks at more."
        )
    if len(found.folds) > found.folds.k:
        notes.append("Networks of the first repeat of the cross-validation are shown.")
    if found.dataset.further:
        notes.append(f"Of several targets the first one, {found.dataset.target_name}, is looked at.")
    probabilities_NC, maps_NHW, layer = in_each_fold(unseen, sample)
    told: dict[str, Any] = {"layer": layer, "attention": None}
    if maps_NHW is None:
        notes.append(
            f"{ensemble.description.config.model} keeps no map of its images, which could show where it looks."
        )
    else:
        told["attention"] = attention(maps_NHW, sample.targets_N, sample.groups_N, found.dataset.classes)
        nowhere = float((maps_NHW.max((1, 2)) <= 0).mean())
        if nowhere > 0.1:
            notes.append(
                f"For {nowhere:.0%} of the images no place speaks for the class that was found, which then is what "
                f"remains when nothing speaks for another: they do not count for the attention."
            )
    border = probed(sample, unseen.predict, probabilities_NC)
    return told | {"border": border, "warnings": warnings(border)}


def explain_winner(found: Reopened, say: Say) -> str | None:
    """`explain` at the end of a search, whose report comes whatever happens here: a failure is one line, returned."""
    try:
        explain(found, say=say)
    except (Exception, KeyboardInterrupt) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        told = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {reason}"
        again = f"python -m search.explain {found.results.folder.name}"
        return f"The best trial is not explained ({told}); once more: {again}"
    return None


def explained(folder: Path) -> int | None:
    """The trial that `best/` of a results folder was written of; None where there is none."""
    trial = _before(folder / "best").get("trial")
    return trial if isinstance(trial, int) else None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(no_args_is_help=True)
def main(
    name: Annotated[str, typer.Argument(help="An experiment below the results folder.")],
    data: Annotated[str | None, typer.Option(help="Where its images are now, if they have moved.")] = None,
    images: Annotated[int | None, typer.Option(help="How many the test for shortcuts looks at.")] = None,
    results: Annotated[str, typer.Option(help="Folder of all experiments, or its URL.")] = "results",
) -> None:
    """What the best trial of an experiment looks at and where it fails; writes its networks, and the report again."""
    import analysis
    from search.records import alone_in

    try:
        interruption.started()
        if images is not None and images < 1:
            raise InputError(f"--images {images}: must be at least 1")
        place = placed(name, results)
        folder = place.folder
        found = reopened(folder, None if data is None else root_of(data), place.remote)
        with alone_in(folder.absolute()):
            explain(found, images, typer.echo)
            page = analysis.write_report(folder)
            stored = place.send("best", *REPORT_FILES)
        for warning in json.loads((folder / "best/seen.json").read_text())["warnings"]:
            typer.echo(f"warning: {warning}")
        typer.echo(f"Model:  {folder / 'best'}\nReport: {page}")
        if stored is not None:
            typer.echo(f"Stored: {stored}")
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; what was there before is still there.", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app(prog_name="python -m search.explain")
