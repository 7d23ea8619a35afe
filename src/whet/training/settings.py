"""What a training run is told, apart from the loop: a value out of range is refused before torch is imported."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from whet.utils.parameters import check
from whet.utils.precision import ComputePrecision
from whet.utils.ranges import BatchSize, Epochs, LearningRate, MaxLength, Seed

__all__ = ["LoraSettings", "TrainingSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The hyperparameters of a training run."""

    epochs: Epochs = 5
    """Epochs of training, e.g. 3."""
    learning_rate: LearningRate = 5e-5
    """Peak learning rate of AdamW, e.g. 5e-5; it falls linearly to zero."""
    batch_size: BatchSize = 32
    """Examples per step, e.g. 32."""
    weight_decay: Annotated[float, Interval(ge=0, le=100)] = 0.01
    """Decoupled weight decay of AdamW, e.g. 0.01."""
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.06
    """Fraction of the steps over which the learning rate rises, e.g. 0.06."""
    max_length: MaxLength = 128
    """Largest number of tokens of an input, e.g. 128; longer inputs are truncated."""
    seed: Seed = 0
    """Seed of the new head, the order of the examples and dropout."""
    precision: ComputePrecision = "fp32"
    """Precision of matrix products; bf16 is about twice as fast on processors with AMX."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The size of the adapters, and the layers that get one."""

    rank: Annotated[int, Interval(ge=1, le=65_536)] = 8
    """Rank of every adapter, e.g. 8."""
    alpha: Annotated[float, Interval(gt=0, le=1_000_000)] = 16
    """Scale of the adapters, e.g. 16; their outputs are multiplied by alpha / rank."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Dropout probability of the adapters' inputs during training, e.g. 0.1."""
    targets: str = "*"
    """Wildcard over the names of linear layers in the blocks, including the factors of compressed layers, e.g.
    *.query."""
    norms: bool = False
    """Whether to train layer norms too."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)
