"""Numbers that tables show and that follow from what was measured: speedups, and the change of quality."""

from collections.abc import Sequence

from whet.evaluation.formatting import gain_unit
from whet.evaluation.measurement import Comparison, Measurement

__all__ = ["SPEEDUPS", "derived"]

SPEEDUPS = {"latency_median": "speedup_single", "throughput": "speedup"}
"""Names of the ratios of times to the baseline's: for single texts, and in batches."""
_HUNDREDTHS = 100


def derived(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the speedups of a model, and how many points its quality changed; 1 and 0 for the baseline.

    Args:
        measurements: of one model; the first is its quality.
    """
    found = []
    if measurements:
        unit = gain_unit(measurements[0].better)
        found.append(_as_measurement(measurements[0], "change", unit, even=0.0, scale=_HUNDREDTHS))
    for one in measurements:
        if one.metric in SPEEDUPS:
            found.append(_as_measurement(one, SPEEDUPS[one.metric], "×", even=1.0, scale=1))
    return found


def _as_measurement(one: Measurement, metric: str, unit: str, *, even: float, scale: float) -> Measurement:
    """How a measurement compares with the baseline's, as one of its own; `even` for the baseline itself."""
    versus: Comparison | None = one.versus if one.versus is None or one.metric in SPEEDUPS else one.versus.gain
    ends = (even,) * 3 if versus is None else tuple(scale * end for end in (versus.value, versus.low, versus.high))
    value, low, high = ends
    return Measurement(
        metric=metric, value=value, unit=unit, low=low, high=high, n=one.n, better="higher", conditions=one.conditions,
        versus=versus,
    )  # fmt: skip
