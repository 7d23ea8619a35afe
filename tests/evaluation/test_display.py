"""How results print: a line or a table in a shell, a table in a notebook."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from whet.evaluation.frontier import Frontier
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial, Trials


def measured(metric, value, *, better="lower", unit="", versus=None):
    return Measurement(
        metric=metric, value=value, unit=unit, low=value * 0.9, high=value * 1.1, n=8, better=better, versus=versus
    )


def worse(p_value):
    return Comparison(kind="difference", value=-0.1, low=-0.2, high=-0.05, p_value=p_value, test="mcnemar")


def trial(name, accuracy, disk, *, p_value=None):
    versus = None if p_value is None else worse(p_value)
    rows = [
        measured("accuracy", accuracy, better="higher", versus=versus),
        measured("macro_f1", accuracy, better="higher"),
        measured("disk", disk, unit="MiB"),
    ]
    return Trial(name, [], 0, rows)


def full(name):
    """A trial with everything that a table shows."""
    ratio = Comparison(kind="ratio", value=12.34, low=11.1, high=13.9, p_value=1e-6, test="Wilcoxon")
    first = measured("accuracy", 0.8123, better="higher", versus=worse(0.01))
    rows = [first, measured("kl", 0.123, unit="nats"), measured("throughput", 12345.6, unit="1/s", versus=ratio)]
    rows += [measured("latency_median", 123.45, unit="ms", versus=ratio), measured("disk", 123.45, unit="MiB")]
    return Trial(name, [], 0, rows)


TRIALS = Trials([trial("dense", 0.9, 40.0), trial("a<b>", 0.8, 20.0, p_value=0.01), trial("c", 0.7, 30.0, p_value=0.5)])


def cells(html):
    """The texts of an HTML table, row by row; text that is not escaped does not parse."""
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(html).iter("tr")]


def test_a_trial_prints_as_one_line_with_its_intervals():
    assert repr(TRIALS[0]) == "Trial(dense: accuracy 0.900 (0.810 to 0.990), disk 40.0 MiB (36.0 to 44.0))"


def test_a_trial_shows_everything_in_a_notebook():
    header, *rows = cells(TRIALS[1]._repr_html_())
    assert header == ["metric", "value (95 % interval)", "n", "against the baseline"]
    assert [row[0] for row in rows] == ["accuracy", "macro_f1", "disk"]
    assert rows[0][3].startswith("-0.1") and "p = 0.01" in rows[0][3]
    assert rows[1][3] == ""


def test_trials_print_as_an_aligned_table():
    header, units, *lines, legend = repr(TRIALS).splitlines()
    assert header.split() == ["model", "accuracy", "change", "size"] and units.split() == ["points", "MiB"]
    assert [line.split()[0] for line in lines] == ["dense", "a<b>", "c"]
    assert len({line.rindex(" ±") for line in lines}) == 1 and "95 % interval" in legend


@pytest.mark.parametrize("length", [3, 30, 300])
def test_trials_print_in_80_columns_with_the_ends_of_long_names(length):
    named = Trials(dataclasses.replace(full(f"{i}{'x' * length}{i}"), seed=i) for i in range(3))
    lines = repr(named).splitlines()
    assert max(map(len, lines)) <= 80
    header, _, *rows, _ = lines
    assert header.split()[:5] == ["model", "accuracy", "change", "speedup", "latency"]
    assert [(row[0], row.split()[0][-1]) for row in rows] == [(str(i), str(i)) for i in range(3)]
    assert len({tuple(row.split()[1:]) for row in rows}) == 1, "no number is cut"


def test_a_star_marks_what_differs_from_the_baseline():
    starred = [row[0] for row in cells(TRIALS._repr_html_())[1:] if row[1].endswith("*")]
    assert starred == ["a<b>"]


def test_a_frame_has_a_row_per_trial_with_values_and_ends():
    frame = Trials([TRIALS[0], full("b")]).to_frame()
    assert list(frame.index) == ["dense", "b"]
    for trial in (TRIALS[0], full("b")):
        for metric in ("accuracy", "disk", "change"):
            one = trial.get(metric)
            row = frame.loc[trial.name, [metric, f"{metric}_low", f"{metric}_high"]]
            assert tuple(row) == (one.value, one.low, one.high)
    assert frame.loc["b", "speedup"] == 12.34 and frame["speedup"].isna()["dense"]
    assert frame.attrs["units"]["disk"] == "MiB"
    assert len(Trials().to_frame()) == 0


def test_trials_stay_a_list():
    assert TRIALS[1:][0].name == "a<b>"
    assert [*TRIALS] == list(TRIALS)


def test_two_models_of_one_name_have_two_rows():
    assert [row[0] for row in cells(Trials([TRIALS[0], TRIALS[0]])._repr_html_())] == ["model", "dense", "dense"]


def test_no_trials_print_too():
    assert repr(Trials()) == "model"


def test_a_frontier_shows_what_is_traded():
    frontier = Frontier.of(TRIALS, ["accuracy", "disk"])
    assert repr(frontier).splitlines()[0] == "Frontier of accuracy and disk:"
    header, *rows = cells(frontier._repr_html_())
    assert header == ["model", "accuracy", "size (MiB)"]
    assert [row[0] for row in rows] == ["dense", "a<b>"]


@pytest.mark.parametrize("shown", [TRIALS, TRIALS[0], Frontier.of(TRIALS, ["accuracy"])])
def test_names_are_escaped_in_a_notebook(shown):
    assert "<b>" not in shown._repr_html_()
