"""Callbacks that report losses and metrics to trackers such as TensorBoard, by the names that transformers uses."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import (
    TensorBoardCallback,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from whet.errors import InvalidParameter

__all__ = ["trackers_named"]


def trackers_named(names: Sequence[str], logs: Path | None) -> list[TrainerCallback]:
    """Return the callbacks of the named trackers.

    Args:
        names: names of trackers, such as tensorboard.
        logs: folder for the files of TensorBoard.

    Raises:
        InvalidParameter: a tracker is unknown or not installed.
    """
    available = get_available_reporting_integrations()
    if missing := [name for name in names if name not in available]:
        raise InvalidParameter(
            f"trackers must be installed and known to transformers, but got {', '.join(missing)}; there are "
            f"{', '.join(sorted(available)) or 'none here'}; install one, such as tensorboard, or leave it out"
        )
    callbacks: list[TrainerCallback] = [kind() for kind in get_reporting_integration_callbacks(list(names))]
    for callback in callbacks:
        # by default its files lie in the folder of checkpoints, which is deleted
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None and logs is not None:
            callback.logging_dir = str(logs)
    return callbacks
