"""Folders of sentence-transformers are read in both spellings and written so that nothing is lost, or refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from folders import edit_json
from sentences import sentence_folder, write_json
from whet.errors import InvalidModel
from whet.models.sentence import read_modules, sentence_files
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
