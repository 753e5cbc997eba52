"""A search whose results are at a URL: one at a time there, and what was done elsewhere is brought here first."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from analysis.fetched import fetch, fetch_checkpoints
from datasets import InputError
from datasets.remote import RemoteFolder
from search.mirror import Mirror, Say
from search.owner import alone_at
from search.records import alone_in


@contextlib.contextmanager
def mirrored(remote: RemoteFolder, folder: Path, resume: bool, say: Say) -> Iterator[Mirror]:
    """A mirror of `folder`, which has first been made what is there where a search is to go on.

    Raises `InputError`, before anything is written here, where the URL cannot be written, somebody else searches
    there, or an experiment is there that is not to go on.
    """
    with alone_at(remote) as owner:
        is_there = "experiment.json" in remote.files()
        if is_there and not resume:
            raise InputError(f"{remote}: there is an experiment: go on with --resume, or choose another --name")
        if is_there:
            merge(remote, folder)
        mirror = Mirror(remote, folder, owner, say)
        try:
            yield mirror
        finally:
            mirror.stop()


def merge(remote: RemoteFolder, folder: Path) -> None:
    """Brings here what has been done elsewhere since; where nobody has, what is here is no less, and stays.

    Raises `InputError` where the two are different experiments.
    """
    try:
        here = json.loads((folder / "experiment.json").read_text())
    except (OSError, ValueError):
        here = None
    if here is not None:
        there = json.loads(remote.read("experiment.json"))
        if there["started"] != here["started"]:
            raise InputError(
                f"{folder}: is another experiment than {remote}; choose another --name, or another folder of --results"
            )
        if here["sessions"][: len(there["sessions"])] == there["sessions"]:
            with alone_in(folder):
                # Saved there, and not brought here before the search was cut off.
                fetch_checkpoints(remote, folder, remote.listed(), keep=True)
            return
    with alone_in(folder):
        fetch(remote, folder)
