"""The parts of a model by module name: its blocks, their linear layers and its embeddings.

The blocks are the longest list of modules of one class. This rule finds the blocks of BERT, DistilBERT, RoBERTa, GPT-2
and Llama, and leaves out embeddings, poolers and heads. A model whose head should be compressed too names its linear
layers in an attribute `linears_after_blocks`, a tuple of module names.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from whet.errors import InvalidModel, NothingToCompress
from whet.models.layers.base import CompressedLayer

__all__ = [
    "Architecture",
    "Reach",
    "changes_length",
    "dense_bias",
    "dense_layers_in_blocks",
    "dense_weight",
    "is_dense",
    "reach_of",
    "refuse_cascade",
    "refuse_compressed",
    "rows_read",
]


@dataclass(frozen=True)
class Architecture:
    """The parts of one model, by module name."""

    blocks: tuple[str, ...]
    """The blocks, first to last."""
    linears: tuple[str, ...]
    """The dense linear layers inside the blocks and in `linears_after_blocks`, in module order; none is shared."""
    shared: tuple[str, ...] = ()
    """The dense linear layers whose weights other modules use too."""
    inner: tuple[str, ...] = ()
    """The dense linear layers inside compressed layers, such as the factors of a low-rank layer."""
    compressed: tuple[tuple[str, str], ...] = ()
    """The name and kind of each compressed layer in place of a linear one, such as low_rank."""
    embeddings: tuple[str, ...] = ()
    """The ordinary embeddings of the whole model that share their weights with no other module."""
    others: tuple[str, ...] = ()
    """The classes of the other modules that hold matrices in the blocks, such as Conv1d, most weights first."""
    parts: tuple[str, ...] = ()
    """The blocks, or their parts where these lie in several lists beside each other."""

    @property
    def lies_in_several_lists(self) -> bool:
        """Whether the parts of a block lie in lists beside each other, as XLM's attentions and feed-forward parts."""
        return len(self.parts) > len(self.blocks)

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Return the parts of `model`.

        Raises:
            InvalidModel: the model has no list of equal blocks, or is a cascade.
        """
        refuse_cascade(model)
        lists = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) > 0 and len({type(child) for child in module}) == 1
        ]
        if not lists:
            raise InvalidModel(f"the model must have a list of equal blocks, but {type(model).__name__} has none")
        # of equally long lists the outermost comes first
        name, blocks = max(lists, key=lambda pair: len(pair[1]))
        names = tuple(f"{name}.{i}" for i in range(len(blocks)))
        outer = name.rpartition(".")[0]
        # XLM's attentions and feed-forward parts lie in lists beside each other
        beside = [
            other for other, modules in lists if other.rpartition(".")[0] == outer and len(modules) == len(blocks)
        ]
        named: tuple[str, ...] = getattr(model, "linears_after_blocks", ())
        users = _users(model)
        within = tuple(f"{other}.{i}" for i in range(len(blocks)) for other in beside)
        parts = (*within, *named)
        linears, shared, inner = _dense_below(model, parts, users)
        compressed, others = _compressed_below(model, parts), _others_below(model, parts)
        return cls(names, linears, shared, inner, compressed, _embeddings(model, users), others, within)

    def matching(self, include: str) -> tuple[str, ...]:
        """Return the names of the linear layers that the wildcard `include` matches.

        Raises:
            NothingToCompress: the wildcard matches no layer, or only compressed ones or those with shared weights.
        """
        matching = tuple(name for name in self.linears if fnmatchcase(name, include))
        if not matching:
            self.refuse_shared(include)
            refuse_compressed(include, [pair for pair in self.compressed if fnmatchcase(pair[0], include)])
            here = f"the linear layers here are {', '.join(self.linears[:6])}, ..."
            raise NothingToCompress(f"no linear layer matches {include!r}; {here if self.linears else self._none()}")
        return matching

    def _none(self) -> str:
        """Say where the weights are in a model without linear layers."""
        others = ", ".join(self.others[:3])
        return f"there is none: weights are in {others}, which no method changes yet" if others else "there is none"

    def refuse_shared(self, pattern: str) -> None:
        """Check that the wildcard does not match layers with shared weights alone.

        Raises:
            NothingToCompress: every layer that the wildcard matches shares its weights with other modules.
        """
        shared = [name for name in self.shared if fnmatchcase(name, pattern)]
        if shared and not any(fnmatchcase(name, pattern) for name in self.linears):
            raise NothingToCompress(
                f"layers must have weights of their own, but {pattern!r} matches only {', '.join(shared[:4])}, whose "
                "weights other modules use too; leave them out"
            )


class Reach(NamedTuple):
    """How much of a model methods for linear layers can change."""

    share: float
    """Of the weights outside of embeddings, those in linear layers of the blocks."""
    others: tuple[str, ...]
    """The classes of modules in the blocks that hold the rest, most weights first."""


def reach_of(model: nn.Module) -> Reach:
    """Return how much of a model methods for linear layers can change; compressed layers count as linear.

    Raises:
        InvalidModel: the model has no list of equal blocks.
    """
    architecture = Architecture.of(model)
    layers = (*architecture.linears, *architecture.shared, *(name for name, _ in architecture.compressed))
    reached = {id(weight) for name in layers for weight in model.get_submodule(name).parameters()}
    sizes = {
        id(weight): weight.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1
    }
    whole = sum(sizes.values())
    return Reach(sum(sizes.get(weight, 0) for weight in reached) / whole if whole else 0.0, architecture.others)


def refuse_compressed(include: str, layers: Sequence[tuple[str, str]]) -> None:
    """Refuse layers, given by name and kind, that are compressed already; none is no error.

    Raises:
        NothingToCompress: there are some.
    """
    if layers:
        kinds = ", ".join(sorted({kind for _, kind in layers}))
        raise NothingToCompress(
            f"layers must be dense, but all that {include!r} matches are compressed already ({len(layers)} of kind "
            f"{kinds}); apply a method of a later stage, such as quantization, or compress the model that this one was "
            "made from"
        )


def rows_read(name: str, mask: Tensor, first_alone: frozenset[str], *, rows: int = 0) -> Tensor:
    """Return the mask of the rows that a module reads, (examples, rows, ...): real tokens, or the first token alone.

    Args:
        name: name of the module.
        mask: (examples, tokens, ...) mask of real tokens.
        first_alone: names of the modules that read only the first token; see `first_token_layers`.
        rows: of each example, where the model changes their number; see `changes_length`. Rows after the tokens are
            padding. One of fewer rows is real if all tokens near it are.
    """
    if name in first_alone:
        return torch.ones_like(mask[:, :1])  # the head reads the first token even if it is padding
    length = mask.shape[1]
    if rows > length:
        return torch.cat([mask, mask.new_zeros(len(mask), rows - length, *mask.shape[2:])], dim=1)
    if not rows or rows == length:
        return mask
    near = ((max(0, (row - 1) * length // rows), math.ceil((row + 1) * length / rows)) for row in range(rows))
    return torch.stack([mask[:, start:end].amin(1) for start, end in near], dim=1)


def changes_length(model: nn.Module) -> bool:
    """Return whether layers see more or fewer rows than tokens: Longformer adds padding, Funnel and CANINE pool."""
    config = getattr(model, "config", None)
    return any(hasattr(config, name) for name in ("attention_window", "pooling_type", "downsampling_rate"))


def refuse_cascade(model: nn.Module) -> None:
    """Refuse a cascade where one model is changed.

    Raises:
        InvalidModel: the model is one.
    """
    if getattr(model, "is_cascade", False):
        raise InvalidModel(
            "the model must be one model, but got a cascade of several; work on these, and make a cascade of what "
            "comes out"
        )


def is_dense(module: nn.Module) -> bool:
    """Return whether the module computes what an ordinary linear layer does, or is GPT-2's transposed `Conv1D`."""
    kind: Any = type(module)
    return _is_transposed(module) or (issubclass(kind, nn.Linear) and _computes_a_product(kind))


@cache
def _computes_a_product(kind: type[nn.Linear]) -> bool:
    """Whether a small layer of this class computes Wx + b; Falcon's does, others may do more."""
    if kind is nn.Linear:
        return True
    if kind is NonDynamicallyQuantizableLinear:  # `nn.MultiheadAttention` reads its weights without calling it
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            layer, rows = kind(3, 2), torch.randn(4, 3)
            return torch.allclose(layer(rows), functional.linear(rows, layer.weight, layer.bias))
        except Exception:  # it takes other arguments
            return False


def _is_transposed(module: nn.Module) -> bool:
    # GPT-2's layer is transformers' own; where that was never imported, no model has one
    transformers_layers = sys.modules.get("transformers.pytorch_utils")
    return transformers_layers is not None and isinstance(module, transformers_layers.Conv1D)


def dense_weight(module: nn.Module) -> Tensor:
    """Return the detached weight of a dense layer as (out, in), also for the transposed `Conv1D`.

    Raises:
        TypeError: the layer is compressed; its own `weight` is an empty guard.
    """
    if isinstance(module, CompressedLayer):
        raise TypeError(
            f"a layer must have one dense weight, but got {type(module).__name__}; take the layer inside it"
        )
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if _is_transposed(module) else weight.detach()


def dense_bias(module: nn.Module) -> Tensor | None:
    """Return the detached bias of a dense layer, (out,), or None; embeddings have no bias."""
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


def _users(model: nn.Module) -> dict[int, int]:
    """Return the number of modules that use each parameter, by the id of the parameter."""
    users: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    return users


def _embeddings(model: nn.Module, users: dict[int, int]) -> tuple[str, ...]:
    return tuple(
        name
        for name, module in model.named_modules()
        if type(module) is nn.Embedding and module.max_norm is None and users[id(module.weight)] == 1
    )


def _dense_below(model: nn.Module, parts: tuple[str, ...], users: dict[int, int]) -> tuple[tuple[str, ...], ...]:
    """Return the names of dense layers: with unshared weights, with shared weights, and inside compressed layers."""
    unshared: list[str] = []
    shared: list[str] = []
    inner: list[str] = []
    for part in parts:
        compressed: tuple[str, ...] = ()
        for name, module in model.get_submodule(part).named_modules(prefix=part):
            if isinstance(module, CompressedLayer):
                compressed += (f"{name}.",)
            elif is_dense(module):
                if name.startswith(compressed):
                    inner.append(name)
                else:
                    (unshared if users[id(module.weight)] == 1 else shared).append(name)
    return tuple(unshared), tuple(shared), tuple(inner)


def _others_below(model: nn.Module, parts: tuple[str, ...]) -> tuple[str, ...]:
    sizes: dict[str, int] = {}
    for part in parts:
        compressed: tuple[str, ...] = ()
        for name, module in model.get_submodule(part).named_modules(prefix=part):
            if isinstance(module, CompressedLayer):
                compressed += (f"{name}.",)
            elif not is_dense(module) and not isinstance(module, nn.Embedding) and not name.startswith(compressed):
                size = sum(weight.numel() for weight in module.parameters(recurse=False) if weight.dim() > 1)
                sizes[type(module).__name__] = sizes.get(type(module).__name__, 0) + size
    return tuple(name for name in sorted(sizes, key=lambda name: -sizes[name]) if sizes[name])


def _compressed_below(model: nn.Module, parts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for part in parts:
        for name, module in model.get_submodule(part).named_modules(prefix=part):
            if isinstance(module, CompressedLayer) and not name.startswith(tuple(f"{outer}." for outer, _ in found)):
                found.append((name, module.kind()))
    return tuple(found)


def dense_layers_in_blocks(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the dense layers inside the blocks, in module order; empty for a model without blocks.

    The factors of compressed layers are included. Embeddings, poolers and heads lie outside the blocks.
    """
    if getattr(model, "is_cascade", False):
        stages: Any = model.get_submodule("stages")
        return tuple(f"stages.{i}.{name}" for i, stage in enumerate(stages) for name in dense_layers_in_blocks(stage))
    try:
        blocks = Architecture.of(model).blocks
    except InvalidModel:
        return ()
    return tuple(
        name
        for block in blocks
        for name, module in model.get_submodule(block).named_modules(prefix=block)
        if is_dense(module)
    )
