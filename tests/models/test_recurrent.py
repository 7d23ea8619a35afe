import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, pipeline

from exported import assert_exports
from helpers import padded_on, tiny_batches
from whet.errors import InvalidParameter
from whet.evaluation import records
from whet.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification

KINDS = [
    (cell, bidirectional, pooling)
    for cell in ("rnn", "lstm")
    for bidirectional in (False, True)
    for pooling in ("last", "mean")
]
kinds = pytest.mark.parametrize(("cell", "bidirectional", "pooling"), KINDS)


def model(cell="lstm", bidirectional=True, pooling="last", layers=2, **others) -> RecurrentForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "embedding_size": 7, "hidden_size": 5, "num_hidden_layers": layers, "num_labels": 3}
    config = RecurrentConfig(**{**sizes, **others}, cell=cell, bidirectional=bidirectional, pooling=pooling)
    return RecurrentForSequenceClassification(config).eval()


def by_hand(network: RecurrentForSequenceClassification, ids: Tensor) -> Tensor:
    """The logits of one sentence without padding, by torch's cells with the last weight as bias."""
    config = network.config
    states = network.embed_tokens(ids)
    for layer in network.layers:
        sides = []
        for suffix, order in (("", states), ("_reverse", states.flip(0)))[: 1 + config.bidirectional]:
            w_ih, w_hh = (getattr(layer, f"weight_{part}_l0{suffix}") for part in ("ih", "hh"))
            w, bias = w_ih[:, :-1], w_ih[:, -1]
            h = c = torch.zeros(config.hidden_size)
            out = []
            for x in order:
                gates = w @ x + w_hh @ h + bias
                if config.cell == "rnn":
                    h = gates.tanh()
                else:
                    i, f, g, o = gates.chunk(4)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                out.append(h)
            sides.append(torch.stack(out))
        ends = torch.cat([side[-1] for side in sides])
        if config.bidirectional:
            sides[1] = sides[1].flip(0)
        states = torch.cat(sides, -1)
    return network.classifier(states.mean(0) if config.pooling == "mean" else ends)


@kinds
@torch.no_grad()
def test_it_is_the_recurrence_as_written_down(cell, bidirectional, pooling):
    network = model(cell, bidirectional, pooling)
    ids = torch.randint(1, 99, (6,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(ids[None]).logits[0], by_hand(network, ids))


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_is_never_read(cell, bidirectional, pooling, side):
    network = model(cell, bidirectional, pooling)
    ids, padded, mask = padded_on(side)
    torch.testing.assert_close(network(padded, mask).logits, network(ids).logits)


@torch.no_grad()
def test_the_last_token_is_read_and_not_the_one_before():
    network = model("lstm", False, "last")
    ids = torch.randint(1, 99, (1, 6), generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(network(ids).logits, network(ids[:, :5]).logits)


def test_losses_are_those_of_classes_and_of_scores():
    batch = tiny_batches().batches[3]
    labels = torch.tensor([0, 2, 1, 0])
    found = model()(**batch, labels=labels)
    torch.testing.assert_close(found.loss, nn.functional.cross_entropy(found.logits, labels))
    scores = model(num_labels=1)(**batch, labels=torch.tensor([0.5, 1, 2, 3]))
    torch.testing.assert_close(scores.loss, (scores.logits[:, 0] - torch.tensor([0.5, 1, 2, 3])).square().mean())


@kinds
def test_it_is_saved_and_loaded_as_any_other(cell, bidirectional, pooling, tmp_path, tokenizer):
    network = model(cell, bidirectional, pooling)
    records.save_model(network, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    for batch in tiny_batches():
        assert torch.equal(plain(**batch).logits, network(**batch).logits)
    classify = pipeline("text-classification", model=str(tmp_path / "m"))
    assert {row["label"] for row in classify(["w5 w6 w7", "w9"])} <= {"LABEL_0", "LABEL_1", "LABEL_2"}


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_to_onnx_at_any_length(tmp_path):
    """Of torch's recurrences, its exporter keeps the length of an LSTM in both directions alone."""
    assert_exports(model("lstm", bidirectional=True), tmp_path / "model.onnx")


@pytest.mark.parametrize("wrong", [{"cell": "gru"}, {"hidden_size": 0}, {"num_hidden_layers": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(InvalidParameter, match="cell must be one of rnn, lstm and all sizes at least 1, but got"):
        RecurrentForSequenceClassification(RecurrentConfig(**wrong))
