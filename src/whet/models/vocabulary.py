"""Smaller vocabularies: remove tokens from a tokenizer so that text made of the kept tokens is split as before.

Removing a token does not change words whose split does not contain it. WordPiece repeatedly takes the longest matching
token, and a unigram model takes the most likely split. BPE merges by rank, so that every merge on the way to a kept
token must be kept too. A word whose token is removed is split into smaller tokens, down to single characters or bytes,
which are all kept.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet.errors import InvalidModel
from whet.models.load import load_tokenizer
from whet.tasks.data import Examples
from whet.tasks.encoding import token_ids
from whet.utils.scratch import temporary_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["corpus_token_counts", "required_tokens", "shrink_tokenizer"]

AT_ONCE = 1000
"""Texts per call of the tokenizer."""
CHECKED = 200
"""Texts on which the smaller tokenizer is compared with the original."""
FILE = "tokenizer.json"

Definition = dict[str, Any]
"""The parsed content of tokenizer.json."""


def corpus_token_counts(examples: Examples, tokenizer: "PreTrainedTokenizerBase") -> Tensor:
    """Return how often each token id occurs in the examples' full texts, (tokens,) int64."""
    counts = torch.zeros(_size(tokenizer), dtype=torch.int64)
    texts = [text for texts in examples.plain() for text in texts]
    for start in range(0, len(texts), AT_ONCE):
        rows = token_ids(texts[start : start + AT_ONCE], tokenizer)
        counts += torch.bincount(torch.tensor([token for row in rows for token in row]), minlength=len(counts))
    return counts


def required_tokens(tokenizer: "PreTrainedTokenizerBase", used: Iterable[int]) -> list[int]:
    """Return the ids of all tokens that must be kept for `used` to be kept, ascending.

    These are the used tokens, special tokens, single characters, and the tokens from which BPE merges all of them.

    Args:
        tokenizer: the original tokenizer.
        used: ids of the tokens to keep.

    Raises:
        InvalidModel: tokens of this kind of tokenizer cannot be removed.
    """
    definition = _definition(tokenizer)
    ids = _ids(definition)
    tokens = {token_id: token for token, token_id in ids.items()}
    special = {entry["content"] for entry in definition["added_tokens"]} | set(tokenizer.all_special_tokens)
    wanted = {tokens[token_id] for token_id in used if token_id in tokens} | special
    needed = wanted | _PARTS[definition["model"]["type"]](definition["model"], wanted)
    return sorted(ids[token] for token in needed if token in ids)


def shrink_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", kept: Sequence[int], texts: Sequence[str]
) -> "PreTrainedTokenizerBase":
    """Return a tokenizer with only these tokens, renumbered in this order.

    Args:
        tokenizer: the original tokenizer, which stays unchanged.
        kept: ids to keep, ascending, with all that `required_tokens` returns.
        texts: texts on which both tokenizers are compared.

    Raises:
        InvalidModel: tokens of this kind of tokenizer cannot be removed, or the result splits a text differently.
    """
    definition = _definition(tokenizer)
    new_ids = {old: new for new, old in enumerate(kept)}
    with temporary_folder() as folder:
        tokenizer.save_pretrained(folder)
        (folder / FILE).write_text(json.dumps(_renumbered(definition, new_ids)), encoding="utf-8")
        smaller = load_tokenizer(folder)
    smaller.name_or_path = tokenizer.name_or_path
    expected = {token: new_ids[old] for token, old in _ids(definition).items() if old in new_ids}
    checked = texts[:CHECKED]
    for text, before, after in zip(checked, token_ids(checked, tokenizer), token_ids(checked, smaller), strict=True):
        if new_ids.keys() >= set(before) and after != [new_ids[old] for old in before]:
            raise _unsupported(tokenizer, f"splits {text[:40]!r} differently without them")
    if smaller.get_vocab() != expected:
        raise _unsupported(tokenizer, "has other tokens after saving and loading")
    return smaller


def _definition(tokenizer: "PreTrainedTokenizerBase") -> Definition:
    if not tokenizer.is_fast:
        raise _unsupported(tokenizer, "is not a fast tokenizer")
    definition: Definition = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = definition["model"].get("type")
    if kind not in _PARTS:
        raise _unsupported(tokenizer, f"has a model of type {kind}")
    return definition


def _unsupported(tokenizer: "PreTrainedTokenizerBase", reason: str) -> InvalidModel:
    return InvalidModel(
        f"the tokenizer must support the removal of tokens, but {type(tokenizer).__name__} {reason}; leave out "
        "pruning.vocabulary"
    )


def _size(tokenizer: "PreTrainedTokenizerBase") -> int:
    return max(map(int, tokenizer.get_vocab().values())) + 1


def _ids(definition: Definition) -> dict[str, int]:
    """Return the id of every token, added tokens included."""
    vocab = definition["model"]["vocab"]
    ids = {token: i for i, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return ids | {entry["content"]: entry["id"] for entry in definition["added_tokens"]}


def _characters(model: Definition, _wanted: set[str]) -> set[str]:
    """Return the single characters of a WordPiece or unigram model, inside words too, and its byte tokens."""
    prefix = model.get("continuing_subword_prefix") or ""
    pieces = [piece for piece, _ in model["vocab"]] if isinstance(model["vocab"], list) else list(model["vocab"])
    in_bytes = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    return {piece for piece in pieces if len(piece.removeprefix(prefix)) == 1 or piece in in_bytes}


def _merged(model: Definition, wanted: set[str]) -> set[str]:
    """Return the tokens of a BPE model that no merge makes, and all parts from which merges make the wanted tokens."""
    merges: dict[str, list[tuple[str, str]]] = {}
    for pair in map(_pair, model["merges"]):
        merges.setdefault(_result(model, pair), []).append(pair)
    needed = {token for token in model["vocab"] if token not in merges}
    pending = list(wanted)
    while pending:
        for pair in merges.get(pending.pop(), ()):
            pending += [part for part in pair if part not in needed]
            needed.update(pair)
    return needed


_PARTS: Mapping[str, Callable[[Definition, set[str]], set[str]]] = {
    "WordPiece": _characters,
    "WordLevel": lambda _model, _wanted: set(),
    "BPE": _merged,
    "Unigram": _characters,
}
"""For each type of model, the tokens that must be kept besides the wanted ones."""


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _result(model: Definition, pair: tuple[str, str]) -> str:
    return pair[0] + pair[1][len(model.get("continuing_subword_prefix") or "") :]


def _renumbered(definition: Definition, new_ids: Mapping[int, int]) -> Definition:
    """Return the definition with only the kept tokens, under their new ids."""
    model = dict(definition["model"])
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_ids]
        model["unk_id"] = new_ids.get(model["unk_id"])
    else:
        model["vocab"] = {token: new_ids[old] for token, old in model["vocab"].items() if old in new_ids}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if _result(model, _pair(merge)) in model["vocab"]]
    padding = definition["padding"]
    return {
        **definition,
        "model": model,
        "added_tokens": [{**entry, "id": new_ids[entry["id"]]} for entry in definition["added_tokens"]],
        "post_processor": _processor(definition["post_processor"], new_ids),
        "padding": padding and {**padding, "pad_id": new_ids[padding["pad_id"]]},
    }


def _processor(processor: Definition | None, new_ids: Mapping[int, int]) -> Definition | None:
    """Return the post-processor, which adds special tokens to a text, with their new ids."""
    if processor is None:
        return None
    changed: Definition = {}
    if "processors" in processor:
        changed["processors"] = [_processor(inner, new_ids) for inner in processor["processors"]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**entry, "ids": [new_ids[old] for old in entry["ids"]]}
            for name, entry in processor["special_tokens"].items()
        }
    for side in ("cls", "sep"):  # BERT's and RoBERTa's processors hold a token and its id
        if side in processor:
            changed[side] = [processor[side][0], new_ids[processor[side][1]]]
    return {**processor, **changed}
