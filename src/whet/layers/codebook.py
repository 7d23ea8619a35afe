"""A linear layer or an embedding whose weights have few distinct values: W = codebook[assignments].

It runs as the ordinary layer that it is, and costs no time. In training, weights that are equal get the mean of their
gradients, so that they stay equal: the codebook moves, and the assignments do not. It is stored as the codebook and,
for every weight, its place in it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from whet.bits import deflated, inflated, packed, unpacked
from whet.layer import CompressedLayer

__all__ = ["Clustered", "Codebook", "Coding", "Form"]

Coding = Literal["fixed", "entropy"]
"""How assignments are stored: all in as many bits as the largest needs, or frequent ones in fewer."""
MOST = 256
"""Values that a byte can tell apart."""


@dataclass(frozen=True)
class Form:
    """The ordinary layer that a clustered one runs as."""

    layer: Literal["linear", "embedding"]
    """Which one."""
    rows: int
    """Outputs, or words."""
    columns: int
    """Inputs, or features of a word."""
    bias: bool = False
    """Whether there is one."""
    padding_idx: int | None = None
    """The word that is not trained."""
    coding: Coding = "fixed"
    """How it is stored."""

    def empty(self) -> nn.Linear | nn.Embedding:
        """Return the layer without its weights."""
        if self.layer == "linear":
            return nn.Linear(self.columns, self.rows, bias=self.bias)
        return nn.Embedding(self.rows, self.columns, padding_idx=self.padding_idx)


class _Formed(CompressedLayer):
    """Has a form."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    @property
    def in_features(self) -> int:
        """Inputs of the linear layer."""
        return self.form.columns

    @property
    def out_features(self) -> int:
        """Outputs of the linear layer."""
        return self.form.rows

    @property
    def num_embeddings(self) -> int:
        """Words of the embedding."""
        return self.form.rows

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return asdict(self.form)

    def extra_repr(self) -> str:
        """Return the shape for `print(model)`."""
        return f"{self.form.layer}, {self.form.rows} x {self.form.columns}"


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


class Clustered(_Formed):
    """Weights that are equal stay equal in training, and zeros stay zero."""

    def __init__(self, form: Form) -> None:
        super().__init__(form)
        self.dense = form.empty()
        self._held: _Held | None = None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, form: Form) -> Self:
        """Return the layer with these weights.

        Args:
            weight: (rows, columns) of few distinct values.
            bias: (rows,) or None.
            form: of that shape.
        """
        layer = cls(form).to(weight)
        layer.dense.weight.data.copy_(weight)
        if isinstance(layer.dense, nn.Linear) and bias is not None:
            layer.dense.bias.data.copy_(bias)
        return layer

    @property
    def bias(self) -> Tensor | None:
        """(rows,) or None."""
        return self.dense.bias if isinstance(self.dense, nn.Linear) else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in), or (..., features) from (...) words."""
        dense = self.dense
        if not (torch.is_grad_enabled() and dense.weight.requires_grad):
            out: Tensor = dense(inputs)
            return out
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

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(Form(**structure))

    def _shared(self, gradient: Tensor) -> Tensor:
        """The gradient with the mean of equal weights in the place of their own: its part along the codebook."""
        if self._held is None:
            self._held = _Held.of(self.dense.weight.detach())
        held = self._held
        sums = torch.bincount(held.assignments, gradient.flatten().double(), minlength=len(held.counts))
        means = (sums / held.counts * held.moving).to(gradient.dtype)
        return held.spread(means).view_as(gradient)


class Codebook(_Formed):
    """Values and assignments of one clustered layer; never run."""

    codebook: Tensor
    """(values,) rising."""
    codes: Tensor
    """(bytes,) uint8, the assignments row by row."""
    bias: Tensor | None
    """(rows,) or None."""

    def __init__(self, form: Form, values: int, size: int) -> None:
        super().__init__(form)
        self.register_buffer("codebook", torch.zeros(values))
        self.register_buffer("codes", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("bias", torch.zeros(form.rows) if form.bias else None)

    @classmethod
    def of(cls, values: Tensor, assignments: Tensor, bias: Tensor | None, form: Form) -> Self:
        """Return the stored form of a layer; assignments take the fewer bytes of both codings where it may choose.

        Args:
            values: (values,) 256 at most.
            assignments: (rows · columns,) uint8.
            bias: (rows,) or None.
            form: of the layer.
        """
        bits = _bits(len(values))
        codes = packed(assignments, bits)
        if form.coding == "entropy":
            shorter = deflated(assignments, bits)
            codes, form = (shorter, form) if len(shorter) < len(codes) else (codes, replace(form, coding="fixed"))
        stored = cls(form, len(values), len(codes)).to(values)
        stored.codebook, stored.codes = values, codes
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are the same to the bit."""
        restore = inflated if self.form.coding == "entropy" else unpacked
        count = self.form.rows * self.form.columns
        places = restore(self.codes, _bits(len(self.codebook)), count)
        weight = self.codebook[places.int()].reshape(self.form.rows, self.form.columns)
        return Clustered.of(weight, self.bias, self.form)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "values": len(self.codebook), "size": len(self.codes)}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        form = {key: value for key, value in structure.items() if key not in ("values", "size")}
        return cls(Form(**form), structure["values"], structure["size"])


def _bits(values: int) -> int:
    return max(1, (values - 1).bit_length())
