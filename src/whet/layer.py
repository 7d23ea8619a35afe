"""A layer that whet made describes itself, so that an empty one can be rebuilt before weights are loaded into it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from whet.errors import InvalidArtifact
from whet.lookup import members

__all__ = ["CompressedLayer", "OneLinear", "SavedLayer", "empty_layer"]


class SavedLayer(nn.Module, ABC):
    """Is listed in config.json, with what it takes to build it again."""

    @classmethod
    def kind(cls) -> str:
        """Return the name under which the layer is saved: that of its class, such as `low_rank`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def structure(self) -> dict[str, Any]:
        """Return what `in_place_of` needs to build the same layer without weights, as JSON values."""

    @classmethod
    @abstractmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """Return a layer of that structure whose weights are those of `replaced`, or still to be loaded."""


class CompressedLayer(SavedLayer):
    """Stands in for a dense layer, with other weights than its own.

    It keeps a `weight` buffer without elements. Where whet is not imported, transformers would otherwise ignore the
    unknown structure, fill the dense layer with random weights and only warn; the size mismatch makes that load fail.
    """

    weight: torch.Tensor
    """(0,); the guard described above, in the layer's dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0))

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`."""
        return cls.empty(structure)

    def stored(self) -> "CompressedLayer":
        """Return what is saved in its place: itself, unless the same weights can take less room."""
        return self

    def running(self) -> "CompressedLayer":
        """Return what takes its place once its weights are loaded: itself, unless it is only ever stored."""
        return self

    @classmethod
    @abstractmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """Return a layer of that structure whose weights are still to be loaded."""


class OneLinear(CompressedLayer):
    """One ordinary linear layer, which later stages, LoRA and exporters find as any other."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    @property
    def in_features(self) -> int:
        """Return the inputs, as a linear layer calls them."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Return the outputs, as a linear layer calls them."""
        return self.linear.out_features

    @property
    def bias(self) -> torch.Tensor | None:
        """Return the bias, (out,), or None."""
        return self.linear.bias

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Self:
        """Return the layer with these weights, (out, in) and (out,) or None."""
        layer = cls(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
        layer.linear.weight.data.copy_(weight)
        if bias is not None:
            layer.linear.bias.data.copy_(bias)
        return layer

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {
            "in_features": self.linear.in_features,
            "out_features": self.linear.out_features,
            "bias": self.linear.bias is not None,
        }

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["in_features"], structure["out_features"], bias=structure["bias"])


def empty_layer(kind: str, structure: Mapping[str, Any], replaced: nn.Module) -> SavedLayer:
    """Return the empty layer that a saved model describes.

    Args:
        kind: the name under which it was saved.
        structure: as it described itself.
        replaced: the module whose place it takes.

    Raises:
        InvalidArtifact: this version of whet knows no such layer, or the description lacks something.
    """
    known = {layer.kind(): layer for layer in members("whet.layers", SavedLayer)}
    if kind not in known:
        raise InvalidArtifact(f"a saved layer must be one of {', '.join(sorted(known))}, but got {kind!r}; update whet")
    try:
        layer: SavedLayer = known[kind].in_place_of(replaced, structure)
        return layer
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArtifact(f"a saved {kind} layer must be complete, but got {dict(structure)}: {error}") from error
