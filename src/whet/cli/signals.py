"""Ctrl-C, SIGTERM and SIGHUP end a run the same way: as an exception, so that everything cleans up behind itself."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from whet.utils.progress import say

__all__ = ["Stops", "stopped_by_signals"]

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_AGAIN = 0.02
"""Seconds after which an exception that was swallowed is raised again."""


class Stops:
    """The signals that were sent to stop a run."""

    first: int | None = None
    """The first of them."""

    def __init__(self) -> None:
        self._warned = False

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + (self.first or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; while that is cleaned up after, warn first and then end at once.

        Raises:
            KeyboardInterrupt: the run is to stop.
        """
        if self.first is None:
            self.first = number
        if not _stopping(sys.exc_info()[1]):
            raise KeyboardInterrupt
        if self._warned:
            os._exit(self.exit_code)
        self._warned = True
        say("cleaning up; a third time ends at once and may leave drafts behind")

    def unraisable(self, given: Any) -> None:
        """Raise an exception of ours again that came where none can be raised, as in the import system's callbacks."""
        if isinstance(given.exc_value, KeyboardInterrupt) and self.first is not None:
            threading.Timer(_AGAIN, signal.raise_signal, [self.first]).start()
        else:
            sys.__unraisablehook__(given)


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
        sys.unraisablehook = hook
        for number, old in taken.items():
            signal.signal(number, old)


def _stopping(error: BaseException | None) -> bool:
    """Return whether an exception, or one that it came after, is the one that stops the run."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
