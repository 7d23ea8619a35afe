"""Callbacks of the trainer: the progress bar, checkpoints at the end of epochs, and trackers such as TensorBoard."""

from collections.abc import Callable, Sequence
from functools import wraps
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
from whet.utils.progress import ProgressBar, note

__all__ = ["AfterStep", "CallAfterStep", "SaveWholeEpochs", "ShowProgress", "trackers_named"]

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


class SaveWholeEpochs(TrainerCallback):
    """Saves the last checkpoint of an epoch once the epoch has its row in the learning curve.

    A run that resumes from a checkpoint at the end of an epoch begins with the next one. The checkpoint must hold the
    row, or the curve lacks it.
    """

    def __init__(self) -> None:
        self._due = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Put a checkpoint off that is due at the last step of an epoch or of the run."""
        ends = state.global_step % len(others["train_dataloader"]) == 0 or state.global_step >= state.max_steps
        self._due = control.should_save and ends
        control.should_save = control.should_save and not ends

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Save the checkpoint that was put off; the trainer evaluates before it saves."""
        control.should_save = self._due


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
        _keep_going(callback)
    return callbacks


def _keep_going(tracker: TrainerCallback) -> None:
    """Let a tracker that fails, for example without a network, end its own work and not the training."""
    failed = False

    def guarded(event: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(event)
        def call(*args: Any, **others: Any) -> Any:
            nonlocal failed
            if failed:
                return None
            try:
                return event(*args, **others)
            except Exception as error:
                failed = True
                kind = type(tracker).__name__.removesuffix("Callback")
                note(f"{kind} failed and gets no more figures: {error!r}; the training goes on")
                return None

        return call

    for name in dir(TrainerCallback):
        if name.startswith("on_"):
            vars(tracker)[name] = guarded(getattr(tracker, name))
