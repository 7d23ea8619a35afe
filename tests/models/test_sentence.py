"""Folders of sentence-transformers are read in both spellings and written so that nothing is lost, or refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from folders import edit_json
from sentences import sentence_folder, write_json
from whet.errors import InvalidArtifact, InvalidModel
from whet.models import artifact
from whet.models.checkpoint import Checkpoint
from whet.models.inference import answers, kind_of_model
from whet.models.load import load_unverified, load_with_new_head, source_digest
from whet.models.manifest import read_manifest
from whet.models.sentence import read_modules, sentence_files
from whet.tasks.kinds.base import kind_named
from whet.tasks.sentences import SENTENCES, SentenceModules


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", ("cls", "mean"), ("max", "mean")], ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_read_is_written_and_read_again(tmp_path, tokenizer, pooling, normalize, spelling):
    settings = {"prompts": {"query": "w7 "}, "default_prompt_name": "query"}
    folder = sentence_folder(
        tmp_path / "model", tokenizer, pooling=pooling, normalize=normalize, spelling=spelling, settings=settings
    )
    known = read_modules(folder)
    assert known.pooling == ((pooling,) if isinstance(pooling, str) else pooling)
    assert (known.normalize, known.max_length, known.default_prompt) == (normalize, 24, "w7 ")
    config = SimpleNamespace(hidden_size=32, **{SENTENCES: known.to_dict()})
    assert SentenceModules.of(config) == known
    for name, content in sentence_files(config).items():
        (tmp_path / "again" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "again" / name).write_bytes(content)
    assert read_modules(tmp_path / "again") == known


def test_an_order_that_only_the_new_spelling_can_say_is_kept(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer, pooling=("mean", "cls"), spelling="new")
    known = read_modules(folder)
    files = sentence_files(SimpleNamespace(hidden_size=32, **{SENTENCES: known.to_dict()}))
    assert json.loads(files["1_Pooling/config.json"])["pooling_mode"] == ["mean", "cls"]


def test_a_folder_without_modules_is_no_embedder(tmp_path):
    assert read_modules(tmp_path) is None
    assert sentence_files(SimpleNamespace()) == {}


def test_the_longest_input_is_the_tokenizers_where_no_other_is_said(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    assert read_modules(folder).max_length == tokenizer.model_max_length


def add_dense(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    write_json(folder / "modules.json", modules)


def change(file, **changes):
    return lambda folder: edit_json(folder / file, **changes)


REFUSED = {
    "a Dense layer after pooling": (add_dense, "must be Transformer, Pooling and maybe Normalize, but .* Dense"),
    "code of its own": (
        lambda folder: write_json(folder / "modules.json", [{"path": "", "type": "custom_st.Transformer"}]),
        r"but .* lists custom_st\.Transformer",
    ),
    "no modules": (lambda folder: write_json(folder / "modules.json", []), "lists none"),
    "modules that are no list": (lambda folder: write_json(folder / "modules.json", {}), "must hold a JSON list"),
    "a path that leads out": (
        lambda folder: write_json(
            folder / "modules.json", [{"path": "../x", "type": "sentence_transformers.models.Transformer"}]
        ),
        "a folder of its own",
    ),
    "a Transformer elsewhere": (
        lambda folder: write_json(
            folder / "modules.json",
            [
                {"path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"}
                for i, name in enumerate(("Transformer", "Pooling"))
            ],
        ),
        "must lie right in the model's folder",
    ),
    "an unknown pooling": (
        change("1_Pooling/config.json", pooling_mode="attention"),
        "the pooling must be among cls, .* but .* 'attention'",
    ),
    "an unknown pooling in the old spelling": (
        change("1_Pooling/config.json", pooling_mode_median_tokens=True),
        "'pooling_mode_median_tokens'",
    ),
    "no pooling": (lambda folder: (folder / "1_Pooling" / "config.json").unlink(), "the pooling .* must be known"),
    "prompts that are not pooled": (
        lambda folder: (
            change("1_Pooling/config.json", include_prompt=False)(folder),
            change("config_sentence_transformers.json", prompts={"query": "q: "})(folder),
        ),
        "include_prompt=false",
    ),
    "lower case beside the tokenizer": (change("sentence_bert_config.json", do_lower_case=True), "do_lower_case=true"),
    "another output": (
        change("sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task='fill-mask'",
    ),
    "an unknown setting": (change("sentence_bert_config.json", query_expansion=3), "query_expansion=3"),
    "a sparse encoder": (
        change("config_sentence_transformers.json", model_type="SparseEncoder"),
        "must be a SentenceTransformer or a CrossEncoder, but .* SparseEncoder",
    ),
    "no tokens": (change("sentence_bert_config.json", max_seq_length=0), "1 <= max_seq_length"),
    "no dimensions": (change("config_sentence_transformers.json", truncate_dim=0), "1 <= truncate_dim"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_would_change_answers_is_refused(tmp_path, tokenizer, fault):
    put_in, message = REFUSED[fault]
    folder = sentence_folder(tmp_path / "model", tokenizer)
    put_in(folder)
    with pytest.raises(InvalidModel, match=message):
        read_modules(folder)


def test_products_of_vectors_of_any_length_are_refused(tmp_path, tokenizer):
    settings = {"similarity_fn_name": "dot"}
    folder = sentence_folder(tmp_path / "model", tokenizer, normalize=False, settings=settings)
    with pytest.raises(InvalidModel, match=r"compared by their cosine, or be normalized, but .*'dot'"):
        read_modules(folder)
    assert read_modules(sentence_folder(tmp_path / "unit", tokenizer, settings=settings)).normalize


def test_dimensions_are_written_as_sentence_transformers_reads_them(tmp_path, tokenizer):
    known = replace(read_modules(sentence_folder(tmp_path / "model", tokenizer)), dimensions=8)
    files = sentence_files(SimpleNamespace(hidden_size=32, **{SENTENCES: known.to_dict()}))
    assert json.loads(files["config_sentence_transformers.json"])["truncate_dim"] == 8


BATCH = {
    "input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 11, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
}


@pytest.mark.parametrize("normalize", [True, False])
def test_the_vector_of_a_text_is_its_pooled_tokens_at_unit_length(tmp_path, tokenizer, normalize):
    model = load_unverified(sentence_folder(tmp_path / "model", tokenizer, pooling="cls", normalize=normalize))
    assert (type(model).__name__, kind_of_model(model).name()) == ("BertModel", "embedding")
    with torch.no_grad():
        first = model(**BATCH).last_hidden_state[:, 0]
        rows = answers(model, BATCH, kind_of_model(model))
    torch.testing.assert_close(rows.logits, first / first.norm(dim=-1, keepdim=True))
    assert rows.inputs.tolist() == [0, 1]


def test_dimensions_are_the_first_ones(tmp_path, tokenizer):
    whole = load_unverified(sentence_folder(tmp_path / "whole", tokenizer))
    short = load_unverified(sentence_folder(tmp_path / "short", tokenizer, settings={"truncate_dim": 8}))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(answers(whole, BATCH, kind_of_model(whole)).logits[:, :8], dim=-1)
        torch.testing.assert_close(answers(short, BATCH, kind_of_model(short)).logits, expected)


def test_a_checkpoint_without_a_pooler_gets_no_random_one(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    assert load_unverified(folder).pooler is None


def test_a_saved_embedder_says_its_modules_in_files_of_their_own(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer, settings={"prompts": {"query": "w7 "}})
    model, out = load_unverified(folder), tmp_path / "out"
    artifact.save_files(model, tokenizer, out, about={}, files={})
    assert SENTENCES not in json.loads((out / "config.json").read_text())
    assert hasattr(model.config, SENTENCES)  # of the model that was saved
    assert {"modules.json", "1_Pooling/config.json", "2_Normalize/config.json"} <= read_manifest(out).files.keys()
    assert read_modules(out) == read_modules(folder)
    again, kind = artifact.load_verified(out), kind_of_model(model)
    with torch.no_grad():
        torch.testing.assert_close(answers(again, BATCH, kind).logits, answers(model, BATCH, kind).logits)


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json"])
def test_a_pooling_that_was_altered_is_refused(tmp_path, tokenizer, name):
    model = load_unverified(sentence_folder(tmp_path / "model", tokenizer))
    artifact.save_files(model, tokenizer, tmp_path / "out", about={}, files={})
    (tmp_path / "out" / name).write_text((tmp_path / "out" / name).read_text() + " ")
    with pytest.raises(InvalidArtifact, match=f"{name} was truncated or altered"):
        artifact.verify(tmp_path / "out")


def test_a_module_that_is_read_must_be_listed(tmp_path, tokenizer):
    model = load_unverified(sentence_folder(tmp_path / "model", tokenizer, normalize=False))
    artifact.save_files(model, tokenizer, tmp_path / "out", about={}, files={})
    (tmp_path / "out" / "2_Normalize").mkdir()
    write_json(tmp_path / "out" / "2_Normalize" / "config.json", {})
    with pytest.raises(InvalidArtifact, match=r"does not list 2_Normalize/config.json, which a load reads"):
        artifact.verify(tmp_path / "out")


def test_a_module_that_leads_out_is_refused(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    (folder / "1_Pooling" / "config.json").rename(tmp_path / "elsewhere.json")
    (folder / "1_Pooling" / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InvalidModel, match=r"must lie in its folder, but .*1_Pooling/config.json leads to"):
        load_unverified(folder)


def test_another_pooling_is_another_source(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    before = source_digest(folder)
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    assert source_digest(folder) != before


def test_a_model_without_pooling_is_pooled_by_the_mean_if_it_is_called_an_embedder(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    (folder / "modules.json").unlink()
    modules = kind_of_model(load_unverified(folder, kind="embedding")).modules
    assert (modules.pooling, modules.normalize) == (("mean",), False)
    with pytest.raises(InvalidModel, match="holds a BertModel; fine-tune it first"):
        load_unverified(folder)


def test_an_embedder_is_a_base_of_classifiers_whatever_comes_after_its_pooling(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    add_dense(folder)
    model = load_with_new_head(folder, kind_named("classification"), ("no", "yes"), tokenizer)
    assert type(model).__name__ == "BertForSequenceClassification" and not hasattr(model.config, SENTENCES)


def test_the_kind_of_a_folder_is_known_before_its_weights(tmp_path, tokenizer):
    folder = sentence_folder(tmp_path / "model", tokenizer)
    edit_json(folder / "config.json", architectures=["BertForMaskedLM"])  # as older versions saved some
    assert Checkpoint.of(folder).kind().name() == "embedding"
    with pytest.raises(InvalidModel, match="the kind must be that of the model, but got regression"):
        Checkpoint.of(folder).kind("regression")
