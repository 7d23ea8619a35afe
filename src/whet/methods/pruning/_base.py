"""What every unstructured pruning method shares: how much goes, and where.

Most methods score weights; the lowest go, in each layer or over all of them, or in every group of M inputs all but N.
Layer norms and the head are no linear layers of a block, and stay as they are; so does the table of token embeddings,
unless a share of it is asked for. Zeros stay zeros in training. Dense kernels gain no time by them; on disk, a bit for
every weight and the values that are left take their place.

A table of embeddings is a linear layer of one-hot inputs x, so that E[x xᵀ] is diagonal, with the share p_i of token i:
the error of its outputs is Σ p_i W_ij² over the weights that go, and is least where those of least |W_ij| · √p_i do.
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
from whet.models.embeddings import own_table
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace
from whet.utils.parameters import require_one
from whet.utils.progress import track

__all__ = ["Group", "Pruning", "Scored", "check_groups", "group_of", "highest", "kept"]


class Group(NamedTuple):
    """A pattern: how many of how many inputs stay."""

    few: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Pruning(Method):
    """A method that sets weights to zero."""

    sparsity: Annotated[float | None, Interval(ge=0, lt=1)] = None
    """Share of the matched weights that go."""
    pattern: str | None = None
    """Instead, N:M: of every M inputs of an output, N weights stay, such as 2:4."""
    scope: Literal["layer", "global"] = "layer"
    """Whether every layer loses the same share, or the lowest scores of all layers go."""
    include: str = "*"
    """Wildcard over module names; layers that it does not match stay as they are."""
    embeddings: Annotated[float | None, Interval(ge=0, lt=1)] = None
    """Share of the token embeddings' weights that go too, by magnitude and by how often training text has the token."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"sparsity": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range, or if not one thing says how much goes."""
        super().__post_init__()
        require_one({"sparsity": self.sparsity, "pattern": self.pattern}, such_as="sparsity=0.5 or pattern=2:4")
        if self.pattern is not None:
            group_of(self.pattern)
            if self.scope == "global":
                raise InvalidParameter(
                    f"scope must be layer with a pattern, but got pattern={self.pattern}; leave it out"
                )

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; tokens are counted in the training data."""
        return self.needs | ({"train"} if self.embeddings else frozenset())

    @abstractmethod
    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and its weights, (out, in), zero where they go.

        Each is put into the model before the next is asked for.
        """

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        names = Architecture.of(model).matching(self.include)
        if self.embeddings:
            _prune_embeddings(model, self.embeddings, resources)
        if self.sparsity == 0:
            return model
        for name, weight in self.pruned(model, names, resources):
            replace(model, name, Masked.of(weight, dense_bias(model.get_submodule(name))))
        return model


@dataclass(frozen=True, kw_only=True)
class Scored(Pruning):
    """A method that sets the weights of least score to zero, and leaves the others as they are."""

    @abstractmethod
    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and the scores of its weights, (out, in), not negative."""

    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Pruning.pruned`."""
        found = dict(track(self.scores(model, layers, resources), "scoring weights", total=len(layers)))
        for name, mask in kept(found, sparsity=self.sparsity, pattern=self.pattern, scope=self.scope).items():
            yield name, dense_weight(model.get_submodule(name)) * mask


def kept(
    scores: dict[str, Tensor], *, sparsity: float | None, pattern: str | None, scope: Literal["layer", "global"]
) -> dict[str, Tensor]:
    """Return, per layer, which weights stay, (out, in) bool; see `Pruning` for the arguments.

    Raises:
        InvalidParameter: the groups of a pattern do not divide a layer's inputs.
    """
    if pattern is not None:
        few, group = group_of(pattern)
        return {name: _by_groups(own, few, group, name) for name, own in scores.items()}
    assert sparsity is not None
    if scope == "layer":
        return {name: _all_but(sparsity, own) for name, own in scores.items()}
    together = _all_but(sparsity, torch.cat([own.flatten() for own in scores.values()]))
    parts = together.split([own.numel() for own in scores.values()])
    return {name: part.reshape(own.shape) for (name, own), part in zip(scores.items(), parts, strict=True)}


def highest(scores: Tensor, count: int) -> Tensor:
    """Return where the `count` highest scores are, bool of the same shape; of equal ones those that come first."""
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def _all_but(sparsity: float, scores: Tensor) -> Tensor:
    return highest(scores, scores.numel() - round(sparsity * scores.numel()))


def check_groups(inputs: int, group: int, name: str) -> None:
    """Refuse groups that do not divide the inputs of the layer of that name.

    Raises:
        InvalidParameter: they do not.
    """
    if inputs % group:
        raise InvalidParameter(
            f"the groups of a pattern must divide a layer's inputs, but got groups of {group} for {name} with "
            f"{inputs}; give another, or leave the layer out"
        )


def _by_groups(scores: Tensor, few: int, group: int, name: str) -> Tensor:
    check_groups(scores.shape[1], group, name)
    groups = scores.unflatten(1, (-1, group))
    best = groups.argsort(dim=-1, descending=True, stable=True)[..., :few]
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, best, True).flatten(1)


def group_of(pattern: str) -> Group:
    """Return what a pattern such as 2:4 says.

    Raises:
        InvalidParameter: it is none.
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise InvalidParameter(f"pattern must be N:M with 0 < N < M, but got pattern={pattern}; such as 2:4")
    return Group(int(found[1]), int(found[2]))


def _prune_embeddings(model: nn.Module, sparsity: float, resources: Resources) -> None:
    if resources.train is None:
        raise MissingResource("training data must be given, but got none; give --task")
    table = own_table(model)
    weight = table.embedding.weight.detach()
    # a token that the training text lacks counts as seen once
    counts = token_counts(resources.train, len(weight)).to(weight.device) + 1
    mask = _all_but(sparsity, weight.abs() * counts[:, None].sqrt())
    replace(model, table.name, MaskedEmbedding.of(weight * mask, table.embedding.padding_idx))
