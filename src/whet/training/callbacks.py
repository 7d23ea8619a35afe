"""Callbacks of the trainer: the progress bar, functions that run after a step, and trackers such as TensorBoard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import (
    TensorBoardCallback,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from whet.errors import InvalidParameter
from whet.utils.progress import ProgressBar

__all__ = ["AfterStep", "CallAfterStep", "ShowProgress", "trackers_named"]

AfterStep = Callable[[int, int, Optimizer], None]
"""Takes the number of the step, the number of all steps, and the optimizer; gradients still exist."""


class ShowProgress(TrainerCallback):
    """Updates the progress bar at every step."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Set the bar to the fraction of steps done."""
        self._progress.reach(state.global_step / state.max_steps)


class CallAfterStep(TrainerCallback):
    """Calls a function after every step of the optimizer."""

    def __init__(self, after_step: AfterStep) -> None:
        self._after_step = after_step

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Call the function with the number of the finished step, which the state does not count yet."""
        self._after_step(state.global_step + 1, state.max_steps, others["optimizer"])


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
