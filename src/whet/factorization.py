"""What every low-rank method shares: choose ranks under one budget and put two thin layers in the place of a dense one.

With R a matrix on the narrower side of W (d = min(in, out)), every factorization here is a projection P Q of rank k put
beside the weight: W ≈ W P_k Q_k on the input side, W ≈ P_k Q_k W on the output side, with P_k the first k columns of P
and Q_k the first k rows of Q. One decomposition so gives the factors of every rank, and no matrix of the wide side is
ever decomposed.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from whet.allocation import Options, minimise, uniform
from whet.architecture import Architecture, dense_bias, dense_weight
from whet.errors import MissingResource
from whet.layers.low_rank import LowRank
from whet.method import Method, Stage
from whet.parameter import Range
from whet.progress import track
from whet.resources import Batches, Resources
from whet.statistics import Side, side_of
from whet.surgery import replace

__all__ = ["Factorization", "Factors", "Spectrum", "break_even", "calibrated", "factors"]

GRID = 48
"""Ranks offered per layer: enough that the best one is near, few enough to search."""


class Spectrum(NamedTuple):
    """The factors of one layer at every rank at once, in float64."""

    p: Tensor
    """(d, r)."""
    q: Tensor
    """(r, d)."""
    losses: Tensor
    """(r + 1,) loss at ranks 0 ... r, falling to zero; comparable between layers."""
    mean: Tensor | None = None
    """(d,) mean of what is projected; given, the bias makes up for the part of it that is cut off."""


class Factors(NamedTuple):
    """W ≈ u @ v, and what the bias gains."""

    u: Tensor
    """(out, rank)."""
    v: Tensor
    """(rank, in)."""
    shift: Tensor | None
    """(out,) to add to the bias, or None."""


def break_even(weight: Tensor) -> int:
    """Return the rank from which two factors hold as many parameters as the dense weight (out, in)."""
    out_features, in_features = weight.shape
    return out_features * in_features // (out_features + in_features)


def factors(weight: Tensor, spectrum: Spectrum, rank: int) -> Factors:
    """Return the factors of `weight` at one rank, of equal column and row norms, in its dtype.

    Args:
        weight: (out, in).
        spectrum: its decomposition.
        rank: 1 ... r.
    """
    dense = weight.double()
    p, q = spectrum.p[:, :rank].double(), spectrum.q[:rank].double()
    on_input = side_of(weight) is Side.INPUT
    u, v = (dense @ p, q) if on_input else (p, q @ dense)
    shift = None
    if spectrum.mean is not None:
        lost = spectrum.mean - p @ (q @ spectrum.mean)
        shift = (dense @ lost if on_input else lost).to(weight)
    # equal norms change nothing in exact arithmetic, and keep both factors in range for training and int8
    tiny = np.finfo(np.float64).tiny
    scale = (v.norm(dim=1).clamp_min(tiny) / u.norm(dim=0).clamp_min(tiny)).sqrt()
    return Factors((u * scale).to(weight), (v / scale[:, None]).to(weight), shift)


def calibrated(resources: Resources) -> Batches:
    """Return the calibration data.

    Raises:
        MissingResource: there is none.
    """
    if resources.calibration is None:
        raise MissingResource("calibration data must be given, but got none; give --task or --train-file")
    return resources.calibration


@dataclass(frozen=True, kw_only=True)
class Factorization(Method):
    """A method that gives every layer a spectrum; ranks, replacement and budget are the same for all."""

    keep: Annotated[float, Range(above=0, most=1)]
    """Share of the matched linear parameters that is kept, such as 0.4."""
    allocation: Literal["uniform", "by_loss"] = "uniform"
    """Every layer keeps the same share, or the summed loss is minimised under one budget."""
    include: str = "*"
    """Wildcard over module names; layers that it does not match stay as they are."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    @abstractmethod
    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """Yield each layer's name and decomposition."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        names = Architecture.of(model).matching(self.include)
        if self.keep == 1:
            return model
        dense = {name: dense_weight(model.get_submodule(name)) for name in names}
        spectra = track(self.spectra(model, names, resources), "decomposing", total=len(names))
        found = {name: _offered(dense[name], spectrum) for name, spectrum in spectra}
        biased = {name for name in names if dense_bias(model.get_submodule(name)) is not None}
        ranks = self._ranks(dense, found, biased=biased)
        for name, rank in ranks.items():
            if rank is not None:
                _factorize(model, name, found[name], rank)
        return model

    def _ranks(
        self, dense: Mapping[str, Tensor], found: Mapping[str, Spectrum], *, biased: Set[str]
    ) -> dict[str, int | None]:
        """The rank of each layer; None leaves it dense."""
        offers = {name: _offers(weight, found[name], biased=name in biased) for name, weight in dense.items()}
        options = {name: offer.options for name, offer in offers.items()}
        if self.allocation == "uniform":
            chosen = uniform(options, {name: self.keep * weight.numel() for name, weight in dense.items()})
        else:
            chosen = minimise(options, self.keep * sum(weight.numel() for weight in dense.values()))
        return {name: offers[name].ranks[i] for name, i in chosen.items()}


def _offered(weight: Tensor, spectrum: Spectrum) -> Spectrum:
    """The part of a spectrum that may be used, in the weight's dtype: all layers hold theirs at once."""
    ranks = break_even(weight)
    return spectrum._replace(p=spectrum.p[:, :ranks].to(weight), q=spectrum.q[:ranks].to(weight))


class _Offer(NamedTuple):
    """What one layer can become."""

    ranks: list[int | None]
    """Rising; None, the last, is dense."""
    options: Options
    """Their parameters and losses."""


def _offers(weight: Tensor, spectrum: Spectrum, *, biased: bool) -> _Offer:
    """Multiples of a step that hold fewer parameters than the dense layer, and the dense layer itself."""
    step = max(1, min(weight.shape) // GRID)
    # a layer without bias gains one where the mean is made up for
    bias = 0 if biased or spectrum.mean is None else weight.shape[0]
    fewer = [rank for rank in range(1, break_even(weight) + 1) if rank * sum(weight.shape) + bias < weight.numel()]
    ranks = [rank for rank in fewer if rank % step == 0] or fewer[:1]
    costs = [rank * sum(weight.shape) + bias for rank in ranks] + [weight.numel()]
    losses = [float(spectrum.losses[rank]) for rank in ranks] + [0.0]
    return _Offer([*ranks, None], Options(np.asarray(costs, dtype=float), np.asarray(losses)))


def _factorize(model: nn.Module, name: str, spectrum: Spectrum, rank: int) -> None:
    layer = model.get_submodule(name)
    u, v, shift = factors(dense_weight(layer), spectrum, rank)
    bias = dense_bias(layer)
    if shift is not None:
        bias = shift if bias is None else bias + shift
    replace(model, name, LowRank.of(u, v, bias))
