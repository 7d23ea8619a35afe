"""Words are answered at their first token, whatever the tokenizer does with spaces; lost words are not forgotten."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from whet.errors import InvalidModel
from whet.tasks.data import ANSWERED
from whet.tasks.encoding import encode, pad
from whet.tasks.words import TaggedWords

SENTENCES = TaggedWords([("Ann", "Lee", "left", "\u200b", "Rome"), ("it", "rains")], [(1, 2, 0, 0, 3), (0, 0)])


def wordpieces() -> PreTrainedTokenizerFast:
    """Pieces of two letters, as BERT marks them; the zero-width space is removed."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    pieces = [f"{start}{a}{b}" for start in ("", "##") for a in letters for b in ("", *letters)]
    ids = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])}
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    inner.normalizer = normalizers.Sequence([normalizers.BertNormalizer(lowercase=False)])
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64)


def bytes_with_spaces() -> PreTrainedTokenizerFast:
    """Bytes, in which a space belongs to the word after it, as GPT-2 has them; pads on the left."""
    inner = Tokenizer(models.BPE({sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="!", padding_side="left", model_max_length=64)


def test_labels_stand_on_first_pieces():
    tokenizer = wordpieces()
    encoded = SENTENCES.encode(tokenizer, max_length=64)
    row = encoded.rows[0]
    tokens = " ".join(tokenizer.convert_ids_to_tokens(row["input_ids"]))
    assert tokens == "[CLS] An ##n Le ##e le ##ft Ro ##me [SEP]"
    assert row["labels"] == [-100, 1, -100, 2, -100, 0, -100, 3, -100, -100]
    assert row[ANSWERED] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert encoded.owners == [0, 1] and encoded.notes == [[0, 1, 2, 4], [0, 1]]
    assert "offset_mapping" not in row


@pytest.mark.parametrize("max_length", [64, 6])
def test_tokens_are_those_of_split_words(max_length):
    tokenizer = wordpieces()
    encoded = SENTENCES.encode(tokenizer, max_length=max_length)
    split = tokenizer(
        list(map(list, SENTENCES.texts)), is_split_into_words=True, truncation=True, max_length=max_length
    )
    for i, row in enumerate(encoded.rows):
        words = split.word_ids(i)
        first = [k for k, word in enumerate(words) if word is not None and words[k - 1] != word]
        assert row["input_ids"] == split["input_ids"][i]
        assert list(np.flatnonzero(row[ANSWERED])) == first and [words[k] for k in first] == encoded.notes[i]


def test_a_space_before_a_word_is_part_of_its_first_token():
    tokenizer = bytes_with_spaces()
    encoded = TaggedWords([("ab", "c")], [(4, 5)]).encode(tokenizer, max_length=64)
    assert tokenizer.convert_ids_to_tokens(encoded.rows[0]["input_ids"]) == ["a", "b", "Ġ", "c"]
    # the space alone answers for no word
    assert encoded.rows[0]["labels"] == [4, -100, -100, 5] and encoded.notes == [[0, 1]]


@pytest.mark.parametrize("tokenizer", [wordpieces(), bytes_with_spaces()], ids=["right", "left"])
def test_padding_answers_nothing(tokenizer):
    rows = SENTENCES.encode(tokenizer, max_length=64).rows
    batch = pad(rows, tokenizer)
    for key, filler in (("labels", -100), (ANSWERED, 0)):
        values = batch[key]
        assert (values[batch["attention_mask"] == 0] == filler).all() and values.shape == batch["input_ids"].shape
    batches = encode(SENTENCES, tokenizer, max_length=64, batch_size=2)
    assert "labels" not in batches.batches[0] and int(batches.batches[0][ANSWERED].sum()) == sum(
        map(len, batches.notes)
    )


def test_sentences_without_tags_have_no_labels():
    sentences = TaggedWords(SENTENCES.texts, [None, None])
    rows = sentences.encode(wordpieces(), max_length=64).rows
    assert {label for row in rows for label in row["labels"]} == {-100}
    assert [row[ANSWERED] for row in rows] == [
        row[ANSWERED] for row in SENTENCES.encode(wordpieces(), max_length=64).rows
    ]


def test_examples_are_taken_and_joined_whole():
    assert SENTENCES.take([1]).texts == [("it", "rains")]
    joined = SENTENCES.joined(SENTENCES.take([1]))
    assert isinstance(joined, TaggedWords) and joined.labels == [(1, 2, 0, 0, 3), (0, 0), (0, 0)]
    assert joined.plain()[1] == ("it rains",) and len(joined.digest()) == 64
    assert joined.cut_share(wordpieces(), max_length=6) == pytest.approx(1 / 3)
    assert TaggedWords([], []).encode(wordpieces(), max_length=6) == ([], [], [])


def test_words_without_an_answer_are_counted():
    tokenizer = wordpieces()
    note = SENTENCES.cut_note(tokenizer, max_length=64)
    assert note == "1 of 7 words have no answer and count as O: 1 of which the tokenizer leaves nothing"
    note = SENTENCES.cut_note(tokenizer, max_length=7)  # as far as the first letters of "left"
    assert note.startswith("2 of 7 words have no answer and count as O: 2 beyond 7 tokens (--max-length sets another")
    assert SENTENCES.take([1]).cut_note(tokenizer, max_length=64) == ""


def test_a_tokenizer_without_offsets_is_refused(monkeypatch):
    tokenizer = wordpieces()
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda _: False))
    with pytest.raises(InvalidModel, match=r"must know where its tokens stand in the text, .* but got"):
        SENTENCES.encode(tokenizer, max_length=64)
