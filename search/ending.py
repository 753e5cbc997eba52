"""A search that is asked to end: Ctrl-C, or SIGTERM of `kill`, of a time limit, of a machine that is switched off.

Imports no Ray, which reads its settings when it is imported: `search.farewell` is what a search then does.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

ONCE_S = 1.0
"""A second signal within this time belongs to the first: `timeout` and others send it to a process and to its group."""


class Ending:
    """Notes the first signal; a second one ends whatever is going on by a `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at = 0.0

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Signals are noted meanwhile, but for those that are ignored, as Ctrl-C is under nohup. Only the main thread
        can catch them: elsewhere, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._at = signal.Signals(number), now
        elif now - self._at >= ONCE_S:
            raise KeyboardInterrupt


def leave_on_sigterm() -> None:
    """With the status of a program that SIGTERM has ended, after putting away what was opened: Ray's own handler, which
    it sets when it is started, leaves with another."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
