"""Progress on standard error: bars on a terminal; in a log, which a bar would fill, one line a minute.

What a command says besides its results depends on how much of it the user wants: nothing (`quiet`), notes and progress,
or also every step, with its time (`verbose`). Error messages are always printed.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from whet.utils.distributed import is_first
from whet.utils.streams import console, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "ProgressBar",
    "Verbosity",
    "activity",
    "aside",
    "detail",
    "note",
    "progress_bar",
    "quiet",
    "say",
    "speaking",
    "time_bar",
    "time_in_words",
    "track",
    "without_foreign_bars",
]

T = TypeVar("T")
Verbosity = Literal["quiet", "normal", "verbose"]
"""How much is said besides results and errors."""
EVERY = 60.0
"""Seconds between two lines in a log, and before the first."""
_LEAST_SHARE = 0.05
"""A share done, below which the time left cannot be told."""


class ProgressBar:
    """How far one piece of work is."""

    def __init__(self, description: str, total: float | None) -> None:
        self.description = description
        self.total = total
        self.done = 0.0
        self.begun = time.monotonic()
        self.reached: float | None = None

    def advance(self, steps: float = 1, *, note: str | None = None) -> None:
        """Advance the bar by `steps`; `note` replaces its description."""
        self.description = note or self.description
        self.reach(self.done + steps)

    def reach(self, done: float) -> None:
        """Set the number of completed steps."""
        self.done, self.reached = done, time.monotonic()
        _BOARD.changed(self)

    @property
    def share(self) -> float:
        """The part that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class _TimeBar(ProgressBar):
    """How much of a given time has passed."""

    def reach(self, done: float) -> None:
        """Show how much has passed, whatever is said to be done."""
        super().reach(time.monotonic() - self.begun)
        self.reached = None

    @property
    def share(self) -> float:
        """The part that has passed, 0 to 1."""
        self.done = time.monotonic() - self.begun
        return super().share


class _Board:
    """All the work that is under way, and the one place where it is shown; standard error is the process's own too."""

    def __init__(self) -> None:
        self.verbosity: Verbosity = "normal"
        self._bars: list[ProgressBar] = []
        self._lock = threading.RLock()
        self._ended: threading.Event | None = None
        self._screen: Progress | None = None
        self._tasks: dict[ProgressBar, TaskID] = {}

    def add(self, bar: ProgressBar) -> None:
        """Show a bar until it is removed."""
        if self.verbosity == "quiet" or not is_first():
            return
        with self._lock:
            self._bars.append(bar)
            if not sys.stderr.isatty():
                self._start_log()
            elif bar.total is not None:
                self._screen = self._screen or _new_screen()
                self._tasks[bar] = self._screen.add_task(bar.description, total=bar.total)
                self._screen.start()

    def changed(self, bar: ProgressBar) -> None:
        """Show how far a bar is."""
        if self._screen is not None and bar in self._tasks:
            self._screen.update(self._tasks[bar], completed=bar.done, description=bar.description)

    def remove(self, bar: ProgressBar) -> None:
        """Show a bar no more."""
        with self._lock:
            if bar not in self._bars:
                return
            self._bars.remove(bar)
            if self._screen is not None and bar in self._tasks:
                self._screen.remove_task(self._tasks.pop(bar))
                if not self._tasks:
                    self._screen.stop()
                    self._screen = None
            if not self._bars and self._ended is not None:
                self._ended.set()
                self._ended = None
        if bar.total is not None:
            detail(f"{bar.description}: {time_in_words(time.monotonic() - bar.begun)}")

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bars off the screen in the block, so that lines can be printed."""
        with self._lock:
            if self._screen is None:
                yield
                return
            self._screen.stop()
            try:
                yield
            finally:
                self._screen.start()

    def _start_log(self) -> None:
        if self._ended is None:
            self._ended = threading.Event()
            threading.Thread(target=self._write_log, args=[self._ended], name="progress", daemon=True).start()

    def _write_log(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            if bars := tuple(self._bars):
                with suppress(OSError, ValueError):  # the stream may be closed
                    say(progress_line(bars, time.monotonic()))


_BOARD = _Board()


def progress_line(bars: Sequence[ProgressBar], now: float) -> str:
    """Return how far the outermost work is, and what it is at.

    Args:
        bars: the work under way, the outermost first; at least one.
        now: reading of the monotonic clock.
    """
    known = [bar for bar in bars if bar.total]
    if not known:
        return f"{bars[0].description}: at work for {time_in_words(now - bars[0].begun)}"
    outer, spent = known[0], now - known[0].begun
    line = f"{outer.description}: {outer.share:.0%} after {time_in_words(spent)}".replace("%", " %")
    since = 0.0 if outer.reached is None else now - outer.reached
    if _LEAST_SHARE <= outer.share < 1 and (left := (spent - since) * (1 - outer.share) / outer.share - since) > 0:
        line += f", about {time_in_words(left)} left"
    inner = known[-1]
    return f"{line} ({inner.description}: {inner.share:.0%})".replace("%)", " %)") if inner is not outer else line


def time_in_words(seconds: float) -> str:
    """Return a time as people say it: 0.4 s, 45 s, 3 min, 1 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{minutes} min" if not hours else f"{hours} h {minutes} min"


@contextmanager
def speaking(verbosity: Verbosity) -> Iterator[None]:
    """Say this much in the block."""
    before, _BOARD.verbosity = _BOARD.verbosity, verbosity
    try:
        yield
    finally:
        _BOARD.verbosity = before


def quiet() -> bool:
    """Return whether nothing but results and errors is wanted."""
    return _BOARD.verbosity == "quiet"


def say(sentence: str) -> None:
    """Print a sentence to the error stream."""
    with aside():
        print(printable(sentence), file=sys.stderr, flush=True)


def note(sentence: str) -> None:
    """Print what the user should know to the error stream, unless nothing but results and errors is wanted."""
    if not quiet():
        say(f"note: {sentence}")


def detail(sentence: str) -> None:
    """Print a step to the error stream, where the user wants to see every one."""
    if _BOARD.verbosity == "verbose" and is_first():
        say(f"- {sentence}")


@contextmanager
def aside() -> Iterator[None]:
    """Take progress bars off the screen in the block, which prints lines."""
    with _BOARD.hidden():
        yield


@contextmanager
def activity(description: str) -> Iterator[None]:
    """Say in a log, once a minute, that something is under way in the block, until a bar in it says how far."""
    bar = ProgressBar(description, None)
    _BOARD.add(bar)
    try:
        yield
    finally:
        _BOARD.remove(bar)


@contextmanager
def progress_bar(description: str, total: float, *, hidden: bool = False) -> Iterator[ProgressBar]:
    """Show how far the block is: a bar on a terminal, a line a minute in a log. Bars within bars are shown together.

    Args:
        description: text beside the bar.
        total: number of steps.
        hidden: whether to show nothing.
    """
    bar = ProgressBar(description, total)
    if not hidden:
        _BOARD.add(bar)
    try:
        yield bar
    finally:
        _BOARD.remove(bar)


@contextmanager
def time_bar(description: str, seconds: float, *, spent: float = 0.0) -> Iterator[ProgressBar]:
    """Show how much of a given time has passed while the block runs; `advance(0, note=...)` says what it is at.

    Args:
        description: text beside the bar.
        seconds: the time.
        spent: how much of it had passed before.
    """
    bar = _TimeBar(description, round(seconds))
    bar.begun -= spent
    _BOARD.add(bar)
    try:
        yield bar
    finally:
        _BOARD.remove(bar)


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items and show a progress bar.

    Args:
        items: the items to iterate over.
        description: text beside the bar.
        total: number of items; needed only if `items` has no length.
    """
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    with progress_bar(description, count) as bar:
        for item in items:
            yield item
            bar.advance()


class _ForeignBars:
    """Whether transformers may show its own bars; blocks of several threads may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before: Any = None

    @contextmanager
    def hidden(self) -> Iterator[None]:
        from transformers.utils import logging  # slow to import

        with self._lock:
            if self._blocks == 0:
                self._before = logging.set_tqdm_hook(lambda factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    logging.set_tqdm_hook(self._before)


_FOREIGN = _ForeignBars()


@contextmanager
def without_foreign_bars() -> Iterator[None]:
    """Keep transformers from showing its own bars in the block; the user's settings of them, and downloads, stay."""
    with _FOREIGN.hidden():
        yield


def _new_screen() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # slow to import

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results must not move to the error stream
        redirect_stderr=False,
    )
