"""A layer that whet made describes itself, so that an empty one can be rebuilt before weights are loaded into it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from whet.errors import InvalidArtifact
from whet.utils.lookup import members

__all__ = [
    "CompressedLayer",
    "LayerShape",
    "ReplacesDense",
    "RunsDense",
    "SavedLayer",
    "WrapsLinear",
    "count_nonzeros",
    "count_weights",
    "empty_layer",
]


class SavedLayer(nn.Module, ABC):
    """Is listed in config.json, with what it takes to build it again."""

    saved_as: ClassVar[str] = ""
    """The name in config.json where it is not the class's own; files that older versions wrote have it."""

    @classmethod
    def kind(cls) -> str:
        """Return the name under which the layer is saved: that of its class, such as `low_rank`, or `saved_as`."""
        return cls.saved_as or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

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

    def other_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the weights that are no parameters."""
        return ()

    @classmethod
    @abstractmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """Return a layer of that structure whose weights are still to be loaded."""


class WrapsLinear(CompressedLayer):
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


@dataclass(frozen=True)
class LayerShape:
    """The ordinary layer that a compressed one runs as, or stands for."""

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

    def empty(self) -> nn.Linear | nn.Embedding:
        """Return the layer without its weights."""
        if self.layer == "linear":
            return nn.Linear(self.columns, self.rows, bias=self.bias)
        return nn.Embedding(self.rows, self.columns, padding_idx=self.padding_idx)


class ReplacesDense(CompressedLayer):
    """Stands for one ordinary layer, whose weights it has in another representation."""

    forms: ClassVar[type[LayerShape]] = LayerShape
    """What describes it."""

    def __init__(self, form: LayerShape) -> None:
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

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(cls.forms(**structure))

    def extra_repr(self) -> str:
        """Return the shape for `print(model)`."""
        return f"{self.form.layer}, {self.form.rows} x {self.form.columns}"


class RunsDense(ReplacesDense):
    """Runs as the ordinary layer that it stands for, `dense`, which later stages and exporters find as any other."""

    def __init__(self, form: LayerShape) -> None:
        super().__init__(form)
        self.dense = form.empty()

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, form: LayerShape) -> Self:
        """Return the layer with these weights.

        Args:
            weight: (rows, columns).
            bias: (rows,) or None.
            form: of that shape.
        """
        layer = cls(form).to(weight)
        layer.dense.weight.data.copy_(weight)
        if isinstance(layer.dense, nn.Linear) and bias is not None:
            layer.dense.bias.data.copy_(bias)
        return layer

    @property
    def bias(self) -> torch.Tensor | None:
        """(rows,) or None."""
        return self.dense.bias if isinstance(self.dense, nn.Linear) else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (..., out) from (..., in), or (..., features) from (...) words."""
        out: torch.Tensor = self.dense(inputs)
        return out


def count_weights(model: nn.Module) -> int:
    """Return how many weights a model has, those in 8 bits too; tied ones count once."""
    return sum(weight.numel() for weight in _weights(model))


def count_nonzeros(model: nn.Module) -> int:
    """Return how many of these weights are not zero."""
    return sum(int(weight.count_nonzero()) for weight in _weights(model))


def _weights(model: nn.Module) -> list[torch.Tensor]:
    layers = [module for module in model.modules() if isinstance(module, CompressedLayer)]
    return [*model.parameters(), *(weight for layer in layers for weight in layer.other_weights())]


def empty_layer(kind: str, structure: Mapping[str, Any], replaced: nn.Module) -> SavedLayer:
    """Return the empty layer that a saved model describes.

    Args:
        kind: the name under which it was saved.
        structure: as it described itself.
        replaced: the module whose place it takes.

    Raises:
        InvalidArtifact: this version of whet knows no such layer, or the description lacks something.
    """
    known = {layer.kind(): layer for layer in members("whet.models.layers", SavedLayer)}
    if kind not in known:
        raise InvalidArtifact(f"a saved layer must be one of {', '.join(sorted(known))}, but got {kind!r}; update whet")
    try:
        layer: SavedLayer = known[kind].in_place_of(replaced, structure)
        return layer
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArtifact(f"a saved {kind} layer must be complete, but got {dict(structure)}: {error}") from error
