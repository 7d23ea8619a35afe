"""The base of unstructured pruning methods: how many weights are set to zero, and which layers are pruned.

Most methods score weights and set those with the lowest scores to zero: within each layer, over all layers, or all but
N in every group of M inputs. Layer norms, the head and (by default) the token embeddings stay unchanged. Zeros stay
zero during training. Dense kernels run no faster with zeros; on disk, a layer takes one bit per weight plus its
non-zero values.

An embedding table is a linear layer with one-hot inputs x, so that E[x xᵀ] is diagonal with the frequencies p_i of the
tokens. The error of its outputs is Σ p_i W_ij² over the pruned weights; pruning the weights of least |W_ij| · √p_i
minimises it.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.importance import token_counts
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, MissingResource
from whet.methods.base import Method, Stage
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.embeddings import token_table
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace_module
from whet.utils.parameters import require_one
from whet.utils.progress import track

__all__ = ["NMPattern", "Pruning", "ScoredPruning", "check_groups", "keep_masks", "parse_pattern", "top_mask"]


class NMPattern(NamedTuple):
    """A pattern N:M, which keeps N weights in every group of M inputs."""

    kept: int
    """N, weights kept in a group."""
    size: int
    """M, weights in a group."""


@dataclass(frozen=True, kw_only=True)
class Pruning(Method):
    """A method that sets single weights to zero."""

    sparsity: Annotated[float | None, Interval(ge=0, lt=1)] = None
    """Fraction of the matched weights to set to zero, e.g. 0.5."""
    pattern: str | None = None
    """Pattern N:M, e.g. 2:4, instead of sparsity: keep N weights in every group of M consecutive inputs."""
    scope: Literal["layer", "global"] = "layer"
    """Where to compare scores: layer prunes the same fraction of every layer, global the lowest scores of all
    layers."""
    include: str = "*"
    """Wildcard over the names of linear layers; layers that do not match stay dense."""
    embeddings: Annotated[float | None, Interval(ge=0, lt=1)] = None
    """Fraction of the token embeddings' weights to set to zero too, e.g. 0.5, by magnitude and by token frequency in
    the training text."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"sparsity": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a parameter is outside its range, or not exactly one of sparsity and pattern is given.
        """
        super().__post_init__()
        require_one({"sparsity": self.sparsity, "pattern": self.pattern}, such_as="sparsity=0.5 or pattern=2:4")
        if self.pattern is not None:
            parse_pattern(self.pattern)
            if self.scope == "global":
                raise InvalidParameter(
                    f"scope must be layer with a pattern, but got scope=global and pattern={self.pattern}; "
                    "leave scope out"
                )

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; pruned embeddings need the token counts of the training data."""
        return self.needs | ({"train"} if self.embeddings else frozenset())

    @abstractmethod
    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and its pruned weight, (out, in).

        The caller puts each weight into the model before it asks for the next.
        """

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        names = Architecture.of(model).matching(self.include)
        if self.embeddings:
            _prune_embeddings(model, self.embeddings, resources)
        if self.sparsity == 0:
            return model
        for name, weight in self.pruned(model, names, resources):
            replace_module(model, name, Masked.of(weight, dense_bias(model.get_submodule(name))))
        return model


@dataclass(frozen=True, kw_only=True)
class ScoredPruning(Pruning):
    """A method that sets the weights with the lowest scores to zero and leaves the other weights unchanged."""

    @abstractmethod
    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and the scores of its weights, (out, in), at least 0."""

    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Pruning.pruned`."""
        scores = dict(track(self.scores(model, layers, resources), "scoring weights", total=len(layers)))
        for name, mask in keep_masks(scores, sparsity=self.sparsity, pattern=self.pattern, scope=self.scope).items():
            yield name, dense_weight(model.get_submodule(name)) * mask


def keep_masks(
    scores: dict[str, Tensor], *, sparsity: float | None, pattern: str | None, scope: Literal["layer", "global"]
) -> dict[str, Tensor]:
    """Return each layer's mask, (out, in) bool, true where a weight is kept.

    Args:
        scores: (out, in) by layer name.
        sparsity: fraction of the weights to prune; None with a pattern.
        pattern: N:M, or None.
        scope: "layer" to prune the same fraction of every layer, "global" to compare scores over all layers.

    Raises:
        InvalidParameter: the groups of a pattern do not divide a layer's inputs.
    """
    if pattern is not None:
        groups = parse_pattern(pattern)
        return {name: _mask_by_groups(layer, groups, name) for name, layer in scores.items()}
    assert sparsity is not None
    if scope == "layer":
        return {name: _mask_at_sparsity(sparsity, layer) for name, layer in scores.items()}
    mask = _mask_at_sparsity(sparsity, torch.cat([layer.flatten() for layer in scores.values()]))
    masks = mask.split([layer.numel() for layer in scores.values()])
    return {
        name: layer_mask.reshape(layer.shape) for (name, layer), layer_mask in zip(scores.items(), masks, strict=True)
    }


def top_mask(scores: Tensor, count: int) -> Tensor:
    """Return a bool mask, shaped like `scores`, of the `count` highest scores; among equal scores, the first win."""
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def _mask_at_sparsity(sparsity: float, scores: Tensor) -> Tensor:
    return top_mask(scores, scores.numel() - round(sparsity * scores.numel()))


def check_groups(inputs: int, group: int, name: str) -> None:
    """Check that groups divide the inputs of a layer.

    Args:
        inputs: number of input features of the layer.
        group: size of a group.
        name: name of the layer, for the error.

    Raises:
        InvalidParameter: `group` does not divide `inputs`.
    """
    if inputs % group:
        raise InvalidParameter(
            f"the groups of a pattern must divide a layer's inputs, but got groups of {group} for {name} with "
            f"{inputs}; give another pattern, or leave the layer out with include"
        )


def _mask_by_groups(scores: Tensor, pattern: NMPattern, name: str) -> Tensor:
    check_groups(scores.shape[1], pattern.size, name)
    groups = scores.unflatten(1, (-1, pattern.size))
    best = groups.argsort(dim=-1, descending=True, stable=True)[..., : pattern.kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, best, True).flatten(1)


def parse_pattern(pattern: str) -> NMPattern:
    """Return the parsed pattern, such as 2:4.

    Raises:
        InvalidParameter: `pattern` is not N:M with 0 < N < M.
    """
    match = re.fullmatch(r"(\d+):(\d+)", pattern)
    if match is None or not 0 < int(match[1]) < int(match[2]):
        raise InvalidParameter(f"pattern must be N:M with 0 < N < M, but got pattern={pattern}; give one such as 2:4")
    return NMPattern(int(match[1]), int(match[2]))


def _prune_embeddings(model: nn.Module, sparsity: float, resources: Resources) -> None:
    if resources.train is None:
        raise MissingResource("training data must be given, but got none; give --task")
    table = token_table(model)
    weight = table.scale * table.embedding.weight.detach()
    # add-one smoothing: a token that the training text lacks must still have a weight
    counts = token_counts(resources.train, len(weight)).to(weight.device) + 1
    mask = _mask_at_sparsity(sparsity, weight.abs() * counts[:, None].sqrt())
    replace_module(model, table.name, MaskedEmbedding.of(weight * mask, table.embedding.padding_idx))
