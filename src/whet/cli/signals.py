"""Ctrl-C, SIGTERM and SIGHUP end a run the same way: as an exception, so that everything cleans up behind itself."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from whet.utils.interruption import importer
from whet.utils.progress import say

__all__ = ["STOPPED", "Stops", "stopped_by_signals"]

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
STOPPED = "stopped; nothing half-written was left"
_AGAIN = 0.02
"""Seconds after which a signal is handled again that could not be answered."""


class Stops:
    """The signals that were sent to stop a run."""

    first: int | None = None
    """The first of them."""

    def __init__(self) -> None:
        self._warned = self._leaving = False
        self._again: threading.Timer | None = None

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + (self.first or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; while that is cleaned up after, warn first and then end at once.

        Nothing is raised within an import, where C++ may have no way to pass it on: before any work the process ends
        there, and later the import is waited for.

        Raises:
            KeyboardInterrupt: the run is to stop.
        """
        if self._leaving:
            os._exit(self.exit_code)
        if self.first is None:
            self.first = number
        waiting = importer(frame)
        if waiting.startswith("whet.cli."):
            self.leave()
        if waiting:
            self._repeat()
            return
        if not _stopping(sys.exc_info()[1]):
            raise KeyboardInterrupt
        if self._warned:
            os._exit(self.exit_code)
        self._warned = True
        say("cleaning up; a third time ends at once and may leave drafts behind")

    def unraisable(self, given: Any) -> None:
        """Raise an exception of ours again that came where none can be raised, such as a callback of a weak pointer."""
        if isinstance(given.exc_value, KeyboardInterrupt) and self.first is not None:
            self._repeat()
        else:
            sys.__unraisablehook__(given)

    def leave(self) -> NoReturn:
        """Say that the run was stopped, and end the process.

        The interpreter's own end is not waited for: where a C library met the exception it ends by a signal instead.
        """
        self._leaving = True
        say(STOPPED)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.exit_code)

    def _repeat(self) -> None:
        """Have the signal handled again in a moment."""
        # sent to the main thread, which may wait in a call of the system
        self._again = threading.Timer(_AGAIN, signal.pthread_kill, [threading.main_thread().ident, self.first])
        self._again.start()

    def end(self) -> None:
        """Raise nothing any more."""
        if self._again is not None:
            self._again.cancel()
            self._again.join()


@contextmanager
def stopped_by_signals() -> Iterator[Stops]:
    """Answer signals in the block with KeyboardInterrupt; those that the parent process ignores stay ignored."""
    stops, before = Stops(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    hook = sys.unraisablehook
    for number in taken:
        signal.signal(number, stops.handle)
    sys.unraisablehook = stops.unraisable
    try:
        yield stops
    finally:
        stops.end()
        sys.unraisablehook = hook
        for number, old in taken.items():
            signal.signal(number, old)


def _stopping(error: BaseException | None) -> bool:
    """Return whether an exception, or one that it came after, is the one that stops the run."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
