"""`whet.cascade`: what held-out data must show, and everything that cannot be a cascade."""

import itertools
import json
import shutil

import numpy as np
import pytest

import whet
from folders import edit_json, save
from helpers import tiny_model
from kinds import ROWS
from whet.api import cascading
from whet.cli.verbs import app
from whet.errors import InvalidData, InvalidModel, InvalidParameter
from whet.evaluation import slowness
from whet.models.inference import predict

WORDS = ("no", "maybe", "yes")


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = [
        {"text": " ".join(f"w{word}" for word in random.integers(5, 60, size=1 + i % 6)), "label": WORDS[i % 3]}
        for i in range(400)
    ]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name, seed, blocks in (("fast", 0, 1), ("other", 5, 1), ("whole", 0, 2)):
        model = tiny_model("bert", blocks=blocks, seed=seed)
        model.config.id2label, model.config.label2id = dict(enumerate(WORDS)), {w: i for i, w in enumerate(WORDS)}
        save(model, tokenizer, tmp_path / name)
    clock = itertools.accumulate(itertools.count())  # each model takes longer than the one before
    monkeypatch.setattr(slowness.time, "thread_time", lambda: float(next(clock)))
    return tmp_path


def task():
    return whet.load_task(train_file="train.jsonl", dev_file="dev.jsonl", kind="classification")


def test_a_cascade_keeps_what_was_asked(place):
    shutil.copytree("whole", "same")
    found = whet.cascade(["same", "whole"], task(), "out", max_disagreement=20)
    assert found.thresholds == (0,) and found.answered == (1, 0) and found.disagreement == 0
    assert found.examples == len(task().splits.validation)
    config = json.loads((place / "out" / "config.json").read_text())
    assert config["shown"] == {"max_disagreement": 20, "confidence": 0.95, "examples": found.examples}
    assert "cascade: same where it is sure, then whole" in (place / "out" / "README.md").read_text()
    _, made = whet.measure(["whole", "out"], task(), benchmark=whet.Benchmark(metrics=("fidelity",)))
    assert made.get("disagreement").value == 0


def test_what_says_how_sure_a_model_is_can_be_chosen(place):
    """The folder says which score its thresholds are of."""
    shutil.copytree("whole", "same")
    whet.cascade(["same", "whole"], task(), "out", max_disagreement=20, score="margin")
    assert whet.load_model("out").config.score == "margin"
    assert json.loads((place / "out" / "config.json").read_text())["score"] == "margin"


def test_answers_that_differ_raise_the_threshold(place, monkeypatch):
    """With confidences that are made up, so that they tell which answers are wrong."""

    def told(answers, score):
        differs = reference.disagreements(answers) > 0
        return np.where(differs, 0.8, 0.99)

    kept, reference = [], None

    def noting(model, batches, *, name):
        nonlocal reference
        kept.append(predict(model, batches))
        reference = kept[-1]
        return kept[-1]

    monkeypatch.setattr(cascading, "predict", noting)
    monkeypatch.setattr(cascading, "confidences", told)
    found = whet.cascade(["other", "whole"], task(), "out", max_disagreement=20)
    wrong = (kept[1].disagreements(kept[0]) > 0).mean()
    assert wrong > 0.1
    assert 0.8 < found.thresholds[0] < 0.99 and found.disagreement == 0
    assert found.answered[1] == pytest.approx(wrong)


def test_each_of_several_models_answers_what_those_before_it_pass_on(place, monkeypatch):
    shutil.copytree("whole", "same")
    sure = iter([np.tile([0.9, 0.4], 10), np.tile([0.9, 0.9, 0.9, 0.4], 5)])
    monkeypatch.setattr(cascading, "confidences", lambda *_: next(sure))
    monkeypatch.setattr(cascading, "most_permissive", lambda *_, **__: 0.5)
    found = whet.cascade(["same", "same", "whole"], task(), "out", max_disagreement=40)
    assert found.thresholds == (0.5, 0.5) and found.answered == (0.5, 0.25, 0.25)


def test_the_speed_is_that_of_the_models_that_are_reached():
    found = cascading.Cascade(
        thresholds=(0.9, 0.9), answered=(0.5, 0.3, 0.2), disagreement=0, examples=10, seconds=(1, 5, 20)
    )
    assert found.expected_speedup == pytest.approx(20 / (1 + 0.5 * 5 + 0.2 * 20))


def test_a_model_that_is_slower_than_the_next_is_refused(place, monkeypatch):
    times = iter([0, 2, 2, 3])
    monkeypatch.setattr(slowness.time, "thread_time", lambda: float(next(times)))
    with pytest.raises(
        InvalidParameter, match=r"fast takes 100 ms for a text in PyTorch, and whole takes 50; leave fast out"
    ):
        whet.cascade(["fast", "whole"], task(), "out", max_disagreement=20)
    assert not (place / "out").exists()


def test_a_model_that_would_answer_nothing_is_refused(place):
    """The first one answers all."""
    shutil.copytree("whole", "same")
    with pytest.raises(InvalidData, match=r"must answer some of the texts, but same would answer none of 20, after"):
        whet.cascade(["same", "same", "whole"], task(), "out", max_disagreement=40)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["whole"], {}, r"two or more models, the fastest first, but got 1"),
        (
            ["fast", "whole"],
            {"max_disagreement": 0.5},
            r"0.5 % of the answers differ, which takes 598 examples, but got 20; give about 12,000 rows of tr",
        ),
        (["other", "whole"], {"max_disagreement": 20}, r"other differs from whole too often even where its confidence"),
        (["fast", "whole"], {"max_disagreement": 0}, r"max_disagreement"),
        (["fast", "whole"], {"score": "luck"}, r"score"),
    ],
)
def test_what_cannot_be_is_a_sentence(place, models, options, message, monkeypatch):
    monkeypatch.setattr(cascading, "confidences", lambda answers, score: np.ones(len(answers)))
    with pytest.raises((InvalidData, InvalidParameter), match=message):
        whet.cascade(models, task(), "out", **options)
    assert not (place / "out").exists()


def test_models_of_other_classes_or_tokens_are_refused(place, tokenizer):
    shutil.copytree("fast", "turned")
    edit_json(place / "turned" / "config.json", id2label={"0": "yes", "1": "maybe", "2": "no"})
    with pytest.raises(InvalidParameter, match="same classes in the same order, but turned has yes, maybe, no and"):
        whet.cascade(["turned", "whole"], task(), "out", max_disagreement=20)
    vocab = tokenizer.get_vocab()
    other = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer.__class__.from_str(
            tokenizer.backend_tokenizer.to_str().replace('"w7"', '"x7"')
        ),
        **tokenizer.special_tokens_map,
    )
    assert other.get_vocab() != vocab
    shutil.copytree("fast", "words")
    other.save_pretrained(place / "words")
    with pytest.raises(InvalidParameter, match="must read the same tokens, but words has another vocabulary"):
        whet.cascade(["words", "whole"], task(), "out", max_disagreement=20)


def test_a_model_of_another_kind_is_refused(tmp_path):
    task = whet.load_task(**ROWS["regression"](tmp_path))
    models = [tmp_path / "model"] * 2
    with pytest.raises(InvalidModel, match=r"must be of classifiers, of one label or of several, but .* holds a regr"):
        whet.cascade(models, task, tmp_path / "out", max_disagreement=40)


def test_the_command_says_what_each_model_answers(place, capsys):
    shutil.copytree("whole", "same")
    words = ["cascade", "same", "whole", "--train-file", "train.jsonl", "--dev-file", "dev.jsonl", "--out", "out"]
    app([*words, "--max-disagreement", "20"], exit_on_error=False, result_action="return_value")
    told = capsys.readouterr()
    assert "saved to out; of " in told.out and "same " in told.out
    assert "with 95 % confidence at most 20 % of all do" in told.out
    assert "whet measure whole out --train-file train.jsonl" in told.err + told.out
    app(
        [*words, "--max-disagreement", "20", "--overwrite", "--json"], exit_on_error=False, result_action="return_value"
    )
    assert json.loads(capsys.readouterr().out)["thresholds"] == [0.0]
