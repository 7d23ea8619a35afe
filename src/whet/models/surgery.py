"""Changes to the structure of a model: copy, replace, describe, rebuild. No other module assigns modules."""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from whet.errors import InvalidArtifact, InvalidModel, NothingToCompress
from whet.models.architecture import Architecture
from whet.models.embeddings import input_embeddings, row_scale
from whet.models.layers.base import CompressedLayer, SavedLayer, empty_layer
from whet.models.layers.first_token_norm import FirstTokenNorm
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.layers.masked import MaskedEmbedding
from whet.models.registration import save_as_stored

__all__ = [
    "block_count",
    "copy_sharing_parameters",
    "describe",
    "from_storage",
    "keep_blocks",
    "keep_words",
    "rebuild",
    "replace_module",
    "require_all_tokens",
    "stored_bytes",
    "temporary_submodule",
    "to_storage",
    "unshare_parameters",
    "without_pooler",
]

Model = TypeVar("Model", bound=nn.Module)
_PER_BLOCK = ("layer_types", "mlp_layer_types", "attention_layers", "attention_window", "no_rope_layers")
"""The entries of configurations that say something of each block."""


def copy_sharing_parameters(model: Model) -> Model:
    """Return a copy in eval mode that has its own modules but shares all parameters with `model`.

    Methods that replace layers need no second set of weights. Methods that train call `unshare_parameters` first: the
    shared parameters must not be written to.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared).eval()


def unshare_parameters(model: nn.Module, others: nn.Module) -> None:
    """Clone every parameter of `model` that `others` has too, in place; tied parameters stay tied."""
    shared = {id(parameter) for parameter in others.parameters()}
    clones: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in shared:
                if id(parameter) not in clones:
                    clones[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(module, name, clones[id(parameter)])


def without_pooler(model: nn.Module, missing: Collection[str]) -> frozenset[str]:
    """Drop the pooler of a model whose checkpoint has none, in place, and return what else the checkpoint lacks.

    Models without a head are built with a pooler, of which nothing is read. A random one would change at every load.

    Args:
        model: a model without a head.
        missing: names of the weights that the checkpoint lacks.
    """
    poolers = {name for name in missing if name.startswith("pooler.")}
    if poolers:
        model.register_module("pooler", None)
    return frozenset(missing) - poolers


def replace_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the module called `name` by `layer`, which gets its mode, so that dropout stays off in eval mode."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer.train(model.get_submodule(name).training))
    if isinstance(layer, SavedLayer):
        save_as_stored(model)


@contextmanager
def temporary_submodule(model: nn.Module, name: str, layer: nn.Module) -> Iterator[None]:
    """Add a submodule to the model while the block runs, so that its parameters count as the model's."""
    model.add_module(name, layer)
    try:
        yield
    finally:
        delattr(model, name)


def block_count(model: nn.Module) -> int:
    """Return how many blocks run after one another: a block that all layers share, as ALBERT's, counts as often."""
    config: Any = model.config
    return int(config.num_hidden_layers) if _shares_block(config) else len(Architecture.of(model).blocks)


def _shares_block(config: Any) -> bool:
    return getattr(config, "num_hidden_groups", None) == 1


def keep_blocks(model: nn.Module, kept: Sequence[int]) -> None:
    """Remove all blocks except `kept`, in place, and update the configuration; a shared block runs less often.

    Args:
        model: the model to change.
        kept: indices of the blocks to keep, in their new order.

    Raises:
        InvalidModel: the configuration does not give the number of blocks, or the last block computes only the first
            token.
    """
    require_all_tokens(model)
    config: Any = model.config
    if _shares_block(config):
        config.num_hidden_layers = len(kept)
        return
    architecture = Architecture.of(model)
    names = architecture.blocks
    place = names[0].rpartition(".")[0]
    if getattr(config, "num_hidden_layers", None) != len(names) or architecture.lies_in_several_lists:
        raise InvalidModel(
            f"each of the layers that the configuration counts must be one block, but {type(model).__name__} has "
            f"num_hidden_layers={getattr(config, 'num_hidden_layers', None)} and {len(names)} at {place}, where blocks "
            "run several times or lie in several lists; take another student, such as transformer"
        )
    _count_blocks(config, kept)
    blocks = nn.ModuleList(model.get_submodule(names[i]) for i in kept)
    for index, block in enumerate(blocks):
        for module in block.modules():
            for name in ("layer_idx", "layer_id"):  # a decoder's index into its cache
                if hasattr(module, name):
                    setattr(module, name, index)
    replace_module(model, place, blocks)


def _count_blocks(config: Any, kept: Sequence[int]) -> None:
    """Let a configuration say which blocks are left, also where it says something of each.

    Raises:
        InvalidModel: its number of blocks cannot be set.
    """
    try:
        config.num_hidden_layers = len(kept)
    except NotImplementedError as error:  # of Funnel, which has blocks of several sizes
        raise InvalidModel(
            f"the number of blocks must be one number, but {type(config).__name__} refuses another: {error}; take "
            "another student, such as transformer"
        ) from error
    for name in _PER_BLOCK:
        if isinstance(entries := getattr(config, name, None), list):
            setattr(config, name, [entries[i] for i in kept])
    if getattr(config, "attention_types", None):  # GPT-Neo counts runs of blocks of one kind
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]


def keep_words(model: nn.Module, kept: Sequence[int]) -> None:
    """Remove all rows of the token embeddings except `kept`, in place, and update the configuration.

    Args:
        model: the model to change.
        kept: token ids to keep, ascending; they become 0, 1, 2, ...

    Raises:
        NothingToCompress: the token embeddings are not an ordinary table, or the model predicts tokens.
        InvalidModel: the table has fewer rows than `kept` needs, or the padding id would change while positions are
            counted from it.
    """
    transformer: Any = model
    layers: list[Any] = [input_embeddings(model)]
    while isinstance(layers[-1], LowRankEmbedding | MaskedEmbedding):
        layers.append(layers[-1].embedding)
    *wrappers, table = layers
    _require_words(model, table, kept)
    new_ids = {old: new for new, old in enumerate(kept)}
    padding = new_ids.get(table.padding_idx)
    others = (module for module in model.modules() if isinstance(module, nn.Embedding) and module is not table)
    if padding != table.padding_idx and any(other.padding_idx is not None for other in others):
        raise InvalidModel(  # RoBERTa
            f"the padding id must not change, since positions are counted from it, but {table.padding_idx} becomes "
            f"{padding}; keep all tokens before it: keep_first={table.padding_idx}"
        )
    rows = nn.Parameter(table.weight.detach()[torch.tensor(kept, device=table.weight.device)])
    smaller = copy.deepcopy(table, {id(table.weight): rows})
    smaller.num_embeddings, smaller.padding_idx = len(kept), padding
    replace_module(model, next(name for name, module in model.named_modules() if module is table), smaller)
    for wrapper in wrappers:
        wrapper.tokens, wrapper.padding_idx = len(kept), padding
    config = transformer.config
    config.vocab_size = len(kept)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, [new_ids[token] for token in value if token in new_ids])
        elif name.endswith("_token_id") and value is not None and value < table.num_embeddings:
            _set_token(config, name, new_ids.get(value), value)


def _set_token(config: Any, name: str, new: int | None, old: int) -> None:
    """Renumber a token of a configuration; some do not allow that there is none."""
    try:
        setattr(config, name, new)
    except Exception as error:  # huggingface_hub's own, of strict configurations
        raise InvalidModel(
            f"every token that the configuration needs must stay, but {name}={old} of {type(config).__name__} would be "
            f"removed; keep it: keep_first={old + 1}"
        ) from error


def _require_words(model: nn.Module, table: Any, kept: Sequence[int]) -> None:
    transformer: Any = model
    if row_scale(table) is None:
        raise NothingToCompress(
            f"token embeddings must be an ordinary table, but {type(model).__name__} has {type(table).__name__}; use "
            "the model before its embeddings were compressed"
        )
    if transformer.get_output_embeddings() is not None:
        raise NothingToCompress(
            f"the model must not predict words, but {type(model).__name__} does; leave out pruning.vocabulary"
        )
    if kept[-1] >= table.num_embeddings:
        raise InvalidModel(
            f"the table must have a row for every token, but got {table.num_embeddings} for token {kept[-1]}; give the "
            "model's own tokenizer"
        )


def require_all_tokens(model: nn.Module) -> None:
    """Check that every block of the model computes all tokens.

    Raises:
        InvalidModel: the last block computes only the first token, as after lossless.first_token.
    """
    for name, module in model.named_modules():
        if isinstance(module, FirstTokenNorm):
            raise InvalidModel(
                f"every block must compute all tokens, but {name} passes only the first one on; use the model before "
                "lossless.first_token"
            )


def to_storage(model: Model) -> Model:
    """Return a copy that shares the weights, with every compressed layer in its stored form."""
    copied = copy_sharing_parameters(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, CompressedLayer) and (stored := layer.stored()) is not layer:
            replace_module(copied, name, stored)
    return copied


def stored_bytes(model: Model, *, bits: Literal[16, 32] = 32) -> int:
    """Return how many bytes the tensors of a model take in a file; tied ones count once.

    Args:
        model: any model.
        bits: of the weights in the checkpoint that it was made from; fp32 matrices are stored in as many.
    """
    weights = to_storage(model).state_dict().values()
    tensors = {(one.data_ptr(), one.shape): one for one in weights if isinstance(one, torch.Tensor)}.values()
    return sum(one.nbytes * (bits if one.dtype == torch.float32 and one.dim() > 1 else 32) // 32 for one in tensors)


def from_storage(model: nn.Module) -> None:
    """Replace every compressed layer in its stored form by its running form, in place."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, CompressedLayer) and (running := layer.running()) is not layer:
            replace_module(model, name, running)


def describe(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the kind and structure of every `SavedLayer` by module name, as JSON values."""
    return {
        name: {"kind": module.kind(), **module.structure()}
        for name, module in model.named_modules()
        if isinstance(module, SavedLayer)
    }


def rebuild(model: nn.Module, structure: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the layers of a model by the empty layers that `describe` listed, in place, outer layers first.

    A model without a head, such as `AutoModel` gives, has the layers under shorter names, and none of the head's.

    Args:
        model: the uncompressed model, before its weights are loaded.
        structure: as `describe` returned it.

    Raises:
        InvalidArtifact: the model lacks a listed module, or an entry has an unknown kind or is incomplete; or the
            layers serve another head than the model has.
    """
    if not isinstance(structure, Mapping) or not all(isinstance(entry, Mapping) for entry in structure.values()):
        raise InvalidArtifact(
            f"the structure of compressed layers must be there, but config.json has structure={structure!r:.60}; copy "
            "it again"
        )
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    headless = getattr(model, "base_model", None) is model
    for saved_name, entry in sorted(structure.items()):
        names = (saved_name, saved_name.removeprefix(prefix), prefix + saved_name)
        name = next((name for name in names if _has_submodule(model, name)), None)
        if name is None and headless and not saved_name.startswith(prefix):
            continue
        if name is None:
            raise InvalidArtifact(
                f"the model must have the saved layer {saved_name}, but {type(model).__name__} has no such; copy it "
                "again, or load it as the class that config.json names"
            )
        fields = {key: value for key, value in entry.items() if key != "kind"}
        replace_module(model, name, empty_layer(str(entry.get("kind")), fields, model.get_submodule(name)))
    _require_own_head(model)


def _has_submodule(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _require_own_head(model: nn.Module) -> None:
    """Refuse to load a last block that computes one token into a model that would read more of them."""
    if any(isinstance(module, FirstTokenNorm) for module in model.modules()):
        transformer: Any = model
        classes = transformer.config.architectures or ()
        if type(model).__name__ not in classes:
            raise InvalidArtifact(
                f"a model whose last block computes only the first token must be loaded as {' or '.join(classes)}, but "
                f"got {type(model).__name__}; use the model before lossless.first_token"
            )
