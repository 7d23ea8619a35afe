"""A narrower copy of an encoder: its own weights for the features, heads and neurons that carry most.

Hidden features are chosen once for the whole model, since residual connections tie them together: those that vary most
over training text, at what every block reads. Heads and neurons of the feed-forward parts are chosen block by block, by
the energy of what they add: E[x²] of each, times the squared norm of the weights that read it.

Source: Samragh et al., "Weight subcloning: direct initialization of transformers using larger pretrained ones", 2023,
arXiv 2312.09299.
Differs: variance instead of mean magnitude for hidden features, since a constant says nothing; what a neuron adds
instead of how large it is; heads stay whole.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from whet.calibration.moments import collect
from whet.errors import InvalidModel, InvalidParameter
from whet.models.architecture import Architecture, dense_weight
from whet.models.attention import SelfAttention
from whet.numerics.moments import Moments, Side
from whet.tasks.data import Batches

__all__ = ["narrowed_student", "resized"]

INNER = ("intermediate_size", "hidden_dim", "n_inner")
"""What families call the width between the two layers of their feed-forward parts."""


def resized(known: PreTrainedConfig, *, layers: int, width: int, heads: int) -> PreTrainedConfig:
    """Return a configuration of other sizes, whose feed-forward parts are as many times as wide.

    Raises:
        InvalidParameter: the heads do not divide the width.
    """
    if width % heads:
        raise InvalidParameter(
            f"heads must divide the width, {width}, but got heads={heads}; give others, such as heads=1"
        )
    config: Any = copy.deepcopy(known)
    vars(config).pop("quantization_config", None)  # the structure of a compressed model
    before = config.hidden_size
    config.num_hidden_layers, config.hidden_size, config.num_attention_heads = layers, width, heads
    if getattr(config, "num_key_value_heads", None):
        config.num_key_value_heads, config.head_dim = heads, width // heads
    inner = {name: getattr(config, name, None) for name in INNER}
    config.update({name: size * width // before for name, size in inner.items() if size})
    found: PreTrainedConfig = config
    return found


def narrowed_student(model: PreTrainedModel, width: int, batches: Batches) -> PreTrainedModel:
    """Return a copy of the model with this hidden size, in eval mode.

    Args:
        model: a dense encoder of self-attention blocks.
        width: whole heads; at most the model's.
        batches: training text; padding is left out.

    Raises:
        InvalidParameter: the width is not one of whole heads, or larger than the model's.
        InvalidModel: the model has other parts than such an encoder.
        NothingToCompress: its attention is not an encoder's.
    """
    attentions = SelfAttention.all_of(model, "*")
    config: Any = model.config
    per_head, hidden = attentions[0].width, config.hidden_size
    if width % per_head or not per_head <= width <= hidden:
        raise InvalidParameter(
            f"the width must be a multiple of that of a head, {per_head}, and at most {hidden}, but got {width}; "
            f"such as {max(1, hidden // per_head // 2) * per_head}"
        )
    sizes = resized(config, layers=config.num_hidden_layers, width=width, heads=width // per_head)
    small: PreTrainedModel = AutoModelForSequenceClassification.from_config(sizes)
    weights = dict(model.named_parameters())
    if missing := [name for name, _ in small.named_parameters() if name not in weights]:
        raise InvalidModel(
            f"a model must be dense to be narrowed, but this one has no {missing[0]}; narrow the original, and "
            "compress what comes of it"
        )
    chosen = _Choice(model, attentions, width, batches)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            parameter.copy_(chosen.part(name, weights[name], parameter.shape))
    return small.to(model.device).eval()


class _Choice:
    """Which hidden features, heads and neurons stay."""

    def __init__(self, model: nn.Module, attentions: list[SelfAttention], width: int, batches: Batches) -> None:
        self._hidden_size: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
        self._blocks = Architecture.of(model).blocks
        linears = {name: model.get_submodule(name) for name in Architecture.of(model).linears}
        after = {name: layer for name, layer in linears.items() if self._is_inner(dense_weight(layer))}
        readers = {place.query for place in attentions} | {place.output for place in attentions} | after.keys()
        moments = collect(model, batches, list(readers), sides=dict.fromkeys(readers, Side.INPUT))
        spread = torch.stack([_variances(moments[place.query]) for place in attentions]).sum(0)
        self._features = _largest(spread, width)
        self._own: dict[str, Tensor] = {}
        for place in attentions:
            added = _added(moments[place.output], linears[place.output]).unflatten(0, (-1, place.width)).sum(-1)
            heads = _largest(added, width // place.width)
            rows = (heads[:, None] * place.width + torch.arange(place.width, device=heads.device)).flatten()
            # (query, key and value give heads; the output reads them)
            for part in place.inputs:
                self._own |= {f"{part}.weight 0": rows, f"{part}.bias 0": rows}
            self._own[f"{place.output}.weight 1"] = rows
        self._neurons = {
            self._block_of(name): _largest(
                _added(moments[name], layer), dense_weight(layer).shape[1] * width // self._hidden_size
            )
            for name, layer in after.items()
        }

    def part(self, name: str, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return what stays of one weight, of the given shape."""
        for axis, wanted in enumerate(shape):
            if weight.shape[axis] != wanted or f"{name} {axis}" in self._own:
                weight = weight.index_select(axis, self._indices(name, axis, weight.shape[axis]))
        if weight.shape != shape:
            raise InvalidModel(f"the model must be narrowed in all of its parts, but {name} is not; leave width out")
        return weight

    def _indices(self, name: str, axis: int, size: int) -> Tensor:
        known = self._own.get(f"{name} {axis}")
        if known is not None:
            return known
        if size == self._hidden_size:
            return self._features
        return self._neurons[self._block_of(name)]

    def _is_inner(self, weight: Tensor) -> bool:
        return weight.shape[0] == self._hidden_size != weight.shape[1]

    def _block_of(self, name: str) -> str:
        return next(block for block in self._blocks if name.startswith(f"{block}."))


def _variances(moments: Moments) -> Tensor:
    return moments.second.diagonal() - moments.mean.square()


def _added(moments: Moments, layer: nn.Module) -> Tensor:
    """(in,) the mean square of what each input adds to the layer's output."""
    return moments.second.diagonal() * dense_weight(layer).double().square().sum(0)


def _largest(scores: Tensor, count: int) -> Tensor:
    """The places of the largest scores, in their order."""
    return scores.topk(count).indices.sort().values
