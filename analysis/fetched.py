"""A search whose results are elsewhere (`--storage`), brought to this machine as far as they are read.

    reports, study, folds, predictions     always
    the networks of a trial or of best/    when somebody asks for them
    TensorBoard's curves, report pages     never: they are made again, or looked at where they were made

A checkpoint here says what was left there: `files` of its checkpoint.json are here, those `elsewhere` are not.
"""

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from analysis.report import REPORT_FILES
from analysis.results import reports
from datasets import InputError
from datasets.remote import Listed, RemoteFolder, is_url
from datasets.stores import store_folder

NOTE, PREDICTIONS = "checkpoint.json", "predictions.parquet"
CHECKPOINT = re.compile(r"trials/(\d+)/(checkpoint_[^/]*)/([^/]+)")
OF_TRIALS = re.compile(r"trials/\d+/reports\.jsonl")


ATTEMPTS = 5
"""At a search that goes on, and takes away what has just been listed."""


def fetch(remote: RemoteFolder, folder: Path, keep_longer: bool = False) -> None:
    """Makes `folder` what the remote one is: changed files are brought, checkpoints that are no more there go, and what
    here has reported and there has not is set aside, as lost-0007: it is of another course of the search.

    keep_longer: it is of the same, so that of a trial's reports those are right which say more; none is set aside.

    Raises `InputError` where there is no experiment, and where the server does not answer.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(remote, folder, remote.listed(), keep_longer)
            break
        except FileNotFoundError as error:
            if attempt == ATTEMPTS:
                raise InputError(f"{remote}: changes while it is read ({error}); try again") from None
        except OSError as error:
            raise InputError(f"{remote}: cannot be brought to {folder}: {error.strerror or error}") from None


def _fetch(remote: RemoteFolder, folder: Path, there: dict[str, Listed], keep_longer: bool) -> None:
    if "experiment.json" not in there:
        raise InputError(f"{remote}: no experiment is there; python -m search TASK --storage makes one")
    wanted = [name for name, file in there.items() if _is_wanted(name) and not _is_here(folder / name, file)]
    if keep_longer:
        longer = set(reported_beyond(folder, there))
        wanted = [name for name in wanted if name not in longer]
    else:
        for name in reported_beyond(folder, there):
            if name not in there:
                _set_aside((folder / name).parent)
    if "study.db" in wanted:
        for journal in ("study.db-wal", "study.db-shm", "study.db-journal"):  # of the file that is replaced
            (folder / journal).unlink(missing_ok=True)
    # The record last: where it stands, there is an experiment.
    wanted.sort(key=lambda name: name == "experiment.json")
    _brought(remote, wanted[:-1], folder, there)
    _brought(remote, wanted[-1:], folder, there)
    fetch_checkpoints(remote, folder, there, keep=keep_longer)


def reported_beyond(folder: Path, there: dict[str, Listed]) -> list[str]:
    """Files of reports here that say more than those there, which may not be there at all."""
    files = {file.relative_to(folder).as_posix(): file for file in (folder / "trials").glob("*/reports.jsonl")}
    sizes = {name: file.stat().st_size for name, file in files.items() if OF_TRIALS.fullmatch(name)}
    return [name for name, size in sizes.items() if size > (there[name].size_bytes if name in there else -1)]


def reported_behind(folder: Path, there: dict[str, Listed]) -> list[str]:
    """Those there that say more than here."""
    reported = {name: file.size_bytes for name, file in there.items() if OF_TRIALS.fullmatch(name)}
    return [name for name, size in reported.items() if size > size_here(folder / name)]


def size_here(file: Path) -> int:
    """In bytes; 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _set_aside(trial: Path) -> None:
    shutil.rmtree(aside := trial.with_name(f"lost-{trial.name}"), ignore_errors=True)
    trial.rename(aside)


def fetch_checkpoints(remote: RemoteFolder, folder: Path, there: dict[str, Listed], keep: bool = False) -> None:
    """Predictions and notes of all checkpoints that are whole and reported; others that are here go.

    keep: those stay that are here with all of their files, as they may never have been sent. Raises
    `FileNotFoundError` where one has gone since `there` was listed.
    """
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for name, file in there.items():
        if match := CHECKPOINT.fullmatch(name):
            sizes[str(PurePosixPath(name).parent)][match[3]] = file.size_bytes
    changed = [
        place
        for place, files in sizes.items()
        if NOTE in files
        and not (_is_there(_noted(folder / place), files) and _is_here(*_predictions(folder, place, there)))
    ]
    read = remote.read_all([f"{place}/{NOTE}" for place in changed])
    notes = {place: json.loads(read[f"{place}/{NOTE}"]) for place in changed}
    epochs: dict[str, int] = {}
    whole = []
    for place in changed:
        note, trial = notes[place], str(PurePosixPath(place).parent)
        if trial not in epochs:
            newest = reports(folder / trial / "reports.jsonl", newest=1, curves=False)
            epochs[trial] = newest[0]["epoch"] if newest else 0
        complete = _is_there(note["files"], sizes[place]) and PREDICTIONS in note["files"]
        # What was saved and not yet reported when everything ended would leave a gap in the curves.
        if complete and note["epoch"] <= epochs[trial]:
            whole.append(place)
    _brought(remote, [f"{place}/{PREDICTIONS}" for place in whole], folder, there)
    for place in whole:
        write_note(folder / place, notes[place])
    kept = {place for place, files in sizes.items() if NOTE in files} - (set(changed) - set(whole))
    for checkpoint in (folder / "trials").glob("*/checkpoint_*"):
        if checkpoint.relative_to(folder).as_posix() not in kept and not (keep and _is_all_here(checkpoint)):
            shutil.rmtree(checkpoint)


def write_note(checkpoint: Path, note: dict[str, Any]) -> None:
    """Of a checkpoint here whose predictions only are here. note: that of the whole."""
    here = {name: size for name, size in note["files"].items() if name == PREDICTIONS}
    elsewhere = {name: size for name, size in note["files"].items() if name != PREDICTIONS}
    part = checkpoint / f"{NOTE}.part"
    part.write_text(json.dumps(note | {"files": here, "elsewhere": elsewhere}))
    part.replace(checkpoint / NOTE)


def whole_note(checkpoint: Path) -> dict[str, Any]:
    """That of the whole, from one here."""
    note = json.loads((checkpoint / NOTE).read_text())
    elsewhere = note.pop("elsewhere", {})
    return note | {"files": note["files"] | elsewhere}


def bring_networks(remote: RemoteFolder | None, folder: Path, checkpoint: Path) -> None:
    """The networks of a checkpoint of the experiment in `folder`, unless they are here.

    remote: where the experiment is; None: nowhere else. Raises `InputError` where they are not to be had.
    """
    note = json.loads((checkpoint / NOTE).read_text())
    missing = [
        name
        for name, size in note.get("elsewhere", {}).items()
        if name != "state.pt" and not ((checkpoint / name).exists() and (checkpoint / name).stat().st_size == size)
    ]
    if not missing:
        return
    place = checkpoint.relative_to(folder).as_posix()
    if remote is None:
        raise InputError(
            f"{checkpoint}: its networks are where the search keeps its results; give --results URL, as --storage of it"
        )
    try:
        remote.fetch([f"{place}/{name}" for name in missing], folder)
    except FileNotFoundError:
        raise InputError(f"{remote}/{place}: the networks are gone ({', '.join(missing)})") from None
    except OSError as error:
        raise InputError(f"{remote}/{place}: cannot be brought to {folder}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Place:
    """Where an experiment is: a folder of results, or a working copy of one at a URL."""

    folder: Path
    remote: RemoteFolder | None = None

    @property
    def above(self) -> "Place":
        """Where the experiments beside it are."""
        return Place(self.folder.parent, None if self.remote is None else self.remote.above)

    def bring(self, within: str) -> None:
        """A folder of the experiment with all of its files, as best/ with its networks."""
        if self.remote is not None:
            there = self.remote.listed(within)
            changed = [name for name, file in there.items() if not _is_here(self.folder / name, file)]
            _brought(self.remote, changed, self.folder, there)

    def send(self, *names: str) -> str | None:
        """Files, and folders with all that is in them, to the URL. Returns that of the first; None where there is no
        URL."""
        if self.remote is None:
            return None
        files: list[Path] = []
        for path in (self.folder / name for name in names):
            files += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        self.remote.send([file.relative_to(self.folder).as_posix() for file in files], self.folder)
        return f"{self.remote}/{names[0]}"


def placed(name: str, results: str | Path) -> Place:
    """An experiment by its name below a folder or URL, by its own path, or by its own URL; what is elsewhere is brought
    here, into the store, as far as it has changed. Raises `InputError` where a URL has none."""
    url = name if is_url(name) else str(results)
    if not is_url(url):
        folder, here = Path(results) / name, Path(name)
        is_path = not (folder / "experiment.json").exists() and (here / "experiment.json").exists()
        return Place(here if is_path else folder)
    remote = RemoteFolder(url) if is_url(name) else RemoteFolder(url).below(name)
    beside = hashlib.sha256(remote.above.url.encode()).hexdigest()[:16]
    folder = store_folder() / "results" / beside / remote.name
    fetch(remote, folder)
    return Place(folder, remote)


def _is_wanted(name: str) -> bool:
    first, below, rest = name.partition("/")
    if not below:
        return not (first.startswith(".") or first.endswith(".part") or first in (*REPORT_FILES, "owner.json"))
    if first == "trials":
        return OF_TRIALS.fullmatch(name) is not None
    return first in ("best", "refit") and not rest.endswith((".safetensors", ".part"))


def _is_here(file: Path, listed: Listed) -> bool:
    """By size and time, which `_brought` sets."""
    try:
        stat = file.stat()
    except OSError:
        return False
    return stat.st_size == listed.size_bytes and (listed.changed_ns is None or stat.st_mtime_ns == listed.changed_ns)


def _brought(remote: RemoteFolder, names: list[str], folder: Path, there: dict[str, Listed]) -> None:
    remote.fetch(names, folder)
    for name in names:
        if (changed_ns := there[name].changed_ns) is not None:
            os.utime(folder / name, ns=(changed_ns, changed_ns))


def _noted(checkpoint: Path) -> dict[str, int]:
    """Sizes of all files of a checkpoint that has been brought; {} where it has not."""
    try:
        files: dict[str, int] = whole_note(checkpoint)["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return files


def _is_all_here(checkpoint: Path) -> bool:
    try:
        return "elsewhere" not in json.loads((checkpoint / NOTE).read_text())
    except (OSError, ValueError):
        return False


def _is_there(noted: dict[str, int], sizes: dict[str, int]) -> bool:
    """Whether all files of a checkpoint are, by their sizes."""
    return bool(noted) and all(sizes.get(name) == size for name, size in noted.items())


def _predictions(folder: Path, place: str, there: dict[str, Listed]) -> tuple[Path, Listed]:
    name = f"{place}/{PREDICTIONS}"
    return folder / name, there.get(name, Listed(-1, None))
