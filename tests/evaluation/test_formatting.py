import math

import pytest

from whet.evaluation import formatting
from whet.evaluation.measurement import Comparison, Measurement


def compared(kind: str, value: float, low: float, high: float, p_value: float = 0.01) -> Comparison:
    return Comparison(kind=kind, value=value, low=low, high=high, p_value=p_value, test="none")


WORSE = compared("difference", -0.012, -0.02, -0.001, 0.03)
EQUAL = compared("difference", 0.0, -0.01, 0.01, 1.0)
FASTER = compared("ratio", 2.0, 1.8, 2.2, 1e-5)
SAME_SPEED = compared("ratio", 1.0, 1.0, 1.0, 1.0)


def measured(value: float, low: float, high: float, unit: str = "", versus: Comparison | None = None) -> Measurement:
    return Measurement(metric="it", value=value, low=low, high=high, unit=unit, n=9, better="lower", versus=versus)


ACCURACY = measured(0.9, 0.88, 0.92, versus=WORSE)
LATENCY = measured(12.34, 11.26, 13.0, "ms", versus=FASTER)
SPEEDUP = measured(15.2, 14.9, 15.6, "×")
KL = measured(1.234e-6, 1e-6, 2e-6, "nats")
PARAMETERS = Measurement.count("parameters", 66_955_010, "")
DISK = Measurement.count("disk", 40.26, "MiB")

NUMBERS = [
    (1234.5, {}, "1,234"),
    (12.345, {}, "12.3"),
    (2.0, {}, "2.00"),
    (0.8, {}, "0.800"),
    (0.00912, {}, "0.0091"),
    (0.0000912, {}, "9.1e-05"),
    (-3.4e-7, {"signed": True}, "-3.4e-07"),
    (0.0, {}, "0.000"),
    (0.05, {"signed": True}, "+0.050"),
    (-5.0, {"signed": True}, "-5.00"),
    (1234.5, {"places": 1}, "1,234.5"),
    (1e-7, {"places": 2}, "0.00"),
    (32, {}, "32"),
    (66_955_010, {}, "66,955,010"),
    (math.inf, {}, "inf"),
]


@pytest.mark.parametrize(("value", "options", "text"), NUMBERS)
def test_numbers_have_as_many_places_as_are_worth_reading(value, options, text):
    assert formatting.number(value, **options) == text


TEXTS = [
    ("percent", (0.1234,), "12.3%"),
    ("p_value", (0.01234,), "p = 0.012"),
    ("p_value", (1e-7,), "p = 1e-07"),
    ("interval", (0.8, 0.76, 0.84), "0.800 (0.760 to 0.840)"),
    ("interval", (0.8, 0.8, 0.8), "0.800"),
    ("interval", (9.96, 9.5, 10.5), "9.96 (9.50 to 10.50)"),
    ("value_of", (ACCURACY,), "0.900"),
    ("value_of", (PARAMETERS,), "66,955,010"),
    ("value_of", (SPEEDUP,), "15.20"),
    ("interval_of", (LATENCY,), "11.3 to 13.0"),
    ("interval_of", (KL,), "1e-06 to 2e-06"),
    ("interval_of", (DISK,), ""),
    ("with_unit", (LATENCY,), "12.3 ms"),
    ("with_unit", (ACCURACY,), "0.900"),
    ("with_interval", (LATENCY,), "12.3 ms (11.3 to 13.0)"),
    ("with_interval", (SPEEDUP,), "15.20 × (14.90 to 15.60)"),
    ("with_interval", (DISK,), "40.3 MiB"),
    ("with_arm", (ACCURACY,), "0.900 ±0.020*"),
    ("with_arm", (KL,), "1.2e-06 ±5e-07"),
    ("with_arm", (PARAMETERS,), "66,955,010"),
    ("star", (None,), ""),
    ("star", (EQUAL,), ""),
    ("star", (WORSE,), "*"),
    ("ratio", (None,), "1 ×"),
    ("ratio", (FASTER,), "2.00 × (1.80 to 2.20)"),
    ("ratio", (SAME_SPEED,), "1.00 ×"),
    ("gain_unit", ("higher",), "points"),
    ("gain_unit", ("lower",), "%"),
    ("points", (WORSE,), "-1.2 (-2.0 to -0.1)"),
    ("points_with_arm", (WORSE,), "-1.2 ±0.9*"),
    ("times", (None,), "1 ×"),
    ("times", (FASTER,), "2.00 ×*"),
    ("times", (SAME_SPEED,), "1.00 ×"),
    ("change", (ACCURACY,), "-0.012, p = 0.03"),
    ("change", (DISK,), ""),
    ("comparison", (None,), ""),
    ("comparison", (WORSE,), "-0.012 (-0.020 to -0.001), p = 0.03"),
    ("comparison", (EQUAL,), "+0.000 (-0.010 to +0.010), p = 1"),
    ("markdown_text", ("a|b\n# <c> www.d.org me@e",), r"a\|b \# \<c\> www\.d.org me\@e"),
    ("markdown_text", ("http://x \x1b[2J \udcff",), r"http\://x �\[2J ?"),
    ("plain_line", ("a|b\n# \x1b[2J \udcff",), "a|b # �[2J ?"),
    ("markdown_code", ("a\nb",), "`a b`"),
    ("markdown_code", ("a`b",), "`` a`b ``"),
    ("comparison", (FASTER,), "2.00 × (1.80 to 2.20), p = 1e-05"),
]


@pytest.mark.parametrize(("function", "arguments", "text"), TEXTS)
def test_what_is_shown(function, arguments, text):
    assert getattr(formatting, function)(*arguments) == text


def test_every_function_has_an_example():
    assert {name for name, _, _ in TEXTS} | {"number", "TIMES"} == set(formatting.__all__)
