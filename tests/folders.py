"""Models, data files and recipes on disk, as a user has them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

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
