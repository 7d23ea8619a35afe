import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from whet.errors import InvalidParameter
from whet.utils.parameters import Range, check, parameters

EDGES = [-math.inf, -1.0, math.nextafter(0, -1), 0, math.nextafter(0, 1), 0.5, math.nextafter(1, 0), 1, 2.0, math.inf]


@pytest.mark.parametrize(
    ("bounds", "stated", "holds"),
    [
        (Range(above=0, most=1), "0 < keep <= 1", lambda x: 0 < x <= 1),
        (Range(least=0, below=1), "0 <= keep < 1", lambda x: 0 <= x < 1),
        (Range(above=0), "0 < keep", lambda x: x > 0),
        (Range(least=0), "0 <= keep", lambda x: x >= 0),
        (Range(most=1), "keep <= 1", lambda x: x <= 1),
        (Range(below=1), "keep < 1", lambda x: x < 1),
        (Range(least=1e-5, most=0.25), "1e-05 <= keep <= 0.25", lambda x: 1e-5 <= x <= 0.25),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_range_holds_what_it_states(bounds: Range, stated: str, holds):
    assert bounds.stated("keep") == stated
    assert [value in bounds for value in EDGES] == [holds(value) for value in EDGES]
    assert [value in bounds for value in (math.nan,)] == [False]


@dataclass(frozen=True, kw_only=True)
class Base:
    """Two parameters."""

    keep: Annotated[float, Range(above=0, most=1)]
    """Share that stays."""
    bits: Annotated[int, Range(least=2, most=8)] = 8
    """Bits of a weight."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Child(Base):
    """Four more."""

    mode: Literal["fast", "exact"] = "fast"
    """Which way."""
    name: str = "x"
    on: bool = False
    """Whether to."""
    plan: Mapping[str, int] | None = None
    """How much
    for each."""


def test_good_values_pass():
    Child(keep=1)
    Child(keep=0.5, bits=2, mode="exact", name="", on=True, plan={"a": 1})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0.0}, r"^0 < keep <= 1 must hold, but got keep=0\.0; keep is: Share that stays\.$"),
        ({"keep": math.nan}, r"^0 < keep <= 1 must hold, but got keep=nan"),
        ({"keep": math.inf}, r"^0 < keep <= 1 must hold, but got keep=inf"),
        ({"keep": True}, r"^keep must be of type float, but got keep=True"),
        ({"keep": None}, r"^keep must be of type float, but got keep=None"),
        ({"keep": [0.5]}, r"^keep must be of type float, but got keep=\[0\.5\]"),
        ({"bits": 1}, r"^2 <= bits <= 8 must hold, but got bits=1; bits is: Bits of a weight\.$"),
        ({"bits": 4.0}, r"^bits must be of type int, but got bits=4\.0"),
        ({"bits": False}, r"^bits must be of type int, but got bits=False"),
        ({"bits": "4"}, r"^bits must be of type int, but got bits='4'"),
        ({"mode": "slow"}, r"^mode must be one of fast, exact, but got mode='slow'; mode is: Which way\.$"),
        ({"mode": ["fast"]}, r"^mode must be one of fast, exact, but got mode=\['fast'\]"),
        ({"name": 3}, r"^name must be of type str, but got name=3; name is: a parameter$"),
        ({"on": 1}, r"^on must be of type bool, but got on=1"),
        ({"plan": 3}, r"^plan must be a mapping from text, but got plan=3; plan is: How much for each\.$"),
        ({"plan": {3: 3}}, r"^plan must be a mapping from text, but got plan=\{3: 3\}"),
    ],
)
def test_bad_values_are_refused_with_range_value_and_meaning(given: dict, message: str):
    with pytest.raises(InvalidParameter, match=message):
        Child(**{"keep": 0.5, **given})


def test_parameters_are_listed_for_people_with_those_of_the_base_first():
    listed = parameters(Child)
    assert [one.name for one in listed] == ["keep", "bits", "mode", "name", "on", "plan"]
    assert [one.kind for one in listed] == ["float", "int", "choice", "str", "bool", "Mapping"]
    assert [one.stated for one in listed] == ["0 < keep <= 1", "2 <= bits <= 8", "fast | exact", "", "", ""]
    assert [one.default for one in listed] == [None, 8, "fast", "x", False, None]
    assert [one.meaning for one in listed] == [
        "Share that stays.",
        "Bits of a weight.",
        "Which way.",
        "",
        "Whether to.",
        "How much for each.",
    ]
