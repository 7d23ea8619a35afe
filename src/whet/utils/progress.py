"""Progress bars on standard error, and only on a terminal, so that piped output stays clean."""

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from whet.utils.distributed import is_first
from whet.utils.streams import console, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar", "progress_bar", "say", "track"]

T = TypeVar("T")


class ProgressBar:
    """A progress bar on the screen."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: float = 1, *, note: str | None = None) -> None:
        """Advance the bar by `steps`; `note` replaces its description."""
        self._progress.update(self._task, advance=steps, description=note)

    def reach(self, done: float) -> None:
        """Set the number of completed steps."""
        self._progress.update(self._task, completed=done)


def say(sentence: str) -> None:
    """Print a sentence to the error stream."""
    print(printable(sentence), file=sys.stderr, flush=True)


@contextmanager
def progress_bar(description: str, total: float, *, hidden: bool = False) -> Iterator[ProgressBar]:
    """Show a progress bar with the remaining time while the block runs.

    Args:
        description: text beside the bar.
        total: number of steps.
        hidden: whether to draw nothing.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # slow to import

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        disable=hidden or not (sys.stderr.isatty() and is_first()),
        transient=True,
    )
    with progress:
        yield ProgressBar(progress, progress.add_task(description, total=total))


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
