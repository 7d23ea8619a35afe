"""A narrower copy of an encoder, with the weights of its most important hidden features, heads and neurons.

Hidden features are chosen once for the whole model, because residual connections tie them together: the features with
the largest variance over the training text, summed over the inputs of all blocks. Heads and feed-forward neurons are
chosen block by block, by the energy of their contribution: E[x²] times the squared norm of the weights that read x.

Source: Samragh et al., "Weight subcloning: direct initialization of transformers using larger pretrained ones", 2023,
arXiv 2312.09299.
Differs: hidden features are ranked by variance instead of mean magnitude, since a constant carries no information;
neurons by their contribution instead of their magnitude; heads stay whole.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from whet.calibration.moments import collect_moments
from whet.errors import InvalidModel, InvalidParameter
from whet.models.architecture import Architecture, dense_weight
from whet.models.attention import SelfAttention
from whet.models.inference import new_model
from whet.models.resizing import resized_config
from whet.numerics.moments import Moments, Side
from whet.tasks.data import Batches

__all__ = ["narrowed_student"]


def narrowed_student(model: PreTrainedModel, width: int, batches: Batches) -> PreTrainedModel:
    """Return a copy of the model with a smaller hidden size, in eval mode.

    Args:
        model: a dense encoder of self-attention blocks.
        width: the new hidden size, a multiple of the width of a head and at most the model's hidden size.
        batches: training text on which features are ranked; padding is left out.

    Raises:
        InvalidParameter: the width is no multiple of the width of a head, or larger than the model's hidden size.
        InvalidModel: the model is compressed, or has parts that cannot be narrowed.
        NothingToCompress: its attention is not that of an encoder.
    """
    attentions = SelfAttention.all_of(model, "*")
    config: Any = model.config
    per_head, hidden = attentions[0].width, config.hidden_size
    if width % per_head or not per_head <= width <= hidden:
        raise InvalidParameter(
            f"the width must be a multiple of that of a head, {per_head}, and at most {hidden}, but got {width}; "
            f"give one such as {max(1, hidden // per_head // 2) * per_head}"
        )
    sizes = resized_config(config, layers=config.num_hidden_layers, width=width, heads=width // per_head)
    small: PreTrainedModel = new_model(model, sizes)
    weights = dict(model.named_parameters())
    if missing := [name for name, _ in small.named_parameters() if name not in weights]:
        raise InvalidModel(
            f"a model must be dense to be narrowed, but this one has no {missing[0]}; narrow the model that it was "
            "made from, and compress the result"
        )
    selection = _Selection(model, attentions, width, batches)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            parameter.copy_(selection.slice_of(name, weights[name], parameter.shape))
    return small.to(model.device).eval()


class _Selection:
    """The hidden features, heads and neurons that the narrower model keeps."""

    def __init__(self, model: nn.Module, attentions: list[SelfAttention], width: int, batches: Batches) -> None:
        self._hidden_size: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
        self._blocks = Architecture.of(model).blocks
        linears = {name: model.get_submodule(name) for name in Architecture.of(model).linears}
        neuron_readers = {name: layer for name, layer in linears.items() if self._reads_neurons(dense_weight(layer))}
        queries, outputs = ({getattr(attention, name) for attention in attentions} for name in ("query", "output"))
        readers = queries | outputs | neuron_readers.keys()
        moments = collect_moments(model, batches, list(readers), sides=dict.fromkeys(readers, Side.INPUT))
        variances = torch.stack([_variances(moments[attention.query]) for attention in attentions]).sum(0)
        self._features = _indices_of_largest(variances, width)
        self._head_rows: dict[str, Tensor] = {}
        for attention in attentions:
            energies = _contributions(moments[attention.output], linears[attention.output])
            energies = energies.unflatten(0, (-1, attention.width)).sum(-1)
            heads = _indices_of_largest(energies, width // attention.width)
            rows = (heads[:, None] * attention.width + torch.arange(attention.width, device=heads.device)).flatten()
            # query, key and value compute the heads along axis 0; the output reads them along axis 1
            for name in attention.inputs:
                self._head_rows |= {f"{name}.weight 0": rows, f"{name}.bias 0": rows}
            self._head_rows[f"{attention.output}.weight 1"] = rows
        self._neurons = {
            self._block_of(name): _indices_of_largest(
                _contributions(moments[name], layer), dense_weight(layer).shape[1] * width // self._hidden_size
            )
            for name, layer in neuron_readers.items()
        }

    def slice_of(self, name: str, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return the kept slice of a weight, of the given shape."""
        for axis, size in enumerate(shape):
            if weight.shape[axis] != size or f"{name} {axis}" in self._head_rows:
                weight = weight.index_select(axis, self._indices(name, axis, weight.shape[axis]))
        if weight.shape != shape:
            raise InvalidModel(f"all parts of a model must become narrower, but {name} does not; leave width out")
        return weight

    def _indices(self, name: str, axis: int, size: int) -> Tensor:
        rows = self._head_rows.get(f"{name} {axis}")
        if rows is not None:
            return rows
        if size == self._hidden_size:
            return self._features
        return self._neurons[self._block_of(name)]

    def _reads_neurons(self, weight: Tensor) -> bool:
        return weight.shape[0] == self._hidden_size != weight.shape[1]

    def _block_of(self, name: str) -> str:
        return next(block for block in self._blocks if name.startswith(f"{block}."))


def _variances(moments: Moments) -> Tensor:
    return moments.second.diagonal() - moments.mean.square()


def _contributions(moments: Moments, layer: nn.Module) -> Tensor:
    """Return the mean square of each input's contribution to the layer's output, (in,)."""
    return moments.second.diagonal() * dense_weight(layer).double().square().sum(0)


def _indices_of_largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the largest scores, rising."""
    return scores.topk(count).indices.sort().values
