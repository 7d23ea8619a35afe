"""The layers that storage methods work on: the linear layers of the blocks, and the embeddings."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from whet.errors import InvalidModel, NothingToCompress
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.direct_reads import read_without_a_call
from whet.models.layers.base import LayerShape, ReplacesDense, WrapsLinear
from whet.models.layers.masked import MaskedEmbedding

__all__ = ["Weights", "stored_weights", "weights_of"]


class Weights(NamedTuple):
    """The weights of an ordinary layer."""

    weight: Tensor
    """(out, in), or (words, features)."""
    bias: Tensor | None
    """(out,) or None."""
    spec: LayerShape
    """Shape of the layer that holds them."""


def stored_weights(
    model: nn.Module, include: str, *, embeddings: bool = True, again: tuple[type[ReplacesDense], ...] = ()
) -> dict[str, str]:
    """Return the names of ordinary layers, by the name of the module to replace.

    That module is the layer itself, or a layer that wraps it alone. Layers that never run, because other modules read
    their weights directly, stay as they are.

    Args:
        model: the model.
        include: wildcard over the names of the modules to replace.
        embeddings: whether to include embeddings.
        again: types of compressed layers that may be compressed once more.

    Raises:
        NothingToCompress: no layer matches.
        InvalidModel: a layer that matches is compressed already.
    """
    architecture = Architecture.of(model)
    for name, module in model.named_modules():
        linear = isinstance(module, ReplacesDense) and module.spec.layer == "linear"
        if fnmatchcase(name, include) and _compressed(module, again) and (linear or embeddings):
            raise InvalidModel(
                f"layers must hold ordinary weights, but {name} is {type(module).kind()} already; take the model that "
                "it was made from, or leave it out with include"
            )
    layers = (*(architecture.embeddings if embeddings else ()), *architecture.linears, *architecture.inner)
    left_alone = read_without_a_call(model, layers)
    names = {}
    for name in layers:
        if name in left_alone:
            continue
        outer = name.rpartition(".")[0]
        module = model.get_submodule(outer)
        if not _compressed(module, again):
            names[outer if isinstance(module, WrapsLinear | MaskedEmbedding | ReplacesDense) else name] = name
    matching = {replaced: name for replaced, name in names.items() if fnmatchcase(replaced, include)}
    if not matching:
        architecture.refuse_shared(include)
        what = "linear layer or embedding" if embeddings else "linear layer"
        raise NothingToCompress(f"no {what} matches {include!r}; there are {', '.join([*names][:6]) or 'none'}, ...")
    return matching


def weights_of(layer: nn.Module) -> Weights:
    """Return the weights of an ordinary linear layer or embedding."""
    if isinstance(layer, nn.Embedding):
        rows, columns = layer.weight.shape
        return Weights(
            layer.weight.detach(), None, LayerShape("embedding", rows, columns, padding_idx=layer.padding_idx)
        )
    weight, bias = dense_weight(layer), dense_bias(layer)
    rows, columns = weight.shape
    return Weights(weight, bias, LayerShape("linear", rows, columns, bias=bias is not None))


def _compressed(module: nn.Module, again: tuple[type[ReplacesDense], ...]) -> bool:
    return isinstance(module, ReplacesDense) and not isinstance(module, again)
