"""Students of models of every kind are of the same kind, whatever they are made of."""

import pytest
import torch
import transformers

from folders import save
from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel
from whet.models.inference import kind_of_model
from whet.models.load import load_with_new_head
from whet.tasks.kinds.base import TEXT_HEAD, all_kinds, kind_named
from whet.training.students.base import student_from

TEXTS = ["layer_subset:odd", "layer_subset:odd:width=16", "transformer:layers=1,width=16"]
BASES = {
    "language_modeling": ("AutoModelForCausalLM", "gpt2"),
    "masked_language_modeling": ("AutoModelForMaskedLM", "bert"),
}


@pytest.fixture
def teacher(kind, tmp_path, tokenizer):
    loader, family = BASES.get(kind, ("AutoModel", "bert"))
    base = save(getattr(transformers, loader).from_config(tiny_model(family).config), tokenizer, tmp_path / "base")
    known = kind_named(kind)
    return load_with_new_head(base, known, ("a", "b", "c") if known.has_classes else None, tokenizer)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_a_student_is_of_its_teachers_kind(kind, text, teacher):
    if kind == "language_modeling" and "width" in text and text.startswith("layer"):
        pytest.skip("narrowing needs an encoder's attention")
    resources = Resources(calibration=tiny_batches(seed=1))
    student = student_from(text).build(teacher, resources).model
    assert kind_of_model(student) == kind_of_model(teacher) and type(student) is type(teacher)
    batch = tiny_batches(seed=2).batches[0]
    with torch.inference_mode():
        found, expected = student(**batch)[0], teacher(**batch)[0]
    assert found.shape[:-1] == expected.shape[:-1] and found.isfinite().all()
    if "width" in text:
        assert student.config.hidden_size == 16
        assert getattr(student, "pooler", None) is None  # a new one would stay random


@pytest.mark.parametrize("text", ["recurrent:lstm:8", "static:8", "cnn:8"])
@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_students_without_blocks_answer_whole_texts_alone(kind, text, teacher):
    student = student_from(text)
    if TEXT_HEAD in kind_named(kind).heads:
        assert kind_of_model(student.build(teacher, Resources()).model).name() == kind
    else:
        word = text.partition(":")[0]
        with pytest.raises(InvalidModel, match=f"a {word} student must answer whole texts, but the teacher is a"):
            student.build(teacher, Resources())
