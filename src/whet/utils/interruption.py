"""Ends a piece of work once its time is over, at any step of Python, as Ctrl-C would.

Work that takes long in libraries, such as training or an export, has no place to ask for the time. An exception that
another thread raises in it needs none. It comes between two steps of Python, so that a call into a library ends first.
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TypeVar

__all__ = ["TimeIsOver", "importer", "within"]

T = TypeVar("T")

AGAIN = 0.5
"""Seconds after which the exception is raised again, where a callback swallowed it."""


class TimeIsOver(BaseException):
    """The time of a piece of work is over; no Exception, so that no code takes it for a failure of its own."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what work returns, unless its time is over first.

    Nothing is raised within an import, which could not be repeated: its end is waited for.

    Args:
        seconds: of wall-clock time that it may take; no limit where infinite.
        work: what to do, in this thread.

    Raises:
        TimeIsOver: it took longer.
    """
    if seconds >= threading.TIMEOUT_MAX:
        return work()
    thread, guard, ended = threading.get_ident(), threading.Lock(), threading.Event()

    def guarded() -> T:
        return work()

    def watch() -> None:
        wait = max(0.0, seconds)
        while not ended.wait(wait):
            wait = AGAIN
            with guard:
                stack = sys._current_frames().get(thread)
                if not ended.is_set() and _holds(stack, guarded.__code__) and not importer(stack):
                    _raise(thread, TimeIsOver)

    def stop() -> None:
        with guard:
            ended.set()
            _raise(thread, None)  # takes back what has not arrived

    threading.Thread(target=watch, name="time limit", daemon=True).start()
    try:
        try:
            return guarded()
        finally:
            stop()
    except TimeIsOver:
        stop()  # a last one may have come into the first call of it
        raise


def _holds(frame: FrameType | None, code: CodeType) -> bool:
    """Whether a function is at work below a frame."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _raise(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread, or take back one that has not arrived there."""
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


def importer(frame: FrameType | None) -> str:
    """Return the module of the outermost code that waits for an import, or nothing if none does."""
    found, within = "", False
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            within = True
        elif within:
            found, within = str(frame.f_globals.get("__name__")), False
        frame = frame.f_back
    return found
