"""The commands that a report gives to make a model again are ones that whet takes."""

import shlex
from dataclasses import replace

import pytest

from measured import trial
from whet.cli.verbs import app
from whet.report.again import commands_again
from whet.report.collect import Result
from whet.report.view import report_view

KFAC = [{"method": "factorization.kfac", "keep": 0.4}]


def commands(*trials, **dense) -> list[list[str]]:
    view = report_view([Result(one) for one in (trial("dense", **dense), *trials)])
    return [shlex.split(line) for line in commands_again(view, view.trials[1:]).splitlines()]


@pytest.mark.parametrize(
    "conditions",
    [{}, {"task": "my data", "positive": "spam"}, {"max_length": 64, "baseline": "a b; rm -rf x"}],
    ids=["a known task", "own data", "odd names"],
)
@pytest.mark.parametrize("name", ["small", "-o", "it's\n$(rm -rf x)\x1b", "--out=/"])
def test_the_command_line_takes_them(conditions, name):
    places = {"": {}, " (onnxruntime int8)": {"runtime": "onnxruntime", "precision": "int8"}}
    rows = [trial(name + where, speedup=2.0, recipe=KFAC, **place, **conditions) for where, place in places.items()]
    lines = commands(*rows, **conditions)
    assert [line[1] for line in lines] == ["compress", "export", "measure"]
    for line in lines:
        command, bound, _ = app.parse_args(line[1:], exit_on_error=False, print_error=False)
        assert command.__name__ == line[1]
    assert bound.arguments["models"] == (lines[0][lines[0].index("--out") + 1],)


def test_they_name_the_model_without_where_it_runs():
    """A search names its rows after the runtime too."""
    row = trial("structure 7 (pytorch)", speedup=2.0, recipe=KFAC)
    assert commands(row)[0][-1] == "structure 7"
    assert commands(trial("small (v2)", speedup=2.0, recipe=KFAC))[0][-1] == "small (v2)"


def test_seeds_and_lengths_are_told_where_they_are_unusual():
    [compress, measure] = commands(trial("a", speedup=2.0, recipe=KFAC, max_length=64), max_length=64)
    assert compress[-2:] == measure[-2:] == ["--max-length", "64"]
    assert "--seed" not in compress


def test_what_was_not_timed_is_measured_without_times_again():
    def without_times(one):
        return replace(one, measurements=[row for row in one.measurements if row.metric in ("accuracy", "disk")])

    dense, small = (without_times(one) for one in (trial("dense"), trial("small", speedup=2.0, recipe=KFAC)))
    view = report_view([Result(dense), Result(small)])
    assert commands_again(view, [small]).endswith(" --untimed")
    assert "--untimed" not in commands(trial("small", speedup=2.0, recipe=KFAC))[-1]


def test_the_calibration_is_that_of_the_model():
    row = trial("small", speedup=2.0, recipe=KFAC, max_length=64)
    view = report_view([Result(trial("dense", max_length=64)), Result(row)])
    calibration = {"examples": 256, "batch_size": 8, "max_length": 32}
    compress, measure = commands_again(view, [row], calibration=calibration).splitlines()
    assert compress.endswith("--calibration 256 --batch-size 8 --max-length 32")
    assert measure.endswith("--max-length 64")
    usual = {"examples": 512, "batch_size": 4, "max_length": 128}
    assert commands_again(view, [row], calibration=usual).splitlines()[0].endswith("--out small")


def test_a_method_that_no_command_knows_is_run_in_python():
    row = trial("small", speedup=2.0, recipe=[{"method": "my_own"}])
    about, call, measure = commands_again(report_view([Result(trial("dense")), Result(row)]), [row]).splitlines()
    assert about.startswith("# not a command, since my_own is no method of whet's")
    assert call == "# whet.compress('dense', whet.Recipe.read('recipe.yaml'), 'small', task=task)"
    assert measure.startswith("whet measure dense small")
