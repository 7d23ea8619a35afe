"""Several processes that do one job, started by `accelerate launch`; with one process, nothing here does anything.

Every process holds the whole model. Calibration batches are dealt out and sums added up, training splits every batch,
and what depends on clocks or writes files is done by the first process alone.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from whet.errors import InvalidData

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "from_first_process",
    "is_first",
    "items_of_process",
    "join_processes",
    "leave_processes",
    "process_count",
    "rows_of_process",
    "sum_over_processes",
    "wait_for_all",
]

T = TypeVar("T")


def join_processes(device: str) -> str:
    """Join the other processes, if there are any, and return this one's own device.

    Args:
        device: as torch names it; of several GPUs in one machine, each process takes its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState  # slow to import, and needless for one process

    state = PartialState(cpu=device == "cpu")
    return str(state.device) if device == "cuda" else device


def leave_processes() -> None:
    """Part from the other processes."""
    if group := _group():
        group.destroy_process_group()


def process_count() -> int:
    """Return how many processes there are."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def is_first() -> bool:
    """Return whether this is the process that writes and speaks."""
    return _rank() == 0


def items_of_process(items: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Yield the items that fall to this process, each with its place among all.

    Raises:
        InvalidData: there are fewer than processes.
    """
    if len(items) < process_count():
        raise InvalidData(
            f"every process must have a batch, but got {len(items)} for {process_count()}; give more examples"
        )
    yield from list(enumerate(items))[_rank() :: process_count()]


def rows_of_process(batch: Mapping[str, "Tensor"]) -> tuple[dict[str, "Tensor"], float]:
    """Return this process's rows of a batch, and what their mean counts in the mean over processes.

    The mean of all processes' weighted means is then the mean over the batch, also where it does not divide evenly; a
    process without a row takes one that does not count.
    """
    total = len(next(iter(batch.values())))
    rank = _rank()
    own = len(range(rank, total, process_count()))
    rows = {key: value[rank :: process_count()] if own else value[:1] for key, value in batch.items()}
    return rows, own * process_count() / total


def sum_over_processes(part: "Tensor") -> "Tensor":
    """Return the sum over all processes, in the place of this one's part."""
    if group := _group():
        group.all_reduce(part)
    return part


def from_first_process(make: Callable[[], T]) -> T:
    """Return what the first process makes, in all of them; an error there is raised in all of them too."""
    group = _group()
    if group is None:
        return make()
    # (pickled on its way between processes of one job, and never kept)
    sent: list[Any] = [None, None]
    if is_first():
        try:
            sent[0] = make()
        except Exception as error:
            sent[1] = error
    group.broadcast_object_list(sent)
    if sent[1] is not None:
        raise sent[1]
    found: T = sent[0]
    return found


def wait_for_all() -> None:
    """Return once every process has come here."""
    if _group():
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _group() -> Any:
    """torch.distributed where this process has joined others, or None; who never imported torch has joined nobody."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def _rank() -> int:
    group = _group()
    return int(group.get_rank()) if group else 0
