"""Language models: what they predict, and that a split is summed up without all of its logits."""

import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from helpers import VOCAB, word_tokenizer
from tasks.test_corpus import words
from whet.errors import InvalidData, InvalidParameter
from whet.evaluation.metrics.perplexity import BitsPerByte, Perplexity
from whet.models import inference
from whet.models.inference import kind_of_model, predict
from whet.tasks.corpus import running_text
from whet.tasks.data import ANSWERED, TARGETS
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import kind_named

TOKENIZER = word_tokenizer()


def decoder(seed: int = 0) -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=1024, initializer_range=0.3)
        ).eval()


def masked(seed: int = 0) -> BertForMaskedLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        return BertForMaskedLM(config).eval()


def batches_of(reading="causal", *, max_length=40, batch_size=5, count=700, stride=None):
    text = running_text(words(count), reading=reading, split="dev", stride=stride, source="")
    return encode(text, TOKENIZER, max_length=max_length, batch_size=batch_size)


def predicted(model, batches):
    found = predict(model, batches)
    return found.kind.predictions(found, batches)


def test_kinds_are_told_by_the_class_of_the_model():
    assert kind_of_model(decoder()) is kind_named("language_modeling")
    assert kind_of_model(masked()) is kind_named("masked_language_modeling")


def test_a_window_as_long_as_the_text_gives_the_loss_of_transformers():
    model, batches = decoder(), batches_of(max_length=1000, stride=900, batch_size=3)
    whole = torch.tensor([[TOKENIZER.cls_token_id, *TOKENIZER(words(700), add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        wanted = float(model(whole, labels=whole).loss)
    losses = predicted(model, batches)
    assert losses[:, 1].sum() == 700 and len(losses) == len(batches.labels)
    assert Perplexity().score(batches.labels, losses) == pytest.approx(math.exp(wanted), rel=1e-5)
    bits = BitsPerByte().score(batches.labels, losses)
    assert bits == pytest.approx(wanted * 700 / len(words(700).encode()) / math.log(2), rel=1e-5)


@pytest.mark.parametrize(("reading", "model"), [("masked", masked()), ("causal", decoder())])
def test_losses_do_not_depend_on_batches(reading, model):
    alone, together = (predicted(model, batches_of(reading, batch_size=size)) for size in (1, 6))
    assert np.allclose(alone, together, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_is_not_answered(side, monkeypatch):
    monkeypatch.setattr(TOKENIZER, "padding_side", side)
    for batch in batches_of(batch_size=60):
        assert not batch["attention_mask"].all() and batch[ANSWERED].shape == batch[TARGETS].shape
        assert batch["attention_mask"][batch[ANSWERED].bool()].all()
        following = batch["input_ids"].roll(-1, 1)[batch[ANSWERED].bool()]
        assert torch.equal(batch[TARGETS][batch[ANSWERED].bool()], following)


def test_losses_are_those_of_the_answered_rows_alone():
    model, batches = masked(), batches_of("masked", max_length=12)
    losses, rows = predicted(model, batches), predict(model, batches)
    assert len(rows) == 700 == losses[:, 1].sum()
    wanted = 0.0
    with torch.no_grad():
        for row in batches.source.encode(TOKENIZER, max_length=12).rows:
            ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
            wanted += float(model(input_ids=ids, labels=labels).loss) * int((labels != -100).sum())
    assert losses[:, 0].sum() == pytest.approx(wanted, rel=1e-5)


def test_of_a_large_split_some_rows_are_kept_and_all_are_summed_up(monkeypatch):
    model, other, batches = decoder(), decoder(1), batches_of()
    whole, others = predict(model, batches), predict(other, batches)
    monkeypatch.setattr(inference, "MOST_LOGITS", 100 * VOCAB)
    some = predict(model, batches)
    assert len(whole) == 700 and len(some) == 100
    assert np.array_equal(some.logits, whole.logits[::7]) and np.array_equal(some.inputs, whole.inputs[::7])
    assert np.array_equal(some.scores, whole.scores)
    assert np.allclose(some.divergences(predict(other, batches)), whole.divergences(others)[::7])


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    losses = np.array([[3 * math.log(50), 3], [8 * math.log(50), 8]])
    assert Perplexity().score(np.array([10, 20]), losses) == pytest.approx(50)
    assert Perplexity().score(np.array([1]), np.array([[1e9, 1.0]])) < math.inf
    assert Perplexity.better == BitsPerByte.better == "lower"
    versus = Perplexity().compare(np.array([10, 20]), losses * [[1.1, 1]], losses, seed=0)
    assert versus.kind == "ratio" and versus.value == pytest.approx(50**-0.1) and versus.gain.value < 0


def test_labels_and_maps_of_them_are_refused():
    kind = kind_named("language_modeling")
    with pytest.raises(InvalidData, match=r"must have text without labels, but got labels in my.csv"):
        kind.read_labels(["1"], None, source="my.csv")
    with pytest.raises(InvalidParameter, match="--label-map must go with classes, but the model gives tokens"):
        kind.pairing({0: "LABEL_0", 1: "LABEL_1"}, None, label_map={"a": "b"})
    assert kind.pairing({0: "LABEL_0", 1: "LABEL_1"}, None).order == []
