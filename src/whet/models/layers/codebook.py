"""A linear layer or an embedding whose weights have few distinct values: W = codebook[assignments].

It runs as the ordinary layer that it is, and costs no time. In training, weights that are equal get the mean of their
gradients, so that they stay equal: the codebook moves, and the assignments do not. It is stored as the codebook and,
for every weight, its place in it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from whet.models.layers._coded import EntropyCoded
from whet.models.layers.base import CompressedLayer, LayerShape, RunsDense
from whet.numerics.coding import Coding, decode_integers, encode_integers

__all__ = ["Clustered", "Codebook", "CodebookSpec"]

MOST = 256
"""Values that a byte can tell apart."""


@dataclass(frozen=True)
class CodebookSpec(LayerShape):
    """The ordinary layer that a clustered one runs as."""

    coding: Coding = "fixed"
    """How it is stored."""


class _Held(NamedTuple):
    """Which weights are equal, while they are trained."""

    assignments: Tensor
    """(weights,) int32, the number of each weight's value."""
    counts: Tensor
    """(values,) how many weights have it."""
    members: Tensor
    """(values,) the place of one weight of each."""
    moving: Tensor
    """(values,) whether it is not zero."""

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """Return what is equal in a weight."""
        values, places, counts = weight.unique(return_inverse=True, return_counts=True)
        assignments = places.flatten()
        everyone = torch.arange(len(assignments), device=weight.device)
        members = torch.empty_like(counts).scatter_(0, assignments, everyone)
        return cls(assignments.int(), counts, members, values != 0)

    def spread(self, values: Tensor) -> Tensor:
        """Return (weights,) from (values,)."""
        return values.index_select(0, self.assignments)


class Clustered(RunsDense):
    """Weights that are equal stay equal in training, and zeros stay zero."""

    forms = CodebookSpec
    form: CodebookSpec

    def __init__(self, form: LayerShape) -> None:
        super().__init__(form)
        self._held: _Held | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in), or (..., features) from (...) words."""
        dense = self.dense
        if not (torch.is_grad_enabled() and dense.weight.requires_grad):
            return super().forward(inputs)
        weight = dense.weight.view_as(dense.weight)
        weight.register_hook(self._shared)
        if isinstance(dense, nn.Embedding):
            return embedding(inputs, weight, dense.padding_idx)
        return linear(inputs, weight, dense.bias)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; where training ends, equal weights that rounding has set apart are made equal again."""
        if self._held is not None and not mode:
            weight = self.dense.weight.detach()
            weight.copy_(self._held.spread(weight.flatten()[self._held.members]).view_as(weight))
        return super().train(mode)

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        values, places = self.dense.weight.detach().unique(return_inverse=True)
        if len(values) > MOST:
            return self
        stored = Codebook.of(values, places.flatten().byte(), self.bias, self.form)
        size = values.element_size()
        return stored if len(stored.codes) + size * len(values) < size * places.numel() else self

    def _shared(self, gradient: Tensor) -> Tensor:
        """The gradient with the mean of equal weights in the place of their own: its part along the codebook."""
        if self._held is None:
            self._held = _Held.of(self.dense.weight.detach())
        held = self._held
        sums = torch.bincount(held.assignments, gradient.flatten().double(), minlength=len(held.counts))
        means = (sums / held.counts * held.moving).to(gradient.dtype)
        return held.spread(means).view_as(gradient)


class Codebook(EntropyCoded):
    """Values and assignments of one clustered layer."""

    forms = CodebookSpec
    form: CodebookSpec
    own: ClassVar[tuple[str, ...]] = ("size", "used", "values")

    codebook: Tensor
    """(values,) rising."""

    def __init__(self, form: CodebookSpec, size: int, used: Coding, values: int) -> None:
        super().__init__(form, size, used)
        self.register_buffer("codebook", torch.zeros(values))

    @classmethod
    def of(cls, values: Tensor, assignments: Tensor, bias: Tensor | None, form: CodebookSpec) -> Self:
        """Return the stored form of a layer; assignments take the fewer bytes of both codings where it may choose.

        Args:
            values: (values,) 256 at most.
            assignments: (rows · columns,) uint8.
            bias: (rows,) or None.
            form: of the layer.
        """
        bits = _bits(len(values))
        codes, used = encode_integers(assignments, bits, form.coding)
        stored = cls(form, len(codes), used, len(values)).to(values)
        stored.codebook, stored.codes = values, codes
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are the same to the bit."""
        count = self.form.rows * self.form.columns
        places = decode_integers(self.codes, _bits(len(self.codebook)), count, self.used)
        weight = self.codebook[places.int()].reshape(self.form.rows, self.form.columns)
        return Clustered.of(weight, self.bias, self.form)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "values": len(self.codebook)}


def _bits(values: int) -> int:
    return max(1, (values - 1).bit_length())
