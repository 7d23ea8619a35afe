"""The data and the teacher that methods may read.

A method declares in `needs` which fields of `Resources` it reads and gets no others; an absent resource is None.
"""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from torch import nn

from whet.errors import InvalidData, MissingResource
from whet.models.load import common_max_length
from whet.tasks.base import Task
from whet.tasks.data import Batches, Examples, TrainingText
from whet.tasks.encoding import encode, say_cut, shortest_first
from whet.utils.parameters import check
from whet.utils.ranges import BatchSize, MaxLength, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Calibration", "Resources", "prepare_resources", "require_calibration", "require_held_out", "require_tokens"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Everything that the methods of a recipe may read."""

    calibration: Batches | None = None
    """A sample of the training data, for statistics."""
    train: Batches | None = None
    """All training data."""
    validation: Batches | None = None
    """Held-out training data, for choices between models; never the dev split."""
    text: TrainingText | None = None
    """The training data before tokenization, with the held-out part: its words may be counted, nothing else."""
    teacher: nn.Module | None = None
    """The model whose outputs recovery learns from, in eval mode."""
    seed: int = 0
    """The seed of every random choice; every method may read it."""

    def only(self, needs: frozenset[str]) -> "Resources":
        """Return a copy in which every resource that `needs` does not name is None; the seed always stays."""
        hidden = {field.name: None for field in fields(self) if field.name not in needs | {"seed"}}
        return replace(self, **hidden)  # type: ignore[arg-type]


def require_calibration(resources: Resources) -> Batches:
    """Return the calibration data of the resources.

    Raises:
        MissingResource: the resources have no calibration data.
    """
    if resources.calibration is None:
        raise MissingResource("calibration data must be given, but got none; give --task or --train-file")
    return resources.calibration


def require_tokens(batches: Batches, least: int, *, what: str) -> None:
    """Check that calibration data has enough tokens to estimate a statistic.

    Args:
        batches: calibration data.
        least: the smallest number of real tokens.
        what: what `least` counts, for the message, such as "the largest rank".

    Raises:
        InvalidData: there are fewer than `least` tokens.
    """
    if batches.tokens < least:
        raise InvalidData(
            f"calibration must have as many tokens as {what}, {least}, but got {batches.tokens} tokens; "
            "give more examples"
        )


TRAINING_BATCH = 32
"""Examples per batch of training and validation data."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How to sample calibration data from the training data."""

    examples: Rows = 512
    """Training examples to draw; all of them if there are fewer."""
    batch_size: BatchSize = 4
    """Examples per batch; a backward pass keeps the activations of one batch in memory."""
    max_length: MaxLength = 128
    """Longest input in tokens; longer inputs are truncated."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


def require_held_out(task: Task) -> None:
    """Check that the task has held-out training data.

    Raises:
        InvalidData: the task has too little training data to hold some out.
    """
    if not len(task.splits.train) + len(task.splits.validation):
        raise InvalidData("training data must be given, but got dev data alone; give --train-file, or a known --task")
    if not len(task.splits.validation):
        raise InvalidData(
            f"{task.name} must have training data to hold out, but got {len(task.splits.train)} examples in all; "
            "give at least 20"
        )


def prepare_resources(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    calibration: Calibration,
    *,
    seed: int,
    device: str,
    needs: frozenset[str] = frozenset({"calibration"}),
) -> Resources:
    """Return resources made from the task's training data: calibration data, and the other fields in `needs`.

    Args:
        model: the model to compress; it is also the teacher.
        tokenizer: the tokenizer of the model.
        task: the task that gives the data.
        calibration: how to sample calibration data.
        seed: seed of the sample and of every random choice of a method.
        device: device of the batches, as torch names it.
        needs: names of fields of `Resources`.

    Raises:
        InvalidData: the training data does not fill one batch, or validation data is needed and none is held out.
    """
    train, validation = task.splits.train, task.splits.validation
    if "validation" in needs:
        require_held_out(task)
    available = min(len(train), calibration.examples)
    if available < calibration.batch_size:
        raise InvalidData(
            f"calibration must fill one batch of {calibration.batch_size}, but got {available} training examples; "
            "give more examples or a smaller batch size"
        )
    length = common_max_length(calibration.max_length, model)
    say_cut(task, train, tokenizer, max_length=length)

    def batches(examples: Examples, size: int) -> Batches:
        ordered = shortest_first(examples, tokenizer, max_length=length)
        return encode(ordered, tokenizer, max_length=length, batch_size=size, device=device)

    return Resources(
        calibration=batches(train.sample(calibration.examples, seed=seed).brief(), calibration.batch_size),
        train=batches(train, TRAINING_BATCH) if "train" in needs else None,
        validation=batches(validation, TRAINING_BATCH) if "validation" in needs else None,
        text=TrainingText(train.joined(validation), tokenizer) if "text" in needs else None,
        teacher=model if "teacher" in needs else None,
        seed=seed,
    )
