import copy

import pytest
import torch
from torch import nn

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel
from whet.methods.factorization.attention import NarrowAttention
from whet.methods.recipe import Recipe
from whet.training.distiller import Teacher
from whet.training.objective import AttentionProjections, Objective, relations_loss
from whet.training.students.base import student_from

BATCH = dict(tiny_batches().batches[0]) | {"labels": torch.zeros(len(tiny_batches().batches[0]["input_ids"])).long()}


def narrow(family="bert"):
    return student_from("transformer:layers=1,width=16").build(tiny_model(family), Resources()).model


def test_a_narrower_student_learns_hidden_states_through_a_temporary_layer():
    student, taught = narrow(), Teacher(tiny_model("bert"), Objective(alpha=1, hidden_states=1, cosine=1))
    own = set(student.state_dict())
    with taught.attached(student, BATCH):
        assert set(student.state_dict()) - own == {"hidden_projection.weight", "hidden_projection.bias"}
        assert student.hidden_projection.weight.shape == (32, 16)
        taught.loss(student, BATCH).backward()
        assert student.hidden_projection.weight.grad.abs().sum() > 0
        assert student.get_input_embeddings().weight.grad.abs().sum() > 0
    assert set(student.state_dict()) == own
    assert not student._forward_hooks


def test_a_student_as_wide_as_its_teacher_needs_no_layer():
    student, taught = tiny_model("bert", seed=1), Teacher(tiny_model("bert"), Objective(hidden_states=1))
    with taught.attached(student, BATCH):
        assert not hasattr(student, "hidden_projection")


def test_the_temporary_layer_is_removed_when_training_fails():
    student, taught = narrow(), Teacher(tiny_model("bert"), Objective(hidden_states=1))
    with pytest.raises(ZeroDivisionError), taught.attached(student, BATCH):
        raise ZeroDivisionError
    assert not hasattr(student, "hidden_projection") and not student._forward_hooks


def test_a_student_without_hidden_states_is_refused_before_training():
    student = student_from("recurrent:lstm:8").build(tiny_model("bert"), Resources()).model
    taught = Teacher(tiny_model("bert"), Objective(hidden_states=1))
    with pytest.raises(
        InvalidModel, match=r"must both give hidden states, but RecurrentFor\w+ gives none; give hidden"
    ):
        taught.attached(student, BATCH).__enter__()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_relations_are_those_of_the_last_attention(family):
    teacher, student = tiny_model(family, seed=1), tiny_model(family)
    with Teacher(teacher, Objective(relations=1)).attached(student, BATCH), torch.no_grad():
        shown = teacher(**BATCH).attentions
    names = [n for n, m in teacher.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2][:1] in "qkv"]
    seen = {}
    handles = [
        teacher.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in names[-3:]
    ]
    with torch.no_grad():
        assert not isinstance(teacher(**BATCH).attentions, AttentionProjections), (
            "the answer is as it was after the lesson"
        )
    for handle in handles:
        handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(shown[:3], seen.values(), strict=True))
    assert shown.heads == teacher.config.num_attention_heads


def test_relations_of_equal_models_have_no_loss_and_widths_may_differ():
    teacher, objective = tiny_model("bert"), Objective(alpha=1, relations=1)
    same = Teacher(teacher, objective)
    with same.attached(copied := copy.deepcopy(teacher), BATCH):
        assert same.loss(copied, BATCH).item() == pytest.approx(0, abs=1e-6)
    student = narrow()
    with same.attached(student, BATCH):
        assert same.loss(student, BATCH).item() > 0.001


def test_narrower_heads_have_relations_too():
    teacher = tiny_model("bert")
    resources = Resources(calibration=tiny_batches())
    small = Recipe((NarrowAttention(keep=0.5),)).apply(teacher, resources)
    taught = Teacher(teacher, Objective(alpha=1, relations=1))
    with taught.attached(small, BATCH):
        assert 0 < taught.loss(small, BATCH).item() < 1


@pytest.mark.parametrize("kind", ["gpt2", "recurrent"])
def test_models_without_an_encoders_attention_are_refused(kind):
    student = (
        narrow("gpt2")
        if kind == "gpt2"
        else student_from("recurrent:lstm:8").build(tiny_model("bert"), Resources()).model
    )
    taught = Teacher(tiny_model("bert"), Objective(relations=1))
    with pytest.raises(InvalidModel, match=r"relations need an encoder's attention, .*; give relations=0"):
        taught.attached(student, BATCH).__enter__()


def test_the_loss_of_relations_is_the_divergence_of_their_softmax_at_real_tokens():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]).bool()

    def draw(width, seed):
        random = torch.Generator().manual_seed(seed)
        return [torch.randn(*mask.shape, width, generator=random, dtype=torch.float64) for _ in range(3)]

    own, wanted = AttentionProjections(*draw(8, 0), 4), AttentionProjections(*draw(12, 1), 6)
    expected = []
    for a, b in zip(own[:3], wanted[:3], strict=True):
        for sentence, real in enumerate(mask):
            for head in range(2):  # as many as divide 4 and 6
                p, q = (x[sentence, real].unflatten(-1, (2, -1))[:, head] for x in (b, a))
                p, q = ((x @ x.T / x.shape[-1] ** 0.5).softmax(-1) for x in (p, q))
                expected.append((p * (p / q).log()).sum(-1))
    assert float(relations_loss(own, wanted, mask)) == pytest.approx(float(torch.cat(expected).mean()), rel=1e-9)
    for padding in (own[0], own[1], own[2]):
        padding[~mask] = 100.0
    assert float(relations_loss(own, wanted, mask)) == pytest.approx(float(torch.cat(expected).mean()), rel=1e-9)
