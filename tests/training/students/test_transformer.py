import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from folders import save
from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.models.quantizer import WhetConfig
from whet.training.students.base import student_from
from whet.training.students.transformer import Transformer


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_the_given_ones(family: Family, tmp_path, tokenizer):
    teacher = tiny_model(family)
    built = student_from("transformer:layers=1,width=16").build(teacher, Resources())
    config = built.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 16, 2)
    assert type(built.model) is type(teacher) and not built.model.training
    assert "layers 1, width 16, heads 2, random weights" in built.plan
    inner = [getattr(config, name) for name in ("intermediate_size", "hidden_dim", "n_inner") if hasattr(config, name)]
    assert inner == [32]
    records.save_model(built.model, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    for batch in tiny_batches():
        assert torch.equal(plain(**batch).logits, built.model(**batch).logits)


def test_sizes_that_are_not_given_are_the_teachers():
    config = Transformer(layers=1).build(tiny_model("bert"), Resources()).model.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 32, 64)
    assert config.id2label == tiny_model("bert").config.id2label


def test_weights_follow_the_seed():
    one, same, other = (
        Transformer(layers=1).build(tiny_model("bert"), Resources(seed=seed)).model.bert.pooler.dense.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_compressed_teacher_has_a_dense_student():
    teacher = Recipe((Svd(keep=0.5),)).apply(tiny_model("bert"), Resources())
    teacher.config.quantization_config = WhetConfig({})
    student = Transformer(layers=1).build(teacher, Resources()).model
    assert not hasattr(student.config, "quantization_config")


def test_a_pretrained_base_brings_its_weights(tmp_path, tokenizer):
    base, teacher = tiny_model("bert", seed=3), tiny_model("bert")
    save(base.base_model, tokenizer, tmp_path / "base")
    save(teacher, tokenizer, tmp_path / "teacher")
    teacher.name_or_path = str(tmp_path / "teacher")
    student = student_from(f"transformer:{tmp_path / 'base'}").build(teacher, Resources()).model
    weight = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(student.base_model.get_parameter(weight), base.base_model.get_parameter(weight))
    assert student.config.num_labels == 3


def test_another_vocabulary_is_refused(tmp_path, tokenizer):
    save(tiny_model("bert"), tokenizer, tmp_path / "teacher")
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    path = tmp_path / "base" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"w7"', '"v7"'), encoding="utf-8")
    teacher = tiny_model("bert")
    teacher.name_or_path = str(tmp_path / "teacher")
    with pytest.raises(InvalidModel, match=r"must read the teacher's tokens, but .*base has a vocabulary of its own"):
        student_from(f"transformer:{tmp_path / 'base'}").build(teacher, Resources())


@pytest.mark.parametrize(
    "text", ["layers=x", "depth=2", "layers=2,width=", "layers=2,layers=3", "width=²", "width=" + "9" * 20]
)
def test_invalid_texts_are_refused(text: str):
    with pytest.raises(InvalidParameter, match="transformer must be sizes out of layers, width, heads, each once"):
        student_from(f"transformer:{text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=65536,heads=1", r"a student must have at most 1,073,741,824 parameters, but got \d+,"),
        ("width=7", "sizes and blocks must make a model|^"),
        ("layers=1001", "1 <= layers <= 1000 must hold, but got layers=1001"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_make_no_model_are_refused_before_they_take_memory(family: Family, text: str, message: str):
    try:
        student = student_from(f"transformer:{text}").build(tiny_model(family), Resources()).model
    except InvalidParameter as error:
        assert re.search(message, str(error))
    else:
        assert text == "width=7"
        assert student(**tiny_batches(count=1).batches[0]).logits.isfinite().all()


def test_a_configuration_of_absurd_sizes_is_refused(tmp_path):
    (tmp_path / "own.json").write_text('{"model_type": "bert", "num_hidden_layers": 1000000000}')
    with pytest.raises(InvalidParameter, match="1 <= num_hidden_layers <= 65536 must hold, but got"):
        student_from(f"transformer:{tmp_path / 'own.json'}").build(tiny_model("bert"), Resources())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(InvalidParameter, match="heads must divide the width, 16, but got heads=3"):
        Transformer(width=16, heads=3).build(tiny_model("bert"), Resources())


def test_a_configuration_of_any_kind_is_read_from_its_file(tmp_path):
    teacher = tiny_model("bert")
    narrow = tiny_model("distilbert").config
    narrow.dim, narrow.hidden_dim, narrow.vocab_size, narrow.n_layers = 16, 32, 7, 1
    narrow.to_json_file(tmp_path / "own.json", use_diff=False)
    built = student_from(f"transformer:{tmp_path / 'own.json'}").build(teacher, Resources())
    config = built.model.config
    assert (config.model_type, config.dim, config.n_layers) == ("distilbert", 16, 1)
    assert config.vocab_size == teacher.config.vocab_size and config.id2label == teacher.config.id2label
    assert "DistilBertForSequenceClassification with layers 1" in built.plan
    for batch in tiny_batches():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        assert built.model(**inputs).logits.shape[-1] == 3


@pytest.mark.parametrize("content", ["junk", "[1]", '{"model_type": "nonsense"}', '{"hidden_size": 8}', "[" * 10**5])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(InvalidParameter, match=r"configuration must be a file as transformers writes config.json, but"):
        student_from(f"transformer:{path}").build(tiny_model("bert"), Resources())


@pytest.mark.parametrize(
    "given", [{"base": "x", "layers": 2}, {"base": "x", "config": "y"}, {"config": "y", "heads": 1}]
)
def test_exactly_one_of_base_config_and_sizes_is_required(given):
    with pytest.raises(InvalidParameter, match="one of base, config and sizes must be given, but got base="):
        Transformer(**given)


def test_a_recurrent_teacher_needs_a_configuration():
    teacher = student_from("recurrent:lstm:8").build(tiny_model("bert"), Resources()).model
    with pytest.raises(
        InvalidModel, match=r"must be those of a Transformer, but the teacher is a RecurrentFor.*; give a"
    ):
        Transformer(layers=1).build(teacher, Resources())
