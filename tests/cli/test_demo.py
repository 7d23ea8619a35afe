"""The demo, with a model so small that it learns nothing: its steps, its words, and what it may replace."""

import numpy as np
import pytest

import whet
from whet.cli import demo
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial


@pytest.fixture
def tiny(monkeypatch):
    """The whole demo in seconds."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    monkeypatch.setattr(demo, "SIZE", sizes)
    monkeypatch.setattr(demo, "EPOCHS", 0.05)
    monkeypatch.setattr(demo, "RECIPES", {"drone": demo.RECIPES["drone"]})


def test_the_demo_ends_with_a_winner_that_answers_and_can_be_run_again(tiny, tmp_path, monkeypatch):
    lines: list[object] = []
    out = tmp_path / "demo"
    trials = demo.run_demo(out, say=lines.append)
    rows = ["dense", "drone", "dense (onnxruntime int8)", "drone (onnxruntime int8)"]
    assert [trial.name for trial in trials] == rows
    text = [line.strip() for line in lines if isinstance(line, str)]
    assert sum(line.startswith(("unacceptable ", "acceptable ")) for line in text) == len(demo.SENTENCES)
    assert any(line.startswith("Won: ") for line in text)
    assert [line.split()[:2] for line in text[-2:]] == [["whet", "measure"], ["whet", "search"]]
    assert whet.load(out / "best").target.startswith("onnxruntime int8")
    assert (out / "compared" / "report.html").is_file()
    monkeypatch.setattr(demo, "_run", lambda *_: trials)
    assert demo.run_demo(out) == trials
    assert [path.name for path in out.iterdir()] == [demo.MARK]


@pytest.mark.parametrize("name", ["notes.txt", "base-line", ".bashrc"])
def test_what_others_put_into_the_folder_stays(tmp_path, name):
    out = tmp_path / "demo"
    out.mkdir()
    (out / demo.MARK).touch()
    (out / name).touch()
    with pytest.raises(whet.OutputExists, match=f"must have a folder of its own, but .* holds {name}"):
        demo.run_demo(out)
    assert (out / name).is_file()


class Answers:
    """Predicts the wrong class for the first so many texts, in so many seconds."""

    def __init__(self, task, wrong, seconds):
        self.task, self.wrong, self.seconds = task, wrong, seconds

    def predict(self, texts):
        labels = [int(label) for label in self.task.splits.validation.labels]
        labels[: self.wrong] = [1 - label for label in labels[: self.wrong]]
        return [whet.Prediction(self.task.label_names[label], 1.0, {}) for label in labels]


@pytest.mark.parametrize(
    ("wrong", "best"), [((0, 0, 0), "c"), ((0, 0, 500), "b"), ((0, 500, 500), "a"), ((500,) * 3, "a")]
)
def test_the_fastest_that_holds_the_bar_on_held_out_training_data_is_chosen(tmp_path, monkeypatch, wrong, best):
    task, folders = whet.load_task("agreement"), [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "model_quantized.onnx").touch()
    answers = {one: Answers(task, *rest) for one, *rest in zip(folders, wrong, (3.0, 2.0, 1.0), strict=True)}
    right = Answers(task, 0, 4.0)
    monkeypatch.setattr(
        demo, "load", lambda folder, *, runtime, **_: right if runtime == "pytorch" else answers[folder]
    )
    monkeypatch.setattr(
        demo, "time_interleaved", lambda runs, **_: np.array([[run.func.__self__.seconds for run in runs]])
    )
    assert demo._choose(folders, task).name == best


def trial(name, versus):
    def row(metric, unit, value, ratio):
        return Measurement(
            metric=metric, value=value, unit=unit, low=value, high=value, n=100, better="higher", versus=ratio
        )

    ratio = (
        None if versus is None else Comparison(kind="ratio", value=3.0, low=2.9, high=3.1, p_value=0.001, test="a test")
    )
    rows = [row("accuracy", "", 0.9, versus), row("throughput", "1/s", 9.0, ratio)]
    return Trial(name, [], 0, rows, conditions={})


@pytest.mark.parametrize(
    ("low", "shown"), [(-0.012, "Shown to lose less than 1.2 points"), (0.001, "Shown to lose nothing")]
)
def test_what_was_won_is_told_with_its_lower_end(low, shown):
    won = trial(
        "best (onnxruntime int8)",
        Comparison(kind="difference", value=0.002, low=low, high=0.004, p_value=0.5, test="a test"),
    )
    said = demo._won([trial("dense", None), won], "best")
    assert said.startswith("Won: best (onnxruntime int8) is 3.0 times as fast")
    assert shown in said
