import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter, MissingResource
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.methods.recovery.distillation import Distillation
from whet.tasks.kinds.base import kind_named
from whet.training.objective import (
    Objective,
    cosine_loss,
    hidden_states_loss,
    logits_loss,
    paired_layers,
    similarities_loss,
)
from whet.utils.precision import ComputePrecision

CLASSES = kind_named("classification")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_loss_of_logits_is_their_divergence(temperature: float):
    student, teacher = draw(7, 3), draw(7, 3, seed=1)
    p, q = (torch.distributions.Categorical(logits=logits / temperature) for logits in (teacher, student))
    expected = torch.distributions.kl_divergence(p, q).mean() * temperature**2
    torch.testing.assert_close(logits_loss(student, teacher, kind=CLASSES, temperature=temperature), expected)
    assert float(logits_loss(teacher, teacher + 3, kind=CLASSES, temperature=temperature)) == pytest.approx(0, abs=1e-6)


def test_the_loss_of_scores_is_half_their_squared_difference():
    student, teacher = draw(7, 1), draw(7, 1, seed=1)
    torch.testing.assert_close(
        logits_loss(student, teacher, kind=kind_named("regression")), (student - teacher).square().mean() / 2
    )


def test_a_teacher_of_other_labels_is_refused():
    three = Resources(train=tiny_batches(), teacher=tiny_model("bert", 3))
    with pytest.raises(InvalidModel, match="as many outputs as its student, 2, but got 3"):
        Recipe((Distillation(epochs=1),)).apply(tiny_model("bert", 2), three)


def test_the_loss_of_hidden_states_is_relative_to_the_teachers_variance():
    teacher, mask = [5 * draw(4, 6, 8) + 3, draw(4, 6, 8, seed=1)], torch.ones(4, 6, dtype=torch.bool)
    mask[2, 3:] = False
    # their mean instead of themselves: all of the variance is lost
    means = [states[mask].mean(0).expand_as(states) for states in teacher]
    assert float(hidden_states_loss(means, teacher, mask)) == pytest.approx(1, rel=0.05)
    assert float(hidden_states_loss(teacher, teacher, mask)) == 0
    other = [states.clone() for states in teacher]
    for states in other:
        states[2, 3:] = 100.0  # padding
    assert float(hidden_states_loss(other, teacher, mask)) == 0


def test_the_cosine_loss_reads_only_the_directions_of_real_tokens():
    teacher, mask = draw(4, 6, 8), torch.ones(4, 6, dtype=torch.bool)
    mask[1, 2:] = False
    longer = 3 * teacher
    longer[1, 2:] = -teacher[1, 2:]  # padding
    assert float(cosine_loss(longer, teacher, mask)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(-teacher, teacher, mask)) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(3, 6, [1, 3, 5]), (6, 6, [0, 1, 2, 3, 4, 5]), (1, 4, [3]), (2, 3, [1, 2]), (4, 6, [1, 2, 3, 5])],
)
def test_every_layer_learns_from_one_at_the_same_depth(student: int, teacher: int, expected: list[int]):
    assert paired_layers(student, teacher) == expected


def outputs(layers: int, seed: int) -> SequenceClassifierOutput:
    states = tuple(draw(4, 6, 8, seed=seed + 10 * i) for i in range(layers + 1))
    return SequenceClassifierOutput(loss=torch.tensor(7.0), logits=draw(4, 3, seed=seed), hidden_states=states)


def test_the_objective_is_the_weighted_sum_of_its_parts():
    student, teacher, mask = outputs(2, 1), outputs(4, 2), torch.ones(4, 6, dtype=torch.bool)
    objective = Objective(alpha=0.3, temperature=2, hidden_states=0.5, cosine=0.25)
    targets = [teacher.hidden_states[2], teacher.hidden_states[4]]
    expected = (
        0.3 * logits_loss(student.logits, teacher.logits, kind=CLASSES, temperature=2)
        + 0.7 * 7.0
        + 0.5 * hidden_states_loss(student.hidden_states[1:], targets, mask)
        + 0.25 * cosine_loss(student.hidden_states[-1], teacher.hidden_states[-1], mask)
    )
    torch.testing.assert_close(objective.loss(student, teacher, {"attention_mask": mask}, kind=CLASSES), expected)
    assert objective.reads_hidden_states and Objective(cosine=1).reads_hidden_states
    assert not Objective().reads_hidden_states


def test_with_alpha_1_no_labels_are_needed():
    student, teacher = outputs(2, 1), outputs(2, 2)
    student.loss = None
    found = Objective(alpha=1).loss(student, teacher, {"attention_mask": torch.ones(4, 6)}, kind=CLASSES)
    torch.testing.assert_close(found, logits_loss(student.logits, teacher.logits, kind=CLASSES, temperature=2))


@pytest.mark.parametrize(("name", "value"), [("alpha", 1.1), ("alpha", -0.1), ("temperature", 0), ("cosine", -1)])
def test_an_objective_out_of_range_is_refused(name: str, value: float):
    with pytest.raises(InvalidParameter, match=f"{name}.* must hold, but got {name}={value}"):
        Objective(**{name: value})


def distance(model: nn.Module, teacher: nn.Module) -> float:
    with torch.no_grad():
        losses = [logits_loss(model(**batch).logits, teacher(**batch).logits, kind=CLASSES) for batch in tiny_batches()]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(("hidden_states", "precision"), [(0.0, "fp32"), (1.0, "fp32"), (1.0, "bf16")])
def test_a_factored_model_comes_closer_to_its_original(hidden_states: float, precision: ComputePrecision):
    teacher = tiny_model("bert")
    resources = Resources(train=tiny_batches(), teacher=teacher)
    factored = Recipe((Svd(keep=0.3),)).apply(teacher, resources)
    recovery = Distillation(epochs=20, learning_rate=3e-3, hidden_states=hidden_states, precision=precision)
    recovered = Recipe((Svd(keep=0.3), recovery)).apply(teacher, resources)
    assert distance(recovered, teacher) < distance(factored, teacher) / 2
    assert sum(p.numel() for p in recovered.parameters()) == sum(p.numel() for p in factored.parameters())


def test_recovery_leaves_the_baseline_unchanged(monkeypatch):
    """It is read without dropout, as its teacher is."""
    model, losses, loss = tiny_model("bert"), [], Objective.loss
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    monkeypatch.setattr(Objective, "loss", lambda *given, **named: losses.append(loss(*given, **named)) or losses[-1])
    Recipe((Distillation(epochs=1, learning_rate=1e-12),)).apply(model, Resources(train=tiny_batches(), teacher=model))
    assert len(losses) >= 6
    assert max(one.item() for one in losses) == pytest.approx(0, abs=1e-6)


def test_a_share_of_the_batches_is_drawn_without_replacement():
    batches = tiny_batches(count=10)
    drawn = batches.share(0.3, seed=1)
    assert len(drawn) == 3
    assert [any(one is other for other in batches) for one in drawn] == [True] * 3
    assert len({id(one) for one in drawn}) == 3
    for one, labels in zip(drawn, drawn.labels.reshape(3, -1), strict=True):
        place = next(i for i, other in enumerate(batches) if other is one)
        assert (batches.labels[4 * place : 4 * place + 4] == labels).all()
    assert len(batches.share(1e-9, seed=0)) == 1
    assert list(batches.share(1.0, seed=0)) == list(batches)


def test_recovery_needs_a_teacher():
    with pytest.raises(MissingResource, match="training data and a teacher must be given"):
        Distillation().apply(tiny_model("bert"), Resources())
    with pytest.raises(InvalidParameter, match="0 < epochs <= 10000 must hold"):
        Distillation(epochs=0)


def test_similarities_are_those_between_different_texts():
    student, teacher = (torch.nn.functional.normalize(draw(5, width, seed=width), dim=-1) for width in (4, 6))
    expected = [
        (float(student[i] @ student[j]) - float(teacher[i] @ teacher[j])) ** 2 / 2
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert float(similarities_loss(student, teacher)) == pytest.approx(sum(expected) / 20, rel=1e-5)
    rotated = teacher @ torch.linalg.qr(draw(6, 6)).Q  # no similarity changes
    assert float(similarities_loss(rotated, teacher)) == pytest.approx(0, abs=1e-10)
    assert float(similarities_loss(student[:1], teacher[:1])) == 0


def test_embedders_learn_from_the_teacher_alone():
    vectors = kind_named("embedding")
    assert Objective.for_kind(vectors) == Objective(alpha=1.0)
    assert Objective.for_kind(CLASSES) == Objective()
    with pytest.raises(InvalidParameter, match=r"alpha=1 must hold for a model of sentence embeddings, .* alpha=0.5"):
        Objective().check_kind(vectors)
    with pytest.raises(InvalidParameter, match="similarities=0 must hold for a text classifier, but got"):
        Objective(similarities=2).check_kind(CLASSES)
