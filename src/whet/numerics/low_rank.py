"""Low-rank factorization: the factors of one layer at every rank, from one decomposition at its narrower side.

Every factorization here multiplies the weight by a projection P Q of rank k: W ≈ W P_k Q_k at the input side, or
W ≈ P_k Q_k W at the output side, where P_k holds the first k columns of P and Q_k the first k rows of Q. One
decomposition therefore gives the factors of every rank, and only (d, d) matrices with d = min(in, out) are decomposed.
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
"""Damping of activation moments before their root is taken, as a fraction of their mean eigenvalue."""


class Spectrum(NamedTuple):
    """The projections of one layer at every rank, in float64; see the module's equation."""

    p: Tensor
    """(d, r) P."""
    q: Tensor
    """(r, d) Q."""
    losses: Tensor
    """(r + 1,) loss at ranks 0 ... r, descending to zero; comparable between layers."""
    mean: Tensor | None = None
    """(d,) mean of the projected vectors; if given, the bias compensates for the part of the mean that is cut off."""


class Factors(NamedTuple):
    """The factors of a weight, W ≈ u @ v, and the correction of the bias."""

    u: Tensor
    """(out, rank)."""
    v: Tensor
    """(rank, in)."""
    shift: Tensor | None
    """(out,) to add to the bias, or None for no correction."""


def break_even(weight: Tensor) -> int:
    """Return the largest rank at which two factors have at most as many parameters as the (out, in) weight."""
    out_features, in_features = weight.shape
    return out_features * in_features // (out_features + in_features)


def factors_at_rank(weight: Tensor, spectrum: Spectrum, rank: int) -> Factors:
    """Return the factors of `weight` at one rank, in its dtype; columns of u and rows of v have equal norms.

    Args:
        weight: (out, in), any float dtype.
        spectrum: the decomposition of `weight`.
        rank: 1 ... r.
    """
    dense = weight.double()
    p, q = spectrum.p[:, :rank].double(), spectrum.q[:rank].double()
    on_input = narrower_side(weight) is Side.INPUT
    u, v = (dense @ p, q) if on_input else (p, q @ dense)
    shift = None
    if spectrum.mean is not None:
        lost_mean = spectrum.mean - p @ (q @ spectrum.mean)
        shift = (dense @ lost_mean if on_input else lost_mean).to(weight)
    # equal norms leave the product as it is, and keep both factors in a good range for training and int8
    tiny = np.finfo(np.float64).tiny
    scale = (v.norm(dim=1).clamp_min(tiny) / u.norm(dim=0).clamp_min(tiny)).sqrt()
    return Factors((u * scale).to(weight), (v / scale[:, None]).to(weight), shift)


def covariance_of(moments: Moments) -> Tensor:
    """Return the (d, d) covariance of the activations, E[z zᵀ] − E[z] E[z]ᵀ."""
    return moments.second - moments.mean.outer(moments.mean)


def output_pca(weight: Tensor, second: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the projections that minimise E‖Wx − W'x‖² at every rank; losses are fractions of E‖Wx‖².

    Args:
        weight: (out, in), any float dtype; computed in float64.
        second: (d, d) second moment at the narrower side: E[x xᵀ] at the input, or E[Wx (Wx)ᵀ] at the output.
        mean: (d,) mean of x or of Wx, if `second` is a covariance; the bias then compensates for it.
    """
    if narrower_side(weight) is Side.OUTPUT:
        energies, vectors = eigh_descending(second)
        return Spectrum(vectors, vectors.T, tail_energy(energies, relative=True), mean)
    dense = weight.double()
    gram = dense.T @ dense
    root = square_root(second)
    energies, vectors = eigh_descending(root.T @ gram @ root)
    # directions without energy are cut off: division by their singular value would only amplify rounding errors
    inverse = torch.where(energies > energies[0] * 1e-14, energies.rsqrt(), 0)
    p = root @ vectors * inverse
    return Spectrum(p, p.T @ gram, tail_energy(energies, relative=True), mean)


def svd_in_metric(weight: Tensor, metric: RootAndInverse, other: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the projections that minimise ½ tr(G ΔW C ΔWᵀ) at every rank, with this value as the loss.

    C is a moment of the inputs, G a moment of the gradients at the outputs.

    Args:
        weight: (out, in); only its shape is read.
        metric: root and inverse root of the metric of the projection: of C at the input side, of G at the output side.
        other: (d, d) the other moment, at the same side: WᵀGW at the input side, WCWᵀ at the output side.
        mean: (d,) mean of x or of Wx, if the bias is to compensate for the part of it that is cut off.
    """
    energies, vectors = eigh_descending(metric.root.T @ other @ metric.root)
    onto, back = metric.root @ vectors, vectors.T @ metric.inverse
    losses = tail_energy(energies / 2, relative=False)
    if narrower_side(weight) is Side.INPUT:
        return Spectrum(onto, back, losses, mean)
    return Spectrum(back.T, onto.T, losses, mean)


def kfac_svd(weight: Tensor, moments: Moments, *, damping: float, metric: RootAndInverse | None = None) -> Spectrum:
    """Return the projections that cost least KL at every rank, by the K-FAC approximation; see `svd_in_metric`.

    Args:
        weight: (out, in).
        moments: moments at the narrower side of the layer, with gradients.
        damping: damping of the gradient moment at the output side, as a fraction of its mean eigenvalue.
        metric: root and inverse root of the input covariance, for layers that share their input; computed if None.
    """
    assert moments.gradient is not None
    if narrower_side(weight) is Side.INPUT:
        input_metric = metric or root_and_inverse(covariance_of(moments), damping=DAMPING)
        return svd_in_metric(weight, input_metric, moments.gradient, moments.mean)
    return svd_in_metric(
        weight, root_and_inverse(moments.gradient, damping=damping), covariance_of(moments), moments.mean
    )


def svd_of_weight(weight: Tensor) -> Spectrum:
    """Return the projections that minimise ‖W − W'‖ at every rank; `weight` is as in `svd_of_scaled_weight`."""
    return svd_of_scaled_weight(weight, torch.ones(weight.shape[1], device=weight.device))


def svd_of_scaled_weight(weight: Tensor, scale: Tensor) -> Spectrum:
    """Return the projections that minimise ‖(W − W') diag(scale)‖ at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        scale: (in,) positive weight of each input feature.
    """
    scaled = weight.double() * scale.double()
    if narrower_side(weight) is Side.OUTPUT:
        energies, vectors = eigh_descending(scaled @ scaled.T)
        return Spectrum(vectors, vectors.T, tail_energy(energies, relative=True))
    energies, vectors = eigh_descending(scaled.T @ scaled)
    return Spectrum(vectors * scale.double()[:, None], vectors.T / scale.double(), tail_energy(energies, relative=True))


def svd_of_kl(covariance: Tensor, gradient: Tensor, mean: Tensor | None = None) -> Spectrum:
    """Return the projections of activations x that cost least KL at every rank.

    Args:
        covariance: (d, d) covariance of x.
        gradient: (d, d) second moment of the gradient that reaches x.
        mean: (d,) mean of x, if a later bias can compensate for the part of it that is cut off.
    """
    # only the shape of the weight argument is read, and a square one selects the input side
    return svd_in_metric(covariance, root_and_inverse(covariance, damping=DAMPING), gradient, mean)
