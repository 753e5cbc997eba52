"""Files that pass through a machine, on their way to a remote folder or from one."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from datasets.stores import store_folder


@contextlib.contextmanager
def passing_folder() -> Iterator[Path]:
    """An empty folder for files on their way somewhere else: in the store, and elsewhere where that cannot be written.
    It goes at the end, or, where its process has died before, when the next one is asked for."""
    passing = store_folder() / "passing"
    try:
        passing.mkdir(parents=True, exist_ok=True)
        writable = os.access(passing, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    for left in passing.glob("*.lock"):
        with contextlib.suppress(Timeout), FileLock(left, timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
    folder = passing / secrets.token_hex(8)
    lock = folder.with_suffix(".lock")
    with FileLock(lock):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
