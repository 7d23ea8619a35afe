"""The mathematics of low rank: the factors of one layer at every rank, from one decomposition of its narrower side.

With d = min(in, out), every factorization here is a projection P Q of rank k put beside the weight: W ≈ W P_k Q_k on
the input side, W ≈ P_k Q_k W on the output side, with P_k the first k columns of P and Q_k the first k rows of Q. One
decomposition so gives the factors of every rank, and no matrix of the wide side is ever decomposed.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whet.numerics.linalg import RootAndInverse, eigh_descending, root_and_inverse, square_root, tail_energy
from whet.numerics.moments import Moments, Side, narrower_side

__all__ = [
    "DAMPING",
    "Factors",
    "Spectrum",
    "break_even",
    "covariance_of",
    "factors_at_rank",
    "kfac_svd",
    "output_pca",
    "svd_in_metric",
    "svd_of_kl",
    "svd_of_scaled_weight",
    "svd_of_weight",
]

DAMPING = 1e-6
"""Of activations' moments whose roots are taken, as a share of their mean eigenvalue."""


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


def factors_at_rank(weight: Tensor, spectrum: Spectrum, rank: int) -> Factors:
    """Return the factors of `weight` at one rank, of equal column and row norms, in its dtype.

    Args:
        weight: (out, in).
        spectrum: its decomposition.
        rank: 1 ... r.
    """
    dense = weight.double()
    p, q = spectrum.p[:, :rank].double(), spectrum.q[:rank].double()
    on_input = narrower_side(weight) is Side.INPUT
    u, v = (dense @ p, q) if on_input else (p, q @ dense)
    shift = None
    if spectrum.mean is not None:
        lost = spectrum.mean - p @ (q @ spectrum.mean)
        shift = (dense @ lost if on_input else lost).to(weight)
    # equal norms change nothing in exact arithmetic, and keep both factors in range for training and int8
    tiny = np.finfo(np.float64).tiny
    scale = (v.norm(dim=1).clamp_min(tiny) / u.norm(dim=0).clamp_min(tiny)).sqrt()
    return Factors((u * scale).to(weight), (v / scale[:, None]).to(weight), shift)


def covariance_of(moments: Moments) -> Tensor:
    """Return the (d, d) covariance of what the moments describe."""
    return moments.second - moments.mean.outer(moments.mean)


def output_pca(weight: Tensor, second: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the decomposition that minimises E‖Wx − W'x‖² at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        second: (d, d) second moment on the narrower side: E[x xᵀ] of the input, or E[Wx (Wx)ᵀ] of the output.
        mean: (d,) mean of x or of Wx, where `second` is centred; the bias then makes up for it.
    """
    if narrower_side(weight) is Side.OUTPUT:
        energies, vectors = eigh_descending(second)
        return Spectrum(vectors, vectors.T, tail_energy(energies, relative=True), mean)
    dense = weight.double()
    gram = dense.T @ dense
    root = square_root(second)
    energies, vectors = eigh_descending(root.T @ gram @ root)
    # directions without energy are cut off: dividing by their sigma would only scale rounding errors
    inverse = torch.where(energies > energies[0] * 1e-14, energies.rsqrt(), 0)
    p = root @ vectors * inverse
    return Spectrum(p, p.T @ gram, tail_energy(energies, relative=True), mean)


def svd_in_metric(weight: Tensor, metric: RootAndInverse, other: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the decomposition that minimises tr(G ΔW C ΔWᵀ) at every rank, and the half of it as its loss.

    Args:
        weight: (out, in); only its shape matters.
        metric: roots of the moment that weighs the projection: of C on the input side, of G on the output side.
        other: (d, d) the other moment on that side: WᵀGW on the input side, WCWᵀ on the output side.
        mean: (d,) mean of x or of Wx.
    """
    energies, vectors = eigh_descending(metric.root.T @ other @ metric.root)
    onto, back = metric.root @ vectors, vectors.T @ metric.inverse
    losses = tail_energy(energies / 2, relative=False)
    if narrower_side(weight) is Side.INPUT:
        return Spectrum(onto, back, losses, mean)
    return Spectrum(back.T, onto.T, losses, mean)


def kfac_svd(weight: Tensor, moments: Moments, *, damping: float, metric: RootAndInverse | None = None) -> Spectrum:
    """Return the decomposition that costs least in KL at every rank, by moments with gradients; see `svd_in_metric`.

    Args:
        weight: (out, in).
        moments: of its narrower side.
        damping: added to the gradient moment on the output side, as a share of its mean eigenvalue.
        metric: roots of the inputs' covariance on the input side, where layers that read the same share them.
    """
    assert moments.gradient is not None
    if narrower_side(weight) is Side.INPUT:
        known = metric or root_and_inverse(covariance_of(moments), damping=DAMPING)
        return svd_in_metric(weight, known, moments.gradient, moments.mean)
    return svd_in_metric(
        weight, root_and_inverse(moments.gradient, damping=damping), covariance_of(moments), moments.mean
    )


def svd_of_weight(weight: Tensor) -> Spectrum:
    """Return the decomposition that minimises ‖W − W'‖ at every rank; `weight` as in `svd_of_scaled_weight`."""
    return svd_of_scaled_weight(weight, torch.ones(weight.shape[1], device=weight.device))


def svd_of_scaled_weight(weight: Tensor, scale: Tensor) -> Spectrum:
    """Return the decomposition that minimises ‖(W − W') diag(scale)‖ at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        scale: (in,) weight of each input feature, more than 0.
    """
    scaled = weight.double() * scale.double()
    if narrower_side(weight) is Side.OUTPUT:
        energies, vectors = eigh_descending(scaled @ scaled.T)
        return Spectrum(vectors, vectors.T, tail_energy(energies, relative=True))
    energies, vectors = eigh_descending(scaled.T @ scaled)
    return Spectrum(vectors * scale.double()[:, None], vectors.T / scale.double(), tail_energy(energies, relative=True))


def svd_of_kl(covariance: Tensor, gradient: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the projections of x that cost least in KL at every rank, on the input side of what reads it.

    Args:
        covariance: (d, d) of x.
        gradient: (d, d) second moment of the gradient that reaches x.
        mean: (d,) of x, where a bias can make up for what is cut off.
    """
    # (of the weight only the shape matters, and a square one stands for the input side)
    return svd_in_metric(covariance, root_and_inverse(covariance, damping=DAMPING), gradient, mean)
