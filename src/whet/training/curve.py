"""The learning curve: one row an epoch, apart from the trainer, which is slow to import."""

from typing import NamedTuple

__all__ = ["Epoch"]


class Epoch(NamedTuple):
    """One row of the learning curve."""

    epoch: float
    """Number of epochs trained so far."""
    training_loss: float
    """Mean loss of the steps of this epoch."""
    validation_loss: float
    """Mean loss on the held-out examples."""
    validation_metric: float
    """The task's main metric on the held-out examples."""
