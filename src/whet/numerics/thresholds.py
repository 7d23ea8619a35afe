"""Thresholds of confidence above which answers differ from a reference at most so often, with a guarantee.

A sequence of thresholds that is fixed beforehand is tested from the strictest on: is the share of examples that are
answered, and answered differently, at most what was asked? The exact binomial bound on fresh examples says so with the
wanted confidence. The first threshold that fails ends the test, so that no correction for their number is needed.

Source: Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control", 2021, arXiv 2110.01052; Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of
the binomial", Biometrika 26, 1934.
"""

import math
from typing import Any

import numpy as np

__all__ = ["SEQUENCE", "examples_needed", "most_permissive", "upper_bound"]

Array = np.ndarray[Any, Any]
SEQUENCE = (*(1 - 0.5 * 0.9**step for step in range(80, -1, -1)), *(step / 20 for step in range(9, -1, -1)))
"""The thresholds that are tested, from .9999 down to 0; of many classes, the likeliest may have less than .5."""


def upper_bound(errors: int, examples: int, *, confidence: float) -> float:
    """Return the exact upper bound of a share, of which `errors` of so many examples were seen.

    Args:
        errors: 0 ... examples.
        examples: at least 1.
        confidence: of the bound, in (0, 1).
    """
    from scipy.stats import beta  # slow to import

    return 1.0 if errors == examples else float(beta.ppf(confidence, errors + 1, examples - errors))


def examples_needed(share: float, *, confidence: float) -> int:
    """Return the fewest examples without an error that show a share to be at most this."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-share))


def most_permissive(sure: Array, differs: Array, *, share: float, confidence: float) -> float | None:
    """Return the lowest threshold at which the share of examples that are answered differently is low enough.

    Args:
        sure: (examples,) confidence of each answer.
        differs: (examples,) whether it differs from the reference.
        share: of all examples, at most answered differently.
        confidence: with which this must hold.

    Returns:
        A threshold of `SEQUENCE`; None if not even the strictest can be shown to do.
    """
    accepted = None
    for threshold in SEQUENCE:
        errors = int((differs & (sure >= threshold)).sum())
        if upper_bound(errors, len(sure), confidence=confidence) > share:
            break
        accepted = threshold
    return accepted
