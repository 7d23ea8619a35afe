"""The KL divergence between the predictions of two models, in nats.

For classes it is KL(p ‖ q) = Σ p log(p / q); for one score, the KL divergence of two unit-variance normal
distributions, (x − y)² / 2.
"""

from typing import Any

import numpy as np
from scipy.special import log_softmax

__all__ = ["kl_divergences"]

Array = np.ndarray[Any, Any]


def kl_divergences(baseline: Array, model: Array) -> Array:
    """Return KL(baseline ‖ model) of each example in nats, (examples,).

    Args:
        baseline: (examples, classes) logits; one class means a score.
        model: (examples, classes) logits.
    """
    if baseline.shape[1] == 1:
        gaussian_kl: Array = (baseline[:, 0] - model[:, 0]) ** 2 / 2
        return gaussian_kl
    p, q = (log_softmax(logits.astype(float), axis=1) for logits in (baseline, model))
    categorical_kl: Array = (np.exp(p) * (p - q)).sum(1).clip(min=0)
    return categorical_kl
