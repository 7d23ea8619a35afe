"""Standard streams that cannot fail a run: what was worked out is worth more than the lines that tell of it.

A closed pipe, a full disk or a closed descriptor is noted and does not raise; a sign that the stream's encoding lacks
is replaced. Text that comes from files and names is printed without control characters, which could steer a terminal.
"""

import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["OutputFailure", "console", "printable", "safe_streams"]

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and newline, and those that change the direction of text."""


class OutputFailure:
    """Why standard output could not take all that was printed."""

    error: OSError | None = None
    """The first error; None if everything was printed."""

    @property
    def reader_left(self) -> bool:
        """Whether the reader of a pipe closed it, as `head` does."""
        return isinstance(self.error, BrokenPipeError)


class _PatientFile(io.RawIOBase):
    """A file that notes the first error of a write, and swallows what comes after it."""

    def __init__(self, raw: io.RawIOBase, failure: OutputFailure) -> None:
        self._raw, self._failure = raw, failure

    def write(self, data: Any, /) -> int:
        """Write, or pretend to."""
        if self._failure.error is None:
            try:
                while (written := self._raw.write(data)) is None:
                    select.select([], [self._raw], [])  # a pipe that does not block, and is full
                return written
            except OSError as error:
                self._failure.error = error
        return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._raw.isatty()


@contextmanager
def safe_streams() -> Iterator[OutputFailure]:
    """Make standard output and the error stream safe in the block; yield what goes wrong with standard output."""
    _open_closed_descriptors()
    before, failure = (sys.stdout, sys.stderr), OutputFailure()
    sys.stdout, sys.stderr = _safe(sys.stdout, failure), _safe(sys.stderr, OutputFailure())
    try:
        yield failure
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for stream, old in zip((sys.stdout, sys.stderr), before, strict=True):
            if old is None:
                stream.close()
        sys.stdout, sys.stderr = before


def printable(text: str) -> str:
    """Return text without control characters, which a terminal could obey; a replacement mark takes their place."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """Return a console that prints text as it is: no emoji codes, no control characters."""
    from rich.console import Console  # slow to import
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **given: Any) -> Text:
            return super().render_str(printable(text), **given)

    return PlainConsole(stderr=stderr, width=width, emoji=False)


def _open_closed_descriptors() -> None:
    """Give closed standard descriptors to the null device: a result's file must not get the number of one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _safe(stream: TextIO | None, failure: OutputFailure) -> TextIO:
    if stream is None:  # its descriptor was closed when the interpreter started
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (open until the process ends)
    raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
        return stream
    with suppress(OSError):
        stream.flush()
    # a stray line of a C library may come between, so lines leave at once where a person reads them
    return io.TextIOWrapper(
        io.BufferedWriter(_PatientFile(raw, failure)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
