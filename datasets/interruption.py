"""Ctrl-C while `python -m datasets`, `analysis`, `search` or `search.…` starts: one line, where Python would print the
middle of an import.

The package imports this before anything large: numpy and polars take most of the first second, and an exception in the
midst of them is not always a KeyboardInterrupt.
"""

import os
import signal
import sys
from itertools import pairwise
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


def started() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, as usual."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# While `-m` looks for its module, this is its argv[0]. Where Ctrl-C is ignored, as under nohup, it stays so.
if (
    sys.argv[:1] == ["-m"]
    and any(
        before == "-m" and name.partition(".")[0] in ("datasets", "analysis", "search")
        for before, name in pairwise(sys.orig_argv)
    )
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _leave)
