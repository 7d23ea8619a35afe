import pytest
import torch

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.shallow import ShallowForSequenceClassification
from whet.training.students.base import student_from
from whet.training.students.cnn import Cnn
from whet.training.students.static import Static


@pytest.mark.parametrize(("text", "expected"), [("static:128", Static(width=128)), ("cnn:64", Cnn(width=64))])
def test_texts_describe_the_student(text, expected):
    assert student_from(text) == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Static, Cnn])
def test_student_reads_the_teachers_tokens_and_gives_its_classes(kind, family: Family):
    teacher = tiny_model(family)
    built = kind(width=16).build(teacher, Resources())
    assert isinstance(built.model, ShallowForSequenceClassification) and not built.model.training
    assert built.model.config.id2label == teacher.config.id2label
    assert built.title == f"{kind.__name__.lower()} student (width 16)"
    for batch in tiny_batches():
        assert built.model(**batch).logits.shape == teacher(**batch).logits.shape


def test_embeddings_are_those_of_the_teacher_where_they_are_as_wide():
    teacher = tiny_model("bert")
    words = teacher.get_input_embeddings().weight.detach()
    student = Static(width=50).build(teacher, Resources()).model
    found = student.embed_tokens.weight.detach()
    assert found.shape == words.shape and student.config.hidden_size == 50
    ratio = torch.cdist(found, found) / torch.cdist(words, words).clamp_min(1e-9)
    apart = ~torch.eye(len(words), dtype=torch.bool) & (torch.cdist(words, words) > 1e-3)
    torch.testing.assert_close(ratio[apart], ratio[apart].mean().expand_as(ratio[apart]), rtol=1e-3, atol=1e-3)


def test_weights_follow_the_seed():
    teacher = tiny_model("bert")
    one, same, other = (Cnn(width=8).build(teacher, Resources(seed=seed)).model for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.dense.weight, other.dense.weight)


@pytest.mark.parametrize("text", ["static:wide", "cnn:", "static", "cnn:0", "static:1000000000", "cnn:8:2"])
def test_invalid_texts_are_refused(text: str):
    with pytest.raises(InvalidParameter, match=r"must .*but got"):
        student_from(text)
