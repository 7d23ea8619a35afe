"""The only place that changes a model's structure: copy, replace, describe, rebuild."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from whet.errors import InvalidArtifact, InvalidModel, NothingToCompress
from whet.models.architecture import Architecture
from whet.models.layers.base import CompressedLayer, SavedLayer, empty_layer
from whet.models.layers.first_token_norm import FirstTokenNorm
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.layers.masked import MaskedEmbedding

__all__ = [
    "copy_sharing_parameters",
    "describe",
    "from_storage",
    "keep_blocks",
    "keep_words",
    "rebuild",
    "replace_module",
    "require_all_tokens",
    "temporary_submodule",
    "to_storage",
    "unshare_parameters",
]

Model = TypeVar("Model", bound=nn.Module)


def copy_sharing_parameters(model: Model) -> Model:
    """Return a copy in eval mode with modules of its own but the same weights, which nobody may write to.

    Methods that replace layers need no second set of weights; `unshare_parameters` makes one for those that train them.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared).eval()


def unshare_parameters(model: nn.Module, others: nn.Module) -> None:
    """Give `model` weights of its own where they are still those of `others`; tied weights stay tied."""
    foreign = {id(parameter) for parameter in others.parameters()}
    own: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in foreign:
                if id(parameter) not in own:
                    own[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(module, name, own[id(parameter)])


def replace_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the module called `name`, and in its mode: dropout would cost time and answers."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer.train(model.get_submodule(name).training))


@contextmanager
def temporary_submodule(model: nn.Module, name: str, layer: nn.Module) -> Iterator[None]:
    """Give the model one more module while the block runs, whose weights then count as its own."""
    model.add_module(name, layer)
    try:
        yield
    finally:
        delattr(model, name)


def keep_blocks(model: nn.Module, kept: Sequence[int]) -> None:
    """Leave only these of the model's blocks, in this order, and say so in its configuration.

    Raises:
        InvalidModel: its configuration does not say how many there are, or the last answers for the first token alone.
    """
    require_all_tokens(model)
    names = Architecture.of(model).blocks
    config: Any = model.config
    if getattr(config, "num_hidden_layers", None) != len(names):
        raise InvalidModel(
            f"the configuration must say how many blocks there are, num_hidden_layers={len(names)}, but "
            f"{type(config).__name__} does not; only such models can lose blocks"
        )
    blocks = nn.ModuleList(model.get_submodule(names[i]) for i in kept)
    for place, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # where a decoder keeps what it has read
                module.layer_idx = place  # type: ignore[assignment]
    replace_module(model, names[0].rpartition(".")[0], blocks)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]


def keep_words(model: nn.Module, kept: Sequence[int]) -> None:
    """Leave only these rows of the table of word embeddings, in this order, and say so in the model's configuration.

    Raises:
        NothingToCompress: the table is of another kind, or the model predicts words too.
        InvalidModel: the table has no such row, or positions are counted from the id of padding, which would change.
    """
    asked: Any = model
    layers: list[Any] = [asked.get_input_embeddings()]
    while isinstance(layers[-1], LowRankEmbedding | MaskedEmbedding):
        layers.append(layers[-1].embedding)
    *shells, table = layers
    _require_words(model, table, kept)
    new = {old: place for place, old in enumerate(kept)}
    padding = new.get(table.padding_idx)
    if padding != table.padding_idx and any(
        isinstance(one, nn.Embedding) and one is not table and one.padding_idx is not None for one in model.modules()
    ):
        raise InvalidModel(  # RoBERTa
            f"the id of padding must stay, as positions are counted from it, but {table.padding_idx} becomes "
            f"{padding}; keep all tokens before it: keep_first={table.padding_idx}"
        )
    fewer = nn.Embedding(len(kept), table.embedding_dim, padding).to(table.weight)
    fewer.weight.data.copy_(table.weight.detach()[torch.tensor(kept, device=table.weight.device)])
    replace_module(model, next(name for name, module in model.named_modules() if module is table), fewer)
    for shell in shells:
        shell.tokens, shell.padding_idx = len(kept), padding
    asked.config.vocab_size = len(kept)
    for name, value in asked.config.to_dict().items():
        if name.endswith("_token_id") and value is not None:
            several = isinstance(value, list)
            setattr(asked.config, name, [new[one] for one in value if one in new] if several else new.get(value))


def _require_words(model: nn.Module, table: nn.Module, kept: Sequence[int]) -> None:
    asked: Any = model
    if type(table) is not nn.Embedding:
        raise NothingToCompress(
            f"token embeddings must be an ordinary table, but {type(model).__name__} has {type(table).__name__}; take "
            "the model that it was made from"
        )
    if asked.get_output_embeddings() is not None:
        raise NothingToCompress(
            f"the model must not predict words, but {type(model).__name__} does; leave its vocabulary as it is"
        )
    if kept[-1] >= table.num_embeddings:
        raise InvalidModel(
            f"the table must have a row for every token, but got {table.num_embeddings} for token {kept[-1]}; give the "
            "model's own tokenizer"
        )


def require_all_tokens(model: nn.Module) -> None:
    """Refuse a model whose last block answers for the first token alone, where its blocks must be comparable.

    Raises:
        InvalidModel: it is such a model.
    """
    for name, module in model.named_modules():
        if isinstance(module, FirstTokenNorm):
            raise InvalidModel(
                f"every block must answer for all tokens, but {name} goes on with the first alone; use the model as it "
                "was before lossless.first_token"
            )


def to_storage(model: Model) -> Model:
    """Return a copy with the same weights in which compressed layers are as they are stored."""
    copied = copy_sharing_parameters(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, CompressedLayer) and (stored := layer.stored()) is not layer:
            replace_module(copied, name, stored)
    return copied


def from_storage(model: nn.Module) -> None:
    """Put what can be run in the place of what was stored."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, CompressedLayer) and (running := layer.running()) is not layer:
            replace_module(model, name, running)


def describe(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the kind and structure of every layer that whet made, by module name, as JSON values."""
    return {
        name: {"kind": module.kind(), **module.structure()}
        for name, module in model.named_modules()
        if isinstance(module, SavedLayer)
    }


def rebuild(model: nn.Module, structure: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace a model's own layers by the empty ones that `describe` listed, outer ones first.

    Raises:
        InvalidArtifact: a layer is of an unknown kind or badly described.
    """
    for name, entry in sorted(structure.items()):
        try:
            replaced = model.get_submodule(name)
        except AttributeError as error:
            raise InvalidArtifact(f"the model must have the saved layer {name}, but {error}; copy it again") from error
        own = {key: value for key, value in entry.items() if key != "kind"}
        replace_module(model, name, empty_layer(str(entry.get("kind")), own, replaced))
