"""Progress bars for long work: on a terminal only, on standard error, so that piped output stays clean."""

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from whet.utils.distributed import is_first

__all__ = ["ProgressBar", "progress_bar", "say", "track"]

T = TypeVar("T")


class ProgressBar:
    """A bar that has begun; `advance` moves it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: float = 1, *, note: str | None = None) -> None:
        """Move on by `steps`; `note` replaces the description."""
        self._progress.update(self._task, advance=steps, description=note)

    def reach(self, done: float) -> None:
        """Set how much is done."""
        self._progress.update(self._task, completed=done)


def say(sentence: str) -> None:
    """Print a sentence to the error stream."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str, total: float, *, hidden: bool = False) -> Iterator[ProgressBar]:
    """Show a bar with the time left until the block ends; a hidden one is not drawn."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden or not (sys.stderr.isatty() and is_first()),
        transient=True,
    )
    with progress:
        yield ProgressBar(progress, progress.add_task(description, total=total))


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items, moving a bar."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    with progress_bar(description, count) as shown:
        for item in items:
            yield item
            shown.advance()
