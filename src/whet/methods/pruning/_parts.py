"""What each part of a block can become: fewer neurons, heads or features of heads, factors, or nothing at all.

Every choice has a loss, which is ½ tr(G ΔW C ΔWᵀ) of the part's layers for all of them alike, and a cost: parameters,
or the time that it saves, read off a few sizes that were timed. So one budget can be spread over all parts and kinds.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from whet.methods._candidates import Candidate
from whet.models.architecture import dense_bias, dense_weight, first_token_layers
from whet.models.attention import KeptHead, SelfAttention, Widths, narrowed_attention
from whet.models.feed_forward import FeedForward
from whet.models.layers.constant import Constant
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.passing import PassThrough
from whet.models.layers.resized import Resized
from whet.models.surgery import replace
from whet.numerics.allocation import minimise
from whet.numerics.low_rank import Spectrum, centred
from whet.numerics.moments import Moments, Side, at_side
from whet.numerics.optimal_brain_surgeon import Compensated, RemovalOrder, compensated, damped, removal_order

__all__ = ["DENSE", "AttentionPart", "BlockPart", "FeedForwardPart", "PartConfig", "ReadFeatures", "keep_neurons"]

BUDGETS = np.linspace(0.04, 0.96, 24)
"""Shares of a part's parameters at which its factors are offered."""
TIMED_RANKS = (1 / 8, 1 / 4, 3 / 8)
"""Shares of a layer's narrower side at which factors are timed."""
MULTIPLE = 16
"""Of which numbers of neurons are multiples; processors are faster with them."""
TIMED_NEURONS = (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Shares of the neurons that are timed; none stands for the least number."""
NARROWEST = 8
"""Features of a head that more are multiples of."""


class PartConfig(NamedTuple):
    """What a part is made of."""

    structure: str
    """Such as neurons."""
    sizes: tuple[int, ...] = ()
    """How many of what, as the part counts them."""


DENSE, DROP = PartConfig("dense"), PartConfig("nothing")


class ReadFeatures(NamedTuple):
    """What calibration says of the features that a layer reads, as far as they go one by one or in groups."""

    weight: Tensor
    """(out, features)."""
    bias: Tensor | None
    covariance: Tensor
    """(features, features), damped."""
    mean: Tensor
    """(features,)."""
    removal: RemovalOrder

    @classmethod
    def of(cls, layer: nn.Module, moments: Moments, *, damping: float, width: int = 1) -> Self:
        """Return what calibration says of a dense layer's inputs.

        Args:
            layer: it reads them.
            moments: inputs and gradients at the outputs, `Side.BOTH`.
            damping: added to every variance, as a share of their mean.
            width: features of a group.
        """
        weight = dense_weight(layer)
        covariance = damped(centred(moments), damping)
        weighed = at_side(moments, weight, Side.INPUT).gradient
        assert weighed is not None
        order = removal_order(covariance, weighed, width=width)
        return cls(weight, dense_bias(layer), covariance, moments.mean, order)

    def fitted(self, kept: Tensor) -> Compensated:
        """Return the weight and the bias with which what stays is read; see `removal_order.compensated`."""
        weight, shift = compensated(self.weight, self.covariance, self.mean, kept)
        return Compensated(weight, shift if self.bias is None else self.bias + shift)

    def constant(self) -> Tensor:
        """Return the mean output, (out,)."""
        mean = (self.weight.double() @ self.mean).to(self.weight)
        return mean if self.bias is None else self.bias + mean


@dataclass(frozen=True, eq=False)
class BlockPart:
    """Linear layers of a block that change together: here any, which can only be factored."""

    name: str
    layers: Mapping[str, Tensor]
    """The weights, (out, in), by module name."""
    candidates: Mapping[str, Candidate]
    """Their decompositions, or none where factors are not asked for."""

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what parts have in common that take the same time in every shape."""
        return (type(self), *(tuple(weight.shape) for weight in self.layers.values()))

    def share(self, model: nn.Module, length: float) -> float:
        """Return how much of the time of a part that sees all tokens this one takes.

        Args:
            model: in which some layers may see the first token alone.
            length: tokens that the others see on average.
        """
        alone = first_token_layers(model)
        sizes = {name: weight.numel() for name, weight in self.layers.items()}
        seen = sum(size / length if name in alone else size for name, size in sizes.items())
        return seen / sum(sizes.values())

    def choices(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        """Return the loss of everything that the part can become, of the structures that are asked for."""
        found = {DENSE: 0.0}
        if "ranks" in structures:
            found |= self._factored()
        return found

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """Return the shapes to time, from which the time of all others follows."""
        if "ranks" not in structures:
            return []
        sides = [min(weight.shape) for weight in self.layers.values()]
        return [PartConfig("ranks", tuple(max(1, int(share * side)) for side in sides)) for share in TIMED_RANKS]

    def parameters(self, shape: PartConfig) -> float:
        """Return how many parameters of linear layers a shape has."""
        if shape == DROP:
            return 0
        ranks = shape.sizes if shape.structure == "ranks" else (0,) * len(self.layers)
        pairs = zip(self.layers.values(), ranks, strict=True)
        return sum(rank * sum(weight.shape) if rank else weight.numel() for weight, rank in pairs)

    def saved(self, shape: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """Return how much time a shape saves, of a part that sees all tokens.

        Args:
            shape: one of `choices`.
            timed: what each of `probes` saves.
        """
        if shape == DENSE:
            return 0.0
        if shape == DROP:
            return timed[DROP]
        known = {one.sizes: seconds for one, seconds in timed.items() if one.structure == "ranks"}
        whole = sum(weight.numel() for weight in self.layers.values())
        return sum(
            weight.numel() / whole * float(np.interp(rank, [one[place] for one in known], list(known.values())))
            for place, (weight, rank) in enumerate(zip(self.layers.values(), shape.sizes, strict=True))
            if rank
        )

    def put(self, model: nn.Module, shape: PartConfig) -> None:
        """Give the part of `model` this shape, in place."""
        if shape.structure == "ranks":
            for (name, candidate), rank in zip(self.candidates.items(), shape.sizes, strict=True):
                if rank:
                    replace(model, name, candidate.layer(rank))

    def _factored(self) -> dict[PartConfig, float]:
        """Ranks of all layers, at rising budgets that each spends in the best way."""
        offers = {name: one.offer() for name, one in self.candidates.items()}
        options = {name: offer.options for name, offer in offers.items()}
        whole = sum(float(one.costs[-1]) for one in options.values())
        found = {}
        for share in BUDGETS:
            chosen = minimise(options, share * whole)
            ranks = tuple(offers[name].ranks[i] or 0 for name, i in chosen.items())
            if any(ranks):
                found[PartConfig("ranks", ranks)] = sum(float(options[name].losses[i]) for name, i in chosen.items())
        return found


@dataclass(frozen=True, eq=False)
class _Read(BlockPart):
    """A part with one layer that reads features of its own."""

    reader: ReadFeatures

    def choices(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        """See `BlockPart.choices`."""
        found = super().choices(structures)
        if "nothing" in structures:
            found[DROP] = float(self.reader.removal.losses[0])
        return found | self._narrower(structures)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        return [*super().probes(structures), *([DROP] if "nothing" in structures else [])]

    @abstractmethod
    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]: ...


@dataclass(frozen=True, eq=False)
class FeedForwardPart(_Read):
    """The layers around some neurons."""

    place: FeedForward

    @property
    def neurons(self) -> int:
        """Return how many there are."""
        return len(self.reader.mean)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        counts = [max(1, int(share * self.neurons)) for share in TIMED_NEURONS] if "neurons" in structures else []
        return [*super().probes(structures), *(PartConfig("neurons", (count,)) for count in dict.fromkeys(counts))]

    def parameters(self, shape: PartConfig) -> float:
        """See `BlockPart.parameters`."""
        whole = super().parameters(shape)
        return whole * shape.sizes[0] / self.neurons if shape.structure == "neurons" else whole

    def saved(self, shape: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """See `BlockPart.saved`."""
        if shape.structure != "neurons":
            return super().saved(shape, timed)
        known = {one.sizes[0]: seconds for one, seconds in timed.items() if one.structure == "neurons"}
        known[self.neurons] = 0.0
        return float(np.interp(shape.sizes[0], list(known), list(known.values())))

    def put(self, model: nn.Module, shape: PartConfig) -> None:
        """See `BlockPart.put`."""
        if shape == DROP:
            for name in self.place.inputs:
                replace(model, name, PassThrough())
            replace(model, self.place.output, Constant.of(self.reader.constant()))
        elif shape.structure == "neurons":
            keep_neurons(model, self.place, self.reader, self.reader.removal.kept(shape.sizes[0]))
        else:
            super().put(model, shape)

    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        if "neurons" not in structures:
            return {}
        step = min(MULTIPLE, max(1, self.neurons // MULTIPLE))
        losses = self.reader.removal.losses.tolist()
        return {PartConfig("neurons", (count,)): losses[count] for count in range(step, self.neurons, step)}


@dataclass(frozen=True, eq=False)
class AttentionPart(_Read):
    """The projections of one self-attention."""

    place: SelfAttention
    scores: Sequence[Spectrum]
    """Each head's projections between query and key."""
    values: Sequence[Spectrum]
    """Each head's projections between value and output."""

    @property
    def heads(self) -> int:
        """Return how many there are."""
        return len(self.scores)

    def probes(self, structures: Iterable[str]) -> list[PartConfig]:
        """See `BlockPart.probes`."""
        heads, width = self.heads, self.place.width
        fewer = [(max(1, heads // 2), width, width), (1, width, width)] if "heads" in structures else []
        narrow = [(heads, *[max(1, width // by)] * 2) for by in (2, 4)] if "widths" in structures else []
        wanted = [sizes for sizes in (*fewer, *narrow) if sizes != (heads, width, width)]
        return [*super().probes(structures), *(PartConfig("heads", sizes) for sizes in dict.fromkeys(wanted))]

    def parameters(self, shape: PartConfig) -> float:
        """See `BlockPart.parameters`."""
        whole = super().parameters(shape)
        return whole * _features(shape) / self._all if shape.structure == "heads" else whole

    def saved(self, shape: PartConfig, timed: Mapping[PartConfig, float]) -> float:
        """See `BlockPart.saved`; the time of heads grows with their number, and with that of all their features."""
        if shape.structure != "heads":
            return super().saved(shape, timed)
        known = {one: seconds for one, seconds in timed.items() if one.structure == "heads"}
        # (both grow together where there is one kind of probes alone, and any share of the two will do)
        a, b = np.linalg.lstsq(np.array([self._gone(one) for one in known]), np.array(list(known.values())))[0]
        heads, features = self._gone(shape)
        return float(a * heads + b * features)

    def put(self, model: nn.Module, shape: PartConfig) -> None:
        """See `BlockPart.put`."""
        if shape == DROP:
            self._take_out(model)
        elif shape.structure == "heads":
            count, widths = shape.sizes[0], Widths(*shape.sizes[1:])
            places = self.reader.removal.kept(count).tolist()
            kept = [self._head(place, widths) for place in places]
            features = torch.zeros(count * widths.values, len(self.reader.mean)).to(self.reader.mean)
            for row, head in enumerate(kept):
                start = head.place * self.place.width
                own = slice(row * widths.values, (row + 1) * widths.values)
                features[own, start : start + self.place.width] = head.values
            narrowed_attention(model, self.place, kept, *self.reader.fitted(features)).put(model, self.place)
        else:
            super().put(model, shape)

    @property
    def _all(self) -> int:
        return 2 * self.heads * self.place.width

    def _gone(self, shape: PartConfig) -> tuple[int, int]:
        return self.heads - shape.sizes[0], self._all - _features(shape)

    def _head(self, place: int, widths: Widths) -> KeptHead:
        whole, width = KeptHead.whole(place, self.place.width), self.place.width
        narrow = KeptHead.of(place, self.scores[place], self.values[place], widths)
        if widths.scores == width:
            narrow = narrow._replace(queries=whole.queries, keys=whole.keys)
        return narrow._replace(values=whole.values) if widths.values == width else narrow

    def _take_out(self, model: nn.Module) -> None:
        first = isinstance(model.get_submodule(self.place.name), FirstTokenAttention)
        rows: Literal["all", "first"] = "first" if first else "all"
        if self.place.inside:
            replace(model, self.place.name, Constant.of(self.reader.constant(), rows=rows, returns="pair"))
        else:
            replace(model, self.place.name, PassThrough(rows=rows, returns="pair"))
            replace(model, self.place.output, Constant.of(self.reader.constant()))

    def _narrower(self, structures: Iterable[str]) -> dict[PartConfig, float]:
        heads, width = self.heads, self.place.width
        counts = range(1, heads + 1) if "heads" in structures else [heads]
        step = min(NARROWEST, max(1, width // 4))
        grid = [*range(step, width, step), width] if "widths" in structures else [width]
        removed = self.reader.removal.losses.tolist()
        of_scores, of_values = (
            np.stack([one.losses[grid].cpu().numpy() for one in spectra]) for spectra in (self.scores, self.values)
        )
        found: dict[PartConfig, float] = {}
        for count in counts:
            kept = self.reader.removal.kept(count).cpu().numpy()
            scores, values = of_scores[kept].sum(0), of_values[kept].sum(0)
            found |= {
                PartConfig("heads", (count, asked, given)): removed[count] + float(scores[i] + values[j])
                for i, asked in enumerate(grid)
                for j, given in enumerate(grid)
                if (count, asked, given) != (heads, width, width)
            }
        return found


def keep_neurons(model: nn.Module, place: FeedForward, reader: ReadFeatures, kept: Tensor) -> None:
    """Leave only these neurons, in place.

    Args:
        model: its layers are replaced.
        place: the layers around the neurons.
        reader: what calibration says of them.
        kept: (kept,) places of those that stay.
    """
    weight, bias = reader.fitted(kept)
    for name in place.inputs:
        layer = model.get_submodule(name)
        own = dense_bias(layer)
        replace(model, name, Resized.of(dense_weight(layer)[kept], None if own is None else own[kept]))
    replace(model, place.output, Resized.of(weight, bias))


def _features(shape: PartConfig) -> int:
    """Of all heads, of queries and of values together."""
    heads, asked, given = shape.sizes
    return heads * (asked + given)
