"""The one way in which whet writes numbers, intervals, changes, ratios and p-values for people.

Numbers have as many decimal places as are worth reading; the ends of an interval have as many as its value. Tables,
reports, model cards and the command line all use these functions.
"""

import re

from whet.evaluation.measurement import Better, Comparison, Measurement
from whet.utils.streams import printable

__all__ = [
    "TIMES",
    "change",
    "comparison",
    "gain_unit",
    "interval",
    "interval_of",
    "markdown_code",
    "markdown_text",
    "number",
    "p_value",
    "percent",
    "plain_line",
    "points",
    "points_with_arm",
    "ratio",
    "star",
    "times",
    "value_of",
    "with_arm",
    "with_interval",
    "with_unit",
]

TIMES = "×"
"""The unit of ratios."""
_MARKUP = re.compile(r"[\\`*_\[\]<>|#~&$@]|:(?=//)|(?<=www)\.")
"""What means something to Markdown or HTML, or makes a link of an address."""
TINY = 1e-4
"""Numbers nearer to zero have an exponent."""


def number(value: float, *, places: int | None = None, signed: bool = False) -> str:
    """Return a number with a comma between thousands; whole numbers of type int have no decimal places.

    Args:
        value: any number.
        places: decimal places; as many as are worth reading, if None.
        signed: whether positive numbers have a plus sign.
    """
    sign = "+" if signed else ""
    if places is None and isinstance(value, int):
        return f"{value:{sign},}"
    if places is None and 0 < abs(value) < TINY:
        return f"{value:{sign}.2g}"
    places = _places(value) if places is None else places
    shown = 0.0 if round(value, places) == 0 else value  # and never -0.0
    return f"{shown:{sign},.{places}f}"


def percent(share: float, *, places: int = 1) -> str:
    """Return a share of 1 in percent."""
    return f"{share:.{places}%}"


def p_value(value: float) -> str:
    """Return a p-value to two digits."""
    return f"p = {value:.2g}"


def interval(value: float, low: float, high: float, *, places: int | None = None, signed: bool = False) -> str:
    """Return a number with its 95 % interval in brackets; without brackets where the number is exact."""
    shown = number(value, places=places, signed=signed)
    return f"{shown} ({_ends(value, low, high, places, signed)})" if low < high else shown


def value_of(measurement: Measurement) -> str:
    """Return the number of a measurement, without its unit and interval."""
    return number(measurement.value, places=_places_of(measurement))


def interval_of(measurement: Measurement) -> str:
    """Return the 95 % interval of a measurement; nothing where the number is exact."""
    low, high = measurement.low, measurement.high
    return _ends(measurement.value, low, high, _places_of(measurement), signed=False) if low < high else ""


def with_unit(measurement: Measurement) -> str:
    """Return the number of a measurement with its unit."""
    return f"{value_of(measurement)} {measurement.unit}".rstrip()


def with_interval(measurement: Measurement) -> str:
    """Return a measurement with its unit, and its 95 % interval in brackets where it has one."""
    ends = interval_of(measurement)
    return f"{with_unit(measurement)} ({ends})" if ends else with_unit(measurement)


def with_arm(measurement: Measurement) -> str:
    """Return the number of a measurement, ± half of its 95 % interval, and a star where it differs significantly."""
    arm = (measurement.high - measurement.low) / 2
    places = _places_of_ends(measurement.value, _places_of(measurement))
    shown = f" ±{number(arm, places=places)}" if arm else ""
    return f"{value_of(measurement)}{shown}{star(measurement.versus)}"


def star(versus: Comparison | None) -> str:
    """Return a star where a difference from the baseline is significant."""
    return "*" if versus is not None and versus.significant else ""


def ratio(versus: Comparison | None) -> str:
    """Return a ratio with its 95 % interval; that of the baseline, which is compared with nothing, is 1."""
    return f"1 {TIMES}" if versus is None else _ratio(versus)


def gain_unit(better: Better) -> str:
    """Return what gains of a metric are in: points, hundredths of it; or % of its ratio, where lower is better."""
    return "points" if better == "higher" else "%"


def points(versus: Comparison) -> str:
    """Return a gain in points, which are hundredths, with its 95 % interval; see `Comparison.gain`."""
    versus = versus.gain
    return interval(100 * versus.value, 100 * versus.low, 100 * versus.high, places=1, signed=True)


def points_with_arm(versus: Comparison) -> str:
    """Return a gain in points, ± half of its 95 % interval, and a star where it is significant."""
    versus = versus.gain
    arm = number(50 * (versus.high - versus.low), places=1)
    return f"{number(100 * versus.value, places=1, signed=True)} ±{arm}{star(versus)}"


def times(versus: Comparison | None) -> str:
    """Return a ratio without its interval, and a star where it differs significantly from 1."""
    return f"1 {TIMES}" if versus is None else f"{number(versus.value, places=2)} {TIMES}{star(versus)}"


def change(measurement: Measurement) -> str:
    """Return how far a quality is from that of the baseline, and the p-value; nothing for the baseline itself."""
    versus = measurement.versus
    if versus is None:
        return ""
    places = _places(measurement.value)
    return f"{number(versus.value, places=places, signed=True)}, {p_value(versus.p_value)}"


def comparison(versus: Comparison | None) -> str:
    """Return a difference or ratio with its 95 % interval and p-value; nothing for the baseline itself."""
    if versus is None:
        return ""
    if versus.kind == "ratio":
        return f"{_ratio(versus)}, {p_value(versus.p_value)}"
    places = min(3, _places(versus.value))
    shown = interval(versus.value, versus.low, versus.high, places=places, signed=True)
    return f"{shown}, {p_value(versus.p_value)}"


def _ratio(versus: Comparison) -> str:
    ends = f" ({_ends(versus.value, versus.low, versus.high, 2, signed=False)})" if versus.low < versus.high else ""
    return f"{number(versus.value, places=2)} {TIMES}{ends}"


def _ends(value: float, low: float, high: float, places: int | None, signed: bool) -> str:
    places = _places_of_ends(value, places)
    return f"{number(low, places=places, signed=signed)} to {number(high, places=places, signed=signed)}"


def _places_of_ends(value: float, places: int | None) -> int | None:
    """As many as the value has; None where that has an exponent."""
    return _places(value) if places is None and not 0 < abs(value) < TINY else places


def _places_of(measurement: Measurement) -> int | None:
    return 2 if measurement.unit == TIMES else None


def _places(value: float) -> int:
    """How many decimal places of a number are worth reading."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 2 else 3 if size >= 0.01 or size == 0 else 4


def plain_line(text: str) -> str:
    """Return a text on one line that can be written as UTF-8; names of models may contain anything."""
    return printable(" ".join(text.split())).encode("utf-8", "replace").decode()


def markdown_text(text: str) -> str:
    """Return a text on one line with Markdown and HTML escaped."""
    return _MARKUP.sub(r"\\\g<0>", plain_line(text))


def markdown_code(text: str) -> str:
    """Return a text as code within a line of Markdown, where no sign has a meaning but backticks."""
    line = plain_line(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    return f"`{line}`" if longest == 0 else f"{'`' * (longest + 1)} {line} {'`' * (longest + 1)}"
