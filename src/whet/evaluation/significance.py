"""Intervals and paired tests: bootstrap over examples, McNemar's test, ratios of times."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from whet.evaluation.measurement import Comparison

__all__ = ["Estimate", "bootstrap", "mcnemar", "paired_bootstrap", "paired_factor", "paired_ratio", "speedup"]


Array = np.ndarray[Any, Any]
Seconds = Sequence[float] | Array
_TWO_SIDED = 1.959964
"""Standard deviations of a 95 % interval."""
RESAMPLES = 1000
"""Bootstrap resamples: the ends of a 95 % interval are then good to about a tenth of its width."""


class Estimate(NamedTuple):
    """A value and its 95 % interval, which holds it."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[[Array], float], count: int, *, seed: int, strata: Array | None = None) -> Estimate:
    """Return a statistic of all examples, with the 95 % percentile interval over resampled ones.

    Args:
        statistic: takes indices drawn with replacement, (count,).
        count: the number of examples.
        seed: of the resampling.
        strata: (count,) numbers of sets, each of which is resampled by itself; None if there is one set.
    """
    return _estimate(statistic(np.arange(count)), [statistic(drawn) for drawn in _resamples(count, seed, strata)])


def paired_bootstrap(
    statistic: Callable[[Array], float],
    baseline: Callable[[Array], float],
    count: int,
    *,
    seed: int,
    strata: Array | None = None,
) -> Comparison:
    """Return the difference of two statistics over the same resampled examples; see `bootstrap`.

    The p-value is twice the share of resamples on the far side of zero, at least 2 / (resamples + 1).
    """
    differences = [statistic(drawn) - baseline(drawn) for drawn in _resamples(count, seed, strata)]
    everyone = np.arange(count)
    estimate = _estimate(statistic(everyone) - baseline(everyone), differences)
    p_value = _two_sided(np.asarray(differences))
    return Comparison(kind="difference", **estimate._asdict(), p_value=p_value, test="paired bootstrap")


def paired_factor(
    statistic: Callable[[Array], float],
    baseline: Callable[[Array], float],
    count: int,
    *,
    seed: int,
    strata: Array | None = None,
) -> Comparison:
    """Return the baseline's statistic over the model's, of which lower is better, over the same resampled examples.

    Statistics are positive; a value below 1 says that the model is worse. Otherwise as `paired_bootstrap`.
    """
    factors = [baseline(drawn) / statistic(drawn) for drawn in _resamples(count, seed, strata)]
    everyone = np.arange(count)
    estimate = _estimate(baseline(everyone) / statistic(everyone), factors)
    p_value = _two_sided(np.asarray(factors) - 1)
    return Comparison(kind="ratio", **estimate._asdict(), p_value=p_value, test="paired bootstrap")


def mcnemar(right: Array, baseline_right: Array) -> Comparison:
    """Return the difference of two accuracies with McNemar's exact test, and the interval of Bonett and Price.

    Where only a few answers differ, resamples draw too few of them: if one of 200 was gained and none lost, no
    resample shows a loss, though one of more than a point is likely enough. The interval counts one more of each, of
    two more examples.

    Args:
        right: (examples,) whether the model was right.
        baseline_right: (examples,) whether the baseline was.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12,
    1947; Bonett, Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37, 2012.
    """
    from scipy import stats  # slow to import

    gained, lost = int((right & ~baseline_right).sum()), int((~right & baseline_right).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    count = len(right) + 2
    up, down = (gained + 1) / count, (lost + 1) / count
    arm = _TWO_SIDED * math.sqrt((up + down - (up - down) ** 2) / count)
    value = (gained - lost) / len(right)
    low, high = max(-1.0, min(value, up - down - arm)), min(1.0, max(value, up - down + arm))
    return Comparison(kind="difference", value=value, low=low, high=high, p_value=p_value, test="McNemar, exact")


def speedup(baseline: Seconds, model: Seconds) -> float:
    """Return how many times as fast as the baseline a model is: the median over rounds of the ratio within a round.

    A slow moment of the machine falls on both times of a round, and leaves their ratio as it is.

    Args:
        baseline: (rounds,) seconds of the baseline.
        model: (rounds,) seconds of the model in the same rounds.
    """
    return float(np.median(np.asarray(baseline, dtype=float) / np.asarray(model, dtype=float)))


def paired_ratio(baseline: Seconds, model: Seconds, *, seed: int) -> Comparison:
    """Return the `speedup` of a model with its 95 % interval over resampled rounds.

    The test is Wilcoxon's signed-rank test of the logarithms of the ratios.

    Args:
        baseline: (rounds,) seconds of the baseline.
        model: (rounds,) seconds of the model in the same rounds.
        seed: of the resampling.
    """
    from scipy import stats  # slow to import

    first, own = np.asarray(baseline, dtype=float), np.asarray(model, dtype=float)
    estimate = bootstrap(lambda drawn: speedup(first[drawn], own[drawn]), len(first), seed=seed)
    logs = np.log(first / own)
    p_value = float(stats.wilcoxon(logs).pvalue) if np.any(logs != 0) else 1.0
    test = "Wilcoxon signed-rank over interleaved rounds"
    return Comparison(kind="ratio", **estimate._asdict(), p_value=p_value, test=test)


def _resamples(count: int, seed: int, strata: Array | None = None) -> list[Array]:
    generator = np.random.default_rng(seed)
    if strata is None:
        return [generator.integers(count, size=count) for _ in range(RESAMPLES)]
    sets = [np.flatnonzero(strata == number) for number in np.unique(strata)]
    return [np.concatenate([generator.choice(part, size=len(part)) for part in sets]) for _ in range(RESAMPLES)]


def _estimate(value: float, resampled: Sequence[float]) -> Estimate:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _two_sided(differences: Array) -> float:
    differences = differences[~np.isnan(differences)]
    worse = (np.sum(differences <= 0) + 1) / (len(differences) + 1)
    better = (np.sum(differences >= 0) + 1) / (len(differences) + 1)
    return float(min(1.0, 2 * min(worse, better)))
