"""The base of methods that distil the compressed model from the baseline's predictions and hidden states."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import MissingResource
from whet.methods.base import Method, Stage
from whet.utils.precision import ComputePrecision
from whet.utils.ranges import Epochs, LearningRate, Temperature, Weight

if TYPE_CHECKING:
    from whet.training.callbacks import AfterStep

__all__ = ["Recovery"]


@dataclass(frozen=True, kw_only=True)
class Recovery(Method):
    """A method that trains weights on the baseline's predictions and hidden states; labels are not read."""

    epochs: Epochs = 3
    """Epochs of training, e.g. 3."""
    learning_rate: LearningRate = 5e-5
    """Peak learning rate of AdamW, e.g. 5e-5; it falls linearly to zero."""
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Fraction of the training data to use, e.g. 0.1."""
    temperature: Temperature = 1.0
    """Temperature that divides the logits of both models."""
    hidden_states: Weight = 1.0
    """Weight of the error of the hidden states, relative to that of the predictions; 0 leaves hidden states out."""
    precision: ComputePrecision = "fp32"
    """Precision of matrix products; bf16 is about twice as fast on processors with AMX."""

    stage: ClassVar[Stage] = Stage.TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"train", "teacher"})

    def train(self, model: nn.Module, resources: Resources, *, after_step: "AfterStep | None" = None) -> None:
        """Train the model in place.

        Args:
            model: the compressed model, the student.
            resources: the training data, and the baseline as the teacher.
            after_step: called after every step of the optimizer.

        Raises:
            MissingResource: there is no training data or no teacher.
        """
        if resources.train is None or resources.teacher is None:
            raise MissingResource("training data and a teacher must be given, but got none; give --task")
        from whet.training.trainer import distil  # slow to import

        distil(
            model,
            resources.teacher,
            resources.train.share(self.share, seed=resources.seed),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            hidden_states=self.hidden_states,
            seed=resources.seed,
            precision=self.precision,
            after_step=after_step,
        )
