"""One search from what was asked for to its report: `run`, behind the command line and in notebooks."""

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import Progress

import analysis
import datasets
from datasets import InputError, nearest
from search.ending import Ending, leave_on_sigterm
from search.far import is_far
from search.mirror import Mirror, Unsent
from search.nodes import check_nodes
from search.options import Options
from search.packing import trials_per_gpu
from search.plan import Plan, make_plan
from search.ray_session import check_listening, nodes_now, ray_session, set_environment, share_of, waits
from search.records import alone_in, check_name, has_reported_end, make_record, write_record
from search.stored import mirrored
from search.study_address import check_reachable
from search.terminal import conclude, introduce
from trainables.metrics import METRICS

MANY_PHANTOMS = 5000
"""More of them take hours on a CPU."""


class Interrupted(Exception):
    """Ctrl-C, SIGTERM, or something is gone that it needs: what was finished is kept. The message says how to go on."""

    status = 128 + signal.SIGINT
    """Of a program that ends by it, as shells have it."""


class Failed(Exception):
    """No trial has a score. The message has the first error."""


@dataclass(frozen=True)
class Result:
    """A search that has ended."""

    folder: Path

    @property
    def trials(self) -> pl.DataFrame:
        """One row per trial; the columns are those of `analysis.trials`."""
        return analysis.trials(self.folder)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best trial; None where no trial has a score."""
        return analysis.best(self.trials, METRICS[analysis.Results.open(self.folder).experiment["metric"]])

    def report(self) -> Path:
        """Write the report; returns the path of its page."""
        return analysis.write_report(self.folder)


def run(task: str, *, console: Console | None = None, **options: Any) -> Result:
    """Search and write the report. The keywords are the fields of `Options`.

    Raises `InputError` for what the user can put right, before any trial has started, `Interrupted` on Ctrl-C and where
    the search ends for want of something, `Failed` where no trial has a score, and `Unsent` where not all results have
    come to the URL of `storage`.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}{nearest(name, known)}")
    of_paths = ("table", "results", "space")
    paths = {name: Path(options[name]) for name in of_paths if options.get(name) is not None}
    console = console or Console()
    chosen = Options(task=task, **options | paths)
    if is_far(chosen.address):
        raise InputError(f"--address {chosen.address}: use python -m search, or call this on a node of the cluster")
    ending = Ending()
    if chosen.remote is None:
        return _searched(chosen, paths, console, ending)
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with mirrored(chosen.remote, chosen.folder, chosen.resume, say, ending) as mirror:
        return _searched(chosen, paths, console, ending, mirror)


def _searched(
    chosen: Options, paths: dict[str, Path], console: Console, ending: Ending, mirror: Mirror | None = None
) -> Result:
    """mirror: of the results at a URL."""
    folder = chosen.folder
    check_name(folder, chosen.resume, chosen.study is not None)
    if chosen.address is not None:
        check_listening(chosen.address)
    if chosen.study is not None:
        check_reachable(chosen.study)
    plan = _planned(chosen, console)
    record = make_record(plan)
    introduce(plan, record, console)
    if chosen.study is not None:
        from search.shared_study import left_to_share  # imports Optuna, which takes a second

        say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
        left = left_to_share(chosen.study, record, folder, say)
    else:
        left = record["trials"] - (_finished_trials(folder, record["name"]) if chosen.resume else 0)
    with contextlib.ExitStack() as stack:
        if left > 0:
            here = [chosen.data, *paths.values()]
            stay_behind = tuple(given.absolute() for given in here if isinstance(given, Path))
            search_on = stack.enter_context(_begun(plan, stay_behind, ending, console, mirror))
        stack.enter_context(alone_in(folder))
        write_record(plan, record)
        complete = left <= 0
        if complete:
            console.print(f"All {record['trials']} trials have finished before", highlight=False)
        else:
            with contextlib.suppress(KeyboardInterrupt), ending.caught():  # the second; the first is an orderly end
                complete = search_on(record)
        whole = mirror is None or left <= 0 or _is_caught_up(mirror, console)
        if complete and whole and chosen.explain:
            _explain(plan, console)
        page = analysis.write_report(folder)
        if mirror is not None:
            mirror.finish()
    if not complete:
        command = record["sessions"][0]["command"]
        again = f"go on with: {command} --resume" if command else "call it again with resume=True to go on"
        why = "Interrupted" if ending.why is None or ending.signal else f"The search has ended: {ending.why}"
        interrupted = Interrupted(f"{why}. Every finished trial is kept; {again}")
        interrupted.status = 128 + (ending.signal or signal.SIGINT)
        raise interrupted
    result = Result(folder)
    if chosen.study is not None and result.trials.is_empty():
        raise Failed(f"Other searches have begun all {record['trials']} trials of the study: there are none here")
    if result.best is None:
        error = next((error for error in result.trials["error"] if error), "no reason was reported")
        raise Failed(
            f"No trial has a score. The first error: {error}\nMore of it in {folder / 'trials'}/*/reports.jsonl"
        )
    conclude(folder, page, console)
    if mirror is not None:
        console.print(f"Stored:     {mirror.remote}", highlight=False, markup=False, soft_wrap=True)
    return result


def _is_caught_up(mirror: Mirror, console: Console) -> bool:
    """Whether all that the report needs is here."""
    try:
        mirror.catch_up()
    except Unsent as unsent:
        note = f"note: {unsent}. The report does without predictions that are not here, and the best trial is not shown"
        console.print(note, highlight=False, markup=False, soft_wrap=True)
        return False
    return True


def _explain(plan: Plan, console: Console) -> None:
    """Writes `best/`, unless it is the best trial's already."""
    from search.explain import explain_winner, explained
    from search.reopened import Reopened

    found = Reopened.of_plan(plan)
    winner = analysis.best(analysis.trials(plan.options.folder), METRICS[plan.experiment.metric])
    if winner is None or explained(found.results.folder) == winner["number"]:
        return
    with console.status("looking at the best trial") as status:
        failure = explain_winner(found, say=status.update)
    if failure:
        console.print(failure, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _begun(
    plan: Plan, stay_behind: tuple[Path, ...], ending: Ending, console: Console, mirror: Mirror | None
) -> Iterator[Callable[[dict[str, Any]], bool]]:
    """`search_trials` with all but the record, while Ray is up."""
    options = plan.options
    set_environment(options.address)
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            resources = stack.enter_context(ray_session(options.address, stay_behind))
            # After Ray: its processes go on starting while this, which takes a second, is imported.
            from search.trial_processes import keep_processes
            from search.tuning import search_trials

        leave_on_sigterm()
        keep_processes()
        if options.address is not None:
            weights = [Path(plan.weights)] if Path(plan.weights).is_absolute() else []
            images = options.data or options.table  # without a folder, images are beside the table that names them
            read = [*([images] if images else []), *weights]
            check_nodes(None if options.storage else options.results, read)
        say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
        nodes = nodes_now()
        share = share_of(options, nodes, trials_per_gpu(plan, resources, say), len(plan.folds))
        if options.address is not None and (lacks := waits(share, nodes)):
            say(lacks)
        yield lambda record: search_trials(plan, record, share, console, ending, mirror)


def _finished_trials(folder: Path, study: str) -> int:
    """Of a search that may go on, by its study."""
    import optuna

    file = folder / "study.db"
    notes = folder.glob("trials/*/checkpoint_*/checkpoint.json")
    if not file.exists() or any('"state.pt"' in note.read_text() for note in notes):  # which a finished search removes
        return 0
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        trials = optuna.load_study(study_name=study, storage=f"sqlite:///{file}").get_trials(deepcopy=False)
    except KeyError:  # it was interrupted before there was one
        return 0
    return sum(trial.state.is_finished() and has_reported_end(folder, trial.number) for trial in trials)


def _planned(options: Options, console: Console) -> Plan:
    """The plan; what takes long is shown while it lasts."""
    if options.demo and options.images is None and (datasets.task(options.task).IMAGES or 0) > MANY_PHANTOMS:
        console.print(
            f"Drawing {datasets.task(options.task).IMAGES:,} images, as many as the real data set has: "
            f"--images 600 draws fewer"
        )
    bar = Progress(*Progress.get_default_columns(), console=console, transient=True)
    looking = bar.add_task("looking at the images")

    def progress(done: int, all_: int) -> None:
        if console.is_terminal:  # where nothing is shown all of it would be an empty line
            bar.start()
        bar.update(looking, completed=done, total=all_)

    try:
        return make_plan(options, progress)
    finally:
        if bar.live.is_started:
            bar.stop()
