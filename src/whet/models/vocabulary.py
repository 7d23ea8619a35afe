"""A tokenizer with fewer tokens, which reads text made of the tokens that are left as before.

What a word is split into follows from the tokens alone, and losing one that a word is not split into changes nothing
for it: WordPiece takes the longest token that fits, again and again; a unigram model takes the most likely split; BPE
merges by rank, where every merge on the way to a token must stay with it. A word whose token is gone is split into
smaller ones, down to single characters or bytes, which all stay.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet.errors import InvalidModel
from whet.models.load import load_tokenizer
from whet.tasks.data import Examples
from whet.tasks.encoding import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["corpus_token_counts", "required_tokens", "shrink_tokenizer"]

AT_ONCE = 1000
"""Sentences that are encoded at once."""
CHECKED = 200
"""Sentences on which both tokenizers are compared."""
FILE = "tokenizer.json"

Definition = dict[str, Any]
"""What tokenizer.json holds."""


def corpus_token_counts(examples: Examples, tokenizer: "PreTrainedTokenizerBase") -> Tensor:
    """Return (tokens,) how often the text has each token, int64; nothing is cut."""
    counts = torch.zeros(_size(tokenizer), dtype=torch.int64)
    texts = [*examples.texts, *(examples.pairs or ())]
    for start in range(0, len(texts), AT_ONCE):
        rows = token_ids(texts[start : start + AT_ONCE], tokenizer)
        counts += torch.bincount(torch.tensor([token for row in rows for token in row]), minlength=len(counts))
    return counts


def required_tokens(tokenizer: "PreTrainedTokenizerBase", used: Iterable[int]) -> list[int]:
    """Return the ids of these tokens, special ones, single characters, and what these are made from; ascending.

    Raises:
        InvalidModel: the tokenizer is of a kind that cannot be rewritten.
    """
    definition = _definition(tokenizer)
    ids = _ids(definition)
    names = {number: name for name, number in ids.items()}
    always = {entry["content"] for entry in definition["added_tokens"]} | set(tokenizer.all_special_tokens)
    wanted = {names[number] for number in used if number in names} | always
    needed = wanted | _PARTS[definition["model"]["type"]](definition["model"], wanted)
    return sorted(ids[name] for name in needed if name in ids)


def shrink_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", kept: Sequence[int], texts: Sequence[str]
) -> "PreTrainedTokenizerBase":
    """Return a tokenizer that has only these tokens, numbered in this order.

    Args:
        tokenizer: stays as it is.
        kept: ids, ascending; all that `required_tokens` asks for.
        texts: some on which the two must agree.

    Raises:
        InvalidModel: it cannot be rewritten, or reads text of tokens that are left in another way.
    """
    definition = _definition(tokenizer)
    new = {old: place for place, old in enumerate(kept)}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / FILE).write_text(json.dumps(_renumbered(definition, new)), encoding="utf-8")
        fewer = load_tokenizer(folder)
    fewer.name_or_path = tokenizer.name_or_path
    expected = {name: new[old] for name, old in _ids(definition).items() if old in new}
    some = texts[:CHECKED]
    for text, before, after in zip(some, token_ids(some, tokenizer), token_ids(some, fewer), strict=True):
        if new.keys() >= set(before) and after != [new[old] for old in before]:
            raise _unknown(tokenizer, f"reads {text[:40]!r} otherwise")
    if fewer.get_vocab() != expected:
        raise _unknown(tokenizer, "has other tokens once it is read again")
    return fewer


def _definition(tokenizer: "PreTrainedTokenizerBase") -> Definition:
    if not tokenizer.is_fast:
        raise _unknown(tokenizer, "is not of the tokenizers library")
    found: Definition = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = found["model"].get("type")
    if kind not in _PARTS:
        raise _unknown(tokenizer, f"has the model {kind}")
    return found


def _unknown(tokenizer: "PreTrainedTokenizerBase", what: str) -> InvalidModel:
    return InvalidModel(
        f"the tokenizer must be one that can lose tokens, but {type(tokenizer).__name__} {what}; leave the vocabulary "
        "as it is"
    )


def _size(tokenizer: "PreTrainedTokenizerBase") -> int:
    return max(map(int, tokenizer.get_vocab().values())) + 1


def _ids(definition: Definition) -> dict[str, int]:
    """All tokens with their ids."""
    vocab = definition["model"]["vocab"]
    own = {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return own | {entry["content"]: entry["id"] for entry in definition["added_tokens"]}


def _characters(model: Definition, _wanted: set[str]) -> set[str]:
    """Of WordPiece and unigram models: single characters, where a word goes on too, and bytes."""
    prefix = model.get("continuing_subword_prefix") or ""
    pieces = [piece for piece, _ in model["vocab"]] if isinstance(model["vocab"], list) else list(model["vocab"])
    in_bytes = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    return {piece for piece in pieces if len(piece.removeprefix(prefix)) == 1 or piece in in_bytes}


def _merged(model: Definition, wanted: set[str]) -> set[str]:
    """Of BPE: what no merge makes, and whatever is merged on the way to a token that is wanted."""
    made: dict[str, list[tuple[str, str]]] = {}
    for pair in map(_pair, model["merges"]):
        made.setdefault(_result(model, pair), []).append(pair)
    needed = {piece for piece in model["vocab"] if piece not in made}
    waiting = list(wanted)
    while waiting:
        for pair in made.get(waiting.pop(), ()):
            waiting += [part for part in pair if part not in needed]
            needed.update(pair)
    return needed


_PARTS: Mapping[str, Callable[[Definition, set[str]], set[str]]] = {
    "WordPiece": _characters,
    "WordLevel": lambda _model, _wanted: set(),
    "BPE": _merged,
    "Unigram": _characters,
}
"""What each kind of tokenizer needs besides the tokens that are wanted."""


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _result(model: Definition, pair: tuple[str, str]) -> str:
    return pair[0] + pair[1][len(model.get("continuing_subword_prefix") or "") :]


def _renumbered(definition: Definition, new: Mapping[int, int]) -> Definition:
    """The definition with the tokens that are left, under their new ids."""
    model = dict(definition["model"])
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        model["unk_id"] = new.get(model["unk_id"])
    else:
        model["vocab"] = {piece: new[old] for piece, old in model["vocab"].items() if old in new}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if _result(model, _pair(merge)) in model["vocab"]]
    padding = definition["padding"]
    return {
        **definition,
        "model": model,
        "added_tokens": [{**entry, "id": new[entry["id"]]} for entry in definition["added_tokens"]],
        "post_processor": _processor(definition["post_processor"], new),
        "padding": padding and {**padding, "pad_id": new[padding["pad_id"]]},
    }


def _processor(processor: Definition | None, new: Mapping[int, int]) -> Definition | None:
    """What puts special tokens around text, by their new ids."""
    if processor is None:
        return None
    changed: Definition = {}
    if "processors" in processor:
        changed["processors"] = [_processor(one, new) for one in processor["processors"]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**entry, "ids": [new[old] for old in entry["ids"]]}
            for name, entry in processor["special_tokens"].items()
        }
    for side in ("cls", "sep"):  # BERT's and RoBERTa's own: a name and an id
        if side in processor:
            changed[side] = [processor[side][0], new[processor[side][1]]]
    return {**processor, **changed}
