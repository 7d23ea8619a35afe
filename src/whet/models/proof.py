"""Proof by experiment that features can leave a model: what remains computes what it computed before.

A part is a set of features h that one layer reads. The experiment takes some features out of a copy of the model, runs
a batch, and compares what the layer reads with the same features of the whole model. The copy's layer then returns what
it returned in the whole model, so that all parts are tested at once and the logits stay the same unless something else
reads the features.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from whet.models.architecture import dense_bias, dense_weight
from whet.models.inference import answers, kind_of_model, removing_hooks
from whet.models.surgery import copy_sharing_parameters
from whet.tasks.data import Batch, Batches

__all__ = ["Removable", "close", "example_of", "proven"]

EXAMPLES = 4
"""Examples in the batch of an experiment."""


class Removable(Protocol):
    """The layers around features that leave in groups."""

    @property
    def output(self) -> str:
        """Name of the layer that reads the features."""

    @property
    def width(self) -> int:
        """Number of features of a group."""

    def keep(self, model: nn.Module, kept: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """Take all groups but some out of a model, in place.

        Args:
            model: the model.
            kept: (kept,) indices of the remaining groups, rising.
            weight: (out, kept * width) weight of the layer that reads them.
            bias: (out,) its bias, or None.
        """


Part = TypeVar("Part", bound=Removable)


def example_of(batches: Batches) -> Batch:
    """Return a few examples of medium length."""
    middle = batches.batches[len(batches) // 2]
    return {key: value[:EXAMPLES] for key, value in middle.items()}


def close(before: Tensor, after: Tensor) -> bool:
    """Whether two tensors are the same up to rounding."""
    return before.shape == after.shape and torch.allclose(before, after, rtol=1e-4, atol=1e-5)


def proven(model: nn.Module, parts: Sequence[Part], batch: Batch) -> bool:
    """Return whether groups of features can leave all of these parts, in whatever place they are.

    Args:
        model: in eval mode.
        parts: tested at once.
        batch: a few examples.
    """
    reads: dict[str, list[Tensor]] = {part.output: [] for part in parts}
    gives: dict[str, list[Tensor]] = {part.output: [] for part in parts}

    def write_down(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            # copies, since Falcon adds to what its layers gave in place
            reads[name].append(inputs[0].clone())
            gives[name].append(out.clone())

        return hook

    handles = [model.get_submodule(name).register_forward_hook(write_down(name)) for name in reads]
    logits = _logits(model, batch, handles)
    return all(_same_without(model, parts, batch, choose, (reads, gives, logits)) for choose in (_last, _alternate))


def _last(groups: int) -> Tensor:
    """Return the indices of all groups but the first."""
    return torch.arange(min(1, groups - 1), groups)


def _alternate(groups: int) -> Tensor:
    """Return the indices of every second group."""
    return torch.arange(0, groups, 2)


Seen = tuple[dict[str, list[Tensor]], dict[str, list[Tensor]], Tensor]
"""What the readers of all parts read and gave in every call, and the logits."""


def _same_without(
    model: nn.Module, parts: Sequence[Part], batch: Batch, choose: Callable[[int], Tensor], seen: Seen
) -> bool:
    reads, gives, logits = seen
    copied = copy_sharing_parameters(model)
    same: list[bool] = []

    def compare(name: str, features: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        calls = iter(zip(reads[name], gives[name], strict=True))

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _out: Tensor) -> Tensor:
            read, given = next(calls)
            same.append(close(read[..., features], inputs[0]))
            return given.clone()

        return hook

    handles = []
    try:
        for part in parts:
            layer = model.get_submodule(part.output)
            kept = choose(dense_weight(layer).shape[1] // part.width).to(dense_weight(layer).device)
            features = (kept[:, None] * part.width + torch.arange(part.width, device=kept.device)).flatten()
            part.keep(copied, kept, dense_weight(layer)[:, features], dense_bias(layer))
            hook = compare(part.output, features)
            handles.append(copied.get_submodule(part.output).register_forward_hook(hook))
        after = _logits(copied, batch, handles)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, StopIteration, TypeError, ValueError):
        return False  # the family's own code cannot run with fewer features
    return len(same) == sum(map(len, reads.values())) and all(same) and close(logits, after)


def _logits(model: nn.Module, batch: Batch, handles: list[torch.utils.hooks.RemovableHandle]) -> Tensor:
    with removing_hooks(handles), torch.inference_mode():
        return answers(model, batch, kind_of_model(model)).logits
