"""Folders of models and artifacts whose files have something wrong."""

import json
import os
import random
from pathlib import Path
from typing import Any

from campaigns.grammar.base import DEEP, VALUES, BadInput, Edit, filled
from campaigns.situation import DATA
from whet.utils.files import digest

__all__ = ["artifact_inputs", "model_inputs"]

MODEL_VERBS = (
    ("compress", "{model}", "--method", "svd", "--keep", ".5", "--out", "o"),
    ("compress", "{model}", "--method", "kfac", "--keep", ".5", *DATA, "--out", "o"),
    ("measure", "{model}", *DATA, "--dev-file", "dev.csv", "--rounds", "6"),
    ("finetune", "{model}", *DATA, "--epochs", ".1", "--max-length", "16", "--out", "o"),
    ("inspect", "{model}", "--batch-size", "2", "--length", "8"),
    (
        "distill",
        "{model}",
        "--student",
        "layer_subset:top:1",
        *DATA,
        "--epochs",
        ".1",
        "--max-length",
        "16",
        "--out",
        "o",
    ),
)


def model_inputs(chance: random.Random) -> BadInput:
    """Return a call on a model whose files have something wrong."""
    file = chance.choice(
        ("config.json", "config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    )
    edit, about = _json_edit(chance, file) if file.endswith(".json") else _binary_edit(chance)
    return _model_input("model", "model", chance, file, edit, about)


def artifact_inputs(chance: random.Random) -> BadInput:
    """Return a call on an artifact whose own files have something wrong; its manifest is made to fit the others."""
    file = chance.choice(("config.json", "config.json", "manifest.json", "recipe.yaml", "measurements.jsonl"))
    edit, about = _json_edit(chance, file) if file.endswith(".json") else _text_edit(chance)

    def consistent(path: Path) -> None:
        edit(path)
        manifest = path.with_name("manifest.json")
        if path != manifest:
            entry = json.loads(manifest.read_text())
            if path.name in entry["files"] and path.is_file():
                entry["files"][path.name] = digest(path)
            manifest.write_text(json.dumps(entry))

    return _model_input("artifact", "kf", chance, file, consistent, about)


def _model_input(kind: str, name: str, chance: random.Random, file: str, edit: Edit, about: str) -> BadInput:
    def change(root: Path) -> None:
        path = root / name / file
        if path.exists():
            edit(path)

    return BadInput(
        kind=kind, argv=filled(chance.choice(MODEL_VERBS), model=name), about=f"{name}/{file}: {about}", edit=change
    )


def _json_edit(chance: random.Random, file: str) -> tuple[Edit, str]:
    """An edit of one field at any depth, or of the whole text."""
    if chance.random() < 0.15:
        return _text_edit(chance)
    pick, value, drop = chance.random(), chance.choice(VALUES), chance.random() < 0.15
    about = f"a field {'goes' if drop else f'becomes {str(value)[:40]!r}'} ({pick:.4f})"

    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        fields = list(_fields(content))
        holder, key = fields[int(pick * len(fields))]
        if drop:
            del holder[key]
        else:
            holder[key] = value
        path.write_text(json.dumps(content))

    return edit, about


def _fields(content: Any) -> Any:
    """Every field of JSON values with what holds it; long mappings such as vocabularies count as a few."""
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        for key in keys[:40]:
            yield content, key
            yield from _fields(content[key])


def _text_edit(chance: random.Random) -> tuple[Edit, str]:
    text = chance.choice(
        (
            "",
            "null",
            "[]",
            "{}",
            "1",
            '"text"',
            "[" * DEEP,
            "{" * 50,
            '{"a": ' * DEEP,
            "\x00",
            "- {method: nothing}\n",
            "a: &a [*a]\n",
            "\ud83d",
            "{]",
            "- 1\n- 2\n",
        )
    )
    return lambda path: path.write_bytes(text.encode("utf-8", "surrogatepass")), f"becomes {text[:20]!r}"  # type: ignore[return-value]


def _binary_edit(chance: random.Random) -> tuple[Edit, str]:
    kind, place = (
        chance.choice(("cut", "header", "empty", "gone", "folder", "fifo", "bomb", "noise", "loop")),
        chance.random(),
    )

    def edit(path: Path) -> None:
        content = path.read_bytes()
        path.unlink()
        if kind == "cut":
            path.write_bytes(content[: int(place * len(content))])
        elif kind == "header":
            path.write_bytes(content[:8] + bytes([content[8] ^ 255]) + content[9:])
        elif kind == "bomb":
            path.write_bytes((2**62).to_bytes(8, "little") + content[8:])
        elif kind == "noise":
            path.write_bytes(random.Random(place).randbytes(4096))
        elif kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path.name)

    return edit, kind
