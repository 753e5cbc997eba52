"""A search whose results are at a URL: one at a time there, and what was done elsewhere is brought here first."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from analysis.fetched import fetch, fetch_checkpoints, reported_behind
from datasets import InputError
from datasets.remote import RemoteFolder
from search.ending import Ending
from search.mirror import Mirror, Say
from search.owner import alone_at
from search.records import alone_in
from search.study_address import OF_ITS_OWN


@contextlib.contextmanager
def mirrored(remote: RemoteFolder, folder: Path, resume: bool, say: Say, ending: Ending) -> Iterator[Mirror]:
    """A mirror of `folder`, which has first been made what is there where a search is to go on.

    ending: is asked for when somebody else goes on with the search.

    Raises `InputError`, before anything is written here, where the URL cannot be written, somebody else searches
    there, or an experiment is there that is not to go on.
    """
    with alone_at(remote, ending.ask) as owner:
        is_there = "experiment.json" in remote.files()
        if is_there and not resume:
            raise InputError(
                f"{remote}: there is an experiment: go on with --resume, or choose another --name{OF_ITS_OWN}"
            )
        if is_there:
            merge(remote, folder)
        mirror = Mirror(remote, folder, owner, say)
        try:
            yield mirror
        finally:
            mirror.stop()


def merge(remote: RemoteFolder, folder: Path) -> None:
    """Brings here what has been done elsewhere since; where nobody has, what is here is no less, and stays.

    Within one course of a search reports are only added to, so that the longer ones are the later ones. Where what is
    there is later, as here is a copy that was made in the middle, or a disk that has lost its last seconds, it is
    brought here. Raises `InputError` where the two are different experiments, or have gone on apart.
    """
    try:
        here = json.loads((folder / "experiment.json").read_text())
    except (OSError, ValueError):
        here = None
    same_course = False
    if here is not None:
        there = json.loads(remote.read("experiment.json"))
        if there["started"] != here["started"]:
            raise InputError(
                f"{folder}: is another experiment than {remote}; choose another --name, or another folder of --results"
            )
        same_course = here["sessions"][: len(there["sessions"])] == there["sessions"]
    with alone_in(folder):
        if same_course:
            listed = remote.listed()
            behind = reported_behind(folder, listed)
            if not behind:
                # Saved there, and not brought here before the search was cut off.
                fetch_checkpoints(remote, folder, listed, keep=True)
                return
            if here["sessions"] != there["sessions"]:
                raise InputError(
                    f"{folder}: has gone on without {remote}, where {behind[0]} says more; to go on from there, choose "
                    f"another folder of --results"
                )
        fetch(remote, folder, keep_longer=same_course)
