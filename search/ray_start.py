"""Around Ray's start: what it makes, starts and tells of us is not as it would have it."""

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Iterator

from search.study_address import public


@contextlib.contextmanager
def groups_of_their_own() -> Iterator[None]:
    """For the processes that Ray starts meanwhile. What is sent to all of ours, as by `timeout` and shells, is for the
    driver to hear and end in order; Ray's, which would end at once, go when it does."""
    from ray._private import services

    started = services.ConsolePopen
    services.ConsolePopen = functools.partial(started, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = started


@contextlib.contextmanager
def secrets_kept() -> Iterator[None]:
    """Ray shows the command line of each driver to whoever sees its dashboard, or asks it: passwords and keys of URLs
    too."""
    from ray._private import utils

    told = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: shlex.join(map(public, sys.orig_argv))
    try:
        yield
    finally:
        utils.get_entrypoint_name = told


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
