"""The bases of layers that methods put into models: each describes its structure, so that loading can rebuild it.

Loading builds an empty layer from the structure in config.json and then reads its weights from the file. A layer may
have two forms: one that runs, and a smaller one that exists only in files.
"""

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
    """A layer that config.json lists with its structure."""

    saved_as: ClassVar[str] = ""
    """The kind in config.json if it is not the class name; it keeps files of older versions loadable."""

    @property
    def hides_attentions(self) -> bool:
        """Whether the layer stands for a self-attention, but returns no attention weights."""
        return False

    @classmethod
    def kind(cls) -> str:
        """Return the name of this kind of layer in config.json: `saved_as`, or the class name, such as `low_rank`."""
        return cls.saved_as or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def structure(self) -> dict[str, Any]:
        """Return the JSON values from which `in_place_of` builds the same layer without its weights."""

    @classmethod
    @abstractmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """Return a layer of this structure.

        Args:
            replaced: the module that the layer replaces; the layer may take over its weights.
            structure: as `structure` returned it. Weights that `replaced` does not have are to be loaded later.
        """


class CompressedLayer(SavedLayer):
    """Replaces a dense layer and has other weights.

    Its `weight` buffer is empty, to make loading without whet fail: transformers would otherwise ignore the unknown
    structure, fill the dense layer with random weights and only warn, while the size mismatch is an error.
    """

    weight: torch.Tensor
    """(0,) the guard described above, in the dtype of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0))

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`."""
        return cls.empty(structure)

    def stored(self) -> "CompressedLayer":
        """Return the layer to write to a file: the layer itself, or a form of it that takes less space."""
        return self

    def running(self) -> "CompressedLayer":
        """Return the layer to run after loading; a layer that exists only in files returns its running form."""
        return self

    def empty_storage(self, tensors: Mapping[str, torch.Tensor]) -> "CompressedLayer | None":
        """Return the empty stored form that holds tensors of these names and shapes; None if they are of this form."""
        return None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # checkpoints of a training hold the stored form, which transformers.Trainer loads into the running model
        tensors = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        stored = self.empty_storage(tensors)
        if stored is not None:
            stored.load_state_dict(tensors)
            for name in tensors:
                del state_dict[prefix + name]
            state_dict.update({prefix + name: value for name, value in stored.running().state_dict().items()})
        super()._load_from_state_dict(state_dict, prefix, *others)

    def other_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the weights that are buffers instead of parameters."""
        return ()

    @classmethod
    @abstractmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """Return a layer of this structure whose weights are to be loaded later."""


class WrapsLinear(CompressedLayer):
    """Wraps one ordinary linear layer, which later stages, LoRA and exporters find like any other."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    @property
    def in_features(self) -> int:
        """Number of input features."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Number of output features."""
        return self.linear.out_features

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, (out,), or None."""
        return self.linear.bias

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Self:
        """Return a layer with this weight, (out, in), and bias, (out,) or None."""
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
    """The type and shape of an ordinary layer."""

    layer: Literal["linear", "embedding"]
    """The type of the layer."""
    rows: int
    """Output features of a linear layer, or tokens of an embedding."""
    columns: int
    """Input features of a linear layer, or features per token."""
    bias: bool = False
    """Whether the layer has a bias."""
    padding_idx: int | None = None
    """The token whose row is not trained."""

    def empty(self) -> nn.Linear | nn.Embedding:
        """Return an ordinary layer of this shape, with weights to be loaded later."""
        if self.layer == "linear":
            return nn.Linear(self.columns, self.rows, bias=self.bias)
        return nn.Embedding(self.rows, self.columns, padding_idx=self.padding_idx)


class ReplacesDense(CompressedLayer):
    """Replaces one ordinary layer and represents its weights in another way."""

    spec_class: ClassVar[type[LayerShape]] = LayerShape
    """The class of `spec`."""

    def __init__(self, spec: LayerShape) -> None:
        super().__init__()
        self.spec = spec

    @property
    def in_features(self) -> int:
        """Input features of the linear layer."""
        return self.spec.columns

    @property
    def out_features(self) -> int:
        """Output features of the linear layer."""
        return self.spec.rows

    @property
    def num_embeddings(self) -> int:
        """Tokens of the embedding."""
        return self.spec.rows

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return asdict(self.spec)

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(cls.spec_class(**structure))

    def extra_repr(self) -> str:
        """Return the shape for `print(model)`."""
        return f"{self.spec.layer}, {self.spec.rows} x {self.spec.columns}"


class RunsDense(ReplacesDense):
    """Runs as an ordinary layer, `dense`, which later stages and exporters find like any other."""

    def __init__(self, spec: LayerShape) -> None:
        super().__init__(spec)
        self.dense = spec.empty()

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, spec: LayerShape) -> Self:
        """Return a layer with these weights.

        Args:
            weight: (rows, columns).
            bias: (rows,) or None.
            spec: the type and shape of the layer.
        """
        layer = cls(spec).to(weight)
        layer.dense.weight.data.copy_(weight)
        if isinstance(layer.dense, nn.Linear) and bias is not None:
            layer.dense.bias.data.copy_(bias)
        return layer

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias of a linear layer, (rows,), or None."""
        return self.dense.bias if isinstance(self.dense, nn.Linear) else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (..., out) from (..., in), or (..., features) from (...) token ids."""
        out: torch.Tensor = self.dense(inputs)
        return out


def count_weights(model: nn.Module) -> int:
    """Return the number of weights of a model, int8 buffers included; tied weights count once."""
    return sum(weight.numel() for weight in _weights(model))


def count_nonzeros(model: nn.Module) -> int:
    """Return the number of these weights that are not zero."""
    return sum(int(weight.count_nonzero()) for weight in _weights(model))


def _weights(model: nn.Module) -> list[torch.Tensor]:
    layers = [module for module in model.modules() if isinstance(module, CompressedLayer)]
    return [*model.parameters(), *(weight for layer in layers for weight in layer.other_weights())]


def empty_layer(kind: str, structure: Mapping[str, Any], replaced: nn.Module) -> SavedLayer:
    """Return the empty layer that an entry of config.json describes.

    Args:
        kind: the kind of the saved layer; see `SavedLayer.kind`.
        structure: the structure of the saved layer; see `SavedLayer.structure`.
        replaced: the module that the layer replaces.

    Raises:
        InvalidArtifact: this version of whet has no such kind of layer, or the structure is incomplete.
    """
    classes = {layer.kind(): layer for layer in members("whet.models.layers", SavedLayer)}
    if kind not in classes:
        raise InvalidArtifact(
            f"a saved layer must be one of {', '.join(sorted(classes))}, but got {kind!r}; update whet"
        )
    try:
        layer: SavedLayer = classes[kind].in_place_of(replaced, structure)
        return layer
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidArtifact(
            f"a saved {kind} layer must be complete, but got {dict(structure)!s:.200}: {error}; copy it again"
        ) from error
