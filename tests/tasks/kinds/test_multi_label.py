"""Multi-label classification, beyond what `test_contract.py` asks of every kind."""

import numpy as np
import pytest
import torch
from scipy import stats

import whet
from folders import edit_json
from kinds import ROWS
from whet.errors import InvalidData
from whet.tasks.data import Batches, Examples
from whet.tasks.kinds.base import TEXT_HEAD, Answers, Head, all_kinds, kind_of_head

KIND = all_kinds()["multi_label"]


def test_the_divergence_is_the_sum_over_labels_of_that_of_two_classes():
    baseline, model = np.array([[0.3, -2.0, 5.0]]), np.array([[1.0, -1.0, 4.0]])
    p, q = (1 / (1 + np.exp(-logits[0])) for logits in (baseline, model))
    expected = sum(stats.entropy([a, 1 - a], [b, 1 - b]) for a, b in zip(p, q, strict=True))
    assert KIND.divergence(baseline, model) == pytest.approx([expected])
    assert np.isfinite(KIND.divergence(np.array([[90.0]]), np.array([[-90.0]]))).all()


def test_predictions_are_probabilities_of_which_those_above_a_half_are_decided():
    logits = np.array([[0.0, 2.0, -1.0]])
    found = KIND.predictions(Answers(KIND, logits, np.arange(1)), Batches([], np.arange(1)))
    assert found == pytest.approx(1 / (1 + np.exp(-logits)))
    assert (KIND.decisions(logits) == (found > 0.5)).all()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (Head(TEXT_HEAD, 1, "multi_label_classification"), "multi_label"),
        (Head(TEXT_HEAD, 3, "multi_label_classification"), "multi_label"),
        (Head(TEXT_HEAD, 3, None, "multi_label"), "multi_label"),
        (Head(TEXT_HEAD, 3, "single_label_classification"), "classification"),
        (Head(TEXT_HEAD, 3), "classification"),
        (Head(TEXT_HEAD, 1), "regression"),
    ],
)
def test_it_is_said_and_never_guessed(head, kind):
    assert kind_of_head(head).name() == kind


def test_labels_that_only_the_model_has_are_on_no_text():
    assert KIND.renumbered([(1.0, 0.0), (0.0, 1.0)], [2, 0, 1]) == [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0)]


def test_texts_that_all_have_the_same_labels_teach_nothing():
    with pytest.raises(InvalidData, match=r"^the x must hold texts with different labels, but all have the same; give"):
        KIND.check_labels([(1.0, 0.0)] * 3, source="x")
    KIND.check_labels([(1.0, 0.0), (0.0, 0.0)], source="x")


def test_texts_without_labels_get_those_above_a_half():
    assert KIND.guesses(np.array([[1.0, -1.0], [0.0, 3.0]])) == [(1.0, 0.0), (0.0, 1.0)]


def test_a_student_learns_from_texts_without_labels(tmp_path):
    task = whet.load_task(**ROWS["multi_label"](tmp_path))
    more = Examples(["w5 w6", "w7"], [0, 0])
    settings = whet.TrainingSettings(epochs=1, max_length=16)
    student = whet.student_from("layer_subset:odd")
    curve = whet.distill(tmp_path / "model", student, task, tmp_path / "out", settings=settings, unlabeled=more)
    assert np.isfinite(curve[0].training_loss)


def test_the_loss_is_that_of_transformers():
    logits, labels = torch.randn(4, 3), torch.randint(2, (4, 3))
    assert KIND.loss(logits, labels) == torch.nn.BCEWithLogitsLoss()(logits, labels.float())


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (
            "multi_label",
            "classification",
            "text classifier, .* it is a multi-label classifier; .* --kind multi_label if",
        ),
        (
            "classification",
            "multi_label",
            "multi-label classifier, .* it is a text classifier; .* --kind classification",
        ),
    ],
)
def test_labels_of_another_kind_than_the_model_s_are_refused_before_work(tmp_path, monkeypatch, model, data, message):
    for name in (model, data):
        (tmp_path / name).mkdir()
    ROWS[model](tmp_path / model)
    task = whet.load_task(**{**ROWS[data](tmp_path / data), "kind": data})
    monkeypatch.setattr("whet.models.inference.predict", lambda *_, **__: pytest.fail("work had begun"))
    with pytest.raises(InvalidData, match=f"^the model must be a {message}"):
        whet.measure([tmp_path / model / "model"], task)


def test_a_head_of_one_label_a_text_is_no_base_for_several(tmp_path):
    task = whet.load_task(**ROWS["multi_label"](tmp_path))
    edit_json(tmp_path / "model" / "config.json", problem_type="single_label_classification")
    with pytest.raises(whet.InvalidModel, match="base must have no head, or one for the task's 3 classes"):
        whet.finetune(tmp_path / "model", task, tmp_path / "out", settings=whet.TrainingSettings(epochs=1))
    assert not (tmp_path / "out").exists()
