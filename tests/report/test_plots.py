import dataclasses
import io

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from whet.errors import UnknownName
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.report.plots import curve_csv, curve_files, curve_picture, mark_sizes, read_curve, trade_off_picture
from whet.training.curve import Epoch

CURVE = [Epoch(1.0, 0.7, 0.6, 0.5), Epoch(2.0, 0.5, 0.55, 0.75)]


def measured(metric: str, value: float, versus: Comparison | None = None, unit: str = "") -> Measurement:
    better = "lower" if unit == "ms" else "higher"
    return Measurement(
        metric=metric, value=value, unit=unit, low=value * 0.9, high=value * 1.1, n=9, better=better, versus=versus
    )


def compared(value: float, p_value: float) -> Comparison:
    return Comparison(kind="ratio", value=value, low=value * 0.9, high=value * 1.1, p_value=p_value, test="none")


def trial(name: str, accuracy: float, latency: float, *, speedup: Comparison | None = None) -> Trial:
    worse = None if speedup is None else compared(1.0, 0.01)
    return Trial(
        name,
        [],
        0,
        [
            measured("accuracy", accuracy, worse),
            measured("throughput", 1000 / latency, speedup, "1/s"),
            measured("latency_median", latency, speedup, "ms"),
            Measurement.count("parameters", 66_955_010, ""),
        ],
    )


TRIALS = [trial("dense", 0.9, 10.0), trial("half [v2]", 0.8, 5.0, speedup=compared(2.0, 0.001))]


def is_picture(content: bytes) -> np.ndarray:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(io.BytesIO(content))
    assert pixels.std() > 0.01
    return pixels


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1], [*TRIALS, trial("slow", 0.7, 20.0)]])
def test_trade_offs_are_pictures(trials):
    is_picture(trade_off_picture(trials, quality="accuracy", costs=("latency_median",)))


def test_areas_of_marks_are_sizes_of_files():
    """In area; where one was not measured in it, all are alike."""
    stored = [
        dataclasses.replace(one, measurements=[*one.measurements, Measurement.count("disk", size, "MiB")])
        for one, size in zip(TRIALS, (80.0, 20.0), strict=True)
    ]
    large, small = mark_sizes(stored)
    assert (large / small) ** 2 == pytest.approx(4)
    assert mark_sizes([stored[0], TRIALS[1]]) == [7.0, 7.0]


def test_the_picture_names_its_generator():
    drawn = trade_off_picture(TRIALS, quality="accuracy", costs=("latency_median",), software="whet report")
    assert b"whet report" in drawn[:4096]


def test_curves_are_pictures():
    for curve in (CURVE, CURVE[:1]):
        is_picture(curve_picture({"own": curve}, metric="accuracy"))


def test_pictures_are_reproducible():
    one, two = {"own": CURVE}, {"teacher": CURVE[:1], "own": CURVE}
    assert curve_picture(one, metric="accuracy") == curve_picture(one, metric="accuracy")
    assert curve_picture(one, metric="accuracy") != curve_picture(two, metric="accuracy")
    first, second = (trade_off_picture(TRIALS, quality="accuracy", costs=("latency_median",)) for _ in range(2))
    assert first == second
    assert first != trade_off_picture(TRIALS[:1], quality="accuracy", costs=("latency_median",))


def test_a_trade_off_of_a_missing_metric_is_refused():
    with pytest.raises(UnknownName, match="the metric must have been measured, but got 'f1'"):
        trade_off_picture(TRIALS, quality="f1", costs=("latency_median",))


def test_curves_survive_csv(tmp_path):
    assert curve_csv(CURVE) == (
        b"epoch,training_loss,validation_loss,validation_metric\n1.0,0.7,0.6,0.5\n2.0,0.5,0.55,0.75\n"
    )
    (tmp_path / "curve.csv").write_bytes(curve_csv(CURVE))
    assert read_curve(tmp_path / "curve.csv") == CURVE


ODD_NAMES = (
    "run_$LR_$SEED", "$", r"\$x^{", "_hidden", "two\nlines", "tab\tbell\a", "\N{GRINNING FACE}", "模型", "half \ud83d",
    "%s", "n" * 255, " ",
)  # fmt: skip


def test_every_name_is_drawn_as_it_is(monkeypatch):
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *to, **how: figures.append(figure) or savefig(figure, *to, **how)
    )
    is_picture(curve_picture(dict.fromkeys(ODD_NAMES, CURVE), metric="accuracy"))
    trials = [trial(name, 0.9, 10.0) for name in ODD_NAMES]
    is_picture(trade_off_picture(trials, quality="accuracy", costs=("latency_median",)))
    for legend in (figures[0].axes[0].get_legend(), figures[1].legends[0]):
        shown = [text.get_text() for text in legend.get_texts()]
        assert len(shown) >= len(ODD_NAMES), "none is hidden"
        assert not any(text.get_parse_math() for text in legend.get_texts())
        assert any(name.startswith("run_$LR_$SEED") for name in shown)
        assert max(map(len, shown)) < 100


def test_a_picture_that_fails_costs_no_curve(monkeypatch, capsys, tmp_path):
    files = curve_files(CURVE, "new", metric="accuracy", teacher=tmp_path)
    assert is_picture(files.pop("curve.png")) is not None and files == {"curve.csv": curve_csv(CURVE)}
    assert capsys.readouterr().err == ""

    (tmp_path / "curve.csv").write_bytes(b"epoch\nnever\n")
    assert curve_files(CURVE, "new", metric="accuracy", teacher=tmp_path) == files
    (tmp_path / "curve.csv").unlink()
    monkeypatch.setattr(Figure, "savefig", None)
    assert curve_files(CURVE, "new", metric="accuracy", teacher=None) == files
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(
        line.startswith("note: the learning curve of new is saved as curve.csv alone; it could not") for line in said
    )
