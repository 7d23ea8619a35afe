"""Tiny folders as sentence-transformers writes them, without sentence-transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BertModel, PreTrainedTokenizerBase

from helpers import tiny_model

OLD = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "lasttoken": "lasttoken"}
"""How versions before 6 spell poolings, after `pooling_mode_`."""


def tiny_encoder(seed: int = 0) -> BertModel:
    """Return a random BERT without a head, whose biases are not zero."""
    return tiny_model("bert", seed=seed).bert


def sentence_folder(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    spelling: str = "old",
    settings: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a folder of sentence-transformers with a tiny BERT.

    Args:
        folder: where.
        tokenizer: its tokenizer.
        pooling: one or several, which are joined.
        normalize: whether Normalize comes last.
        spelling: old, as versions before 6 wrote it, or new.
        settings: more entries of config_sentence_transformers.json.
        seed: of the weights.
    """
    tiny_encoder(seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return write_modules(folder, pooling=pooling, normalize=normalize, spelling=spelling, settings=settings)


def write_modules(
    folder: Path,
    *,
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    spelling: str = "old",
    settings: dict[str, Any] | None = None,
    width: int = 32,
    length: int = 24,
) -> Path:
    """Write what sentence-transformers writes around a model; see `sentence_folder`."""
    modes = [pooling] if isinstance(pooling, str) else list(pooling)
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    if spelling == "old":
        types = [f"sentence_transformers.models.{name}" for name in names]
        pooled = {
            "word_embedding_dimension": width,
            **{f"pooling_mode_{old}": mode in modes for mode, old in OLD.items()},
        }
    else:
        where = ("base.modules.transformer", "sentence_transformer.modules.pooling", "base.modules.normalize")
        types = [f"sentence_transformers.{module}.{name}" for module, name in zip(where, names, strict=False)]
        pooled = {"embedding_dimension": width, "pooling_mode": modes[0] if len(modes) == 1 else modes}
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": kind}
        for i, (name, kind) in enumerate(zip(names, types, strict=True))
    ]
    (folder / "1_Pooling").mkdir()
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooled)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, **(settings or {})})
    return folder


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_pairs(path: Path, count: int) -> Path:
    """Write a CSV file of pairs of sentences, each with a score: the share of words that they have in common."""
    lines = ["first,second,score"]
    for i in range(count):
        words = [f"w{5 + (7 * i + j) % 80}" for j in range(6)]
        other = words[: i % 7] + [f"w{85 + j}" for j in range(6 - i % 7)]
        lines.append(f"{' '.join(words)},{' '.join(other)},{i % 7}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
