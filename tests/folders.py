"""Models, data files and recipes on disk, as a user has them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerBase

from helpers import VOCAB, Family, tiny_model

LABELS = ("no", "yes")


def write_rows(path: Path, count: int, *, seed: int = 0, length: int = 8, labels: Sequence[str] = LABELS) -> Path:
    """Write a CSV or TSV file of random sentences; the first word decides the label, and every label occurs."""
    random = np.random.default_rng(seed)
    mark = "," if path.suffix == ".csv" else "\t"
    lines = [f"text{mark}label"]
    for i in range(count):
        words = random.integers(5, VOCAB, size=random.integers(2, length + 1))
        words[0] = 5 + (words[0] - 5) // len(labels) * len(labels) + i % len(labels)
        lines.append(" ".join(f"w{min(word, VOCAB - 1)}" for word in words) + mark + labels[i % len(labels)])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def classifier(family: Family = "bert", labels: Sequence[str] = LABELS, *, blocks: int | None = None) -> nn.Module:
    """Return a tiny classifier of these labels; see `helpers.tiny_model` for its blocks."""
    model = tiny_model(family, len(labels), blocks=blocks)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {name: i for i, name in enumerate(labels)}
    return model


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Save a model as transformers does, with its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: object) -> None:
    """Change the fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, and every folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def write_tagged(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write a file of columns with random sentences: two words below w20 are a person, one below w40 is a place."""
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(count):
        words: list[tuple[int, str]] = []
        for word in random.integers(5, VOCAB - 1, size=random.integers(2, 7)):
            tags = ("B-PER", "I-PER") if word < 20 else ("B-LOC",) if word < 40 else ("O",)
            words += [(int(word) + i, tag) for i, tag in enumerate(tags)]
        sentences.append("\n".join(f"w{word}\t{tag}" for word, tag in words))
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


def tagger(tags: Sequence[str] = TAGS, seed: int = 0) -> nn.Module:
    """Return a tiny tagger, with the body of `tiny_model`."""
    body = tiny_model("bert", seed=seed)
    names = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForTokenClassification(BertConfig(**{**body.config.to_dict(), **names, "architectures": None}))
    model.bert.load_state_dict(body.bert.state_dict(), strict=False)
    return model.eval()
