"""A self-attention of any family with some of its heads.

Attentions of transformers compute heads from the widths of their layers, or from numbers that they store. So the
attention keeps its own class and code, and its modules their names: only its numbers of heads and of their features
change, and what it has for every head (a parameter of its own, or a bias of the scores that is passed to it) is cut.
Which numbers change is found by experiment, and stored (see `whet.models.head_groups`).
"""

import inspect
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from whet.models.layers.base import SavedLayer

__all__ = ["FewerHeads"]

BIASES = ("alibi", "bias", "mask")
"""Parts of the names of arguments that may hold something for every head."""


class _ConfigOfOne:
    """The configuration of a model as one attention sees it, with fewer heads than the others."""

    def __init__(self, config: Any, heads: int) -> None:
        self.whole = config
        self.num_attention_heads = heads

    def __getattr__(self, name: str) -> Any:
        if name == "whole":  # not there yet, in a copy
            raise AttributeError(name)
        return getattr(self.whole, name)


class FewerHeads(SavedLayer):
    """Replaces a self-attention by itself with fewer heads; its layers are to be replaced by narrower ones too."""

    saved_as: ClassVar[str] = "fewer_heads"

    kept: tuple[int, ...]
    """The remaining groups of heads; heads that share a key and a value are a group."""
    groups: int
    """Groups of heads that there were."""
    heads: int
    """Heads that there were."""
    features: int
    """Features of all these heads together, as the output projection read them."""
    numbers: tuple[str, ...]
    """Names of the numbers of the attention that are smaller than they were."""
    heads_in_config: bool
    """Whether the attention reads its number of heads from the configuration."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Return what the attention returns, computed with the remaining heads."""
        attention: Any = super()
        names = inspect.signature(attention.forward).parameters
        # the first argument is the hidden states
        kept = [self._cut(name, value) for name, value in zip(names, arguments, strict=False)]
        kept += arguments[len(kept) :]
        return attention.forward(*kept, **{name: self._cut(name, value) for name, value in named.items()})

    def _cut(self, name: str, value: Any) -> Any:
        """Return what is passed to the remaining heads alone, if it holds something for every head."""
        if not isinstance(value, Tensor) or not any(part in name for part in BIASES) or self.heads == 1:
            return value
        if value.dim() == 4 and value.shape[1] == self.heads:  # (batch or 1, heads, queries, keys)
            return value[:, self._heads]
        if value.dim() == 3 and value.shape[0] % self.heads == 0:  # (batch * heads, queries or 1, keys)
            return value.unflatten(0, (-1, self.heads))[:, self._heads].flatten(0, 1)
        return value

    @property
    def _heads(self) -> list[int]:
        each = self.heads // self.groups
        return [group * each + head for group in self.kept for head in range(each)]

    def structure(self) -> dict[str, Any]:
        """See `SavedLayer.structure`."""
        return {
            "kept": list(self.kept),
            "groups": self.groups,
            "heads": self.heads,
            "features": self.features,
            "numbers": {name: getattr(self, name) for name in self.numbers},
            "heads_in_config": self.heads_in_config,
        }

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`; it is `replaced` itself that changes."""
        layer: Any = replaced
        layer.__class__ = types.new_class(cls.__name__, (cls, type(replaced)))
        layer.kept, layer.numbers = tuple(structure["kept"]), tuple(structure["numbers"])
        layer.groups, layer.heads, layer.features = (structure[name] for name in ("groups", "heads", "features"))
        for name, number in structure["numbers"].items():
            if type(getattr(layer, name)) is not int or type(number) is not int:
                raise TypeError(f"{name} must be a whole number of the attention")
        vars(layer).update(structure["numbers"])
        layer.heads_in_config = structure["heads_in_config"]
        if layer.heads_in_config:
            layer.config = _ConfigOfOne(layer.config, len(layer._heads))
        for name, parameter in list(layer.named_parameters(recurse=False)):
            kept = nn.Parameter(layer._rows(parameter.detach()), parameter.requires_grad)
            layer.register_parameter(name, kept)
        return layer  # type: ignore[no-any-return]

    def _rows(self, parameter: Tensor) -> Tensor:
        """Return the entries of a parameter for the remaining heads; all, if it has nothing for every head."""
        for axis, size in enumerate(parameter.shape):
            if size in (self.heads, self.features):
                by_group: Tensor = parameter.unflatten(axis, (self.groups, -1))
                kept = by_group.index_select(axis, torch.tensor(self.kept, device=parameter.device))
                return kept.flatten(axis, axis + 1).contiguous()
        return parameter
