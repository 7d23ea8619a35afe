"""What every method that changes how weights are stored works on: linear layers of the blocks, and embeddings."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from whet.errors import InvalidModel, NothingToCompress
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.layers.base import LayerShape, ReplacesDense, WrapsLinear
from whet.models.layers.masked import MaskedEmbedding

__all__ = ["Weights", "stored_weights", "weights_of"]


class Weights(NamedTuple):
    """What an ordinary layer holds."""

    weight: Tensor
    """(out, in), or (words, features)."""
    bias: Tensor | None
    """(out,) or None."""
    spec: LayerShape
    """Of that shape."""


def stored_weights(
    model: nn.Module, include: str, *, embeddings: bool = True, again: tuple[type[ReplacesDense], ...] = ()
) -> dict[str, str]:
    """Return the names of ordinary layers by their places: those of themselves, or of what consists of one alone.

    Args:
        model: the model.
        include: wildcard over the places.
        embeddings: whether embeddings are looked for too.
        again: kinds of layers that may be given another representation than they have.

    Raises:
        NothingToCompress: nothing matches.
        InvalidModel: a layer that matches has another representation already.
    """
    architecture = Architecture.of(model)
    for name, module in model.named_modules():
        linear = isinstance(module, ReplacesDense) and module.spec.layer == "linear"
        if fnmatchcase(name, include) and _taken(module, again) and (linear or embeddings):
            raise InvalidModel(
                f"layers must hold ordinary weights, but {name} is {type(module).kind()} already; take the model that "
                "it was made from, or leave it out with include"
            )
    known = {}
    for name in (*(architecture.embeddings if embeddings else ()), *architecture.linears, *architecture.inner):
        outer = name.rpartition(".")[0]
        module = model.get_submodule(outer)
        if not _taken(module, again):
            known[outer if isinstance(module, WrapsLinear | MaskedEmbedding | ReplacesDense) else name] = name
    found = {place: name for place, name in known.items() if fnmatchcase(place, include)}
    if not found:
        architecture.refuse_shared(include)
        what = "linear layer or embedding" if embeddings else "linear layer"
        raise NothingToCompress(f"no {what} matches {include!r}; there are {', '.join([*known][:6]) or 'none'}, ...")
    return found


def weights_of(layer: nn.Module) -> Weights:
    """Return what an ordinary linear layer or embedding holds."""
    if isinstance(layer, nn.Embedding):
        rows, columns = layer.weight.shape
        return Weights(
            layer.weight.detach(), None, LayerShape("embedding", rows, columns, padding_idx=layer.padding_idx)
        )
    weight, bias = dense_weight(layer), dense_bias(layer)
    rows, columns = weight.shape
    return Weights(weight, bias, LayerShape("linear", rows, columns, bias=bias is not None))


def _taken(module: nn.Module, again: tuple[type[ReplacesDense], ...]) -> bool:
    return isinstance(module, ReplacesDense) and not isinstance(module, again)
