"""What every kind of task promises of its rows of logits and of its labels; each kind needs a row in CASES.

`tests/test_kinds_contract.py` has what holds for its models, by every verb.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.data import Batches
from whet.tasks.kinds.base import (
    NO_HEAD,
    TEXT_HEAD,
    Answers,
    Head,
    all_kinds,
    kind_of_head,
    kind_of_labels,
    kind_of_metric,
)
from whet.tasks.retrieval import Candidates
from whet.tasks.words import TaggedWords


def texts(rows: int) -> Batches:
    """Examples that a row answers each."""
    return Batches([], np.arange(rows))


def queries(rows: int) -> Batches:
    """Queries with a candidate each."""
    source = Candidates(["query"] * rows, [{0: 1.0}] * rows, [("document",)] * rows)
    return Batches([], np.arange(rows), source=source, notes=[0] * rows)


def single_words(rows: int) -> Batches:
    return Batches([], np.arange(rows), source=TaggedWords([("word",)] * rows, [None] * rows), notes=[[0]] * rows)


class Column(NamedTuple):
    """A column of labels in a file, for kinds that have one."""

    raw: list[Any]
    labels: list[Any]
    """The same, read."""
    invalid: Any
    refusal: str


class Case(NamedTuple):
    names: tuple[str, ...] | None
    """Label names."""
    head: Head
    """What a model of the kind says of itself; as many outputs as logits have here."""
    column: Column | None = None
    batches: Callable[[int], Batches] = texts
    """As many examples, each answered by a row."""


CASES = {
    "classification": Case(
        ("no", "maybe", "yes"),
        Head(TEXT_HEAD, 3),
        Column(["yes", "no", "yes"], [2, 0, 2], "si", "must be no, maybe, yes"),
    ),
    "regression": Case(
        None,
        Head(TEXT_HEAD, 1, said="regression"),
        Column(["1.5", "-2", "3"], [1.5, -2, 3], "nan", "must be finite numbers, but got 'nan' in row 1"),
    ),
    "reranking": Case(
        None,
        Head(TEXT_HEAD, 1, said="reranking"),
        Column(["1", "0", "0.5"], [1, 0, 0.5], "nan", "must be finite numbers, but got 'nan' in row 1"),
        queries,
    ),
    "multi_label": Case(
        ("joy", "love", "anger"),
        Head(TEXT_HEAD, 3, "multi_label_classification"),
        Column(
            [("anger", "joy"), (), ("love",)],
            [(1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)],
            ("joy", "envy"),
            "must be joy, love, anger, but got envy; correct",
        ),
    ),
    "token_classification": Case(
        ("O", "B-PER", "I-PER"),
        Head("SomeForTokenClassification", 3),
        Column(
            ["B-PER I-PER O", ["O"]],
            [(1, 2, 0), (0,)],
            ["O", "I-LOC"],
            "must be O, B-PER, I-PER, but got I-LOC",
        ),
        single_words,
    ),
    "question_answering": Case(None, Head("SomeForQuestionAnswering", 2)),
    "language_modeling": Case(None, Head("SomeForCausalLM", 5)),
    "masked_language_modeling": Case(None, Head("SomeForMaskedLM", 5)),
    "embedding": Case(None, Head(NO_HEAD, 4)),
}
WITH_COLUMN = sorted(name for name, case in CASES.items() if case.column is not None)


@pytest.fixture(params=sorted(all_kinds()))
def name(request) -> str:
    return request.param


@pytest.fixture
def kind(name):
    return all_kinds()[name]


@pytest.fixture
def case(name) -> Case:
    return CASES[name]


def logits_of(kind, case: Case, seed: int = 0, rows: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, case.head.outputs, generator=generator, dtype=torch.float64)


def predictions(kind, logits: np.ndarray) -> np.ndarray:
    batches = CASES[kind.name()].batches(len(logits))
    return kind.predictions(Answers(kind, logits, np.arange(len(logits))), batches)


def test_one_kind_is_chosen_by_the_head_and_by_its_own_metrics(kind, case):
    same = [known for known in all_kinds().values() if set(known.heads) & set(kind.heads)]
    assert [known for known in same if known.fits_head(case.head)] == [kind]
    assert kind_of_head(case.head) is kind
    assert all(kind_of_metric(metric) is kind for metric in kind.metrics)


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_labels_alone_tell_classes_and_scores(kind, case):
    assert [known for known in all_kinds().values() if known.fits_labels(case.names)] == [kind]
    assert kind_of_labels(case.names) is kind
    assert kind_of_metric(None) is all_kinds()["classification"]


@pytest.mark.parametrize("name", WITH_COLUMN)
def test_label_names_are_those_of_the_outputs(kind, case):
    assert kind.label_names(dict(enumerate(kind.output_names(case.names)))) == case.names


@pytest.mark.parametrize("name", WITH_COLUMN)
def test_a_head_of_its_own_outputs_is_in_order_and_no_other_is_taken(kind, case):
    names = kind.output_names(case.names)
    as_it_is = list(range(len(names))) if kind.has_classes else []
    assert kind.pairing(dict(enumerate(names)), case.names).order == as_it_is
    assert kind.pairing({i: f"LABEL_{i}" for i in range(len(names))}, case.names).order == as_it_is
    others = {i: f"LABEL_{i}" for i in range(len(names) + 1)}
    with pytest.raises(InvalidData, match=rf"^the model's head must .*, but got num_labels={len(others)}; fine-tune"):
        kind.pairing(others, case.names)


@pytest.mark.parametrize("name", WITH_COLUMN)
def test_a_label_map_is_for_classes(kind, case):
    names = kind.output_names(case.names)
    given = {name: str(i) for i, name in enumerate(names[::-1])}
    if kind.has_classes:
        assert kind.pairing(dict(enumerate(names)), case.names, label_map=given).order == [2, 1, 0]
    else:
        with pytest.raises(InvalidParameter, match="--label-map must go with classes"):
            kind.pairing(dict(enumerate(names)), case.names, label_map=given)


@pytest.mark.parametrize("name", WITH_COLUMN)
def test_labels_are_read_and_numbered_as_the_head_has_them(kind, case):
    column = case.column
    assert kind.read_labels(column.raw, case.names, source="a file") == column.labels
    with pytest.raises(InvalidData, match=rf"in a file {column.refusal}"):
        kind.read_labels([column.invalid], case.names, source="a file")
    order = list(range(len(kind.output_names(case.names))))[::-1]
    assert kind.renumbered(kind.renumbered(column.labels, order), order) == column.labels
    kind.check_labels(column.labels, source="data")


@pytest.mark.parametrize("name", WITH_COLUMN)
def test_there_is_a_prediction_for_each_example(kind, case):
    logits = logits_of(kind, case).numpy()
    assert len(predictions(kind, logits)) == len(logits)
    assert repr(predictions(kind, logits)) == repr(predictions(kind, logits + 0))


def test_the_divergence_is_zero_for_the_same_and_positive_for_others(kind, case):
    baseline, model = (logits_of(kind, case, seed).numpy() for seed in (0, 1))
    assert (kind.divergence(baseline, baseline) == 0).all()
    assert (kind.divergence(baseline, model) > 0).all()


def test_the_second_moment_of_the_noise_is_the_curvature_of_the_divergence(kind, case):
    logits = logits_of(kind, case, rows=1)
    outputs = logits.shape[1]
    patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * outputs).reshape(-1, outputs)
    noise = kind.noise(logits.expand(len(patterns), outputs), patterns)
    step = 1e-4
    for direction in logits_of(kind, case, seed=2):
        moved = (logits + step * direction).numpy()
        curvature = kind.divergence(logits.numpy(), moved)[0] * 2 / step**2
        assert float((noise @ direction).square().mean()) == pytest.approx(curvature, rel=1e-3)


def test_signs_are_fair_and_of_a_seed():
    logits = torch.zeros(400, 5)
    kind = all_kinds()["classification"]
    signs = kind.random_signs(logits, torch.Generator().manual_seed(0))
    assert set(signs.unique().tolist()) == {-1, 1} and abs(float(signs.mean())) < 0.1
    assert torch.equal(signs, kind.random_signs(logits, torch.Generator().manual_seed(0)))


def test_distillation_minimises_the_mean_divergence(kind, case):
    teacher, student = (logits_of(kind, case, seed) for seed in (0, 1))
    mean = kind.divergence(teacher.numpy(), student.numpy()).mean()
    assert kind.distillation_loss(student, teacher, temperature=1.0).item() == pytest.approx(mean)
    assert kind.distillation_loss(teacher, teacher, temperature=2.0).item() == pytest.approx(0, abs=1e-12)


def test_temperature_softens_the_divergence_as_the_logits(kind, case):
    teacher, student = (logits_of(kind, case, seed) for seed in (0, 1))
    soft = [kind.softened(logits, 3.0).numpy() for logits in (teacher, student)]
    assert soft[0].shape == teacher.shape
    factor = 1 if (soft[0] == teacher.numpy()).all() else 9
    loss = kind.distillation_loss(student, teacher, temperature=3.0).item()
    assert loss == pytest.approx(kind.divergence(*soft).mean() * factor)


def test_the_loss_is_least_at_right_answers(kind, case):
    logits = 10 * logits_of(kind, case)
    decided = kind.decisions(logits.numpy())
    right = logits.squeeze(-1) if decided is None else torch.as_tensor(decided)
    if kind.name() == "reranking":  # relevance is a probability
        assert kind.loss(logits, right.sigmoid()) < kind.loss(logits, 1 - right.sigmoid())
        return
    wrong = right + 1 if decided is None else ~right if right.dtype == torch.bool else (right + 1) % case.head.outputs
    assert kind.loss(logits, right) < kind.loss(logits, wrong)


def test_every_kind_has_a_case():
    assert set(CASES) == set(all_kinds())


def test_one_class_is_too_few():
    kind = all_kinds()["classification"]
    with pytest.raises(InvalidData, match=r"^the data of x must hold at least two classes, but got one only; give"):
        kind.check_labels([1, 1], source="data of x")
    assert predictions(kind, np.asarray([[0.0, 2, 1], [3, 0, 1]])).tolist() == [1, 0]
