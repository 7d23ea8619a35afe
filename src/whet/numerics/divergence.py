"""KL divergence between the predictions of two models, in nats."""

from typing import Any

import numpy as np

__all__ = ["categorical_kl", "gaussian_kl"]

Array = np.ndarray[Any, Any]


def categorical_kl(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL(baseline ‖ model) from (examples, classes) logits."""
    from scipy.special import log_softmax  # slow to import

    p, q = (log_softmax(logits.astype(float), axis=1) for logits in (baseline, model))
    kl: Array = (np.exp(p) * (p - q)).sum(1).clip(min=0)
    return kl


def gaussian_kl(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL between normal distributions of unit variance from (examples,) means.

    It is half the squared difference.
    """
    kl: Array = (baseline - model) ** 2 / 2
    return kl
