"""The only place that changes a model's structure: copy, replace, describe, rebuild."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from whet.architecture import Architecture
from whet.errors import InvalidArtifact, InvalidModel
from whet.layer import CompressedLayer, SavedLayer, empty_layer
from whet.layers.first_token_norm import FirstTokenNorm

__all__ = [
    "copy_model",
    "describe",
    "keep_blocks",
    "lodging",
    "own_weights",
    "packed",
    "rebuild",
    "replace",
    "require_all_tokens",
    "unpack",
]

Model = TypeVar("Model", bound=nn.Module)


def copy_model(model: Model) -> Model:
    """Return a copy in eval mode with modules of its own but the same weights, which nobody may write to.

    Methods that replace layers need no second set of weights; `own_weights` makes one for those that train them.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared).eval()


def own_weights(model: nn.Module, others: nn.Module) -> None:
    """Give `model` weights of its own where they are still those of `others`; tied weights stay tied."""
    foreign = {id(parameter) for parameter in others.parameters()}
    own: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in foreign:
                if id(parameter) not in own:
                    own[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(module, name, own[id(parameter)])


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the module called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


@contextmanager
def lodging(model: nn.Module, name: str, layer: nn.Module) -> Iterator[None]:
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
    replace(model, names[0].rpartition(".")[0], blocks)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]


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


def packed(model: Model) -> Model:
    """Return a copy with the same weights in which compressed layers are as they are stored."""
    copied = copy_model(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, CompressedLayer) and (stored := layer.stored()) is not layer:
            replace(copied, name, stored)
    return copied


def unpack(model: nn.Module) -> None:
    """Put what can be run in the place of what was stored."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, CompressedLayer) and (running := layer.running()) is not layer:
            replace(model, name, running)


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
        replace(model, name, empty_layer(str(entry.get("kind")), own, replaced))
