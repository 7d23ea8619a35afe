import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from exported import assert_exports
from helpers import padded_on, tiny_batches
from whet.errors import InvalidParameter
from whet.evaluation import records
from whet.models.configs import ShallowConfig
from whet.models.shallow import READERS, ShallowForSequenceClassification

readers = pytest.mark.parametrize("reader", READERS)


def model(reader: str, **others) -> ShallowForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "embedding_size": 7, "hidden_size": 5, "num_labels": 3}
    made = ShallowForSequenceClassification(ShallowConfig(**{**sizes, **others}, reader=reader)).eval()
    if reader == "static":
        made.reader.log_weight.weight.data.normal_()
    return made


def by_hand(network: ShallowForSequenceClassification, ids: Tensor) -> Tensor:
    """The logits of one sentence without padding."""
    words = network.embed_tokens(ids)
    if network.config.reader == "static":
        features = network.reader.log_weight(ids)[:, 0].softmax(0) @ words
    else:
        nothing = torch.zeros(1, words.shape[1])
        around = torch.cat([nothing, words, nothing])
        found = [network.reader.linear(around[i : i + 3].flatten()).relu() for i in range(len(words))]
        features = torch.cat([torch.stack(found).amax(0), torch.stack(found).mean(0)])
    return network.classifier(network.dense(features).relu())


@readers
@torch.no_grad()
def test_it_is_what_its_docstring_says(reader):
    network = model(reader)
    ids = torch.randint(1, 99, (6,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(ids[None]).logits[0], by_hand(network, ids))


@readers
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_is_never_read(reader, side):
    network = model(reader)
    ids, padded, mask = padded_on(side)
    torch.testing.assert_close(network(padded, mask).logits, network(ids).logits)


@readers
@torch.no_grad()
def test_a_text_without_tokens_has_an_answer(reader):
    ids = torch.ones(1, 3, dtype=torch.int64)
    assert model(reader)(ids, torch.zeros_like(ids)).logits.isfinite().all()


@readers
def test_transformers_loads_what_was_saved_and_runtimes_answer_alike(reader, tmp_path, tokenizer):
    network = model(reader)
    records.save_model(network, tokenizer, tmp_path / "m", recipe=[], origin="x", seed=0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    batch = {name: tiny_batches().batches[0][name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, network(**batch).logits, rtol=0, atol=0)
    assert_exports(network, tmp_path / "m.onnx")


@readers
def test_what_is_saved_learns(reader):
    network = model(reader).train()
    batch = tiny_batches().batches[0]
    network(**batch, labels=torch.zeros(len(batch["input_ids"]), dtype=torch.int64)).loss.backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in network.parameters())


@pytest.mark.parametrize("wrong", [{"reader": "rnn"}, {"embedding_size": 0}, {"hidden_size": 0}])
def test_a_wrong_configuration_is_refused(wrong):
    with pytest.raises(InvalidParameter, match="reader must be one of static, cnn and all sizes at least 1, but got"):
        ShallowForSequenceClassification(ShallowConfig(**{"reader": "static", **wrong}))
