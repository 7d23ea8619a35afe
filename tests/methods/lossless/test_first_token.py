import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention

import whet
from covering import covering
from exported import assert_exports
from folders import classifier
from helpers import Family, padded, tiny_batches, tiny_model, tokens_seen
from sentences import sentence_folder
from text_families import tiny_of
from whet.api.exporting import export
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact, InvalidModel, NothingToCompress
from whet.evaluation import records
from whet.methods.base import Method, method_from
from whet.methods.lossless import first_token
from whet.methods.lossless.first_token import FirstToken
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.architecture import Architecture
from whet.models.first_token import first_token_layers
from whet.models.layers.attention import CompressedAttention as NarrowAttention
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.surgery import copy_sharing_parameters, describe, rebuild
from whet.runtimes.base import export_runtimes
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds.base import kind_named
from whet.training.distiller import Teacher
from whet.training.lora import attach_lora, merge_lora
from whet.training.objective import Objective
from whet.training.settings import LoraSettings
from whet.training.students.base import student_from

encoders = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
FEED_FORWARD = {
    "bert": "bert.encoder.layer.{}.intermediate.dense",
    "roberta": "roberta.encoder.layer.{}.intermediate.dense",
    "distilbert": "distilbert.transformer.layer.{}.ffn.lin1",
}
QUERY = {
    "bert": "bert.encoder.layer.{}.attention.self.query",
    "roberta": "roberta.encoder.layer.{}.attention.self.query",
    "distilbert": "distilbert.transformer.layer.{}.attention.q_lin",
}
RESOURCES = Resources(calibration=tiny_batches())


def applied(model: nn.Module, *before: Method) -> nn.Module:
    return Recipe((*before, FirstToken())).apply(model, RESOURCES)


def logits(model: nn.Module, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return model(**batch).logits


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for batch in tiny_batches(seed=2):
        torch.testing.assert_close(logits(model, batch), logits(other, batch), rtol=0, atol=1e-5)


def ragged(length: int, side: str) -> Batch:
    """Three sentences of which one is as long as the batch, padded on that side."""
    random = np.random.default_rng(length)
    batch = padded([random.integers(1, 99, size=max(1, length - i)) for i in range(3)])
    return batch if side == "right" else {key: value.flip(1) for key, value in batch.items()}


@encoders
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_logits_are_the_same_at_every_length(family: Family, side: str, implementation: str):
    model = tiny_model(family)
    model.set_attn_implementation(implementation)
    narrow = applied(model)
    for length in range(1, 13):
        batch = ragged(length, side)
        torch.testing.assert_close(logits(narrow, batch), logits(model, batch), rtol=0, atol=1e-5)
    alone = {"input_ids": batch["input_ids"][:1]}
    torch.testing.assert_close(logits(narrow, alone), logits(model, alone), rtol=0, atol=1e-5)


@encoders
def test_the_last_block_computes_one_token_and_keys_and_values_of_all(family: Family):
    narrow, batch = applied(tiny_model(family)), tiny_batches().batches[-1]
    length = batch["input_ids"].shape[1]
    assert length > 1
    key = QUERY[family].replace("query", "key").replace("q_lin", "k_lin")
    for name, last in ((QUERY[family], 1), (FEED_FORWARD[family], 1), (key, length)):
        assert tokens_seen(narrow, name.format(0), batch) == length
        assert tokens_seen(narrow, name.format(1), batch) == last


@encoders
def test_weights_keep_their_names(family: Family):
    model = tiny_model(family)
    narrow = applied(model)
    assert list(narrow.state_dict()) == list(model.state_dict())
    assert Architecture.of(narrow) == Architecture.of(model)


@encoders
def test_gradients_are_those_of_the_whole_model(family: Family):
    model = tiny_model(family)
    narrow, batch = applied(model), tiny_batches().batches[-1]
    for one in (model, narrow):
        one(**batch).logits.square().sum().backward()
    for (name, wanted), (_, found) in zip(model.named_parameters(), narrow.named_parameters(), strict=True):
        if wanted.grad is not None:
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-3, atol=1e-4, msg=name)
        else:
            assert found.grad is None


def test_dropout_is_for_training_only():
    narrow, batch = applied(tiny_model("bert")), tiny_batches().batches[-1]
    assert torch.equal(narrow(**batch).logits, narrow(**batch).logits)
    attention = narrow.get_submodule("bert.encoder.layer.1.attention.self").train()
    hidden = torch.randn(2, 5, 32)
    attention.dropout.p = 0.5
    assert not torch.equal(attention(hidden)[0], attention(hidden)[0])


COMPOSED = {
    "kfac": {"method": "kfac", "keep": 0.5},
    "attention": {"method": "factorization.attention", "keep": 0.5},
    "shared_qkv": {"method": "shared_qkv", "keep": 0.5},
    "pruning": {"method": "magnitude", "sparsity": 0.5},
}


@encoders
@pytest.mark.parametrize("kind", COMPOSED)
def test_after_another_method_logits_stay_the_same(family: Family, kind: str, tmp_path, tokenizer):
    step = method_from(COMPOSED[kind])
    compressed = Recipe((step,)).apply(tiny_model(family), RESOURCES)
    narrow = applied(tiny_model(family), step)
    assert_same(narrow, compressed)
    batch = tiny_batches().batches[-1]
    assert tokens_seen(narrow, FEED_FORWARD[family].format(1), batch) == 1
    assert tokens_seen(narrow, query_of(narrow, family), batch) == 1
    records.save_model(
        narrow, tokenizer, tmp_path / "m", recipe=Recipe((step, FirstToken())).to_list(), origin="tiny", seed=0
    )
    assert_same(artifact.load_verified(tmp_path / "m"), narrow)


def query_of(model: nn.Module, family: Family) -> str:
    """Narrower heads have names of their own."""
    narrow = any(isinstance(module, NarrowAttention) for module in model.modules())
    name = QUERY[family].format(1)
    return name.replace("q_lin", "query") if narrow else name


@encoders
@pytest.mark.parametrize("kind", COMPOSED)
def test_before_another_method_only_one_token_is_computed(family: Family, kind: str):
    """What comes after finds the same layers, and leaves the last block as narrow as it was."""
    step, batch = method_from(COMPOSED[kind]), tiny_batches().batches[-1]
    both = Recipe((FirstToken(), step)).apply(tiny_model(family), RESOURCES)
    alone = Recipe((step,)).apply(tiny_model(family), RESOURCES)
    changed = {name for name, entry in describe(both).items() if not entry["kind"].startswith("first_token")}
    assert changed == set(describe(alone))
    assert tokens_seen(both, FEED_FORWARD[family].format(1), batch) == 1
    assert tokens_seen(both, query_of(both, family), batch) == 1


def test_a_second_application_changes_nothing():
    narrow = applied(tiny_model("bert"))
    assert describe(applied(narrow)) == describe(narrow)
    both = applied(tiny_model("bert"), method_from(COMPOSED["attention"]))
    assert describe(applied(both)) == describe(both)


@pytest.mark.parametrize(
    ("family",), covering([("bert",), ("roberta",), ("distilbert",)], lambda case: case != ("roberta",))
)
def test_every_runtime_gives_the_same_logits(family: Family, tmp_path, tokenizer):
    model = tiny_model(family)
    records.save_model(
        applied(model), tokenizer, tmp_path / "m", recipe=Recipe((FirstToken(),)).to_list(), origin="tiny", seed=0
    )
    found = export(tmp_path / "m", sorted(export_runtimes()))
    assert all(agreement.largest_difference < 1e-4 for agreement in found.values())
    assert_exports(applied(model), tmp_path / "alone.onnx")


def test_without_whet_the_folder_gives_the_same_logits(tmp_path, tokenizer):
    """The same weights under the same names: the whole last block, and no guard."""
    narrow = applied(classifier())
    records.save_model(
        narrow, tokenizer, tmp_path / "m", recipe=Recipe((FirstToken(),)).to_list(), origin="tiny", seed=0
    )
    code = (
        "import sys, torch, transformers\n"
        "transformers.logging.set_verbosity_error()\n"
        "model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()\n"
        "print(model(input_ids=torch.arange(1, 13).reshape(2, 6)).logits.flatten().tolist(), 'whet' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, check=True
    ).stdout
    values, _, imported = run.strip().rpartition(" ")
    assert imported == "False"
    expected = logits(narrow, {"input_ids": torch.arange(1, 13).reshape(2, 6)}).flatten()
    torch.testing.assert_close(torch.tensor(eval(values)), expected, rtol=0, atol=1e-5)


def test_training_goes_on_from_the_saved_folder(tmp_path, tokenizer):
    narrow = applied(tiny_model("bert"))
    records.save_model(
        narrow, tokenizer, tmp_path / "m", recipe=Recipe((FirstToken(),)).to_list(), origin="tiny", seed=0
    )
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert describe(loaded) == describe(narrow)
    batch, labels = tiny_batches().batches[-1], torch.tensor([0, 1, 2, 0])
    optimizer, losses = torch.optim.AdamW(loaded.parameters(), 1e-3), []
    for _ in range(20):
        loss = loaded(**batch, labels=labels).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 2


def test_lora_finds_its_layers():
    narrow, batch = applied(tiny_model("bert")), tiny_batches().batches[-1]
    expected = logits(narrow, batch)
    adapted = attach_lora(narrow, LoraSettings(rank=2, targets="*.1.attention.*.query", norms=True))
    assert any("layer.1.attention.self.query.lora_A" in name for name, _ in adapted.named_parameters())
    torch.testing.assert_close(logits(merge_lora(adapted), batch), expected, rtol=0, atol=1e-5)


# what is refused


class Mean(nn.Module):
    """A pooler over all tokens."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.mean(1)


def test_a_head_that_averages_tokens_is_refused():
    model = tiny_model("bert")
    model.bert.pooler = Mean()
    with pytest.raises(
        NothingToCompress,
        match=r"must read the first token of the last block alone, but .* of BertForSequenceClassification change",
    ):
        applied(model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_decoders_are_refused(family: Family):
    with pytest.raises(NothingToCompress, match=r"the head must read the first token .*; leave lossless.first_token"):
        applied(tiny_model(family))


def test_a_head_that_reads_a_little_of_another_token_is_refused():
    """So little that the answers do not move by as much as rounding."""

    class Almost(nn.Module):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return hidden_states[:, 0] + 1e-30 * hidden_states[:, 1]

    model = tiny_model("bert")
    model.bert.pooler = Almost()
    with pytest.raises(NothingToCompress, match="change with the other tokens"):
        applied(model)


def test_blocks_without_a_norm_in_between_are_refused():
    model = tiny_model("bert")
    model.bert.encoder.layer[1].attention.output.LayerNorm = nn.Identity()
    with pytest.raises(NothingToCompress, match=r"a layer norm between the attention .*, but Bert.* has none; leave"):
        applied(model)


def test_a_cut_that_changes_logits_is_not_made(monkeypatch):
    def spoil(model: nn.Module) -> None:
        model.classifier.bias = nn.Parameter(model.classifier.bias + 1e-3)

    monkeypatch.setattr(first_token, "cuts", lambda model, block: [spoil])
    with pytest.raises(NothingToCompress, match="has none"):
        applied(tiny_model("bert"))


# attention of another kind than BERT's


CUT_AT_A_NORM = ["modernbert", "deberta-v2", "roformer", "roberta-prelayernorm", "mpnet", "nomic_bert"]


@pytest.mark.parametrize("family", CUT_AT_A_NORM)
def test_other_attention_keeps_its_queries_and_the_rest_goes(family, tmp_path, tokenizer):
    model = tiny_of(family)
    narrow = applied(model)
    linears = Architecture.of(narrow).linears
    alone = [name for name in linears if name in first_token_layers(narrow)]
    assert alone and all(name.startswith(Architecture.of(narrow).blocks[-1]) for name in alone)
    records.save_model(narrow, tokenizer, tmp_path / "model", recipe=[], origin="tiny", seed=0)
    loaded = whet.load_model(tmp_path / "model")
    for batch in tiny_batches(seed=2):
        expected = logits(model, batch)
        torch.testing.assert_close(logits(narrow, batch), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(logits(loaded, batch), expected, rtol=0, atol=1e-5)


def test_a_saved_layer_that_fits_no_module_is_refused():
    name = "bert.encoder.layer.1.attention.output"
    with pytest.raises(InvalidArtifact, match=r"a saved first_token_norm layer must be .*BertSelfOutput is no"):
        rebuild(tiny_model("bert"), {name: {"kind": "first_token_norm"}})
    with pytest.raises(InvalidArtifact, match="a saved first_token_attention layer must be complete"):
        rebuild(tiny_model("bert"), {name: {"kind": "first_token_attention"}})


# where others need all tokens


def other_weights(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def learnt(objective: Objective, student: nn.Module, teacher: nn.Module, batch: Batch) -> Tensor:
    lesson = Teacher(teacher, objective)
    with lesson.attached(student, batch):
        return lesson.loss(student, batch)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_hidden_states_of_the_first_token_learn_from_the_teachers(family):
    """The loss of the whole student, in which the last layer's other tokens do not count.

    A block that normalizes first, as ModernBERT's, still gives a row for each of them.
    """
    teacher, student = other_weights(tiny_of(family)), tiny_of(family)
    batch = tiny_batches().batches[-1]
    found = learnt(Objective(alpha=1, hidden_states=2.0, cosine=0.5), applied(student), teacher, batch)
    with torch.no_grad():
        own, wanted = (model(**batch, output_hidden_states=True) for model in (student, teacher))
    mask = batch["attention_mask"].bool()
    [first, last], [first_wanted, last_wanted] = own.hidden_states[1:], wanted.hidden_states[1:]
    errors = (first - first_wanted)[mask], (last - last_wanted)[:, 0]
    spread = (first_wanted[mask], last_wanted[mask])
    shares = [error.square().mean() / one.var(0).mean() for error, one in zip(errors, spread, strict=True)]
    angle = 1 - torch.cosine_similarity(last[:, 0], last_wanted[:, 0]).mean()
    plain = Objective(alpha=1).loss(own, wanted, batch, kind=kind_named("classification"))
    torch.testing.assert_close(found, plain + 2 * torch.stack(shares).mean() + 0.5 * angle, rtol=1e-4, atol=1e-5)


def test_a_narrow_teacher_cannot_teach_a_wider_student():
    batch, student = tiny_batches().batches[-1], tiny_model("bert")
    narrow = applied(tiny_model("bert", seed=1))
    for objective in (Objective(hidden_states=1.0, alpha=1), Objective(cosine=1.0, alpha=1)):
        with pytest.raises(InvalidModel, match="must give hidden states of all tokens, but its last block gives the f"):
            learnt(objective, student, narrow, batch)
    assert learnt(Objective(alpha=1), student, narrow, batch).isfinite()


def test_relations_need_the_queries_of_all_tokens():
    batch, model = tiny_batches().batches[-1], tiny_model("bert")
    both = applied(model, method_from(COMPOSED["attention"]))
    for narrow in (applied(model), both):
        with pytest.raises(InvalidModel, match=r"relations need the queries of all tokens, but in bert\.encoder.*self"):
            learnt(Objective(relations=1.0, alpha=1), narrow, model, batch)


@pytest.mark.parametrize("text", ["odd", "influence:1", "kl:1"])
def test_compressed_blocks_cannot_be_analysed_again(text: str):
    batches = Batches(tiny_batches().batches, tiny_batches().labels)
    with pytest.raises(InvalidModel, match=r"every block must compute all tokens, but bert\.encoder.*LayerNorm passes"):
        student_from(f"layer_subset:{text}").build(applied(tiny_model("bert")), Resources(calibration=batches))


def test_a_copy_stays_narrow():
    narrow = applied(tiny_model("bert"))
    for other in (copy_sharing_parameters(narrow), copy.deepcopy(narrow)):
        assert describe(other) == describe(narrow)
        assert_same(other, narrow)


def test_an_attention_with_bert_s_names_loses_its_queries_only_if_it_computes_the_same():
    """RoFormer's turns them by their positions, and is cut at the norm behind it."""
    for family, kind in (("rembert", FirstTokenAttention), ("roformer", RoFormerSelfAttention)):
        model = tiny_of(family)
        narrow = applied(model)
        assert_same(narrow, model)
        assert isinstance(narrow.get_submodule(f"{Architecture.of(narrow).blocks[-1]}.attention.self"), kind)


def test_an_embedder_that_pools_the_first_token_gives_the_same_vectors(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer, pooling="cls")
    whet.compress(folder, Recipe((FirstToken(),)), tmp_path / "narrow")
    texts = ["one", "two three four", "five six"]
    before, after = (whet.load(path).predict(texts) for path in (folder, tmp_path / "narrow"))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
    narrow, batch = whet.load_model(tmp_path / "narrow"), tiny_batches().batches[-1]
    assert tokens_seen(narrow, "encoder.layer.1.intermediate.dense", batch) == 1


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", ("cls", "mean")], ids=str)
def test_embedders_that_pool_other_tokens_are_refused(pooling, tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer, pooling=pooling)
    with pytest.raises(NothingToCompress, match="first token"):
        whet.compress(folder, Recipe((FirstToken(),)), tmp_path / "narrow")
    assert not (tmp_path / "narrow").exists()
