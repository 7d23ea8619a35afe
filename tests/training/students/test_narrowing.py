import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from folders import classifier
from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.training.students._narrowing import narrowed_student
from whet.training.students.base import student_from

ENCODERS = ("bert", "roberta", "distilbert")


@pytest.mark.parametrize("family", ENCODERS)
def test_at_the_full_width_it_is_the_same_model(family):
    model = tiny_model(family)
    same = narrowed_student(model, 32, tiny_batches())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), same.state_dict().values(), strict=True))


@pytest.mark.parametrize("family", ENCODERS)
def test_every_weight_is_the_teachers_own(family):
    """What stays is a part of what was: whole heads, the same hidden features everywhere, neurons with their output."""
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = narrowed_student(model, 16, tiny_batches())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    words, whole = small.get_input_embeddings().weight, model.get_input_embeddings().weight
    features = places(words.T, whole.T)
    assert len(features) == 16
    for name, module in small.named_modules():
        known = model.get_submodule(name)
        if isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, known.weight[features])
        if name.rpartition(".")[2] in ("query", "q_lin"):
            rows = places(module.weight, known.weight[:, features])
            heads = torch.as_tensor(rows).reshape(2, 8)
            assert (
                torch.equal(heads[:, 1:] - heads[:, :1], torch.arange(1, 8).expand(2, -1))
                and not (heads[:, 0] % 8).any()
            )
            for other in ("key", "value") if "query" in name else ("k_lin", "v_lin"):
                sibling = name.rpartition(".")[0] + f".{other}"
                own, old = (one.get_submodule(sibling) for one in (small, model))
                assert torch.equal(own.weight, old.weight[rows][:, features])
                assert torch.equal(own.bias, old.bias[rows])


def places(part: torch.Tensor, whole: torch.Tensor) -> list[int]:
    """Which rows of the whole the part has, in its order."""
    return [next(i for i, known in enumerate(whole) if torch.equal(row, known)) for row in part]


def test_uninformative_features_are_removed_first():
    model = tiny_model("bert")
    dead_features, dead_neurons, dead_head = torch.arange(0, 32, 2), torch.arange(0, 64, 2), slice(8, 16)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[dead_features] = 0
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, dead_neurons] = 0
            layer.attention.output.dense.weight[:, dead_head] = 0
    small = narrowed_student(model, 16, tiny_batches())
    words = small.get_input_embeddings().weight
    assert torch.equal(words, model.get_input_embeddings().weight[:, 1::2])
    for own, known in zip(small.bert.encoder.layer, model.bert.encoder.layer, strict=True):
        assert torch.equal(own.intermediate.dense.bias, known.intermediate.dense.bias[1::2])
        kept = places(own.attention.self.query.bias[:, None], known.attention.self.query.bias[:, None])
        assert not set(kept) & set(range(8, 16))


def test_a_student_of_blocks_may_be_narrower(tmp_path, tokenizer):
    teacher = classifier()
    resources = Resources(calibration=tiny_batches())
    student = student_from("layer_subset:odd:width=16")
    assert student.reads == {"calibration"}
    built = student.build(teacher, resources)
    assert built.plan == "blocks 0 of 0 to 1 (odd) of width 16"
    assert built.model.config.hidden_size == 16 and built.model.config.id2label == teacher.config.id2label
    records.save_model(built.model, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    for batch in tiny_batches():
        assert torch.equal(plain(**batch).logits, built.model(**batch).logits)
    listed = student_from("layer_subset:0,1:width=16")
    assert (listed.layers, listed.width) == ((0, 1), 16)
    assert (
        "blocks 1 of 0 to 1 (bottom) of width 8"
        in student_from("layer_subset:bottom:1:width=8").build(copy.deepcopy(teacher), resources).plan
    )


@pytest.mark.parametrize("width", [4, 12, 40])
def test_a_width_that_splits_heads_is_refused(width):
    with pytest.raises(
        InvalidParameter, match=rf"a multiple of that of a head, 8, and at most 32, but got {width}; give"
    ):
        narrowed_student(tiny_model("bert"), width, tiny_batches())


def test_a_compressed_model_is_refused():
    small = Recipe((Svd(keep=0.5, include="*.output.dense"),)).apply(tiny_model("bert"), Resources())
    feed_forward = Recipe((Svd(keep=0.5, include="*.intermediate.dense"),)).apply(tiny_model("bert"), Resources())
    with pytest.raises(NothingToCompress, match="attention must be like BERT's"):
        narrowed_student(small, 16, tiny_batches())
    with pytest.raises(
        InvalidModel, match=r"must be dense to be narrowed, but this one has no .*intermediate.*; narrow"
    ):
        narrowed_student(feed_forward, 16, tiny_batches())


def test_decoders_are_refused():
    with pytest.raises(NothingToCompress, match="attention must be like BERT's"):
        narrowed_student(tiny_model("gpt2"), 16, tiny_batches())


@pytest.mark.parametrize("text", ["layer_subset:odd:width=x", "layer_subset:odd:width=0"])
def test_an_invalid_width_is_refused(text):
    with pytest.raises(InvalidParameter):
        student_from(text)
