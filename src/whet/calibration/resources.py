"""What a method may work with: encoded examples, and the model to learn from.

A resource that is absent is None; a method says in `needs` which it reads, and gets no others.
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated

from annotated_types import Interval
from torch import nn
from transformers import PreTrainedTokenizerBase

from whet.errors import InvalidData, MissingResource
from whet.models.load import common_max_length
from whet.tasks.base import Task
from whet.tasks.data import Batches, Examples, TrainingText
from whet.tasks.encoding import encode, shortest_first
from whet.utils.parameters import check

__all__ = ["Calibration", "Resources", "prepare_resources", "require_calibration", "require_held_out", "require_tokens"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Everything a recipe's methods may read."""

    calibration: Batches | None = None
    """A sample of the training data, for statistics."""
    train: Batches | None = None
    """The training data."""
    validation: Batches | None = None
    """Training data held out for choices; never the dev split."""
    text: TrainingText | None = None
    """The training data before they are encoded."""
    teacher: nn.Module | None = None
    """The model to learn from, in eval mode."""
    seed: int = 0
    """Every random choice of a method starts from it; always present."""

    def only(self, needs: frozenset[str]) -> "Resources":
        """Return these resources without those that `needs` leaves out."""
        hidden = {field.name: None for field in fields(self) if field.name not in needs | {"seed"}}
        return replace(self, **hidden)  # type: ignore[arg-type]


def require_calibration(resources: Resources) -> Batches:
    """Return the calibration data.

    Raises:
        MissingResource: there is none.
    """
    if resources.calibration is None:
        raise MissingResource("calibration data must be given, but got none; give --task or --train-file")
    return resources.calibration


def require_tokens(batches: Batches, least: int, *, what: str) -> None:
    """Refuse calibration data of fewer tokens than there are directions to be told apart.

    Raises:
        InvalidData: there are fewer than `least`, which `what` says the meaning of.
    """
    if batches.tokens < least:
        raise InvalidData(
            f"calibration must have as many tokens as {what}, {least}, but got {batches.tokens} tokens; "
            "give more examples"
        )


TRAINING_BATCH = 32
"""Examples a batch of what methods train on or choose by."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The sample of training data that methods look at."""

    examples: Annotated[int, Interval(ge=1)] = 512
    """Training examples drawn; all, where there are fewer."""
    batch_size: Annotated[int, Interval(ge=1)] = 4
    """Examples a batch; gradients hold the activations of one batch, so that memory grows with it."""
    max_length: Annotated[int, Interval(ge=2)] = 128
    """Longer inputs are cut, in tokens."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


def require_held_out(task: Task) -> None:
    """Raises InvalidData: the task has too little training data to hold some out."""
    if not len(task.splits.validation):
        raise InvalidData(
            f"{task.name} must have training data to hold out, but got {len(task.splits.train)} examples in all; "
            "give 20"
        )


def prepare_resources(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    calibration: Calibration,
    *,
    seed: int,
    device: str,
    needs: frozenset[str] = frozenset({"calibration"}),
) -> Resources:
    """Return what methods may work with, from the task's training data: calibration data, and what else they need.

    Args:
        model: the original, which is the teacher too.
        tokenizer: its own.
        task: gives the data.
        calibration: how much of it methods look at.
        seed: of the sample and of every random choice.
        device: where the batches go.
        needs: fields of `Resources`.

    Raises:
        InvalidData: there is less training data than one batch, or none is held out where a method chooses by it.
    """
    train, held_out = task.splits.train, task.splits.validation
    if "validation" in needs:
        require_held_out(task)
    if min(len(train), calibration.examples) < calibration.batch_size:
        raise InvalidData(
            f"calibration must fill one batch of {calibration.batch_size}, but got {calibration.examples} of "
            f"{len(train)} training examples; give more, or a smaller batch"
        )
    length = common_max_length(calibration.max_length, model)

    def batches(examples: Examples, size: int) -> Batches:
        ordered = shortest_first(examples, tokenizer, max_length=length)
        return encode(ordered, tokenizer, max_length=length, batch_size=size, device=device)

    return Resources(
        calibration=batches(train.sample(calibration.examples, seed=seed), calibration.batch_size),
        train=batches(train, TRAINING_BATCH) if "train" in needs else None,
        validation=batches(held_out, TRAINING_BATCH) if "validation" in needs else None,
        text=TrainingText(train, tokenizer) if "text" in needs else None,
        teacher=model if "teacher" in needs else None,
        seed=seed,
    )
