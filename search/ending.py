"""A search that is asked to end: Ctrl-C, or SIGTERM of `kill`, of a time limit, of a machine that is switched off; or
by itself, as it lacks what it cannot go on without.

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
    """Notes that it was asked for; a signal after that ends whatever is going on by a `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.why: str | None = None
        """Who or what has asked first, for people to read, as "SIGTERM"; None: nobody has."""
        self.signal: signal.Signals | None = None
        """By which it was asked for; None also where nobody has sent one."""
        self._at = 0.0

    @property
    def asked(self) -> bool:
        return self.why is not None

    def ask(self, why: str) -> None:
        """From any thread, and whatever is done with signals: those that are ignored, as Ctrl-C is behind `&` in a
        script, arrive nowhere. why: a few words for people, as "the study's database is away"."""
        if not self.asked:
            self._at, self.why = time.monotonic(), why

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
        if not self.asked:
            self.signal = signal.Signals(number)
            self.ask(self.signal.name)
        elif time.monotonic() - self._at >= ONCE_S:
            raise KeyboardInterrupt


def leave_on_sigterm() -> None:
    """With the status of a program that SIGTERM has ended, after putting away what was opened: Ray's own handler, which
    it sets when it is started, leaves with another."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
