"""Several processes that do one job, started by `accelerate launch`; with one process, nothing here does anything.

Every process holds the whole model. Calibration batches are dealt out and sums added up, training splits every batch,
and what depends on clocks or writes files is done by the first process alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from whet.errors import InvalidData

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
    state = PartialState(cpu=device == "cpu")
    return str(state.device) if device == "cuda" else device


def leave_processes() -> None:
    """Part from the other processes."""
    if _joined():
        dist.destroy_process_group()


def process_count() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _joined() else 1


def is_first() -> bool:
    """Return whether this is the process that writes and speaks."""
    return not _joined() or dist.get_rank() == 0


def items_of_process(items: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Yield the items that fall to this process, each with its place among all.

    Raises:
        InvalidData: there are fewer than processes.
    """
    if len(items) < process_count():
        raise InvalidData(
            f"every process must have a batch, but got {len(items)} for {process_count()}; give more examples"
        )
    rank = dist.get_rank() if _joined() else 0
    yield from list(enumerate(items))[rank :: process_count()]


def rows_of_process(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Return this process's rows of a batch, and what their mean counts in the mean over processes.

    The mean of all processes' weighted means is then the mean over the batch, also where it does not divide evenly; a
    process without a row takes one that does not count.
    """
    total = len(next(iter(batch.values())))
    rank = dist.get_rank() if _joined() else 0
    own = len(range(rank, total, process_count()))
    rows = {key: value[rank :: process_count()] if own else value[:1] for key, value in batch.items()}
    return rows, own * process_count() / total


def sum_over_processes(part: Tensor) -> Tensor:
    """Return the sum over all processes, in the place of this one's part."""
    if _joined():
        dist.all_reduce(part)
    return part


def from_first_process(make: Callable[[], T]) -> T:
    """Return what the first process makes, in all of them; an error there is raised in all of them too."""
    if not _joined():
        return make()
    # (pickled on its way between processes of one job, and never kept)
    sent: list[Any] = [None, None]
    if is_first():
        try:
            sent[0] = make()
        except Exception as error:
            sent[1] = error
    dist.broadcast_object_list(sent)
    if sent[1] is not None:
        raise sent[1]
    found: T = sent[0]
    return found


def wait_for_all() -> None:
    """Return once every process has come here."""
    if _joined():
        PartialState().wait_for_everyone()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
