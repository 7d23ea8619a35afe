"""Ranges of numbers that more than one verb, method or setting takes.

Each has an upper bound far above what is sensible: what lies beyond it is a slip of the keyboard, and would run without
end or ask for more memory than there is.
"""

from typing import Annotated

from annotated_types import Interval

from whet.utils.parameters import Must

__all__ = [
    "Alpha",
    "BatchSize",
    "BatchTokens",
    "Damping",
    "Device",
    "Dimensions",
    "Duration",
    "Epochs",
    "Keep",
    "LearningRate",
    "MaxDisagreement",
    "MaxDrop",
    "MaxKl",
    "MaxLength",
    "MaxSize",
    "Opset",
    "Rounds",
    "Rows",
    "Seed",
    "Speedup",
    "Temperature",
    "Threads",
    "Weight",
]


def _computes(device: str) -> bool:
    import torch  # slow to import

    try:
        # a device without memory, such as meta, has no number to give back
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return False
    return True


Device = Annotated[str, Must(_computes, "one that torch can use")]
"""Where to compute, as torch names it, such as cpu or cuda:1."""
Duration = Annotated[float, Interval(gt=0, le=100_000_000)]
"""Seconds; the most are three years."""
Rows = Annotated[int, Interval(ge=1, le=100_000_000)]
"""Examples of a data set."""
BatchSize = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Examples in a batch; there are never more than the data have."""
BatchTokens = Annotated[int, Interval(ge=1, le=100_000_000)]
"""Tokens in a batch, padding included."""
MaxDisagreement = Annotated[float, Interval(gt=0, le=50)]
"""Percent of answers that may differ."""
Dimensions = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Leading dimensions that a vector keeps; never more than it has."""
MaxLength = Annotated[int, Interval(ge=2, le=1_000_000)]
"""Tokens of an input; there are never more than the model can read."""
MaxDrop = Annotated[float, Interval(gt=0, le=100)]
"""Points of a metric that a model may lose."""
MaxSize = Annotated[float, Interval(gt=0, le=1_000_000_000)]
"""MiB that a model may take on disk."""
Keep = Annotated[float, Interval(gt=0, le=1)]
"""Fraction of parameters to keep."""
Rounds = Annotated[int, Interval(ge=6, le=10_000)]
"""Interleaved rounds of timing; fewer than 6 cannot show a difference at p < 0.05."""
Opset = Annotated[int, Interval(ge=18, le=23)]
"""Version of ONNX's operators; torch's exporter writes these."""
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
"""What numpy takes as a seed."""
Threads = Annotated[int, Interval(ge=1, le=1024)]
"""Threads of the processor."""
Epochs = Annotated[float, Interval(gt=0, le=10_000)]
"""Passes over the training data."""
LearningRate = Annotated[float, Interval(gt=0, le=1e38)]
"""Peak learning rate of AdamW; one that is far too large ends a training at its first loss that is not finite."""
Alpha = Annotated[float, Interval(ge=0, le=1)]
"""Weight of the teacher's predictions; the labels get the rest."""
Temperature = Annotated[float, Interval(gt=0, le=1000)]
"""What logits are divided by."""
Weight = Annotated[float, Interval(ge=0, le=1_000_000)]
"""Weight of one loss among others."""
Damping = Annotated[float, Interval(gt=0, le=1e12)]
"""What is added to variances."""
Speedup = Annotated[float, Interval(gt=1, le=10_000)]
"""How many times as fast."""
MaxKl = Annotated[float, Interval(gt=0, le=10_000)]
"""Mean KL divergence from the baseline, in nats."""
