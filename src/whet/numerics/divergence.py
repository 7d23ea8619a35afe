"""KL divergence between the predictions of two models, in nats."""

from typing import Any

import numpy as np

__all__ = ["bernoulli_kl", "categorical_kl", "gaussian_kl"]

Array = np.ndarray[Any, Any]


def categorical_kl(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL(baseline ‖ model) from (examples, classes) logits."""
    from scipy.special import log_softmax  # slow to import

    p, q = (log_softmax(logits.astype(float), axis=-1) for logits in (baseline, model))
    kl: Array = (np.exp(p) * (p - q)).sum(-1).clip(min=0)
    return kl


def bernoulli_kl(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL(baseline ‖ model), summed over labels, from (examples, labels) logits."""
    from scipy.special import expit, log_expit  # slow to import

    a, b = (logits.astype(float) for logits in (baseline, model))
    p = expit(a)
    kl: Array = (p * (log_expit(a) - log_expit(b)) + (1 - p) * (log_expit(-a) - log_expit(-b))).clip(min=0).sum(-1)
    return kl


def gaussian_kl(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL between normal distributions of unit variance from (examples, outputs) means.

    It is half the squared distance.
    """
    kl: Array = ((baseline - model) ** 2).sum(-1) / 2
    return kl
