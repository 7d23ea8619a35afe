"""What every unstructured pruning method shares: which weights go, given a score for each.

A method scores weights; the lowest go, in each layer or over all of them, or in every group of M inputs all but N.
Layer norms, embeddings and the head are no linear layers of a block, and stay as they are. Zeros stay zeros in
training. Dense kernels gain no time by them; on disk, a bit for every weight and the values that are left take their
place.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from whet.architecture import Architecture, dense_bias, dense_weight
from whet.errors import InvalidParameter
from whet.layers.masked import Masked
from whet.method import Method, Stage
from whet.parameter import Range
from whet.progress import track
from whet.resources import Resources
from whet.surgery import replace

__all__ = ["Pruning", "kept"]


@dataclass(frozen=True, kw_only=True)
class Pruning(Method):
    """A method that sets the weights of least score to zero."""

    sparsity: Annotated[float | None, Range(least=0, below=1)] = None
    """Share of the matched weights that go."""
    pattern: str | None = None
    """Instead, N:M: of every M inputs of an output, N weights stay, such as 2:4."""
    scope: Literal["layer", "global"] = "layer"
    """Whether every layer loses the same share, or the lowest scores of all layers go."""
    include: str = "*"
    """Wildcard over module names; layers that it does not match stay as they are."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"sparsity": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range, or if not one thing says how much goes."""
        super().__post_init__()
        if (self.sparsity is None) == (self.pattern is None):
            raise InvalidParameter(
                f"one of sparsity and pattern must be given, but got sparsity={self.sparsity} and "
                f"pattern={self.pattern}; such as sparsity=0.5 or pattern=2:4"
            )
        if self.pattern is not None:
            _pattern(self.pattern)
            if self.scope == "global":
                raise InvalidParameter(
                    f"scope must be layer with a pattern, but got pattern={self.pattern}; leave it out"
                )

    @abstractmethod
    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and the scores of its weights, (out, in), not negative."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        names = Architecture.of(model).matching(self.include)
        if self.sparsity == 0:
            return model
        found = dict(track(self.scores(model, names, resources), "scoring weights", total=len(names)))
        for name, mask in kept(found, sparsity=self.sparsity, pattern=self.pattern, scope=self.scope).items():
            layer = model.get_submodule(name)
            replace(model, name, Masked.of(dense_weight(layer) * mask, dense_bias(layer)))
        return model


def kept(
    scores: dict[str, Tensor], *, sparsity: float | None, pattern: str | None, scope: Literal["layer", "global"]
) -> dict[str, Tensor]:
    """Return, per layer, which weights stay, (out, in) bool; see `Pruning` for the arguments.

    Raises:
        InvalidParameter: the groups of a pattern do not divide a layer's inputs.
    """
    if pattern is not None:
        few, group = _pattern(pattern)
        return {name: _by_groups(own, few, group, name) for name, own in scores.items()}
    assert sparsity is not None
    if scope == "layer":
        return {name: _highest(own, sparsity) for name, own in scores.items()}
    together = _highest(torch.cat([own.flatten() for own in scores.values()]), sparsity)
    parts = together.split([own.numel() for own in scores.values()])
    return {name: part.reshape(own.shape) for (name, own), part in zip(scores.items(), parts, strict=True)}


def _highest(scores: Tensor, sparsity: float) -> Tensor:
    """All but the lowest share; of equal ones those that come first stay."""
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[: scores.numel() - round(sparsity * scores.numel())]] = True
    return mask.reshape(scores.shape)


def _by_groups(scores: Tensor, few: int, group: int, name: str) -> Tensor:
    if scores.shape[1] % group:
        raise InvalidParameter(
            f"the groups of a pattern must divide a layer's inputs, but got groups of {group} for {name} with "
            f"{scores.shape[1]}; give another, or leave the layer out"
        )
    groups = scores.unflatten(1, (-1, group))
    best = groups.argsort(dim=-1, descending=True, stable=True)[..., :few]
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, best, True).flatten(1)


def _pattern(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise InvalidParameter(f"pattern must be N:M with 0 < N < M, but got pattern={text}; such as 2:4")
    return int(found[1]), int(found[2])
