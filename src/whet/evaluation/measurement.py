"""A measured number: never without its unit, its 95 % interval, the number of observations and its conditions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from whet.errors import InvalidArtifact, InvalidParameter
from whet.utils.schema import from_values

__all__ = ["Better", "Comparison", "Measurement"]

Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a model differs from the baseline, on the same examples or in the same interleaved runs."""

    kind: Literal["difference", "ratio"]
    """Model minus baseline, where more is better; or the factor by which the model is better than the baseline."""
    value: float
    """The difference or ratio."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    p_value: float
    """Chance of a difference this large if there were none, two-sided."""
    test: str
    """The test that gave the p-value."""

    @property
    def significant(self) -> bool:
        """Whether chance alone is an unlikely explanation: p < 0.05."""
        return self.p_value < 0.05

    @property
    def gain(self) -> "Comparison":
        """The comparison as a difference, positive where the model is better: a ratio of 0.98 is a gain of -0.02."""
        if self.kind == "difference":
            return self
        return replace(self, kind="difference", value=self.value - 1, low=self.low - 1, high=self.high - 1)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number about one model."""

    metric: str
    """What was measured, such as `accuracy` or `latency_p95`."""
    value: int | float
    """The number."""
    unit: str
    """Its unit; empty for shares and correlations."""
    low: int | float
    """Lower end of its 95 % interval; equal to the value where the number is a count."""
    high: int | float
    """Upper end of its 95 % interval."""
    n: int
    """Observations behind it: examples, runs, or 1 for a count."""
    better: Better
    """Which way is good."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What it depends on beyond the model: shape, batch size, rounds."""
    versus: Comparison | None = None
    """Against the baseline; None for the baseline itself and for counts."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter where the interval does not hold the value."""
        if not self.low <= self.value <= self.high:
            raise InvalidParameter(
                f"low <= value <= high must hold, but got low={self.low}, value={self.value}, high={self.high} "
                f"for {self.metric}; widen the interval"
            )

    @property
    def title(self) -> str:
        """The metric's name in tables, with the class that it scores if it scores one."""
        scored = self.conditions.get("class")
        return self.metric if scored is None else f"{self.metric} of {scored}"

    @classmethod
    def count(cls, metric: str, value: float, unit: str, *, better: Better = "lower") -> "Measurement":
        """Return a number that is exact."""
        return cls(metric=metric, value=value, unit=unit, low=value, high=value, n=1, better=better)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Measurement":
        """Return the measurement that `to_dict` described.

        Raises:
            InvalidArtifact: these are not the values of a measurement.
        """
        return from_values(cls, entry, what="a measurement", error=InvalidArtifact, remedy="measure again")
