"""Fewer neurons between the layers of feed-forward parts, where those that stay make up for those that go.

Neurons go one by one, each time the one that costs least in KL once the others have taken over what they can of it:
with C the covariance of the neurons and G the second moment of the gradient at the outputs of W, which reads them, that
cost is ½ (wⱼᵀ G wⱼ) / [C⁻¹]ⱼⱼ. Its sum is the loss of every number of neurons, in one unit for all layers, so that
layers can share a budget. The bias makes up for the mean. Nothing is trained, and no product is added.

Source: Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992; Kurtic,
Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv 2302.04089, for
removing whole structures with it.
Differs: errors are weighed by the gradient, which makes layers comparable; C is centred; neurons go in blocks that give
the order of single steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from whet.allocation import Options, shared_out
from whet.architecture import dense_bias, dense_weight
from whet.errors import InvalidParameter
from whet.factorization import calibrated
from whet.feed_forward import FeedForward
from whet.layers.resized import Resized
from whet.method import Method, Stage
from whet.parameter import Range
from whet.progress import track
from whet.removal import Removal, compensated, damped, removal
from whet.resources import Resources
from whet.spectrum import centred
from whet.statistics import Moments, Side, collect
from whet.surgery import replace

__all__ = ["Neurons"]


class Part(NamedTuple):
    """One feed-forward part and what calibration says of its neurons."""

    place: FeedForward
    covariance: Tensor
    """(neurons, neurons), damped."""
    mean: Tensor
    """(neurons,)."""
    removal: Removal


@dataclass(frozen=True, kw_only=True)
class Neurons(Method):
    """Give the feed-forward parts of each block fewer neurons."""

    keep: Annotated[float, Range(above=0, most=1)]
    """Share of the linear parameters of the feed-forward parts that is kept."""
    allocation: Literal["uniform", "by_loss"] = "by_loss"
    """Whether every part keeps the same share, or what gives the least summed loss."""
    multiple_of: Annotated[int, Range(least=1)] = 16
    """The numbers of neurons are multiples of this, which processors are faster with."""
    include: str = "*"
    """Wildcard over the names of the layers that read neurons, such as *.output.dense; other parts stay as they are."""
    damping: Annotated[float, Range(above=0)] = 1e-3
    """Added to every neuron's variance, as a share of their mean; more trusts the calibration data less."""
    temperature: Annotated[float, Range(above=0, below=math.inf)] = 3.0
    """Softens the predictions that gradients start from; see kfac."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; one forward and one backward pass, and O(neurons³) a part."""
        places = FeedForward.all_of(model, self.include, calibrated(resources))
        if self.keep == 1:
            return model
        parts = self.removals(model, places, resources)
        for name, count in self._counts(model, parts).items():
            if count < len(parts[name].mean):
                _shrink(model, parts[name], count)
        return model

    def removals(self, model: nn.Module, places: Sequence[FeedForward], resources: Resources) -> dict[str, Part]:
        """Return, by the name of what reads them, in which order neurons go and what that costs."""
        sides = {place.output: Side.BOTH for place in places}
        batches = calibrated(resources)
        moments = collect(model, batches, list(sides), seed=resources.seed, temperature=self.temperature, sides=sides)
        return {
            place.output: self._part(model, place, moments.pop(place.output))
            for place in track(places, "removing neurons")
        }

    def _part(self, model: nn.Module, place: FeedForward, moments: Moments) -> Part:
        weight = dense_weight(model.get_submodule(place.output)).double()
        assert moments.gradient is not None
        covariance = damped(centred(moments), self.damping)
        return Part(place, covariance, moments.mean, removal(covariance, weight.T @ moments.gradient @ weight))

    def _counts(self, model: nn.Module, parts: Mapping[str, Part]) -> dict[str, int]:
        """How many neurons stay in each part."""
        grids = {name: self._grid(len(part.mean)) for name, part in parts.items()}
        options = {name: _options(model, parts[name], grid) for name, grid in grids.items()}
        least, whole = (sum(float(one.costs[i]) for one in options.values()) for i in (0, -1))
        if least > self.keep * whole:
            raise InvalidParameter(
                f"{least / whole:.3g} <= keep must hold with multiple_of={self.multiple_of}, but got keep={self.keep}; "
                "give more, or a smaller multiple"
            )
        chosen = shared_out(options, self.keep, spread=self.allocation == "by_loss")
        return {name: grids[name][i] for name, i in chosen.items()}

    def _grid(self, neurons: int) -> list[int]:
        return [*range(self.multiple_of, neurons, self.multiple_of), neurons]


def _options(model: nn.Module, part: Part, grid: list[int]) -> Options:
    """The parameters and losses of some numbers of neurons."""
    read = model.get_submodule(part.place.output)
    weight = dense_weight(read)
    features = len(weight) + sum(dense_weight(model.get_submodule(name)).shape[1] for name in part.place.inputs)
    # a layer without bias gains one, where the mean is made up for
    gained = 0 if dense_bias(read) is not None else len(weight)
    costs = [count * features + (gained if count < weight.shape[1] else 0) for count in grid]
    return Options(np.asarray(costs, dtype=float), part.removal.losses[grid].cpu().numpy())


def _shrink(model: nn.Module, part: Part, count: int) -> None:
    kept = part.removal.kept(count)
    for name in part.place.inputs:
        layer = model.get_submodule(name)
        bias = dense_bias(layer)
        replace(model, name, Resized.of(dense_weight(layer)[kept], None if bias is None else bias[kept]))
    read = model.get_submodule(part.place.output)
    weight, shift = compensated(dense_weight(read), part.covariance, part.mean, kept)
    bias = dense_bias(read)
    replace(model, part.place.output, Resized.of(weight, shift if bias is None else bias + shift))
