"""A linear layer or an embedding whose weights have few distinct values: W = codebook[assignments].

The layer runs as an ordinary one, at no extra cost. In training, equal weights get the mean of their gradients and stay
equal: training moves the codebook and leaves the assignments. Files hold the codebook and the assignment of every
weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from whet.models.layers._coded import EntropyCoded
from whet.models.layers.base import CompressedLayer, LayerShape, RunsDense
from whet.numerics.coding import Coding, coding_used, decode_integers, encode_integers

__all__ = ["Clustered", "Codebook", "CodebookSpec"]

MOST = 256
"""Largest codebook, since an assignment is one byte."""


@dataclass(frozen=True)
class CodebookSpec(LayerShape):
    """The type and shape of a clustered layer, and the coding of its assignments."""

    coding: Coding = "fixed"
    """How files store the assignments."""


class _Clusters(NamedTuple):
    """The clusters of equal weights at the start of training."""

    assignments: Tensor
    """(weights,) int32 cluster of each weight."""
    counts: Tensor
    """(clusters,) number of weights in each cluster."""
    members: Tensor
    """(clusters,) flat index of one weight in each cluster."""
    moving: Tensor
    """(clusters,) bool, False for the cluster of zeros, which stay zero."""

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """Return the clusters of equal weights."""
        values, inverse, counts = weight.unique(return_inverse=True, return_counts=True)
        assignments = inverse.flatten()
        indices = torch.arange(len(assignments), device=weight.device)
        members = torch.empty_like(counts).scatter_(0, assignments, indices)
        return cls(assignments.int(), counts, members, values != 0)

    def spread(self, values: Tensor) -> Tensor:
        """Return the value of each weight, (weights,), from the value of each cluster, (clusters,)."""
        return values.index_select(0, self.assignments)


class Clustered(RunsDense):
    """Runs as an ordinary layer; in training, equal weights stay equal and zeros stay zero."""

    spec_class = CodebookSpec
    spec: CodebookSpec

    def __init__(self, spec: LayerShape) -> None:
        super().__init__(spec)
        self._clusters: _Clusters | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in), or (..., features) from (...) token ids."""
        dense = self.dense
        if not (torch.is_grad_enabled() and dense.weight.requires_grad):
            return super().forward(inputs)
        weight = dense.weight.view_as(dense.weight)
        weight.register_hook(self._mean_gradient)
        if isinstance(dense, nn.Embedding):
            return embedding(inputs, weight, dense.padding_idx)
        return linear(inputs, weight, dense.bias)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; at the end of training, make weights of a cluster exactly equal again despite rounding."""
        if self._clusters is not None and not mode:
            weight = self.dense.weight.detach()
            weight.copy_(self._clusters.spread(weight.flatten()[self._clusters.members]).view_as(weight))
        return super().train(mode)

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        values, assignments = self.dense.weight.detach().unique(return_inverse=True)
        if len(values) > MOST:
            return self
        stored = Codebook.of(values, assignments.flatten().byte(), self.bias, self.spec)
        size = values.element_size()
        return stored if len(stored.codes) + size * len(values) < size * assignments.numel() else self

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        if "codes" not in tensors:
            return None
        size, values = len(tensors["codes"]), len(tensors["codebook"])
        used = coding_used(size, _bits(values), self.spec.rows * self.spec.columns)
        return Codebook(self.spec, size, used, values)

    def _mean_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient projected onto the codebook: the mean over each cluster."""
        if self._clusters is None:
            self._clusters = _Clusters.of(self.dense.weight.detach())
        clusters = self._clusters
        sums = torch.bincount(clusters.assignments, gradient.flatten().double(), minlength=len(clusters.counts))
        means = (sums / clusters.counts * clusters.moving).to(gradient.dtype)
        return clusters.spread(means).view_as(gradient)


class Codebook(EntropyCoded):
    """The stored form of a clustered layer: its codebook and coded assignments."""

    spec_class = CodebookSpec
    spec: CodebookSpec
    extra_fields: ClassVar[tuple[str, ...]] = ("size", "used", "values")

    codebook: Tensor
    """(values,) ascending."""

    def __init__(self, spec: CodebookSpec, size: int, used: Coding, values: int) -> None:
        super().__init__(spec, size, used)
        self.register_buffer("codebook", torch.zeros(values))

    @classmethod
    def of(cls, values: Tensor, assignments: Tensor, bias: Tensor | None, spec: CodebookSpec) -> Self:
        """Return the stored form of a layer; its spec says which coding of the assignments is allowed.

        Args:
            values: (values,) the codebook, at most 256 values.
            assignments: (rows · columns,) uint8 index of each weight's value in the codebook.
            bias: (rows,) or None.
            spec: the spec of the layer.
        """
        bits = _bits(len(values))
        codes, used = encode_integers(assignments, bits, spec.coding)
        stored = cls(spec, len(codes), used, len(values)).to(values)
        stored.codebook, stored.codes = values, codes
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are bit-identical."""
        count = self.spec.rows * self.spec.columns
        assignments = decode_integers(self.codes, _bits(len(self.codebook)), count, self.used)
        weight = self.codebook[assignments.int()].reshape(self.spec.rows, self.spec.columns)
        return Clustered.of(weight, self.bias, self.spec)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "values": len(self.codebook)}


def _bits(values: int) -> int:
    return max(1, (values - 1).bit_length())
