"""Tables of the command line: what a row and a column may lose where there is little room, and what they may not."""

import dataclasses
import io
import itertools
import random

import pytest
from rich.cells import cell_len
from rich.console import Console

from whet.evaluation.formatting import points_with_arm, times, with_arm
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial, Trials
from whet.report.tables import TableColumn, fitted_table, shortened, trial_table

LONG = "distilbert-base-uncased-finetuned-sst-2-english"
NAMES = [LONG, f"{LONG} (onnxruntime int8)", f"{LONG} (openvino int8)", "a[b]", "x" * 200, "模型" * 30]


def lines_of(table) -> list[str]:
    console = Console(file=io.StringIO(), width=10_000)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def measured(metric: str, value: float, unit: str = "", versus: Comparison | None = None) -> Measurement:
    return Measurement(
        metric=metric, value=value, unit=unit, low=value * 0.9, high=value * 1.1, n=9, better="higher", versus=versus
    )


def compared(kind: str, value: float, p_value: float = 0.01) -> Comparison:
    return Comparison(
        kind=kind, value=value, low=value - abs(value) / 9, high=value + 0.1, p_value=p_value, test="none"
    )


def trial(name: str, *, first: bool, quality: str = "accuracy", accuracy: float = 0.9, speedup: float = 2.0) -> Trial:
    change = None if first else compared("difference", accuracy - 0.9)
    speed = None if first else compared("ratio", speedup)
    return Trial(
        name,
        [],
        0,
        [
            measured(quality, accuracy, versus=change),
            measured("kl", 0.01, "nats"),
            measured("throughput", 100 * speedup, "1/s", speed),
            measured("latency_median", 1234.5 / speedup, "ms", speed),
            measured("latency_p95", 2345.6 / speedup, "ms", speed),
            Measurement.count("parameters", 66_955_010, ""),
            Measurement.count("disk", 1_234.5, "MiB"),
        ],
    )


def rows_of(trials, width: int | None) -> list[str]:
    lines = lines_of(trial_table(trials, title="the [title]", width=width))
    rule = next(i for i, line in enumerate(lines) if set(line) == {"─"})
    return lines[rule + 1 : rule + 1 + len(trials)]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize("quality", ["accuracy", "matthews", "weighted_f1"])
def test_every_line_fits_and_every_model_is_one_row_of_whole_numbers(width, quality):
    rng = random.Random(0)
    trials = [trial(NAMES[0], first=True, quality=quality)]
    trials += [
        trial(name, first=False, quality=quality, accuracy=rng.random(), speedup=10 ** rng.uniform(-0.5, 2))
        for name in NAMES[1:]
    ]
    assert all(cell_len(line) <= width for line in lines_of(trial_table(trials, title="t", width=width)))
    for row, one in zip(rows_of(trials, width), trials, strict=True):
        cells = row.split("  ")
        assert with_arm(one.measurements[0]) in row
        if width >= 80:
            assert with_arm(one.get("latency_median")) in row and times(one.get("throughput").versus) in row
            assert one.measurements[0].versus is None or points_with_arm(one.measurements[0].versus) in row
            assert "1,234" in row
        assert cells[0].strip()


def test_wide_shows_every_name_and_every_column():
    trials = [trial(NAMES[0], first=True), *(trial(name, first=False) for name in NAMES[1:])]
    rows = rows_of(trials, None)
    for row, one in zip(rows, trials, strict=True):
        assert row.startswith(one.name)
        assert all(with_arm(measurement) in row for measurement in one.measurements)
    assert "--wide" not in " ".join(lines_of(trial_table(trials, title="t", width=None)))
    assert "--wide shows all columns" in " ".join(" ".join(lines_of(trial_table(trials, title="t"))).split())


def test_the_important_columns_come_first():
    [_, first, second, rule, *_] = lines_of(trial_table([trial("a", first=True), trial("b", first=False)], title="t"))
    assert set(rule) == {"─"}
    assert second.split()[:6] == ["model", "accuracy", "points", "ms", "times", "MiB"]
    assert first.split()[:5] == ["change,", "one", "text,", "throughput,", "disk,"]


@pytest.mark.parametrize(("better", "kind", "unit"), [("higher", "difference", "points"), ("lower", "ratio", "%")])
def test_a_change_is_in_the_unit_of_the_metric(better, kind, unit):
    """A perplexity is compared by its ratio."""
    first, other = trial("a", first=True), trial("b", first=False)
    for one in (first, other):
        quality = one.measurements[0]
        versus = None if quality.versus is None else compared(kind, 0.98)
        one.measurements[0] = dataclasses.replace(quality, better=better, versus=versus)
    lines = lines_of(trial_table([first, other], title="", width=None))
    assert any(unit in line.split() for line in lines[:3])
    assert other.get("change").unit == unit


def test_the_best_is_marked_and_stars_mean_significance():
    """A faster one whose accuracy is really lower is not, nor is a single model."""
    trials = [
        trial("a", first=True),
        trial("b", first=False, speedup=2),
        trial("c", first=False, accuracy=0.5, speedup=3),
    ]
    baseline, good, bad = rows_of(trials, 80)
    assert "◀" in good and "◀" not in baseline + bad
    assert "*" not in baseline and "2.00 ×*" in good
    said = " ".join(" ".join(lines_of(trial_table(trials, title="t"))).split())
    assert "◀ the fastest shown to lose less than 1 point of accuracy" in said
    assert "◀" not in " ".join(lines_of(trial_table(trials[:1], title="t")))


def test_what_was_not_measured_has_no_column():
    [first] = [trial("a", first=True)]
    alone = Trial("a", [], 0, first.measurements[:2])
    assert lines_of(trial_table([alone], title="t", width=None))[1].split() == ["kl,"]


@pytest.mark.parametrize("width", [8, 16, 17, 40])
def test_shortened_names_fit_and_stay_apart(width):
    names = [*NAMES, *(f"{LONG}-{i:03}-with-the-same-end-{'z' * 40}" for i in range(30))]
    short = shortened(names, width)
    assert all(cell_len(one) <= width for one in short)
    assert len(set(short)) == len(names)
    assert all(one == name for one, name in zip(short, names, strict=True) if cell_len(name) <= width)


def test_text_is_broken_between_words_and_columns_leave_from_the_right():
    words = "one two three four five six seven eight nine ten " * 4
    columns = [
        TableColumn("name", ["a"], "word"),
        TableColumn("meaning", [words], "text"),
        TableColumn("n", ["1" * 30]),
    ]
    lines = lines_of(fitted_table(columns, width=64))
    assert all(len(line) <= 64 for line in lines)
    assert set(itertools.chain(*(line.split() for line in lines))) >= set(words.split())
    assert "1" * 30 in "".join(lines)
    narrow = lines_of(fitted_table(columns, width=40))
    assert "1" * 30 not in "".join(narrow) and "--wide shows all columns" in " ".join(" ".join(narrow).split())


PLACES = [("pytorch", "fp32", "PyTorch"), ("onnxruntime", "int8", "ORT int8"), ("openvino", "bf16", "OV bf16")]
PLACES += [("mine", "fp32", "mine")]


@pytest.mark.parametrize("width", [80, None])
def test_where_models_run_has_a_column_of_its_own(width):
    """However long names are: the model's own loses its middle, and is the same in every place."""
    rows, told = [], []
    for model in ("small", LONG):
        for runtime, precision, short in PLACES:
            place = runtime if precision == "fp32" else f"{runtime} {precision}"
            name = model if runtime == "pytorch" else f"{model} ({place})"
            one = trial(name, first=not rows)
            rows.append(Trial(name, [], 0, one.measurements, None, {"runtime": runtime, "precision": precision}))
            told.append(short)
    shown = rows_of(rows, width)
    assert all(short in row for row, short in zip(shown, told, strict=True))
    assert len({row.split()[0] for row in shown}) == 2 and not any("(" in row for row in shown)
    said = " ".join(" ".join(lines_of(trial_table(rows, title="t", width=width))).split())
    assert "ORT: ONNX Runtime; OV: OpenVINO" in said
    lines = repr(Trials(rows)).splitlines()
    assert max(map(len, lines)) <= 80 and all(f"({short})" in " ".join(lines) for short in told[1:4])


def test_there_is_no_such_column_where_all_run_in_pytorch():
    assert "runs in" not in " ".join(
        lines_of(trial_table([trial("a", first=True), trial("b (2)", first=False)], title=""))
    )
