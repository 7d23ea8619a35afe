import dataclasses
import math

import pytest

from measured import trial
from whet.errors import InvalidData
from whet.evaluation import slowness
from whet.evaluation.measurement import Measurement
from whet.report.collect import Confirmation, Result
from whet.report.view import (
    find_measurement,
    names_by_recipe,
    reader_notes,
    report_view,
    step_text,
    unit_of,
    what_it_is,
)

KFAC = {"method": "factorization.kfac", "keep": 0.4, "allocation": "by_loss", "damping": 0.001}


def view_of(*trials):
    return report_view([Result(one) for one in trials])


def without(one, *metrics):
    kept = [row for row in one.measurements if row.metric not in metrics]
    return dataclasses.replace(one, measurements=kept)


DENSE = trial("dense")
FAST = trial("fast", speedup=3.0, accuracy=0.7, mib=20.0)
GOOD = trial("good", speedup=2.0, accuracy=0.8, mib=40.0)
BAD = trial("bad", speedup=1.5, accuracy=0.6, mib=60.0)


def test_speedups_are_those_of_the_same_rounds():
    view = view_of(DENSE, FAST)
    dense, fast = (one.get("speedup") for one in view.trials)
    assert (dense.value, dense.low, dense.high) == (1, 1, 1)
    versus = FAST.get("throughput").versus
    assert (fast.value, fast.low, fast.high) == (versus.value, versus.low, versus.high)
    assert fast.better == "higher"


def test_the_frontier_holds_the_trials_that_none_dominates_from_left_to_right():
    view = view_of(DENSE, FAST, GOOD, BAD)
    latency, speedup = (
        next(axis for axis in view.axes if axis.metric == name) for name in ("latency_median", "speedup")
    )
    assert (latency.frontier, latency.better) == ((1, 2), "lower")
    assert (speedup.frontier, speedup.better) == ((2, 1), "higher")


def test_axes_are_the_costs_that_all_trials_have():
    """What a user waits for comes first, in times of the baseline."""
    assert [axis.metric for axis in view_of(DENSE, GOOD).axes] == [
        "speedup_single", "speedup", "latency_median", "throughput", "disk", "parameters",
    ]  # fmt: skip
    assert [axis.metric for axis in view_of(without(DENSE, "disk"), without(GOOD, "throughput")).axes] == [
        "speedup_single", "latency_median", "parameters",
    ]  # fmt: skip
    assert view_of(DENSE).axes[0].metric == "latency_median"  # nothing to compare


def test_without_a_cost_or_the_quality_there_is_no_report():
    with pytest.raises(InvalidData, match="must have a time or a size in common, but dense have none; measure"):
        view_of(without(DENSE, "throughput", "latency_median", "parameters", "disk"), GOOD)
    with pytest.raises(InvalidData, match="in common, but they have none"):
        view_of(without(DENSE, "throughput", "latency_median"), without(GOOD, "parameters", "disk"))
    with pytest.raises(InvalidData, match="must have been measured in accuracy, but good was not"):
        view_of(DENSE, without(GOOD, "accuracy"))
    with pytest.raises(InvalidData, match="one trial at least, but got none"):
        report_view([])


def test_a_cost_that_is_not_finite_is_no_axis():
    endless = Measurement.count("disk", math.inf, "MiB")
    odd = dataclasses.replace(GOOD, measurements=[*without(GOOD, "disk").measurements, endless])
    assert "disk" not in [axis.metric for axis in view_of(DENSE, odd).axes]


def test_the_best_is_the_fastest_that_is_shown_to_lose_less_than_the_bar():
    near = trial("near", speedup=4.0, accuracy=0.791)  # -0.9 points, and -0.99 at the lower end
    far = trial("far", speedup=5.0, accuracy=0.7905)  # -1.045
    assert view_of(DENSE, far, near, GOOD).best == 2
    assert report_view([Result(one) for one in (DENSE, far, near)], max_drop=2).best == 1
    view = view_of(DENSE, far)
    assert view.best is None and str(view.verdict).startswith("No faster model is shown to lose less than 1 point")
    assert view_of(DENSE).verdict is None
    assert view_of(GOOD, BAD).verdict is None


def test_a_search_gives_its_bar():
    far = trial("far", speedup=5.0, accuracy=0.7905, max_drop=1.5)
    assert view_of(DENSE, far).best == 1


def test_a_model_without_its_baseline_tells_what_it_wins_all_the_same():
    view = view_of(GOOD)
    assert (view.best, view.against) == (0, "dense")
    assert str(view.verdict) == "good: 2.0 times as fast, accuracy the same."
    assert view_of(BAD).best is None and view_of(BAD).verdict.sentence.startswith("1.5 times as fast, accuracy 20 p")


def searched(*, on_dev):
    """A view of a search's trials, and what the model that it chose did on the dev split."""
    split = {"split": "selection slice of the training data"}
    rows = [trial("dense", **split), trial("a", speedup=2.0, **split), trial("b", speedup=1.5, **split)]
    confirmed = [Confirmation(trial("best", speedup=1.4, accuracy=on_dev, mib=40), "b")]
    return report_view([Result(one) for one in rows], confirmations=confirmed)


def test_what_a_search_won_is_what_the_dev_split_says():
    view = searched(on_dev=0.799)
    assert view.examples == "408 examples of the selection slice of the training data"
    assert view.best == 2 and str(view.verdict) == (
        "b: 1.4 times as fast, accuracy 0.1 points lower (-0.1 to -0.1), 40 MiB instead of 80."
    )
    assert view.evidence.get("speedup").value == 1.4


def test_a_loss_that_only_the_dev_split_shows_is_told():
    said = str(searched(on_dev=0.78).verdict)
    assert said.endswith("On the 408 dev examples it may lose 2.2 points, more than 1 point.")


def test_the_best_is_so_within_its_own_run():
    """Sentences a second of another run may have been taken in a quieter hour."""
    quiet = trial("quiet", speedup=1.9)
    rows = [dataclasses.replace(one, value=one.value * 9, high=one.high * 9) for one in quiet.measurements]
    assert view_of(DENSE, GOOD, dataclasses.replace(quiet, measurements=rows)).best == 1


def test_series_are_runtimes_or_else_methods():
    there = trial("there", speedup=2.0, runtime="onnxruntime", precision="int8")
    assert view_of(DENSE, GOOD, there).series == ("pytorch", "onnxruntime int8")
    made = trial("made", speedup=2.0, recipe=[KFAC, {"method": "representation.half"}])
    view = view_of(DENSE, made, GOOD)
    assert view.series == ("not changed by whet", "kfac + half") and view.series_of == (0, 1, 0)


def test_a_distilled_model_is_called_what_it_is():
    made = "DistilBERT-like student: layers 1, 3, 5 of base"
    view = view_of(DENSE, dataclasses.replace(GOOD, made=made))
    assert what_it_is(view.trials[1]) == made and view.series[1] == "DistilBERT-like student"
    assert names_by_recipe(view)[made] == ["good"]


def test_conditions_are_common_or_listed_per_trial():
    view = view_of(DENSE, trial("good", speedup=2.0, versions={"torch": "3.0"}, extra="yes"))
    assert view.common["cpu"] == "Some Processor" and view.common["seed"] == "0"
    assert view.differing == {"versions.torch": ("2.13.0", "3.0"), "extra": ("not recorded", "yes")}
    assert reader_notes(view) == ["Software versions differ between models: versions.torch; see the conditions."]


def test_a_reader_is_warned_of_several_runs_and_of_a_missing_baseline():
    one, two = trial("one", speedup=2.0, measured="a"), trial("two", speedup=3.0, measured="b")
    missing, runs = reader_notes(view_of(one, two))
    assert "dense, is not shown" in missing
    assert "several runs" in runs
    assert reader_notes(view_of(trial("dense", measured="a"), one)) == []


def test_a_reader_is_warned_once_of_times_beside_other_work(monkeypatch):
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    trials = [trial("dense", slowness=2.3), trial("one", speedup=2.0, slowness=2.3)]
    [busy] = reader_notes(view_of(*trials))
    assert busy.startswith("The machine was busy with other work: what was timed waited 57 % of the time")


def test_recipes_are_grouped():
    twice = [trial(name, speedup=2.0, recipe=[KFAC]) for name in ("a", "b")]
    found = names_by_recipe(view_of(DENSE, *twice))
    assert list(found.values()) == [["dense"], ["a", "b"]]
    assert "method: factorization.kfac" in list(found)[1]


def test_a_step_shows_the_parameters_that_are_not_defaults():
    assert step_text(KFAC) == "kfac keep=0.4"
    assert step_text({**KFAC, "damping": 0.1}) == "kfac keep=0.4 damping=0.1"
    assert step_text({"method": "clustering.kmeans", "clusters": 8, "start": "kmeans++"}) == "kmeans n_clusters=8"
    assert step_text({"method": "from.another_version", "what": 1}) == "another_version what=1"


def test_metrics_have_their_unit():
    view = view_of(DENSE, GOOD)
    assert unit_of(view, "disk") == "MiB" and find_measurement(DENSE, "f1") is None


def test_a_reader_is_warned_of_the_times_that_confirm_a_search(monkeypatch):
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    confirmed = Confirmation(trial("best", speedup=2.0, slowness=3.4), "small")
    view = report_view([Result(DENSE), Result(GOOD)], confirmations=[confirmed])
    assert any("waited 71 % of the time" in note for note in reader_notes(view))
