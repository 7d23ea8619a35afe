"""Of which kind a model is, told by its folder, by the user or by the task, before weights and data are read.

What the folder says counts first. Where it leaves several kinds, the user or the task tells which; where nobody does,
it is asked for.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from whet.models.adapter import merged
from whet.models.checkpoint import Checkpoint
from whet.tasks.base import Task

__all__ = ["Recognized", "recognized", "whole_of"]


class Recognized(NamedTuple):
    """What a model answers, and the task as it answers it."""

    kind: str
    """The name of the kind."""
    task: Task
    """The task; of data that serve several kinds, as this one reads them."""


def whole_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return the whole model that a source stands for: itself, or the base of an adapter with the adapter's head.

    Raises:
        InvalidModel: an adapter or its base cannot be used.
    """
    return checkpoint if checkpoint.adapter is None else merged(checkpoint)


def recognized(
    source: str | Path, task: Task, said: str | None = None, *, labels: Literal["read", "unread"] = "read"
) -> Recognized:
    """Return the kind of a model that is to answer a task, and the task as it answers it.

    Args:
        source: folder or hub name.
        task: the data.
        said: name of the kind that the user says; that which the data are read for, if None and labels are read.
        labels: whether labels are read; where they are not, data of a user's own that are said to be of another kind
            serve as texts.

    Raises:
        InvalidModel: the kind is not known; see `Checkpoint.kind`.
        InvalidData: the task is one for models of another kind.
    """
    if labels == "read" and task.names:  # own data that do not fit are told by `for_kind`
        said = said or task.read_for
    whole = whole_of(Checkpoint.of(source))
    fitting = [kind.name() for kind in whole.kinds(said)]
    wanted = next((name for name in (task.kind.name(), *task.serves) if name in fitting), None)
    kind = whole.kind(wanted or said)
    asked = labels == "read" or task.names or task.read_as
    return Recognized(kind.name(), task.for_kind(kind) if asked else task)
