import pytest
import torch

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.recurrent import RecurrentForSequenceClassification
from whet.training.students.base import student_from
from whet.training.students.recurrent import Recurrent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lstm:256", Recurrent(cell="lstm", hidden_size=256)),
        ("bilstm:64:2", Recurrent(cell="lstm", hidden_size=64, layers=2, bidirectional=True)),
        ("rnn:8:own", Recurrent(cell="rnn", hidden_size=8, embeddings="own")),
        ("birnn:8:2:mean:own", Recurrent(
            cell="rnn", hidden_size=8, layers=2, bidirectional=True, embeddings="own", pooling="mean"
        )),
    ],
)  # fmt: skip
def test_texts_describe_the_student(text: str, expected: Recurrent):
    assert student_from(f"recurrent:{text}") == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_student_reads_the_teachers_tokens_and_gives_its_classes(family: Family):
    teacher = tiny_model(family)
    student = Recurrent(hidden_size=16, layers=2, bidirectional=True).build(teacher, Resources()).model
    assert isinstance(student, RecurrentForSequenceClassification) and not student.training
    assert student.config.id2label == teacher.config.id2label
    for batch in tiny_batches():
        assert student(**batch).logits.shape == teacher(**batch).logits.shape


def test_embeddings_keep_the_distances_of_the_teachers_optimally():
    teacher = tiny_model("bert")
    words = teacher.get_input_embeddings().weight.detach().double()
    singular = torch.linalg.svdvals(words).square()
    for width in (4, 16, 32, 50):
        found = Recurrent(hidden_size=width).build(teacher, Resources()).model.embed_tokens.weight.detach().double()
        assert found.shape == (99, min(width, 32))
        assert float(found.square().mean()) == pytest.approx(1, rel=1e-4)
        gram = found @ found.T * (singular[:width].sum() / found.square().sum())
        lost = (gram - words @ words.T).square().sum()
        slack = 1e-4 * float(singular[0]) ** 2
        torch.testing.assert_close(lost, singular[width:].square().sum(), rtol=1e-3, atol=slack)


def test_own_embeddings_and_weights_follow_the_seed():
    teacher = tiny_model("bert")
    one, same, other = (
        Recurrent(hidden_size=8, embeddings="own").build(teacher, Resources(seed=seed)).model for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)


@pytest.mark.parametrize("text", ["gru:8", "lstm", "lstm:x", "lstm:8:2:3", "lstm:8:own:big"])
def test_invalid_texts_are_refused(text: str):
    with pytest.raises(InvalidParameter, match=r"must .*but got"):
        student_from(f"recurrent:{text}")


@pytest.mark.parametrize("text", ["lstm:1000000000", "lstm:256:101", "rnn:²", f"lstm:{'9' * 20}", "lstm:8:own:own"])
def test_absurd_sizes_are_refused(text: str):
    with pytest.raises(InvalidParameter, match=r"must hold, but got|recurrent must be CELL:WIDTH"):
        student_from(f"recurrent:{text}")


def test_a_student_far_larger_than_its_teacher_is_refused_before_it_takes_memory():
    with pytest.raises(InvalidParameter, match=r"at most 1,073,741,824 parameters, but got \d+,\d+,\d+,"):
        student_from("recurrent:lstm:16384").build(tiny_model("bert"), Resources())


def test_a_width_of_0_is_refused():
    with pytest.raises(InvalidParameter, match="1 <= hidden_size <= 16384 must hold, but got hidden_size=0"):
        student_from("recurrent:lstm:0")
