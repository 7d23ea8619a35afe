"""A row for each kind of task: a tiny model in a folder, and a few examples in files, as a user has them.

`tests/test_kinds_contract.py` runs one method of each family, and every verb, on every row. A new kind adds a function
of its name, which writes its model with `write_model`, and its data, and returns the arguments of `whet.load_task`; and
the function to ROWS. Keep models at two blocks of width 16, and data at TRAIN and DEV examples: all rows share a
minute.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from torch import nn
from transformers import PreTrainedModel

from helpers import PAD, VOCAB, made_awkward, word_tokenizer
from sentences import write_modules

TRAIN, DEV = 64, 16
"""Number of examples."""
SIZES = {
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
"""Of every model."""
Options = dict[str, Any]
"""Arguments of `whet.load_task`."""
Row = Callable[[Path], Options]
"""Writes a model to the folder `model` below the one given, and data beside it."""


def write_model(
    root: Path, model_class: str, labels: Iterable[str] = (), *, family: str = "Bert", **config: Any
) -> nn.Module:
    """Write a tiny model with a head, and the tokenizer of `helpers`, to `root/model`.

    Args:
        root: an empty folder.
        model_class: name of the class in transformers.
        labels: names of the outputs, for heads that have them.
        family: as transformers spells it in the names of its classes.
        config: more of the configuration.
    """
    names = dict(enumerate(labels))
    if names:
        config |= {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    settings = getattr(transformers, f"{family}Config")(**{**SIZES, **config})
    model: PreTrainedModel = getattr(transformers, model_class)(settings)
    made_awkward(model)
    model.save_pretrained(root / "model")
    word_tokenizer().save_pretrained(root / "model")
    return model


def sentences(count: int, *, seed: int) -> list[str]:
    """Return different sentences of two to nine words that the tokenizer knows."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(5, VOCAB, size=2 + i % 8)) for i in range(count)]


def write_lines(root: Path, row: Callable[[str, int], Mapping[str, Any]]) -> Options:
    """Write examples as JSONL, and return the arguments that name the files.

    Args:
        root: the folder.
        row: returns the row of a sentence and its number.
    """
    for seed, (name, count) in enumerate((("train", TRAIN), ("dev", DEV))):
        lines = [json.dumps(row(text, i)) for i, text in enumerate(sentences(count, seed=seed))]
        (root / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"train_file": root / "train.jsonl", "dev_file": root / "dev.jsonl"}


def classification(root: Path) -> Options:
    """Three classes."""
    names = ("no", "maybe", "yes")
    write_model(root, "BertForSequenceClassification", names)
    return write_lines(root, lambda text, i: {"text": text, "label": names[i % 3]})


def regression(root: Path) -> Options:
    """One score."""
    write_model(root, "BertForSequenceClassification", ["score"], problem_type="regression")
    data = write_lines(root, lambda text, i: {"text": text, "label": len(text) / 10})
    return {**data, "metric": "pearson"}


def multi_label(root: Path) -> Options:
    """Any number of three labels."""
    names = ("joy", "love", "anger")
    write_model(root, "BertForSequenceClassification", names, problem_type="multi_label_classification")
    data = write_lines(
        root, lambda text, i: {"text": text, "label": [name for n, name in enumerate(names) if i >> n & 1]}
    )
    return {**data, "kind": "multi_label"}


def token_classification(root: Path) -> Options:
    """Words of which some are entities of two types."""
    names = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    write_model(root, "BertForTokenClassification", names)

    def row(text: str, i: int) -> Mapping[str, Any]:
        words = text.split()
        return {"words": words, "tags": [names[1 + 2 * (i % 2)], *["O"] * (len(words) - 1)]}

    return {**write_lines(root, row), "kind": "token_classification"}


def question_answering(root: Path) -> Options:
    """Questions that a word of their context answers, each with a context of its own."""
    write_model(root, "BertForQuestionAnswering")

    def row(text: str, i: int) -> Mapping[str, Any]:
        word = text.split()[-1]
        return {
            "id": str(i),
            "question": "w5 w6",
            "context": text,
            "answers": {"text": [word], "answer_start": [text.rindex(word)]},
        }

    return {**write_lines(root, row), "kind": "question_answering"}


def language_modeling(root: Path) -> Options:
    """A decoder whose embeddings and head are one matrix."""
    config = {"intermediate_size": 64, "bos_token_id": 2, "eos_token_id": 3, "tie_word_embeddings": True}
    write_model(root, "LlamaForCausalLM", family="Llama", **config)
    return {**write_lines(root, lambda text, i: {"text": text}), "kind": "language_modeling"}


def masked_language_modeling(root: Path) -> Options:
    """An encoder that guesses masked words."""
    write_model(root, "BertForMaskedLM")
    return {**write_lines(root, lambda text, i: {"text": text}), "kind": "masked_language_modeling"}


def reranking(root: Path) -> Options:
    """Queries with four candidates each, of which one is relevant."""
    activation = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    write_model(root, "BertForSequenceClassification", ["score"], sentence_transformers=activation)
    for seed, (name, count) in enumerate((("train", TRAIN), ("dev", DEV))):
        texts = sentences(4 * count, seed=seed)
        rows = [{"query": f"w5 {texts[i - i % 4]}", "text": text, "label": i % 4 // 3} for i, text in enumerate(texts)]
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"train_file": root / "train.jsonl", "dev_file": root / "dev.jsonl", "kind": "reranking"}


def embedding(root: Path) -> Options:
    """Pairs of sentences with scores; the model is a folder of sentence-transformers."""
    write_model(root, "BertModel")
    write_modules(root / "model", width=SIZES["hidden_size"], length=SIZES["max_position_embeddings"])

    def row(text: str, i: int) -> Mapping[str, Any]:
        return {"text": text, "other": " ".join(text.split()[::-1][: 1 + i % 5]), "label": i % 5}

    return {**write_lines(root, row), "text_pair": "other", "kind": "embedding"}


ROWS: dict[str, Row] = {
    row.__name__: row
    for row in (
        classification,
        regression,
        multi_label,
        token_classification,
        question_answering,
        language_modeling,
        masked_language_modeling,
        reranking,
        embedding,
    )
}
"""By the name of the kind."""
