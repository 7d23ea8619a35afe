import math
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Interval, Lt

import whet
from whet.errors import InvalidParameter
from whet.methods.base import all_methods
from whet.training.students.base import all_students
from whet.utils.parameters import check, parameters, whole_number_in

MUST_BE_FINITE = "keep must be finite"
EDGES = [-math.inf, -1.0, math.nextafter(0, -1), 0, math.nextafter(0, 1), 0.5, math.nextafter(1, 0), 1, 2.0, math.inf]


@pytest.mark.parametrize(
    ("bounds", "stated", "holds"),
    [
        (Interval(gt=0, le=1), "0 < keep <= 1", lambda x: 0 < x <= 1),
        (Interval(ge=0, lt=1), "0 <= keep < 1", lambda x: 0 <= x < 1),
        (Interval(gt=0), "0 < keep", lambda x: x > 0),
        (Interval(ge=0), "0 <= keep", lambda x: x >= 0),
        (Interval(le=1), "keep <= 1", lambda x: x <= 1),
        (Interval(lt=1), "keep < 1", lambda x: x < 1),
        (Interval(ge=1e-5, le=0.25), "1e-05 <= keep <= 0.25", lambda x: 1e-5 <= x <= 0.25),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_bounds_hold_what_they_state(bounds: Interval, stated: str, holds):
    (keep,) = parameters(make_dataclass("Bounded", [("keep", Annotated[float, bounds])]))
    assert keep.stated == stated
    finite = [value for value in EDGES if math.isfinite(value)]
    assert [keep.broken(value) is None for value in finite] == [holds(value) for value in finite]
    assert {keep.broken(value) for value in (math.nan, math.inf, -math.inf)} <= {f"{stated} must hold", MUST_BE_FINITE}
    assert keep.broken(math.nan) == f"{stated} must hold"


def test_single_bounds_count_as_well():
    (bits,) = parameters(make_dataclass("Bounded", [("bits", Annotated[int, Ge(2), Lt(9)])]))
    broken = "2 <= bits < 9 must hold"
    assert [bits.broken(value) for value in (1, 2, 8, 9)] == [broken, None, None, broken]


@dataclass(frozen=True, kw_only=True)
class Base:
    """Two parameters."""

    keep: Annotated[float, Interval(gt=0, le=1)]
    """Share that stays, e.g. 0.4."""
    bits: Annotated[int, Interval(ge=2, le=8)] = 8
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
    seed: int = 0
    rate: float = 0.0
    size: Literal[4, 8] = 4
    plan: Mapping[str, int] | None = None
    """How much
    for each."""


def test_good_values_pass():
    Child(keep=1)
    Child(keep=0.5, seed=2**63 - 1, size=8, rate=-3)
    Child(keep=0.5, bits=2, mode="exact", name="", on=True, plan={"a": 1})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0.0}, r"^0 < keep <= 1 must hold, but got keep=0\.0; give one such as keep=0\.4$"),
        ({"keep": math.nan}, r"^0 < keep <= 1 must hold, but got keep=nan"),
        ({"keep": math.inf}, r"^0 < keep <= 1 must hold, but got keep=inf"),
        ({"keep": True}, r"^keep must be of type float, but got keep=True"),
        ({"keep": None}, r"^keep must be of type float, but got keep=None"),
        ({"keep": [0.5]}, r"^keep must be of type float, but got keep=\[0\.5\]"),
        ({"bits": 1}, r"^2 <= bits <= 8 must hold, but got bits=1; give one such as bits=8$"),
        ({"bits": 4.0}, r"^bits must be of type int, but got bits=4\.0"),
        ({"bits": False}, r"^bits must be of type int, but got bits=False"),
        ({"bits": "4"}, r"^bits must be of type int, but got bits='4'"),
        ({"mode": "slow"}, r"^mode must be one of fast, exact, but got mode='slow'; choose one of these$"),
        ({"mode": ["fast"]}, r"^mode must be one of fast, exact, but got mode=\['fast'\]"),
        ({"name": 3}, r"^name must be of type str, but got name=3; give one such as name=x$"),
        ({"seed": 10**20}, r"^seed must fit into 64 bits, but got seed=100000000000000000000; "),
        ({"rate": -(10**400)}, r"^rate must fit into 64 bits, but got rate=-1000"),
        ({"rate": math.inf}, r"^rate must be finite, but got rate=inf"),
        ({"rate": math.nan}, r"^rate must be finite, but got rate=nan"),
        ({"size": 4.0}, r"^size must be one of 4, 8, but got size=4\.0"),
        ({"size": True}, r"^size must be one of 4, 8, but got size=True"),
        ({"on": 1}, r"^on must be of type bool, but got on=1"),
        ({"plan": 3}, r"^plan must be a mapping from text to numbers, but got plan=3; leave it out, or correct it$"),
        ({"plan": {3: 3}}, r"^plan must be a mapping from text to numbers, but got plan=\{3: 3\}"),
    ],
)
def test_bad_values_are_refused_with_range_value_and_meaning(given: dict, message: str):
    with pytest.raises(InvalidParameter, match=message):
        Child(**{"keep": 0.5, **given})


@pytest.mark.parametrize("value", [{"a": math.nan}, {"a": 10**20}, {"a": [1]}, {"a": None}, [("a", 1)]])
def test_values_inside_of_others_are_checked(value):
    with pytest.raises(InvalidParameter, match="plan must"):
        Child(keep=0.5, plan=value)


def test_a_value_that_python_cannot_write_is_refused_too():
    deep: list = []
    for _ in range(10**4):
        deep = [deep]
    with pytest.raises(InvalidParameter, match="keep must be of type float, but got keep=one of type list; "):
        Child(keep=deep)
    with pytest.raises(InvalidParameter, match="0 < keep <= 1 must hold, but got keep=one of type int; "):
        Child(keep=10**5000)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "²", "٣", " 1", "9" * 19, "9" * 5000])
def test_a_whole_number_has_a_few_plain_digits(text):
    assert whole_number_in(text) is None
    assert whole_number_in("0042") == 42


def every_settings_class() -> list[type]:
    settings = [whet.Benchmark, whet.Calibration, whet.Goal, whet.LoraSettings, whet.Objective, whet.TrainingSettings]
    return [*settings, *all_students().values(), *all_methods().values()]


@pytest.mark.parametrize("owner", every_settings_class(), ids=lambda owner: owner.__name__)
def test_every_number_that_a_user_gives_has_a_bound_on_either_side(owner):
    for parameter in parameters(owner):
        if parameter.type in (int, float):
            low = [parameter.bounds[side] for side in ("gt", "ge") if side in parameter.bounds]
            high = [parameter.bounds[side] for side in ("lt", "le") if side in parameter.bounds]
            assert len(low) == len(high) == 1, f"{owner.__name__}.{parameter.name} must have a range"
            assert math.isfinite(low[0]) and math.isfinite(high[0])
            largest = 10**20 if parameter.type is int else 10**40
            for value in (largest, -largest, math.nan, math.inf, -math.inf, True, "1", [1], 10**5000):
                assert parameter.broken(value) is not None


def test_parameters_are_listed_for_people_with_those_of_the_base_first():
    listed = parameters(Child)
    assert [one.name for one in listed] == ["keep", "bits", "mode", "name", "on", "seed", "rate", "size", "plan"]
    kinds = ["float", "int", "choice", "str", "bool", "int", "float", "choice", "Mapping"]
    assert [one.kind for one in listed] == kinds
    stated = ["0 < keep <= 1", "2 <= bits <= 8", "fast | exact", "", "", "", "", "4 | 8", ""]
    assert [one.stated for one in listed] == stated
    assert [one.default for one in listed] == [None, 8, "fast", "x", False, 0, 0.0, 4, None]
    assert [one.meaning for one in listed] == [
        "Share that stays, e.g. 0.4.",
        "Bits of a weight.",
        "Which way.",
        "",
        "Whether to.",
        "",
        "",
        "",
        "How much for each.",
    ]
