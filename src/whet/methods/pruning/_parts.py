"""The parts of a block and their smaller configurations: fewer neurons, heads or head features, factors, or none.

Each configuration has a loss, ½ tr(G ΔW C ΔWᵀ) summed over the part's layers, and a cost: its parameters, or the time
that it saves, which is interpolated between a few timed sizes. The loss has the same unit everywhere, so that one
budget can be spread over all parts and all kinds of parts.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from whet.methods._candidates import Candidate
from whet.models.architecture import dense_bias, dense_weight
from whet.models.feed_forward import FeedForward
from whet.models.head_groups import HeadGroups
from whet.models.layers.constant import Constant
from whet.models.layers.passing import PassThrough
from whet.models.surgery import replace_module
from whet.numerics.allocation import minimise_loss
from whet.numerics.low_rank import covariance_of
from whet.numerics.moments import Moments, Side, moments_at
from whet.numerics.optimal_brain_surgeon import (
    CompensatedWeight,
    RemovalOrder,
    add_damping,
    compensate_for_removed,
    removal_order,
)

__all__ = ["DENSE", "BlockPart", "FeaturePart", "FeedForwardPart", "HeadGroupsPart", "PartConfig", "ReadFeatures"]

RANK_BUDGETS = np.linspace(0.04, 0.96, 24)
"""Fractions of a part's parameters at which factors are offered."""
TIMED_RANKS = (1 / 8, 1 / 4, 3 / 8)
"""Fractions of a layer's narrower side at which factors are timed."""
NEURON_STEP = 16
"""Numbers of neurons are multiples of this; processors run such sizes faster."""
TIMED_NEURONS = (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Fractions of the neurons that are timed; 0 stands for one neuron."""


class PartConfig(NamedTuple):
    """A configuration that a part can take."""

    structure: str
    """Kind of the configuration, such as neurons, heads or ranks."""
    sizes: tuple[int, ...] = ()
    """Sizes in the order of the part: neurons; heads, scores' and values' width; or the rank of each layer."""


DENSE, DROP = PartConfig("dense"), PartConfig("drop")


class ReadFeatures(NamedTuple):
    """The features that a layer reads, with their statistics and the order in which to remove them."""

    weight: Tensor
    """(out, features)."""
    bias: Tensor | None
    """(out,), or None."""
    covariance: Tensor
    """(features, features), damped."""
    mean: Tensor
    """(features,)."""
    removal: RemovalOrder
    """The order in which groups of features are removed, and the loss at each number of remaining groups."""

    @classmethod
    def of(cls, layer: nn.Module, moments: Moments, *, damping: float, width: int = 1) -> Self:
        """Return the features that a dense layer reads.

        Args:
            layer: the layer that reads the features.
            moments: moments of its inputs and of the gradients at its outputs, `Side.BOTH`.
            damping: number added to every variance, as a fraction of their mean.
            width: number of features in a group.
        """
        weight = dense_weight(layer)
        covariance = add_damping(covariance_of(moments), damping)
        input_gradient = moments_at(moments, weight, Side.INPUT).gradient
        assert input_gradient is not None
        order = removal_order(covariance, input_gradient, width=width)
        return cls(weight, dense_bias(layer), covariance, moments.mean, order)

    def fitted(self, kept: Tensor) -> CompensatedWeight:
        """Return the weight and bias that read only the remaining features; see `numerics.optimal_brain_surgeon`.

        Args:
            kept: (kept,) indices of the remaining features, or (kept, features) projections of all features.
        """
        weight, shift = compensate_for_removed(self.weight, self.covariance, self.mean, kept)
        return CompensatedWeight(weight, shift if self.bias is None else self.bias + shift)

    def constant(self) -> Tensor:
        """Return the layer's mean output, (out,)."""
        mean = (self.weight.double() @ self.mean).to(self.weight)
        return mean if self.bias is None else self.bias + mean


@dataclass(frozen=True, eq=False)
class BlockPart:
    """Linear layers of a block that change together; this base class can only factorise them."""

    name: str
    """Name of the part."""
    layers: Mapping[str, Tensor]
    """The weights, (out, in), by module name."""
    candidates: Mapping[str, Candidate]
    """The decompositions of the layers, by module name; empty if no factors are wanted."""

    @property
    def kind(self) -> tuple[object, ...]:
        """Return a key that is equal for parts which take the same time in every configuration."""
        return (type(self), *(tuple(weight.shape) for weight in self.layers.values()))

    def share(self, first_alone: frozenset[str], length: float) -> float:
        """Return the time of this part as a fraction of the time of a part that sees all tokens.

        Args:
            first_alone: names of the layers that see only the first token; see `first_token_layers`.
            length: mean number of tokens that the other layers see.
        """
        sizes = {name: weight.numel() for name, weight in self.layers.items()}
        work = sum(size / length if name in first_alone else size for name, size in sizes.items())
        return work / sum(sizes.values())

    def choices(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        """Return the loss of every configuration of the part that `structures` allows."""
        losses = {DENSE: 0.0}
        if "ranks" in structures:
            losses |= self._factored()
        return losses

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """Return the configurations to time; the times of all others are interpolated from them."""
        if "ranks" not in structures:
            return []
        sides = [min(weight.shape) for weight in self.layers.values()]
        return [PartConfig("ranks", tuple(max(1, int(share * side)) for side in sides)) for share in TIMED_RANKS]

    def parameters(self, config: PartConfig) -> float:
        """Return the number of linear parameters of a configuration."""
        if config == DROP:
            return 0
        ranks = config.sizes if config.structure == "ranks" else (0,) * len(self.layers)
        pairs = zip(self.layers.values(), ranks, strict=True)
        return sum(rank * sum(weight.shape) if rank else weight.numel() for weight, rank in pairs)

    def saved(self, config: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """Return the seconds that a configuration saves in a part that sees all tokens.

        Args:
            config: one of `choices`.
            timed: the seconds that each of `probes` saves.
        """
        if config == DENSE:
            return 0.0
        if config == DROP:
            return timed[DROP]
        seconds_by_ranks = {probe.sizes: seconds for probe, seconds in timed.items() if probe.structure == "ranks"}
        seconds = list(seconds_by_ranks.values())
        whole = sum(weight.numel() for weight in self.layers.values())
        return sum(
            weight.numel() / whole * float(np.interp(rank, [ranks[i] for ranks in seconds_by_ranks], seconds))
            for i, (weight, rank) in enumerate(zip(self.layers.values(), config.sizes, strict=True))
            if rank
        )

    def put(self, model: nn.Module, config: PartConfig) -> None:
        """Give the part of `model` this configuration, in place."""
        if config.structure == "ranks":
            for (name, candidate), rank in zip(self.candidates.items(), config.sizes, strict=True):
                if rank:
                    replace_module(model, name, candidate.layer(rank))

    def _factored(self) -> dict[PartConfig, float]:
        """Return the losses of the best ranks of all layers at rising budgets."""
        offers = {name: candidate.offer() for name, candidate in self.candidates.items()}
        options = {name: offer.options for name, offer in offers.items()}
        whole = sum(float(layer.costs[-1]) for layer in options.values())
        losses = {}
        for share in RANK_BUDGETS:
            chosen = minimise_loss(options, share * whole)
            ranks = tuple(offers[name].ranks[i] or 0 for name, i in chosen.items())
            if any(ranks):
                losses[PartConfig("ranks", ranks)] = sum(float(options[name].losses[i]) for name, i in chosen.items())
        return losses


@dataclass(frozen=True, eq=False)
class FeaturePart(BlockPart):
    """A part with internal features, which one of its layers reads."""

    reader: ReadFeatures
    """The layer that reads the features."""

    def choices(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        """See `BlockPart.choices`."""
        losses = super().choices(structures)
        if "drop" in structures:
            losses[DROP] = float(self.reader.removal.losses[0])
        return losses | self._narrower(structures)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        return [*super().probes(structures), *([DROP] if "drop" in structures else [])]

    @abstractmethod
    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]: ...


@dataclass(frozen=True, eq=False)
class _GroupsPart(FeaturePart):
    """A part whose features leave in groups, of which only the number is chosen."""

    structure: ClassVar[str]
    """What a group is called."""

    location: FeedForward | HeadGroups
    """Names of the layers."""

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return len(self.reader.removal.order)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        counts = self._timed() if self.structure in structures else []
        return [*super().probes(structures), *(PartConfig(self.structure, (count,)) for count in dict.fromkeys(counts))]

    def parameters(self, config: PartConfig) -> float:
        """See `BlockPart.parameters`."""
        whole = super().parameters(config)
        return whole * config.sizes[0] / self.groups if config.structure == self.structure else whole

    def saved(self, config: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """See `BlockPart.saved`."""
        if config.structure != self.structure:
            return super().saved(config, timed)
        by_count = {probe.sizes[0]: seconds for probe, seconds in timed.items() if probe.structure == self.structure}
        by_count[self.groups] = 0.0
        counts = sorted(by_count)
        return float(np.interp(config.sizes[0], counts, [by_count[count] for count in counts]))

    def put(self, model: nn.Module, config: PartConfig) -> None:
        """See `BlockPart.put`."""
        if config.structure != self.structure:
            super().put(model, config)
            return
        kept, width = self.reader.removal.kept(config.sizes[0]), self.location.width
        features = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
        self.location.keep(model, kept, *self.reader.fitted(features))

    @abstractmethod
    def _timed(self) -> list[int]:
        """Return the numbers of groups that are timed."""

    @abstractmethod
    def _counts(self) -> Iterable[int]:
        """Return the numbers of groups that may remain, without all of them."""

    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        if self.structure not in structures:
            return {}
        losses = self.reader.removal.losses.tolist()
        return {PartConfig(self.structure, (count,)): losses[count] for count in self._counts()}


@dataclass(frozen=True, eq=False)
class FeedForwardPart(_GroupsPart):
    """The layers around the neurons of a feed-forward part."""

    structure: ClassVar[str] = "neurons"

    def put(self, model: nn.Module, config: PartConfig) -> None:
        """See `BlockPart.put`."""
        if config != DROP:
            super().put(model, config)
            return
        for name in self.location.inputs:
            replace_module(model, name, PassThrough())
        replace_module(model, self.location.output, Constant.of(self.reader.constant()))

    def _timed(self) -> list[int]:
        return [max(1, int(share * self.groups)) for share in TIMED_NEURONS]

    def _counts(self) -> Iterable[int]:
        step = min(NEURON_STEP, max(1, self.groups // NEURON_STEP))
        return range(step, self.groups, step)


@dataclass(frozen=True, eq=False)
class HeadGroupsPart(_GroupsPart):
    """The projections of a self-attention of any family, from which whole heads can leave."""

    structure: ClassVar[str] = "heads"

    def choices(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        """See `BlockPart.choices`; the attention stays, with one group of heads at least."""
        return super().choices([name for name in structures if name != "drop"])

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        return super().probes([name for name in structures if name != "drop"])

    def _timed(self) -> list[int]:
        return [count for count in (max(1, self.groups // 2), 1) if count < self.groups]

    def _counts(self) -> Iterable[int]:
        return range(1, self.groups)
