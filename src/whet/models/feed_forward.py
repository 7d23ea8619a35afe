"""Where a model keeps neurons: features that linear layers give, one function changes each by itself, and one reads.

What is looked for is h = f(W₁x), or f(W₁x, W₂x) with gates, of which neuron j depends on row j alone, and y = W₃h, the
only reader. No names are asked: in a block, layers whose outputs are as many as the next one's inputs may belong
together, and whether they do is tried out. Half of all entries of W₁x and W₂x get noise, while W₃ goes on reading the
h of before: if the h that it is offered differs in that half only, and the answers do not differ at all, then every
neuron stands alone. (Between values and the output of an attention stands a mixture over tokens, which noise shows.)
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.architecture import Architecture, dense_weight
from whet.models.inference import removing_hooks, to_device
from whet.tasks.data import Batch, Batches

__all__ = ["FeedForward"]

FeedForwardLayers = TypeVar("FeedForwardLayers", bound="FeedForward")

EXAMPLES = 4
"""Enough to try out on."""


class FeedForward(NamedTuple):
    """The linear layers around one set of neurons, by module names."""

    inputs: tuple[str, ...]
    """Those whose rows belong to the neurons: one, or two where one is a gate."""
    output: str
    """The one whose columns do."""
    width: int = 1
    """Features that go together."""

    @classmethod
    def all_of(cls, model: nn.Module, include: str, batches: Batches) -> list[Self]:
        """Return those whose second layer's name the wildcard matches, in module order.

        Args:
            model: in eval mode.
            include: wildcard over module names.
            batches: calibration data, a little of which goes through the model.

        Raises:
            NothingToCompress: there is none, or none that matches.
        """
        known = cls._found(model, _few(batches))
        if not known:
            raise NothingToCompress(
                f"blocks must have neurons, given by a linear layer and read by one other, but {type(model).__name__} "
                "has none such; factor the layers instead, with --method kfac"
            )
        matching = [part for part in known if fnmatchcase(part.output, include)]
        if not matching:
            names = ", ".join(part.output for part in known[:6])
            raise NothingToCompress(f"no neurons are read by {include!r}; here they are read by {names}, ...")
        return matching

    @classmethod
    def _found(cls, model: nn.Module, batch: Batch) -> list[Self]:
        """All of a model; blocks are alike, so that their candidates are tried out side by side."""
        architecture = Architecture.of(model)
        own = [
            list(cls._candidates(model, [name for name in architecture.linears if name.startswith(f"{block}.")]))
            for block in architecture.blocks
        ]
        found: list[Self] = []
        for i in range(max(map(len, own), default=0)):
            used = {name for part in found for name in (*part.inputs, part.output)}
            free = [one[i] for one in own if i < len(one) and not used & {*one[i].inputs, one[i].output}]
            found += _proven(model, free, batch)
        places = {name: place for place, name in enumerate(architecture.linears)}
        return sorted(found, key=lambda part: places[part.output])

    @classmethod
    def _candidates(cls, model: nn.Module, names: Sequence[str]) -> Iterator[Self]:
        """What the shapes of one block's layers allow; of one reader, most givers first."""
        shapes = [tuple(dense_weight(model.get_submodule(name)).shape) for name in names]
        for place, name in enumerate(names):
            first = place
            while first and shapes[first - 1] == shapes[place][::-1]:
                first -= 1
            for start in range(first, place):
                yield cls(tuple(names[start:place]), name)


def _few(batches: Batches) -> Batch:
    """A few examples of middling length."""
    middle = batches.batches[len(batches) // 2]
    return {key: value[:EXAMPLES] for key, value in middle.items()}


def _proven(model: nn.Module, parts: Sequence[FeedForwardLayers], batch: Batch) -> list[FeedForwardLayers]:
    """Those of the parts whose neurons stand alone."""
    if not parts:
        return []
    trial = _Trial(model, parts)
    before, after = trial.answers(batch, noise=False), trial.answers(batch, noise=True)
    if _same(before, after):
        return [part for part in parts if part.output in trial.alone]
    # something else reads the neurons of one of them, and the noise went on into the others
    return [] if len(parts) == 1 else [part for one in parts for part in _proven(model, [one], batch)]


def _same(before: Tensor, after: Tensor) -> bool:
    return torch.allclose(before, after, rtol=1e-4, atol=1e-6)


class _Trial:
    """Two passes over one batch: what is read, and what is offered once there is noise."""

    def __init__(self, model: nn.Module, parts: Sequence[FeedForward]) -> None:
        self.model = model
        self.parts = parts
        self.noise = False
        self.before: dict[str, Tensor] = {}
        self.disturbed: dict[str, Tensor] = {}
        self.alone: set[str] = set()

    def answers(self, batch: Batch, *, noise: bool) -> Tensor:
        """Return the logits; the pass without noise comes first."""
        self.noise = noise
        handles = []
        for part in self.parts:
            for name in part.inputs:
                given = lambda _module, _inputs, out, name=part.output: self._give(out, name)  # noqa: E731
                handles.append(self.model.get_submodule(name).register_forward_hook(given))
            read = lambda _module, inputs, name=part.output: self._read(inputs[0], name)  # noqa: E731
            handles.append(self.model.get_submodule(part.output).register_forward_pre_hook(read))
        with removing_hooks(handles), torch.inference_mode():
            logits: Any = self.model(**to_device(batch, self.model)).logits
        found: Tensor = logits
        return found

    def _give(self, out: Tensor, name: str) -> Tensor:
        if not self.noise:
            return out
        if name not in self.disturbed:
            coin = torch.Generator().manual_seed(0)
            self.disturbed[name] = (torch.rand(out.shape, generator=coin) < 0.5).to(out.device)
        return torch.where(self.disturbed[name], out + 3 * (1 + out.std()), out)

    def _read(self, offered: Tensor, name: str) -> tuple[Tensor]:
        if not self.noise:
            self.before[name] = offered
        elif name in self.disturbed and self.disturbed[name].shape == offered.shape == self.before[name].shape:
            others = ~self.disturbed[name]
            if _same(self.before[name][others], offered[others]):
                self.alone.add(name)
        return (self.before[name],)
