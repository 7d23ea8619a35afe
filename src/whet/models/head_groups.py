"""The heads of self-attentions of any family, found by what their layers do.

Heads are features that some linear layers compute and one layer reads, in equal groups: h = concat(h_1, ..., h_n),
where h_i depends only on some rows of the weights for query, key and value. The configuration gives the number of
heads. In each block, the layers beside one whose inputs it divides are candidates, and an experiment decides (see
`whet.models.proof`): the rows of some heads leave them, and the family's own code must compute the other heads as
before. So whole heads leave attentions with rotary or relative positions too. Heads that share a key and a value leave
together; where all share one, it stays.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.architecture import Architecture, dense_bias, dense_weight, refuse_compressed
from whet.models.attention import SelfAttention, compressed_attentions, matching_attentions
from whet.models.layers.fewer_heads import FewerHeads
from whet.models.layers.resized import Resized
from whet.models.proof import example_of, proven
from whet.models.surgery import replace_module
from whet.tasks.data import Batches

__all__ = ["HeadGroups", "attentions_with_heads"]

RUNS = (1, 3, 4, 5, 6)
"""Numbers of layers that compute heads: one fused; query, key and value; and more for positions or gates."""


Scaled = Literal["features", "heads", "config"]
"""Which numbers of an attention shrink with its heads: those of heads and of the features of all heads; or of heads
alone; or also the number of heads in the configuration that it reads."""
NO_COUNTS = ("dim", "size", "width")
"""Parts of names that belong to the features of one head, also where heads are spoken of."""


class Section(NamedTuple):
    """Consecutive rows of a layer."""

    rows: int
    """Number of rows."""
    groups: int
    """Groups of heads that have equal shares of the rows, in their order; 1 if all heads use all of them."""


class HeadGroups(NamedTuple):
    """The layers around the heads of one self-attention, by module name."""

    name: str
    """The attention module, which holds the layers that compute the heads."""
    inputs: tuple[str, ...]
    """The layers whose rows compute the heads."""
    output: str
    """The layer whose columns are the heads."""
    width: int
    """Features of a group of heads."""
    groups: int
    """Groups of heads that leave together."""
    heads: int
    """Heads of all groups."""
    sections: tuple[tuple[Section, ...], ...]
    """The sections of the rows of each of `inputs`."""
    scaled: Scaled = "features"
    """Which numbers of the attention module shrink."""

    @classmethod
    def all_of(cls, model: nn.Module, include: str, batches: Batches) -> list[Self]:
        """Return the attentions whose name the wildcard matches and whose heads can leave, in module order.

        Args:
            model: a model in eval mode.
            include: wildcard over names of attention modules.
            batches: calibration data; a few examples run through the model.

        Raises:
            NothingToCompress: there is no such attention, or none that matches.
        """
        attentions = cls._find(model, batches)
        if attentions:
            return matching_attentions(attentions, include)
        refuse_compressed(include, compressed_attentions(model))
        raise NothingToCompress(
            "heads must have rows of linear layers of their own and leave the other heads as they are, but "
            f"{type(model).__name__} has no such attention; remove neurons instead, with --method neurons, or "
            "factorise the layers, with --method kfac"
        )

    @classmethod
    def _find(cls, model: nn.Module, batches: Batches) -> list[Self]:
        """Return all attentions; blocks with layers of the same names and shapes are tested together."""
        batch, architecture = example_of(batches), Architecture.of(model)
        alike: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
        for block in architecture.blocks:
            names = tuple(name for name in architecture.linears if name.startswith(f"{block}."))
            shapes = (tuple(dense_weight(model.get_submodule(name)).shape) for name in names)
            key = tuple((name.removeprefix(block), *shape) for name, shape in zip(names, shapes, strict=True))
            alike.setdefault(key, []).append(names)
        confirmed: list[Self] = []
        for blocks in alike.values():
            used: set[str] = set()
            for parts in zip(*(cls._candidates(model, names) for names in blocks), strict=True):
                layers = {layer for part in parts for layer in (*part.inputs, part.output)}
                if not used & layers and proven(model, parts, batch):
                    confirmed += parts
                    used |= layers
        order = {name: index for index, name in enumerate(architecture.linears)}
        return sorted(confirmed, key=lambda attention: order[attention.output])

    @classmethod
    def _candidates(cls, model: nn.Module, names: Sequence[str]) -> Iterator[Self]:
        """Yield what the shapes of one block's layers allow."""
        heads, keys = _counts(model)
        shapes = [tuple(dense_weight(model.get_submodule(name)).shape) for name in names]
        for index, name in enumerate(names):
            features = shapes[index][1]
            if heads < 2 or features % heads:
                continue
            for inputs in (names[index - run : index] for run in RUNS if run <= index):
                yield from cls._around(model, inputs, name, heads, keys)
            yield from cls._around(model, names[index + 1 : index + 2], name, heads, keys)

    @classmethod
    def _around(cls, model: nn.Module, inputs: Sequence[str], output: str, heads: int, keys: int) -> Iterator[Self]:
        """Yield the ways in which layers may compute the heads that another layer reads."""
        weights = [dense_weight(model.get_submodule(name)) for name in inputs]
        beside = len({name.rpartition(".")[0] for name in inputs}) == 1  # MobileBERT's values read another vector
        if not weights or (len({weight.shape[1] for weight in weights}) > 1 and not beside):
            return
        parent, features = _common_parent(inputs), dense_weight(model.get_submodule(output)).shape[1]
        configured = hasattr(getattr(model.get_submodule(parent), "config", None), "num_attention_heads")
        for groups, sections in _sections([len(weight) for weight in weights], features, heads, keys):
            for scaled in get_args(Scaled)[: 3 if configured else 2]:
                yield cls(parent, tuple(inputs), output, features // groups, groups, heads, sections, scaled)

    def keep(self, model: nn.Module, kept: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See `Removable.keep`."""
        attention = model.get_submodule(self.name)
        structure = {
            "kept": kept.tolist(),
            "groups": self.groups,
            "heads": self.heads,
            "features": self.groups * self.width,
            "numbers": self._numbers(attention, len(kept)),
            "heads_in_config": self.scaled == "config",
        }
        replace_module(model, self.name, FewerHeads.in_place_of(attention, structure))
        for name, sections in zip(self.inputs, self.sections, strict=True):
            layer, rows = model.get_submodule(name), _rows(sections, kept)
            layer_bias = dense_bias(layer)
            narrow = Resized.of(dense_weight(layer)[rows], None if layer_bias is None else layer_bias[rows])
            replace_module(model, name, narrow)
        replace_module(model, self.output, Resized.of(weight, bias))

    def _numbers(self, attention: nn.Module, kept: int) -> dict[str, int]:
        """Return the numbers of an attention that grow with its heads, as they are with `kept` groups of them."""
        integers = {name: value for name, value in vars(attention).items() if type(value) is int}
        return {name: value * kept // self.groups for name, value in integers.items() if self._grows(name, value)}

    def _grows(self, name: str, value: int) -> bool:
        if "group" in name:  # of queries for each key: all, where one key and value serve every head
            return value == self.heads == self.groups
        if "head" in name and not any(part in name for part in NO_COUNTS):
            return value in (self.heads, self.groups)
        return self.scaled != "heads" and value == self.groups * self.width and "position" not in name


def attentions_with_heads(
    model: nn.Module, include: str, batches: Batches
) -> Sequence[SelfAttention] | Sequence[HeadGroups]:
    """Return the attentions whose name the wildcard matches and whose heads can leave, in module order.

    Args:
        model: a model in eval mode.
        include: wildcard over names of attention modules.
        batches: calibration data; a few examples run through the model.

    Raises:
        NothingToCompress: there is no such attention, or none that matches.
    """
    rebuilt = SelfAttention.found(model)
    return matching_attentions(rebuilt, include) if rebuilt else HeadGroups.all_of(model, include, batches)


def _counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of heads and of their keys that the configuration gives."""
    config: Any = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        return 1, 1
    keys = getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads
    return heads, keys


def _sections(
    rows: Sequence[int], features: int, heads: int, keys: int
) -> Iterator[tuple[int, tuple[tuple[Section, ...], ...]]]:
    """Yield the groups and the sections of every layer that numbers of rows allow.

    Args:
        rows: of each layer that computes the heads.
        features: of all heads.
        heads: number of heads.
        keys: number of keys that the configuration gives.
    """
    width = features // heads
    for count in dict.fromkeys((keys, heads, 1)):
        groups = heads if count == 1 else count
        if heads % groups:
            continue
        shared = [count * width] * 2
        key_groups = 1 if count == 1 else groups
        if len(rows) > 1:
            if count > 1 and not any(size % groups for size in rows):
                yield groups, tuple((Section(size, groups),) for size in rows)
            elif count == 1 and shared[0] in rows and not any(size % groups for size in rows if size != width):
                yield groups, tuple((Section(size, 1 if size == width else groups),) for size in rows)
        elif rows[0] == features + sum(shared):
            yield groups, ((Section(features, groups), *(Section(size, key_groups) for size in shared)),)
            if count > 1:
                yield groups, ((Section(rows[0], groups),),)


def _rows(sections: Sequence[Section], kept: Tensor) -> Tensor:
    """Return the indices of the rows of the groups `kept`."""
    start, rows = 0, []
    for section in sections:
        width = section.rows // section.groups
        chosen = kept if section.groups > 1 else kept.new_zeros(1)
        rows.append((start + chosen[:, None] * width + torch.arange(width, device=kept.device)).flatten())
        start += section.rows
    return torch.cat(rows)


def _common_parent(names: Sequence[str]) -> str:
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)
