"""The self-attention of an encoder by module name, and its replacements with narrower heads or a shared input factor.

A head computes scores qᵀk and mixes values v by them. No function stands between query and key, or between value and
output, so that a projection P Q of rank k merges into the weights on both sides: qᵀ P Q k = (Pᵀq)ᵀ(Q k), and
W_o P Q v = (W_o P)(Q v). Query, key and value read the same x, so that one projection Q x serves all three.

Attentions are found by the names of their parts, and rebuilt at full width in a copy of the model before any is used:
one that computes anything else, such as rotary positions, changes the logits and is refused.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.architecture import refuse_compressed
from whet.models.inference import answers, example_batch, kind_of_model
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.base import CompressedLayer
from whet.models.layers.fewer_heads import FewerHeads
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.low_rank import LowRank
from whet.models.layers.resized import Resized
from whet.models.proof import close
from whet.models.surgery import copy_sharing_parameters, replace_module
from whet.numerics.low_rank import Spectrum

__all__ = [
    "INPUTS",
    "LAYOUTS",
    "HeadWidths",
    "KeptHead",
    "ReducedAttention",
    "SelfAttention",
    "attention_at_widths",
    "attention_with_heads",
    "attention_with_shared_input",
    "child_names",
    "compressed_attentions",
    "is_encoders",
    "matching_attentions",
    "stack_projections",
    "unsupported_attention",
]

LAYOUTS: dict[frozenset[str], tuple[str, str, str, str]] = {
    frozenset({"query", "key", "value", "dropout"}): ("query", "key", "value", "..output.dense"),
    frozenset({"q_lin", "k_lin", "v_lin", "out_lin", "dropout"}): ("q_lin", "k_lin", "v_lin", "out_lin"),
}
"""Names of query, key, value and output by the names of an attention's children: BERT's family, and DistilBERT."""
INPUTS = ("input_ids", "attention_mask")
"""What models are tried with."""
EXAMPLES, TOKENS = 2, 9
"""Sizes of the batch on which rebuilt attentions are compared."""


class HasName(Protocol):
    """Anything with the name of a module."""

    @property
    def name(self) -> str:
        """Name of the module."""


Named = TypeVar("Named", bound=HasName)


class HeadWidths(NamedTuple):
    """Features of one head."""

    scores: int
    """Features of its queries and keys."""
    values: int
    """Features of its values."""


class SelfAttention(NamedTuple):
    """One self-attention and its projections, by module name."""

    name: str
    """The attention module."""
    query: str
    key: str
    value: str
    output: str
    """The output projection, inside or outside the attention module."""
    width: int
    """Features of each head."""

    @classmethod
    def all_of(cls, model: nn.Module, include: str) -> list[Self]:
        """Return the attentions whose name the wildcard matches, in module order.

        Args:
            model: the model.
            include: wildcard over names of attention modules.

        Raises:
            NothingToCompress: the model has no dense attention of a supported layout, or the wildcard matches none.
        """
        attentions = cls.found(model)
        if attentions:
            return matching_attentions(attentions, include)
        refuse_compressed(include, compressed_attentions(model))
        raise NothingToCompress(
            f"{unsupported_attention(model)}; factorise the projections with --method kfac, or remove whole heads with "
            "--method heads"
        )

    @classmethod
    def found(cls, model: nn.Module) -> list[Self]:
        """Return all dense attentions of a supported layout; none, if they do not compute what their layout says."""
        candidates = (cls._of(model, name, module) for name, module in model.named_modules())
        attentions = [attention for attention in candidates if attention is not None]
        return attentions if attentions and _equal_when_rebuilt(model, attentions) else []

    @classmethod
    def _of(cls, model: nn.Module, name: str, module: nn.Module) -> Self | None:
        if not is_encoders(module):
            return None
        parent = name.rpartition(".")[0]
        query, key, value, output = (
            f"{parent}.{part[2:]}" if part.startswith("..") else f"{name}.{part}"
            for part in LAYOUTS[child_names(module)]
        )
        if not all(type(model.get_submodule(part)) is nn.Linear for part in (query, key, value, output)):
            return None
        if len({_linear(model, part).in_features for part in (query, key, value)}) > 1:
            return None  # MobileBERT's values read more features than its queries
        width: Any = getattr(module, "attention_head_size", 0)
        if not width or _linear(model, query).out_features % width:
            return None
        return cls(name, query, key, value, output, width)

    def keep(self, model: nn.Module, kept: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See `Removable.keep`."""
        heads = [KeptHead.whole(head, self.width) for head in kept.tolist()]
        attention_with_heads(model, self, heads, weight, weight.new_zeros(len(weight)) if bias is None else bias).put(
            model, self
        )

    @property
    def inputs(self) -> tuple[str, str, str]:
        """Names of the three projections that read the hidden states."""
        return self.query, self.key, self.value

    @property
    def inside(self) -> bool:
        """Whether the output projection is a child of the attention module."""
        return self.output.startswith(f"{self.name}.")


class KeptHead(NamedTuple):
    """A head to keep, and the projections of its features."""

    head: int
    """Index of the head in the original attention."""
    queries: Tensor
    """(query-key width, width) float64 projection of its queries."""
    keys: Tensor
    """(query-key width, width) float64 projection of its keys."""
    values: Tensor
    """(value width, width) float64 projection of its values."""

    @classmethod
    def whole(cls, head: int, width: int) -> Self:
        """Return a head that keeps all of its `width` features."""
        eye = torch.eye(width, dtype=torch.float64)
        return cls(head, eye, eye, eye)

    @classmethod
    def of(cls, head: int, scores: Spectrum, values: Spectrum, widths: HeadWidths) -> Self:
        """Return a head of these widths.

        Args:
            head: index of the head in the original attention.
            scores: the head's projections between query and key.
            values: the head's projections between value and output.
            widths: ranks of the two projections.
        """
        return cls(head, scores.p[:, : widths.scores].T, scores.q[: widths.scores], values.q[: widths.values])


class ReducedAttention(NamedTuple):
    """The replacement of an attention and, if the output projection is another module, of this projection."""

    attention: CompressedAttention
    """The replacement of the attention module."""
    output: Resized | None
    """The replacement of an output projection outside the attention module, or None."""

    def put(self, model: nn.Module, attention: SelfAttention) -> None:
        """Replace the attention, and the output projection outside it, in the model."""
        replace_module(model, attention.name, self.attention)
        if self.output is not None:
            replace_module(model, attention.output, self.output)


def matching_attentions(attentions: Sequence[Named], include: str) -> list[Named]:
    """Return the attentions whose name the wildcard matches.

    Raises:
        NothingToCompress: it matches none.
    """
    matching = [attention for attention in attentions if fnmatchcase(attention.name, include)]
    if not matching:
        names = ", ".join(attention.name for attention in attentions[:6])
        raise NothingToCompress(f"no attention matches {include!r}; the attentions here are {names}, ...")
    return matching


def child_names(module: nn.Module) -> frozenset[str]:
    """Return the names of the children of a module."""
    return frozenset(child for child, _ in module.named_children())


def is_encoders(module: nn.Module) -> bool:
    """Return whether a module has the parts of an attention of BERT's kind, whose queries see all tokens."""
    causal = getattr(module, "is_decoder", False) or getattr(module, "is_causal", False)
    return child_names(module) in LAYOUTS and not causal


def compressed_attentions(model: nn.Module) -> list[tuple[str, str]]:
    """Return the name and kind of every compressed attention, and of every compressed projection in an ordinary one."""
    return [
        (name, module.kind())
        for name, module in model.named_modules()
        if isinstance(module, CompressedAttention | FewerHeads)
        or (isinstance(module, CompressedLayer) and is_encoders(model.get_submodule(name.rpartition(".")[0])))
    ]


def unsupported_attention(model: nn.Module) -> str:
    """Return what an attention must be like, and what the model is instead."""
    message = (
        "attention must be like BERT's, with layers of its own for query, key, value and output, a query that sees all "
        f"tokens, and nothing between queries and keys, but got {type(model).__name__}"
    )
    rotary = any("rotary" in name.lower() for name, _ in model.named_modules())
    return f"{message}, which rotates them by their positions" if rotary else message


def _equal_when_rebuilt(model: nn.Module, attentions: Sequence[SelfAttention]) -> bool:
    """Whether the logits stay the same when all attentions are rebuilt at full width."""
    copied = copy_sharing_parameters(model)
    for attention in attentions:
        rebuilt = _empty(model, attention, HeadWidths(attention.width, attention.width))
        for name, layer in zip(attention.inputs, (rebuilt.query, rebuilt.key, rebuilt.value), strict=True):
            layer.load_state_dict(_linear(model, name).state_dict())
        if rebuilt.output is not None:
            _copy_output(_linear(model, attention.output), rebuilt.output)
        replace_module(copied, attention.name, rebuilt)
    batch, kind = example_batch(model, INPUTS, EXAMPLES, TOKENS), kind_of_model(model)
    try:
        with torch.inference_mode():
            before, after = (answers(one, batch, kind).logits for one in (model, copied))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    return close(before, after)


def _copy_output(dense: nn.Linear, rebuilt: nn.Linear) -> None:
    rebuilt.weight.data.copy_(dense.weight.detach())
    rebuilt.bias.data.zero_()
    if dense.bias is not None:
        rebuilt.bias.data.copy_(dense.bias.detach())


def attention_at_widths(
    model: nn.Module,
    attention: SelfAttention,
    scores: Sequence[Spectrum],
    values: Sequence[Spectrum],
    widths: HeadWidths,
) -> ReducedAttention:
    """Return the attention with all of its heads at smaller widths.

    Args:
        model: the dense model.
        attention: the attention to replace.
        scores: the projections of each head between query and key.
        values: the projections of each head between value and output; if they have a mean, the output bias
            compensates for the part of it that is cut off.
        widths: ranks of the projections.
    """
    output = _linear(model, attention.output)
    weight = output.weight.detach().double()
    lost_means = [
        head.mean - head.p[:, : widths.values] @ (head.q[: widths.values] @ head.mean)
        for head in values
        if head.mean is not None
    ]
    shift = weight @ torch.cat(lost_means) if lost_means else weight.new_zeros(len(weight))
    projected = weight @ torch.block_diag(*(head.p[:, : widths.values] for head in values))
    bias = shift if output.bias is None else shift + output.bias.detach()
    heads = enumerate(zip(scores, values, strict=True))
    kept = [KeptHead.of(index, score, value, widths) for index, (score, value) in heads]
    return attention_with_heads(model, attention, kept, projected.to(output.weight), bias.to(output.weight))


def stack_projections(model: nn.Module, attention: SelfAttention) -> nn.Linear:
    """Return one linear layer that computes query, key and value, concatenated in this order."""
    layers = [_linear(model, name) for name in attention.inputs]
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers)).to(layers[0].weight)
    joined.weight.data.copy_(torch.cat([layer.weight.detach() for layer in layers]))
    biases = [
        layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers
    ]
    joined.bias.data.copy_(torch.cat(biases))
    return joined


def attention_with_shared_input(model: nn.Module, attention: SelfAttention, thin: LowRank) -> CompressedAttention:
    """Return the attention whose query, key and value share one low-rank factor.

    Args:
        model: the dense model.
        attention: the attention to replace.
        thin: the factorised layer of `stack_projections`.
    """
    layer = _empty(model, attention, HeadWidths(attention.width, attention.width), rank=thin.rank)
    assert layer.shared is not None
    layer.shared.load_state_dict(thin.v.state_dict())
    parts = zip(thin.u.weight.chunk(3), thin.u.bias.chunk(3), strict=True)
    for projection, (weight, bias) in zip((layer.query, layer.key, layer.value), parts, strict=True):
        projection.weight.data.copy_(weight)
        projection.bias.data.copy_(bias)
    if layer.output is not None:
        layer.output.load_state_dict(model.get_submodule(attention.output).state_dict())
    return layer


def attention_with_heads(
    model: nn.Module, attention: SelfAttention, kept: Sequence[KeptHead], weight: Tensor, bias: Tensor
) -> ReducedAttention:
    """Return the attention with only some of its heads, or of their features.

    Args:
        model: the dense model.
        attention: the attention to replace.
        kept: the heads to keep, all of the same widths.
        weight: (out, heads * value width) weight of the output projection.
        bias: (out,) bias of the output projection.
    """
    widths = HeadWidths(len(kept[0].queries), len(kept[0].values))
    layer = _empty(model, attention, widths, heads=len(kept))
    rows = torch.cat([torch.arange(attention.width) + head.head * attention.width for head in kept])
    projections = ([head.queries for head in kept], [head.keys for head in kept], [head.values for head in kept])
    narrow_layers = (layer.query, layer.key, layer.value)
    for name, narrow, by_head in zip(attention.inputs, narrow_layers, projections, strict=True):
        _merge_projections(_linear(model, name), narrow, by_head, rows)
    output = Resized.of(weight, bias)
    if layer.output is None:
        return ReducedAttention(layer, output)
    layer.output.load_state_dict(output.linear.state_dict())
    return ReducedAttention(layer, None)


def _empty(
    model: nn.Module, attention: SelfAttention, widths: HeadWidths, *, rank: int | None = None, heads: int | None = None
) -> CompressedAttention:
    dense: Any = model.get_submodule(attention.name)
    query = _linear(model, attention.query)
    return CompressedAttention(
        query.in_features,
        heads=heads or query.out_features // attention.width,
        query_key_width=widths.scores,
        value_width=widths.values,
        # attentions that do not say so divide by the root of the width, which `_equal_when_rebuilt` checks
        scaling=getattr(dense, "scaling", attention.width**-0.5),
        dropout=dense.dropout.p,
        bias=rank is not None or query.bias is not None,
        output=attention.inside,
        rank=rank,
        queries="first" if isinstance(dense, FirstTokenAttention) else "all",
    ).to(query.weight)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _merge_projections(dense: nn.Linear, narrow: nn.Linear, projections: Sequence[Tensor], rows: Tensor) -> None:
    """Set the narrow layer to the projected outputs of the kept heads, which are these rows of the dense layer."""
    projection = torch.block_diag(*projections).to(dense.weight.device)
    narrow.weight.data.copy_(projection @ dense.weight.detach().double()[rows])
    if dense.bias is not None:
        narrow.bias.data.copy_(projection @ dense.bias.detach().double()[rows])
