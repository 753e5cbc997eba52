"""A database of SQLite as it is at one moment, while others write it."""

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

PATIENCE_S = 60
"""How long it waits for a writer."""


def snapshot(file: Path) -> bytes:
    """The content of one plain file, which needs no journal beside it."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / file.name
        with (
            contextlib.closing(
                sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=PATIENCE_S)
            ) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        return copy.read_bytes()
