"""Passages and windows: every token counts once, with what stands before it, and nothing else is seen."""

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from helpers import word_tokenizer
from whet.errors import InvalidData, InvalidParameter
from whet.tasks.corpus import PASSAGE_WORDS, Passages, documents, running_text
from whet.tasks.data import ANSWERED, TARGETS

TOKENIZER = word_tokenizer()
CLS, SEP, MASK = (TOKENIZER.convert_tokens_to_ids(f"[{name}]") for name in ("CLS", "SEP", "MASK"))


def words(count: int, seed: int = 0, line: int = 17) -> str:
    """A text of words that the tokenizer knows, in lines."""
    numbers = np.random.default_rng(seed).integers(5, 99, size=count)
    return "".join(f"w{number}{chr(10) if i % line == line - 1 else ' '}" for i, number in enumerate(numbers))


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def text_of(count: int = 1000, *, split="dev", stride=None, reading="causal") -> Passages:
    return running_text(words(count), reading=reading, split=split, stride=stride, source="a test")


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(("max_length", "stride"), [(12, None), (12, 1), (12, 11), (40, 7), (2000, None), (2000, 3)])
def test_every_token_counts_once_and_in_order(split, max_length, stride):
    text = text_of(700, split=split, stride=stride)
    encoded = text.encode(TOKENIZER, max_length=max_length)
    assert encoded.owners == sorted(encoded.owners)
    predicted = [
        target for row in encoded.rows for target, count in zip(row[TARGETS], row[ANSWERED], strict=True) if count
    ]
    assert predicted == ids_of(words(700))
    assert all(len(row["input_ids"]) <= max_length for row in encoded.rows)
    for row in encoded.rows:
        assert row["input_ids"][0] == CLS and SEP not in row["input_ids"]
        assert row[TARGETS][:-1] == row["input_ids"][1:]
        # transformers moves labels by one token itself
        assert [label != -100 for label in row["labels"]][1:] == [bool(count) for count in row[ANSWERED]][:-1]


@pytest.mark.parametrize("stride", [None, 1, 9])
def test_windows_read_as_much_before_their_tokens_as_fits(stride):
    text, size = text_of(700, stride=stride), 20 - 1
    stream = ids_of(words(700))
    seen = 0
    for row in text.encode(TOKENIZER, max_length=20).rows:
        counted = sum(row[ANSWERED])
        assert counted <= (stride or size // 2)
        seen += counted
        assert row["input_ids"][1:] == stream[max(0, seen - size) : seen]


def test_a_passage_for_training_is_read_without_what_stands_before_it():
    text = text_of(700, split="train")
    encoded = text.take([1]).encode(TOKENIZER, max_length=20)
    read = [token for row in encoded.rows for token in row["input_ids"][1:]]
    assert read == ids_of(text.texts[1].text)  # and nothing twice


def test_a_subset_of_passages_keeps_its_windows():
    text = text_of(1500)
    whole, part = text.encode(TOKENIZER, max_length=24), text.take([2, 0]).encode(TOKENIZER, max_length=24)
    own = [[row for row, owner in zip(whole.rows, whole.owners, strict=True) if owner == i] for i in (2, 0)]
    assert part.rows == own[0] + own[1] and set(part.owners) == {0, 1}
    assert text.take([0, 1]).joined(text.take([2])).digest() == text.take([0, 1, 2]).digest() != text.digest()
    moved = running_text(" " + words(1500), reading="causal", split="dev", source="")
    assert moved.digest() != text.digest()


@pytest.mark.parametrize("line", [17, 10**6])
def test_passages_are_the_text_cut_at_the_ends_of_lines(line):
    text = words(2000, line=line)
    passages = running_text(text, reading="causal", split="dev", source="").texts
    assert "".join(passage.text for passage in passages) == text
    lengths = [len(passage.text.split()) for passage in passages]
    assert min(lengths) >= PASSAGE_WORDS // 2 and max(lengths) <= 2 * PASSAGE_WORDS + PASSAGE_WORDS // 2
    if line == 17:
        assert all(passage.text.endswith("\n") for passage in passages[:-1])
        assert max(lengths[:-1]) < PASSAGE_WORDS + 17


def test_documents_are_passages_of_their_own():
    text = documents(["w5 w6 w7", "  \n", "w8 w9"], reading="causal", split="dev")
    assert text.plain() == [("w5 w6 w7",), ("w8 w9",)] and text.labels == [8, 5]
    rows = text.encode(TOKENIZER, max_length=40).rows
    assert [row["input_ids"] for row in rows] == [[CLS, *ids_of("w5 w6 w7")], [CLS, *ids_of("w8 w9")]]
    assert text.cut_share(TOKENIZER, max_length=3) == 0


@pytest.mark.parametrize("max_length", [10, 40])
def test_each_token_is_masked_once_and_seen_otherwise(max_length):
    text = text_of(700, reading="masked")
    encoded = text.encode(TOKENIZER, max_length=max_length)
    again = text.take([1]).encode(TOKENIZER, max_length=max_length)
    assert again.rows == [row for row, owner in zip(encoded.rows, encoded.owners, strict=True) if owner == 1]
    masked = []
    for row in encoded.rows:
        ids, targets, answered = (np.array(row[key]) for key in ("input_ids", TARGETS, ANSWERED))
        assert ids[0] == CLS and ids[-1] == SEP and len(ids) <= max_length
        assert np.array_equal(ids == MASK, answered == 1)
        assert np.array_equal(ids[1:-1][answered[1:-1] == 0], targets[1:-1][answered[1:-1] == 0])
        assert answered.mean() < 0.25
        assert [label for label in row["labels"] if label != -100] == targets[answered == 1].tolist()
        masked += targets[answered == 1].tolist()
    assert sorted(masked) == sorted(ids_of(words(700)))


def test_what_cannot_be_read_is_refused_before_work_starts():
    with pytest.raises(InvalidData, match=r"must hold two passages of 300 words, but got 40 words in my.txt"):
        running_text(words(40), reading="causal", split="dev", source="my.txt")
    with pytest.raises(InvalidData, match=r"but got 0 words in my.txt; give more text"):
        running_text("", reading="causal", split="train", source="my.txt")
    with pytest.raises(InvalidParameter, match=r"1 <= stride <= 19 must hold.* but got stride=20"):
        text_of(stride=20).encode(TOKENIZER, max_length=20)
    with pytest.raises(InvalidParameter, match=r"must go with a model that reads from left to right, .* stride=5"):
        text_of(stride=5, reading="masked").encode(TOKENIZER, max_length=20)
    nothing = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    with pytest.raises(InvalidData, match=r"the text must have tokens to predict, but .* makes none of it; give more"):
        documents(["w5 w6"], reading="causal", split="dev").encode(nothing, max_length=20)
    with pytest.raises(InvalidParameter, match="a window must hold 2 tokens of text, but got max_length=2"):
        text_of().encode(TOKENIZER, max_length=2)
