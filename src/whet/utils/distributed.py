"""Work shared by several processes, as `accelerate launch` starts them; with one process, nothing here has an effect.

Every process holds the whole model. Calibration batches are divided among processes and their sums added up; training
divides every batch; only the first process times models and writes files.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from whet.errors import InvalidData, InvalidParameter
from whet.utils.parameters import shown, whole_number_in

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

_OF_A_PROCESS = ("RANK", "LOCAL_RANK", "MASTER_PORT")
"""What the environment says of one of several processes, as numbers."""


def join_processes(device: str) -> str:
    """Join the other processes, if there are any, and return the device of this process.

    Args:
        device: device as torch names it; for "cuda", each process gets a GPU of its own.

    Raises:
        InvalidParameter: the variables of the environment that say which process this is are incomplete or wrong.
    """
    if _processes_started() == 1:
        return device
    from accelerate import PartialState  # slow to import, and needless for one process

    state = PartialState(cpu=device == "cpu")
    return str(state.device) if device == "cuda" else device


def leave_processes() -> None:
    """Leave the group of processes."""
    if group := _group():
        group.destroy_process_group()


def process_count() -> int:
    """Return the number of processes."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def is_first() -> bool:
    """Return whether this is the first process, which alone writes files and prints."""
    return _rank() == 0


def items_of_process(items: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Yield the items of this process, each with its index among all items.

    Raises:
        InvalidData: there are fewer items than processes.
    """
    if len(items) < process_count():
        raise InvalidData(
            f"every process must have a batch, but got {len(items)} for {process_count()}; give more examples"
        )
    yield from list(enumerate(items))[_rank() :: process_count()]


def rows_of_process(batch: Mapping[str, "Tensor"]) -> tuple[dict[str, "Tensor"], float]:
    """Return the rows of a batch that belong to this process, and the weight of their mean.

    The mean over processes of the weighted means is the mean over the batch, even if the batch does not divide evenly.
    A process without a row gets the first row with weight 0.

    Args:
        batch: tensors of shape (examples, ...).
    """
    total = len(next(iter(batch.values())))
    rank = _rank()
    count = len(range(rank, total, process_count()))
    rows = {key: value[rank :: process_count()] if count else value[:1] for key, value in batch.items()}
    return rows, count * process_count() / total


def sum_over_processes(part: "Tensor") -> "Tensor":
    """Return the sum of the tensor over all processes; `part` itself becomes the sum, in place."""
    if group := _group():
        group.all_reduce(part)
    return part


def from_first_process(make: Callable[[], T]) -> T:
    """Call `make` in the first process and return its result in all; an exception is raised in all processes too."""
    group = _group()
    if group is None:
        return make()
    # pickled only on the way between processes of one job, never in a file
    message: list[Any] = [None, None]
    if is_first():
        try:
            message[0] = make()
        except Exception as error:
            message[1] = error
    group.broadcast_object_list(message)
    if message[1] is not None:
        raise message[1]
    result: T = message[0]
    return result


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if _group():
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _processes_started() -> int:
    """Return how many processes accelerate launch or torchrun started, after a look at what else they say."""
    _refuse_other_ways_to_train()
    advice = "unset it, or start with accelerate launch"
    given = {name: os.environ[name] for name in ("WORLD_SIZE", *_OF_A_PROCESS) if name in os.environ}
    if given.get("LOCAL_RANK") == "-1":  # as launchers of old say that there is one process
        del given["LOCAL_RANK"]
    numbers = {name: whole_number_in(text) for name, text in given.items()}
    for name, number in numbers.items():
        if number is None:
            raise InvalidParameter(f"{name} must be a whole number, but got {name}={shown(given[name])}; {advice}")
    count = numbers.get("WORLD_SIZE") or 1
    # accelerate takes the first of them for a sign of several processes, even without WORLD_SIZE
    sign = "LOCAL_RANK" if "LOCAL_RANK" in given else "WORLD_SIZE"
    together = ("WORLD_SIZE", *_OF_A_PROCESS, "MASTER_ADDR") if count > 1 or sign == "LOCAL_RANK" else ()
    if absent := [name for name in together if name not in os.environ]:
        raise InvalidParameter(
            f"{absent[0]} must be set with {sign}={given[sign]}, but got none; unset {sign}, or start with "
            "accelerate launch"
        )
    for name, limit in {"RANK": count, "LOCAL_RANK": count, "MASTER_PORT": 2**16}.items():
        if (numbers.get(name) or 0) >= limit:
            raise InvalidParameter(f"{name} must be below {limit}, but got {name}={given[name]}; {advice}")
    return count


def _refuse_other_ways_to_train() -> None:
    """Refuse what accelerate launch may ask for and whet does otherwise or not at all; its trainer would obey."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise InvalidParameter(
            f"ACCELERATE_MIXED_PRECISION must be no, but got {shown(precision)}; give whet --precision bf16 instead"
        )
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM"):
        if os.environ.get(name, "false").lower() not in ("false", "0", ""):
            raise InvalidParameter(
                f"every process must hold the whole model, but got {name}={shown(os.environ[name])}; unset it"
            )


def _group() -> Any:
    """Return torch.distributed if this process belongs to a group, else None; it never imports torch itself."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def _rank() -> int:
    group = _group()
    return int(group.get_rank()) if group else 0
