"""Numbers, intervals and changes as text."""

from whet.evaluation.measurement import Comparison, Measurement

__all__ = ["TIMES", "change", "difference", "digits", "ends", "interval", "value_of"]


def digits(value: float) -> int:
    """Return how many decimal places of a number are worth printing."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 2 else 3 if size >= 0.01 else 4


TIMES = "×"


def value_of(one: Measurement) -> str:
    """Return the number of a measurement, without unit and interval."""
    return f"{one.value:,.{_places(one)}f}"


def ends(one: Measurement) -> str:
    """Return the 95 % interval of a measurement; nothing where the number is exact."""
    places = _places(one)
    return f"{one.low:,.{places}f} to {one.high:,.{places}f}" if one.low < one.high else ""


def interval(one: Measurement) -> str:
    """Return a measurement with its unit, and with its 95 % interval where it has one."""
    value = f"{value_of(one)} {one.unit}".rstrip()
    return f"{value} ({ends(one)})" if ends(one) else value


def change(one: Measurement) -> str:
    """Return how far a quality is from the baseline's, and the p-value; nothing for the baseline itself."""
    if one.versus is None:
        return ""
    return f"{one.versus.value:+.{_places(one)}f}, p = {one.versus.p_value:.2g}"


def difference(versus: Comparison) -> str:
    """Return what a comparison with the baseline gave, with its 95 % interval and p-value."""
    if versus.kind == "ratio":
        shown = f"{versus.value:.2f} times ({versus.low:.2f} to {versus.high:.2f})"
    else:
        places = min(3, digits(versus.value))
        shown = f"{versus.value:+.{places}f} ({versus.low:+.{places}f} to {versus.high:+.{places}f})"
    return f"{shown}, p = {versus.p_value:.2g}"


def _places(one: Measurement) -> int:
    return 2 if one.unit == TIMES else digits(one.value)
