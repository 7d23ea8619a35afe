"""What was won, in words: every figure of the sentence is one that was measured."""

import dataclasses

import pytest

from measured import trial
from whet.evaluation.headline import fastest_that_holds, headline, holds_bar, least_speedup, verdict
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.words import metric_in_words

DENSE = trial("dense", mib=87)


def differing(name="small", *, drop=(-0.003, -0.011, 0.005), single=4.1, batch=4.1, mib=14.0, metric="accuracy", arm=0):
    """A trial with these differences from the baseline: points and both ends, and ratios of speed."""
    plain = trial(name, speedup=1.0, mib=mib)
    ratios = {"throughput": batch, "latency_median": single}

    def changed(one: Measurement) -> Measurement:
        if one.metric == "accuracy":
            value, low, high = drop
            versus = Comparison(kind="difference", value=value, low=low, high=high, p_value=0.4, test="none")
            return dataclasses.replace(one, metric=metric, versus=versus)
        if one.metric in ratios:
            value = ratios[one.metric]
            versus = Comparison(kind="ratio", value=value, low=value - arm, high=value + arm, p_value=0.01, test="none")
            return dataclasses.replace(one, versus=versus)
        return one

    return dataclasses.replace(plain, measurements=[changed(one) for one in plain.measurements])


def without(one, *metrics):
    return dataclasses.replace(one, measurements=[row for row in one.measurements if row.metric not in metrics])


def test_the_sentence_has_speed_quality_and_size():
    assert headline(DENSE, differing()) == (
        "4.1 times as fast, accuracy 0.3 points lower (-1.1 to +0.5), 14 MiB instead of 87"
    )


@pytest.mark.parametrize(
    ("single", "batch", "told"),
    [
        (4.1, 4.3, "4.1 times as fast"),
        (4.3, 4.1, "4.1 times as fast"),
        (2.0, 6.24, "2.0 times as fast for single texts, 6.2 times as fast in batches"),
        (0.7, 1.34, "slower (0.70 times as fast) for single texts but 1.3 times as fast in batches"),
        (1.5, 0.9, "1.5 times as fast for single texts but slower (0.90 times as fast) in batches"),
        (0.7, 0.71, "slower (0.70 times as fast)"),
        (1.02, 0.98, "about as fast"),
        (12.3, 12.4, "12 times as fast"),
        (1.0, 3.0, "about as fast for single texts, 3.0 times as fast in batches"),
    ],
)
def test_speed_is_told_once_or_for_both_uses(single, batch, told):
    sentence = headline(DENSE, differing(single=single, batch=batch))
    assert sentence == f"{told}, accuracy 0.3 points lower (-1.1 to +0.5), 14 MiB instead of 87"


def test_a_speedup_that_chance_explains_has_its_interval():
    assert headline(DENSE, differing(single=1.3, batch=1.3, arm=0.4)).startswith("1.3 times as fast (0.90 to 1.70), ")


def test_only_what_was_measured_is_told():
    assert headline(DENSE, without(differing(), "latency_median", "disk")).startswith("4.1 times as fast in batches, ")
    alone = dataclasses.replace(without(differing(), "latency_median"), conditions={"batch_size": 1})
    assert headline(DENSE, alone).startswith("4.1 times as fast for single texts, ")
    assert headline(without(DENSE, "disk"), without(differing(), "throughput", "latency_median")) == (
        "accuracy 0.3 points lower (-1.1 to +0.5)"
    )


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        ((0.012, 0.001, 0.02), "1.2 points higher (+0.1 to +2.0)"),
        ((-0.01, -0.02, 0.0), "1 point lower (-2.0 to +0.0)"),
        ((0.0001, -0.004, 0.004), "the same (-0.4 to +0.4)"),
        ((0.0, 0.0, 0.0), "the same"),
    ],
)
@pytest.mark.parametrize(("metric", "name"), [("pearson", "Pearson correlation"), ("macro_f1", "macro F1")])
def test_quality_of_every_metric_is_told_in_points(drop, told, metric, name):
    assert f", {name} {told}, 14 MiB" in headline(DENSE, differing(drop=drop, metric=metric))


def with_perplexity(factor, low, high, name="small"):
    """A trial of a language model, whose perplexity is the baseline's divided by this factor."""
    perplexity = Measurement(
        metric="perplexity", value=20, unit="", low=18, high=22, n=90, better="lower",
        versus=Comparison(kind="ratio", value=factor, low=low, high=high, p_value=0.01, test="none"),
    )  # fmt: skip
    one = differing(name)
    return dataclasses.replace(one, measurements=[perplexity, *one.measurements[1:]])


def test_a_metric_of_which_lower_is_better_is_told_and_judged_by_its_factor():
    worse, better = with_perplexity(0.98, 0.97, 0.995), with_perplexity(1.012, 1.001, 1.02)
    assert ", perplexity 2 % worse (-3.0 to -0.5), 14 MiB" in headline(DENSE, worse)
    assert ", perplexity 1.2 % better (+0.1 to +2.0), 14 MiB" in headline(DENSE, better)
    assert holds_bar(better) and not holds_bar(worse) and holds_bar(worse, max_drop=3.1)
    assert worse.get("change").value == pytest.approx(-2) and worse.get("change").better == "higher"
    assert "is shown to lose less than 1 % of perplexity. small may lose 3 % on the 90 examples" in verdict(
        [DENSE, worse]
    )


def test_the_class_that_a_metric_scores_is_told():
    f1 = Measurement(
        metric="f1", value=0.8, unit="", low=0.8, high=0.8, n=9, better="higher", conditions={"class": "spam"}
    )
    assert metric_in_words(f1) == "F1 of spam"
    assert metric_in_words(Measurement.count("latency_8x128", 1, "ms")) == "time for 8 texts of 128 tokens"
    assert metric_in_words(Measurement.count("my_own", 1, "")) == "my own"


def test_a_size_that_stays_is_told_as_such():
    assert headline(DENSE, differing(mib=87)).endswith(", 87 MiB as before")
    assert headline(DENSE, differing(mib=0.25)).endswith(", 0.25 MiB instead of 87")
    assert headline(DENSE, differing(mib=95)).endswith(", 95 MiB instead of 87")


def test_the_lower_end_decides_and_not_the_value():
    sure = differing("sure", drop=(-0.005, -0.009, 0))
    lucky = differing("lucky", drop=(0.01, -0.02, 0.04), single=9, batch=9)
    assert holds_bar(DENSE) and holds_bar(sure) and not holds_bar(lucky)
    assert fastest_that_holds([DENSE, lucky, sure]) is sure
    assert fastest_that_holds([DENSE, lucky, sure], max_drop=2.1) is lucky
    assert not holds_bar(differing(drop=(0, -0.01, 0)))  # the bar itself is not above the bar


def test_the_fastest_gains_in_both_uses():
    batches, both = differing("batches", single=0.7, batch=5.0), differing("both", single=1.5, batch=1.6)
    assert least_speedup(batches) == 0.7
    assert fastest_that_holds([DENSE, batches, both], max_drop=2) is both
    assert fastest_that_holds([DENSE, batches], max_drop=2) is DENSE
    assert least_speedup(without(both, "throughput", "latency_median")) is None


def test_the_verdict_names_the_best():
    trials = [DENSE, differing("small", drop=(-0.003, -0.008, 0.002))]
    assert verdict(trials) == f"small: {headline(*trials)}."


def test_the_verdict_states_how_much_may_be_lost_where_nothing_holds():
    """No headline says "not measurably worse" of a loss of 1.4 points that may be one of 2.8."""
    far, near = differing("far", drop=(-0.03, -0.05, 0)), differing("near", drop=(-0.014, -0.028, 0.001))
    slow = differing("slow", drop=(-0.014, -0.02, 0.001), single=0.5)
    said = verdict([DENSE, far, near, slow])
    assert said == (
        "No faster model is shown to lose less than 1 point of accuracy. near may lose 2.8 points on the 408 examples "
        f"measured: {headline(DENSE, near)}."
    )
    assert verdict([DENSE, far, near], max_drop=3).startswith("near: 4.1 times as fast")


def test_the_verdict_says_where_nothing_is_faster():
    one = differing(drop=(0, -0.001, 0.001), single=0.9)
    assert verdict([DENSE, one]) == "No model is faster than dense both for single texts and in batches."
    assert verdict([DENSE, differing(drop=(-0.1, -0.2, 0), single=0.9, batch=0.9)]) == "No model is faster than dense."
    assert verdict([without(row, "throughput", "latency_median") for row in (DENSE, one)]) == ""
