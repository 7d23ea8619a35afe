"""Where an encoder keeps its self-attention, and what it becomes when its heads or their input are made narrower.

A head scores qᵀk and puts out values v mixed by the scores. Between query and key, and between value and output, stands
no function, so that a projection P Q of rank k put there merges into what is on both sides: qᵀ P Q k = (Pᵀq)ᵀ(Q k), and
W_o P Q v = (W_o P)(Q v). Query, key and value read the same x, so that Q x of one projection can be computed once.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from whet.errors import InvalidModel, NothingToCompress
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.first_token_norm import FirstTokenNorm
from whet.models.layers.low_rank import LowRank
from whet.models.layers.resized import Resized
from whet.models.surgery import replace_module
from whet.numerics.low_rank import Spectrum

__all__ = [
    "HeadWidths",
    "KeptHead",
    "ReducedAttention",
    "SelfAttention",
    "attention_at_widths",
    "attention_with_heads",
    "attention_with_shared_input",
    "last_attention_projections",
    "restrict_to_first_token",
    "stack_projections",
]

LAYOUTS: dict[frozenset[str], tuple[str, str, str, str]] = {
    frozenset({"query", "key", "value", "dropout"}): ("query", "key", "value", "..output.dense"),
    frozenset({"q_lin", "k_lin", "v_lin", "out_lin", "dropout"}): ("q_lin", "k_lin", "v_lin", "out_lin"),
}
"""What is inside a module tells how it is built: BERT's and its descendants', and DistilBERT's."""
NORMS = ("output.LayerNorm", "sa_layer_norm")
"""Where theirs is the layer norm of x + attention(x), beside the attention."""


class HeadWidths(NamedTuple):
    """Features of each head."""

    scores: int
    """Of queries and keys."""
    values: int


class SelfAttention(NamedTuple):
    """One self-attention by module names."""

    name: str
    query: str
    key: str
    value: str
    output: str
    width: int
    """Features of each head."""

    @classmethod
    def all_of(cls, model: nn.Module, include: str) -> list[Self]:
        """Return those whose name the wildcard matches, in module order.

        Raises:
            NothingToCompress: there is none, or none that can be made narrower.
        """
        known = [found for name, module in model.named_modules() if (found := cls._of(model, name, module)) is not None]
        matching = [found for found in known if fnmatchcase(found.name, include)]
        if matching:
            return matching
        if known:
            names = ", ".join(found.name for found in known[:6])
            raise NothingToCompress(f"no attention matches {include!r}; the attentions here are {names}, ...")
        raise NothingToCompress(f"{_why_not(model)}; factor the projections instead, with --method kfac")

    @classmethod
    def _of(cls, model: nn.Module, name: str, module: nn.Module) -> Self | None:
        if not _is_encoders(module):
            return None
        parent = name.rpartition(".")[0]
        query, key, value, output = (
            f"{parent}.{part[2:]}" if part.startswith("..") else f"{name}.{part}" for part in LAYOUTS[_parts(module)]
        )
        if not all(type(model.get_submodule(part)) is nn.Linear for part in (query, key, value, output)):
            return None
        width: Any = module.attention_head_size
        return cls(name, query, key, value, output, width)

    @property
    def inputs(self) -> tuple[str, str, str]:
        """The three layers that read the hidden states."""
        return self.query, self.key, self.value

    @property
    def inside(self) -> bool:
        """Whether the output projection is a part of the module."""
        return self.output.startswith(f"{self.name}.")


class KeptHead(NamedTuple):
    """A head that stays, and what of it."""

    place: int
    """Which one."""
    queries: Tensor
    """(query-key width, width) float64, that its queries are multiplied by; keys and values alike."""
    keys: Tensor
    values: Tensor

    @classmethod
    def whole(cls, place: int, width: int) -> Self:
        """Return a head with all of its features."""
        eye = torch.eye(width, dtype=torch.float64)
        return cls(place, eye, eye, eye)

    @classmethod
    def of(cls, place: int, scores: Spectrum, values: Spectrum, widths: HeadWidths) -> Self:
        """Return a head of these widths, by its projections between query and key, and value and output."""
        return cls(place, scores.p[:, : widths.scores].T, scores.q[: widths.scores], values.q[: widths.values])


class ReducedAttention(NamedTuple):
    """What takes the place of an attention and, where that is another module, of its output projection."""

    attention: CompressedAttention
    output: Resized | None

    def put(self, model: nn.Module, place: SelfAttention) -> None:
        """Put both where they belong."""
        replace_module(model, place.name, self.attention)
        if self.output is not None:
            replace_module(model, place.output, self.output)


def last_attention_projections(model: nn.Module) -> tuple[tuple[str, str, str], int]:
    """Return the names of query, key and value of the last self-attention, dense or compressed, and how many heads.

    Raises:
        InvalidModel: the model has none that is known.
    """
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, FirstTokenAttention) or (
            isinstance(module, CompressedAttention) and module.queries == "first"
        ):
            raise InvalidModel(
                f"relations need the queries of all tokens, but in {name} the first alone asks; give relations=0"
            )
        if isinstance(module, CompressedAttention):
            return (f"{name}.query", f"{name}.key", f"{name}.value"), module.heads
        layout = LAYOUTS.get(_parts(module))
        if layout is not None:
            heads: Any = getattr(module, "num_attention_heads", None) or module.n_heads
            return (f"{name}.{layout[0]}", f"{name}.{layout[1]}", f"{name}.{layout[2]}"), heads
    raise InvalidModel(
        f"relations need an encoder's attention, with query, key and value apart, as in BERT, RoBERTa and DistilBERT, "
        f"but got {type(model).__name__}; give relations=0"
    )


def restrict_to_first_token(model: nn.Module, block: str) -> None:
    """Let the attention of one post-norm block ask for the first token alone, and what comes after it go on with that.

    Args:
        model: its modules are replaced; one that is already so stays as it is.
        block: the last block's name; nothing may read its other outputs.

    Raises:
        NothingToCompress: the block is no such one.
    """
    inside = [(name, module) for name, module in model.named_modules() if name.startswith(f"{block}.")]
    found = [
        (name, module) for name, module in inside if isinstance(module, CompressedAttention) or _is_encoders(module)
    ]
    norms = [f"{name.rpartition('.')[0]}.{norm}" for name, _ in found for norm in NORMS]
    known = {
        name: module for name, module in inside if name in norms and type(module) in (nn.LayerNorm, FirstTokenNorm)
    }
    if len(found) != 1 or len(known) != 1:
        raise NothingToCompress(f"{_why_not(model)} and a layer norm after it; leave lossless.first_token out")
    [(name, attention)], [(norm, layer)] = found, known.items()
    if isinstance(attention, CompressedAttention):
        attention.queries = "first"
    elif not isinstance(attention, FirstTokenAttention):
        query, key, value, output = LAYOUTS[_parts(attention)]
        held = None if output.startswith("..") else output
        names = {"query": query, "key": key, "value": value, "output": held}
        replace_module(model, name, FirstTokenAttention.in_place_of(attention, names))
    if not isinstance(layer, FirstTokenNorm):
        replace_module(model, norm, FirstTokenNorm.in_place_of(layer, {}))


def _parts(module: nn.Module) -> frozenset[str]:
    return frozenset(child for child, _ in module.named_children())


def _is_encoders(module: nn.Module) -> bool:
    causal = getattr(module, "is_decoder", False) or getattr(module, "is_causal", False)
    return _parts(module) in LAYOUTS and not causal


def _why_not(model: nn.Module) -> str:
    wanted = (
        "attention must be an encoder's, with linear layers of its own for query, key, value and output, as in BERT, "
        f"RoBERTa and DistilBERT, but got {type(model).__name__}"
    )
    if any("rotary" in name.lower() for name, _ in model.named_modules()):
        wanted += (
            " with rotary positions: they turn queries and keys between their projections and their product, so that "
            "heads cannot be made narrower"
        )
    return wanted


def attention_at_widths(
    model: nn.Module, place: SelfAttention, scores: Sequence[Spectrum], values: Sequence[Spectrum], widths: HeadWidths
) -> ReducedAttention:
    """Return the modules whose heads are narrower.

    Args:
        model: the dense model.
        place: which attention.
        scores: each head's projection between query and key.
        values: each head's projection between value and output; with a mean, the bias makes up for what is cut off.
        widths: ranks of these projections.
    """
    output = _linear(model, place.output)
    weight = output.weight.detach().double()
    lost = [
        one.mean - one.p[:, : widths.values] @ (one.q[: widths.values] @ one.mean)
        for one in values
        if one.mean is not None
    ]
    shift = weight @ torch.cat(lost) if lost else weight.new_zeros(len(weight))
    read = weight @ torch.block_diag(*(one.p[:, : widths.values] for one in values))
    bias = shift if output.bias is None else shift + output.bias.detach()
    pairs = enumerate(zip(scores, values, strict=True))
    kept = [KeptHead.of(head, score, value, widths) for head, (score, value) in pairs]
    return attention_with_heads(model, place, kept, read.to(output.weight), bias.to(output.weight))


def stack_projections(model: nn.Module, place: SelfAttention) -> nn.Linear:
    """Return one layer that gives query, key and value side by side."""
    layers = [_linear(model, name) for name in place.inputs]
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers)).to(layers[0].weight)
    joined.weight.data.copy_(torch.cat([layer.weight.detach() for layer in layers]))
    biases = [
        layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers
    ]
    joined.bias.data.copy_(torch.cat(biases))
    return joined


def attention_with_shared_input(model: nn.Module, place: SelfAttention, thin: LowRank) -> CompressedAttention:
    """Return the attention whose query, key and value read one thin layer.

    Args:
        model: the dense model.
        place: which attention.
        thin: takes the place of what `stack_projections` returns.
    """
    layer = _empty(model, place, HeadWidths(place.width, place.width), rank=thin.rank)
    assert layer.shared is not None
    layer.shared.load_state_dict(thin.v.state_dict())
    parts = zip(thin.u.weight.chunk(3), thin.u.bias.chunk(3), strict=True)
    for projection, (weight, bias) in zip((layer.query, layer.key, layer.value), parts, strict=True):
        projection.weight.data.copy_(weight)
        projection.bias.data.copy_(bias)
    if layer.output is not None:
        layer.output.load_state_dict(model.get_submodule(place.output).state_dict())
    return layer


def attention_with_heads(
    model: nn.Module, place: SelfAttention, kept: Sequence[KeptHead], weight: Tensor, bias: Tensor
) -> ReducedAttention:
    """Return the modules with some of the heads, or features of them.

    Args:
        model: the dense model.
        place: which attention.
        kept: the heads that stay, all of the same widths.
        weight: (out, features of these heads) of the output projection.
        bias: (out,) of the output projection.
    """
    widths = HeadWidths(len(kept[0].queries), len(kept[0].values))
    layer = _empty(model, place, widths, heads=len(kept))
    rows = torch.cat([torch.arange(place.width) + head.place * place.width for head in kept])
    projections = ([one.queries for one in kept], [one.keys for one in kept], [one.values for one in kept])
    for name, narrow, own in zip(place.inputs, (layer.query, layer.key, layer.value), projections, strict=True):
        _merge_before(_linear(model, name), narrow, own, rows)
    output = Resized.of(weight, bias)
    if layer.output is None:
        return ReducedAttention(layer, output)
    layer.output.load_state_dict(output.linear.state_dict())
    return ReducedAttention(layer, None)


def _empty(
    model: nn.Module, place: SelfAttention, widths: HeadWidths, *, rank: int | None = None, heads: int | None = None
) -> CompressedAttention:
    dense: Any = model.get_submodule(place.name)
    query = _linear(model, place.query)
    return CompressedAttention(
        query.in_features,
        heads=heads or query.out_features // place.width,
        query_key_width=widths.scores,
        value_width=widths.values,
        scaling=dense.scaling,
        dropout=dense.dropout.p,
        bias=rank is not None or query.bias is not None,
        output=place.inside,
        rank=rank,
        queries="first" if isinstance(dense, FirstTokenAttention) else "all",
    ).to(query.weight)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def _merge_before(dense: nn.Linear, narrow: nn.Linear, projections: Sequence[Tensor], rows: Tensor) -> None:
    """Project what each of some heads of the dense layer gives, whose rows these are."""
    across = torch.block_diag(*projections).to(dense.weight.device)
    narrow.weight.data.copy_(across @ dense.weight.detach().double()[rows])
    if dense.bias is not None:
        narrow.bias.data.copy_(across @ dense.bias.detach().double()[rows])
