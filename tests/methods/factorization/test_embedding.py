"""Low-rank word embeddings: the optimum in a metric, on models of every family, and in what comes after it."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from helpers import FAMILIES, VOCAB, padded, tiny_batches, tiny_model
from laws import draw, relative_tail
from whet.api.exporting import export
from whet.calibration.importance import token_counts
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.clustering.kmeans import KMeans
from whet.methods.factorization.embedding import Embedding, weighted_factors
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.quantization.weight_only import WeightOnly
from whet.methods.recipe import Recipe
from whet.methods.recovery.distillation import Distillation
from whet.models.embeddings import word_vectors
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.layers.masked import MaskedEmbedding
from whet.models.layers.quantized import Quantized
from whet.models.lstm import LstmConfig, LstmForCausalLM
from whet.numerics.linalg import root_and_inverse
from whet.report.layer_sizes import model_sizes
from whet.tasks.data import Batches
from whet.utils.precision import FP32

STEP = Embedding(keep=0.5)
WIDTH = 32


def resources(family="bert", train=None):
    return Resources(calibration=tiny_batches(), train=train or tiny_batches(), teacher=tiny_model(family))


def factored(*steps, family="bert", train=None):
    return Recipe(steps or (STEP,)).apply(tiny_model(family), resources(family, train))


def answers(model):
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def plain(width):
    return root_and_inverse(torch.zeros(width, width, dtype=torch.float64), damping=1.0)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_every_rank_is_the_best_in_the_weighted_norm(rank):
    """The error is the tail of the spectrum of what is weighed on both sides, below which no product comes."""
    vectors, weights, gradient = draw(20, 6), draw(20, seed=1).square(), draw(6, 9, seed=2)
    metric = root_and_inverse(gradient @ gradient.T, damping=0.1)
    table, projection = weighted_factors(vectors, weights, metric, rank)
    weighed = weights.sqrt()[:, None] * vectors @ metric.root
    lost = weights.sqrt()[:, None] * (vectors - table @ projection) @ metric.root
    assert float(lost.square().sum() / weighed.square().sum()) == pytest.approx(relative_tail(weighed, rank), abs=1e-12)


def test_equal_importances_give_plain_svd():
    vectors = draw(20, 6)
    table, projection = weighted_factors(vectors, torch.ones(20), plain(6), 3)
    u, s, v = torch.linalg.svd(vectors, full_matrices=False)
    torch.testing.assert_close(table @ projection, u[:, :3] * s[:3] @ v[:3])


def test_words_of_weight_zero_are_projected_and_zeros_stay():
    vectors = draw(20, 6)
    vectors[0] = 0
    weights = torch.zeros(20)
    weights[5:8] = 1
    table, projection = weighted_factors(vectors, weights, plain(6), 3)
    torch.testing.assert_close((table @ projection)[5:8], vectors[5:8])
    assert table.isfinite().all() and table[9].any() and not table[0].any()


def test_many_words_are_summed_as_few():
    vectors, weights = draw(9000, 4).float(), draw(9000, seed=1).square()
    table, projection = weighted_factors(vectors, weights, plain(4), 2)
    _, _, v = torch.linalg.svd(vectors.double() * weights.sqrt()[:, None], full_matrices=False)
    torch.testing.assert_close(table @ projection, (vectors.double() @ v[:2].T @ v[:2]).float())


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_the_text_are_approximated_better(family):
    """With 4 words in the text and 12 components, those words stay what they were."""
    sentences = [torch.tensor([5, 6, 7, 8, 5, 6]).numpy()] * 4
    train = Batches([padded(sentences)], tiny_batches(count=1).labels)
    model = factored(Embedding(keep=0.5, smoothing=1e-6), family=family, train=train)
    table, left = word_vectors(tiny_model(family)), word_vectors(model)
    torch.testing.assert_close(left[5:9], table[5:9], atol=1e-3, rtol=0)
    assert (left[9:] - table[9:]).norm() > 0.3 * table[9:].norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_at_most_the_wanted_fraction_is_kept(family):
    model = factored(family=family)
    layer = model.get_input_embeddings()
    assert isinstance(layer, LowRankEmbedding)
    held = sum(weight.numel() for weight in layer.parameters())
    assert 0.5 * VOCAB * WIDTH - (VOCAB + WIDTH) < held <= 0.5 * VOCAB * WIDTH
    before = tiny_model(family).get_input_embeddings()
    assert layer.padding_idx == layer.embedding.padding_idx == before.padding_idx
    ids = torch.arange(VOCAB)[None]
    torch.testing.assert_close(layer(ids)[0], word_vectors(model))


def test_more_components_lose_less_of_what_text_reads():
    counts = token_counts(tiny_batches(), VOCAB) + 1
    table = word_vectors(tiny_model("bert"))

    def lost(keep):
        left = word_vectors(factored(Embedding(keep=keep, damping=1e9)))
        return float((counts[:, None] * (left - table).square()).sum())

    losses = [lost(keep) for keep in (0.1, 0.3, 0.6, 0.9)]
    assert losses == sorted(losses, reverse=True)
    weighed = counts.double().sqrt()[:, None] * table.double()
    rank = int(0.6 * VOCAB * WIDTH / (VOCAB + WIDTH))
    assert losses[2] / float(weighed.square().sum()) == pytest.approx(relative_tail(weighed, rank), rel=1e-3)


def test_the_gradient_says_which_directions_count():
    """Answers stay nearer than where all directions count alike, though the words then do not."""
    exact, table = answers(tiny_model("bert")), word_vectors(tiny_model("bert"))
    by_gradient, alike = (factored(Embedding(keep=0.3, damping=damping)) for damping in (1e-3, 1e9))
    assert (answers(by_gradient) - exact).norm() < 0.9 * (answers(alike) - exact).norm()
    assert (word_vectors(by_gradient) - table).norm() > (word_vectors(alike) - table).norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_loads_through_plain_transformers_and_is_smaller(family, tmp_path, tokenizer):
    model = factored(family=family)
    records.save_model(model, tokenizer, tmp_path / "m", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(answers(loaded), answers(model))
    assert loaded.get_input_embeddings().structure() == model.get_input_embeddings().structure()
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert not any(value.shape == (VOCAB, WIDTH) for value in stored.values())
    share = model_sizes(tmp_path / "m").embeddings
    assert share.share < 1 and share.form == "low rank embedding: rank 12"


def test_other_runtimes_give_the_same_logits(tmp_path, tokenizer):
    records.save_model(factored(), tokenizer, tmp_path / "m", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    found = export(tmp_path / "m", ["onnxruntime", "openvino"], precisions=[FP32])
    assert len(found) == 2 and max(one.largest_difference for one in found.values()) < 1e-4


def test_low_rank_embeddings_get_a_lower_rank():
    twice = factored(STEP, STEP).get_input_embeddings()
    assert twice.rank == factored().get_input_embeddings().rank // 2
    once = factored(Embedding(keep=0.25)).get_input_embeddings()
    assert once.rank == twice.rank


def test_later_steps_compress_the_thin_table():
    model = factored(STEP, Magnitude(sparsity=0.0, embeddings=0.5))
    assert isinstance(model.get_input_embeddings().embedding, MaskedEmbedding)
    assert int((model.get_input_embeddings().embedding.embedding.weight == 0).sum()) == VOCAB * 12 // 2
    for step in (WeightOnly(bits=4), KMeans(n_clusters=16)):
        model = factored(STEP, step)
        assert type(model.get_input_embeddings().embedding) is not nn.Embedding
        assert word_vectors(model).shape == (VOCAB, WIDTH)
    assert isinstance(factored(STEP, WeightOnly()).get_input_embeddings().embedding, Quantized)
    before, after = factored(), factored(STEP, Distillation(epochs=2, learning_rate=1e-2))
    for factor in ("embedding", "projection"):
        first, second = (getattr(one.get_input_embeddings(), factor).weight for one in (before, after))
        assert (first != second).float().mean() > 0.5


def test_padding_stays_zero_in_training():
    model = tiny_model("roberta")
    model.get_input_embeddings().weight.data[0] = 0
    steps = Recipe((STEP, Distillation(epochs=1, learning_rate=1e-2)))
    own = resources("roberta")
    # padding that is taken for a word, so that only the table itself leaves it out
    read = [{**batch, "attention_mask": torch.ones_like(batch["attention_mask"])} for batch in own.train]
    trained = steps.apply(model, dataclasses.replace(own, train=Batches(read, own.train.labels)))
    assert not word_vectors(trained)[0].any() and word_vectors(trained)[1].any()


def test_models_that_cannot_be_factored_are_refused():
    with pytest.raises(InvalidParameter, match=r"0 < keep <= 1 must hold, but got keep=0"):
        Embedding(keep=0)
    with pytest.raises(
        InvalidParameter, match=r"must leave rank 1 or more of the 3168 .*keep=0.01; give 0.041 or more"
    ):
        factored(Embedding(keep=0.01))
    assert factored(Embedding(keep=0.0415)).get_input_embeddings().rank == 1
    with pytest.raises(NothingToCompress, match=r"must be an ordinary table, but .* has MaskedEmbedding"):
        factored(Magnitude(sparsity=0.0, embeddings=0.5), STEP)
    tied = LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=8, num_hidden_layers=1))
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight
    with pytest.raises(NothingToCompress, match=r"weights of their own, but .* and .* share them"):
        STEP.apply(tied, resources())
