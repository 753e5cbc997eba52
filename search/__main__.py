"""`python -m search TASK`: the command line."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import datasets
import search_spaces
from datasets import InputError, interruption
from datasets.remedies import DEFAULT_DROP, REMEDIES
from search.experiment import Failed, Interrupted, run
from search.far import is_far, search_from_afar
from search.mirror import Unsent
from search.options import Options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

DATA = "The images"
MACHINE = "This machine or cluster"
INSTEAD = "Instead of searching"


@app.command(no_args_is_help=True)
def main(
    task: Annotated[str | None, typer.Argument(help="What to search for: see --list.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Draw demonstration data (phantoms).")] = False,
    data: Annotated[str | None, typer.Option(help="Folder of the images, or an archive of it; or its URL.")] = None,
    table: Annotated[Path | None, typer.Option(help="Labels of `images`: a csv or parquet file.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try, published ones included.")] = None,
    folds: Annotated[int | None, typer.Option(help="Folds of the cross-validation, 2 to 20.")] = None,
    repeats: Annotated[int, typer.Option(help="Of the whole cross-validation, each with other folds.")] = 1,
    max_epochs: Annotated[int | None, typer.Option(help="Epochs of the longest trial.")] = None,
    metric: Annotated[str | None, typer.Option(help="Score to search for, instead of the task's.")] = None,
    searcher: Annotated[str, typer.Option(help="tpe, gp (Gaussian process), random or grid.")] = "tpe",
    scheduler: Annotated[str, typer.Option(help="asha stops hopeless trials; none.")] = "asha",
    fixed: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: do not search this parameter.")] = None,
    models: Annotated[str | None, typer.Option(help="Search these models only: a,b.")] = None,
    space: Annotated[Path | None, typer.Option(help="Python file with a search space, for the task's.")] = None,
    published_only: Annotated[
        bool, typer.Option("--published-only", help="Train the published configurations, all to their ends; no search.")
    ] = False,
    only: Annotated[str | None, typer.Option(help="Train these published configurations: a,b.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, phantoms or FILE.safetensors.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, proposals and training.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the experiment; the task's unless given.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of all experiments.")] = Path("results"),
    storage: Annotated[
        str | None, typer.Option(help="Keep results at this URL too, as s3://bucket/folder; outlives this machine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was interrupted.")] = False,
    study: Annotated[
        str | None,
        typer.Option(help="Share the study and its --trials with other searches: postgresql://USER@HOST/DATABASE."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            help="Phantoms to draw to search on; as many as the real images unless given. Held-out ones come on top.",
            rich_help_panel=DATA,
        ),
    ] = None,
    plant: Annotated[
        str | None, typer.Option(help="Pitfalls to plant among the phantoms: a,b.", rich_help_panel=DATA)
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            help=f"Leave out: {','.join(REMEDIES)}; or none. [default: {','.join(DEFAULT_DROP)}]", rich_help_panel=DATA
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(help="Leave out this image (its id or row) and all that resemble it.", rich_help_panel=DATA),
    ] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="Put the test split into the folds.", rich_help_panel=DATA)
    ] = False,
    leave_source_out: Annotated[
        bool, typer.Option("--leave-source-out", help="One fold per source.", rich_help_panel=DATA)
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT.", rich_help_panel=MACHINE)
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(help="Trials at a time; a cluster that grows from zero needs it.", rich_help_panel=MACHINE),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile networks: for long trials of large ones.", rich_help_panel=MACHINE),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain/--no-explain", help="At the end, look at what the best networks look at; keep them."),
    ] = True,
    cpus_per_trial: Annotated[int | None, typer.Option(rich_help_panel=MACHINE)] = None,
    gpus_per_trial: Annotated[
        str | None,
        typer.Option(help="May be a fraction; auto: as a GPU has room for.", rich_help_panel=MACHINE),
    ] = None,
    spread_folds: Annotated[
        bool,
        typer.Option(
            "--spread-folds",
            help="A process for each fold; what a trial has of CPUs and GPUs each then has.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    list_tasks: Annotated[bool, typer.Option("--list", help="The tasks.", rich_help_panel=INSTEAD)] = False,
    list_published: Annotated[
        bool, typer.Option("--published", help="The published configurations of TASK.", rich_help_panel=INSTEAD)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list, --published.", rich_help_panel=INSTEAD)] = False,
) -> None:
    """A cross-validated hyperparameter search for an image task."""
    options = {key: value for key, value in locals().items() if key not in ("list_tasks", "list_published", "as_json")}
    console = Console()
    try:
        interruption.started()
        if list_tasks:
            _print_tasks(console, as_json)
        elif task is None:
            raise InputError(f"which task? One of: {', '.join(search_spaces.tasks())}")
        elif list_published:
            _print_published(task, space, console, as_json)
        else:
            options["fixed"] = _assignments(fixed or [])
            options |= {"plant": _names(plant), "like": tuple(like or ())}
            options |= {"only": _some("--only", only), "models": _some("--models", models) or None}
            options["drop"] = None if drop is None else () if drop == "none" else _names(drop)
            if is_far(address):
                raise typer.Exit(search_from_afar(Options(**options), sys.argv[1:]))
            run(console=console, **options)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except (Failed, Unsent) as failure:
        typer.echo(f"error: {failure}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted before any trial had started.", err=True)
        raise typer.Exit(130) from None
    except Interrupted as ended:
        typer.echo(f"\n{ended}", err=True)
        raise typer.Exit(ended.status) from None


def _print_tasks(console: Console, as_json: bool) -> None:
    entries = []
    for name in search_spaces.tasks():
        task, space = datasets.task(name), search_spaces.space_of(name)
        entries.append(
            {
                "task": name,
                "images": task.IMAGES,
                "classes": list(task.CLASSES) if task.CLASSES else None,
                "metric": space.EXPERIMENT.metric,
                "title": task.TITLE,
            }
        )
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        images = f"{entry['images']:,}" if entry["images"] else "any"
        classes = len(entry["classes"]) if entry["classes"] else "any"
        console.print(
            f"{entry['task']:<13} {images:>7} images  {classes!s:>3} classes  {entry['metric']:<18} {entry['title']}",
            highlight=False,
            soft_wrap=True,
        )


def _print_published(task: str, space: Path | None, console: Console, as_json: bool) -> None:
    from search.published import print_published, published  # imports torch and timm, which takes seconds

    entries = published(task, space)
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    elif entries:
        print_published(entries, console)
    else:
        typer.echo(f"nothing was published for {task}")


def _names(text: str | None) -> tuple[str, ...]:
    """`a,b` to its words."""
    return tuple(filter(None, map(str.strip, (text or "").split(","))))


def _some(option: str, text: str | None) -> tuple[str, ...]:
    """The words of an option that, once given, names something: nothing would silently mean all."""
    words = _names(text)
    if text is not None and not words:
        raise InputError(f"{option} {text!r}: names nothing; give a,b or leave it out")
    return words


def _assignments(texts: list[str]) -> dict[str, Any]:
    fixed: dict[str, Any] = {}
    for name, value in map(_assignment, texts):
        if name in fixed:
            raise InputError(f"--set {name}: given twice, {fixed[name]} and {value}; give it once")
        fixed[name] = value
    return fixed


def _assignment(text: str) -> tuple[str, Any]:
    """`learning_rate=1e-4` to a name and a number, a truth value or a word; `dense_widths=256,128` to several."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {text}: write NAME=VALUE, as in --set learning_rate=1e-4")
    if "," in value:
        return name, tuple(map(_value, _names(value)))
    return name, _value(value)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    app(prog_name="python -m search")
