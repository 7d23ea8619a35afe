import dataclasses
import json

import pytest

from whet.errors import UnknownName
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.methods.factorization.kfac import Kfac
from whet.methods.recipe import Recipe

DIFFERENCE = Comparison(kind="difference", value=-0.012, low=-0.02, high=0.001, p_value=0.07, test="McNemar, exact")
RATIO = Comparison(kind="ratio", value=1.53, low=1.5, high=1.6, p_value=1e-5, test="Wilcoxon")
MEASUREMENTS = [
    Measurement(metric="accuracy", value=0.9, unit="", low=0.88, high=0.92, n=872, better="higher", versus=DIFFERENCE),
    Measurement(
        metric="latency",
        value=12.5,
        unit="ms",
        low=12.0,
        high=13.0,
        n=30,
        better="lower",
        conditions={"shape": [1, 128], "threads": 2},
        versus=RATIO,
    ),
    Measurement.count("parameters", 66_955_010, ""),
]


def full() -> Trial:
    recipe = Recipe((Kfac(keep=0.5, damping=1e-5),)).to_list()
    return Trial("kfac – ½", recipe, 3, MEASUREMENTS, "sha256:ab", {"machine": "two cores", "versions": {"torch": "2"}})


@pytest.mark.parametrize("trial", [full(), Trial("baseline", [], 0, [])], ids=["full", "baseline"])
def test_trials_survive_their_line(trial: Trial):
    line = trial.to_json()
    assert "\n" not in line
    assert Trial.from_json(line) == trial
    assert Trial.from_json(line).to_json() == line


OLD_NAMES = {
    "a benchmark": ({"dtype": "float32", "waiting": "passive"}, {"precision": "fp32", "omp_wait_policy": "passive"}),
    "in bf16": ({"dtype": "bfloat16", "runtime": "openvino"}, {"precision": "bf16", "runtime": "openvino"}),
    "in fp16": ({"dtype": "float16"}, {"precision": "fp16"}),
    "in int8": ({"dtype": "int8"}, {"precision": "int8"}),
    "a search": ({"precision": "static_int8", "dtype": "int8"}, {"precision": "static_int8"}),
    "one of today": ({"precision": "fp32", "omp_wait_policy": "active"},) * 2,
}


@pytest.mark.parametrize("case", OLD_NAMES)
def test_names_of_version_0_1_0_are_still_read(case: str):
    old, new = OLD_NAMES[case]
    rows = [Measurement.count(metric, 0.25, "").to_dict() for metric in ("changed", "kl")]
    entry = {**full().to_dict(), "measurements": rows, "conditions": {"task": "glue/rte", **old}}
    trial = Trial.from_json(json.dumps(entry))
    assert trial.conditions == {"task": "glue/rte", **new}
    assert [row.metric for row in trial.measurements] == ["disagreement", "kl"]
    assert Trial.from_dict(trial.to_dict()) == trial


def test_the_recipe_of_a_line_can_be_run_again():
    assert Recipe.from_list(Trial.from_json(full().to_json()).recipe) == Recipe((Kfac(keep=0.5, damping=1e-5),))


def test_measurements_are_got_by_name():
    assert full().get("latency") is MEASUREMENTS[1]
    with pytest.raises(UnknownName, match=r"the metric must have been measured, but got 'f1'; choose one of accuracy,"):
        full().get("f1")
    with pytest.raises(UnknownName, match=r"got 'accurracy'; did you mean accuracy\?"):
        full().get("accurracy")


def measured(metric: str, **changes) -> Measurement:
    return dataclasses.replace(MEASUREMENTS[1], metric=metric, **changes)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("latency", "latency_median"), ("size", "disk"), ("Size on Disk", "disk"), ("latency-p95", "latency_p95"),
        ("time for a single text, median", "latency_median"), ("KL divergence from the baseline", "kl"),
    ],
)  # fmt: skip
def test_the_heads_of_columns_are_names(name: str, metric: str):
    trial = Trial("x", [], 0, [measured(one) for one in ("kl", "latency_median", "latency_p95", "disk")])
    assert trial.get(name).metric == metric


def test_speedups_and_the_change_of_quality_follow_from_what_was_measured():
    trial = Trial("x", [], 0, [MEASUREMENTS[0], measured("latency_median"), measured("throughput", better="higher")])
    for name in ("speedup", "speedup_single"):
        found = trial.get(name)
        assert (found.value, found.low, found.high) == (RATIO.value, RATIO.low, RATIO.high)
        assert (found.better, found.unit, found.versus) == ("higher", "×", RATIO)
    change = trial.get("change")
    assert (change.value, change.unit) == (100 * DIFFERENCE.value, "points")
    alone = Trial("baseline", [], 0, [dataclasses.replace(one, versus=None) for one in trial.measurements])
    assert [alone.get(name).value for name in ("change", "speedup", "speedup_single")] == [0, 1, 1]
