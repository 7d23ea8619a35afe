"""Tokenizers with fewer tokens: what is left is read as before, and everything else in smaller pieces."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from helpers import word_tokenizer
from whet.errors import InvalidModel
from whet.models.load import load_tokenizer
from whet.models.vocabulary import corpus_token_counts, required_tokens, shrink_tokenizer
from whet.tasks.data import Examples

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def corpus(count=200, seed=0):
    """Sentences of words that share syllables."""
    random = np.random.default_rng(seed)
    syllables = ["ba", "na", "lo", "tri", "ke", "s", "ing"]
    words = ["".join(random.choice(syllables, random.integers(1, 5))) for _ in range(90)]
    return [" ".join(random.choice(words, random.integers(3, 9))) for _ in range(count)]


def wordpiece():
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    return BertTokenizer(vocab=inner.get_vocab())


def in_bytes():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=SPECIAL, initial_alphabet=alphabet)
    inner.train_from_iterator(corpus(), trainer)
    inner.add_special_tokens(["<end>"])
    inner.post_processor = processors.RobertaProcessing(("<end>", inner.token_to_id("<end>")), ("<s>", 1))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def whole_words_first():
    """BPE as Llama 3 has it: a word that is a token is not merged."""
    tokenizer = in_bytes()
    tokenizer.backend_tokenizer.model.ignore_merges = True
    return tokenizer


def with_prefix():
    inner = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece(prefix="##")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, continuing_subword_prefix="##")
    inner.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>")


def unigram():
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.train_from_iterator(
        corpus(), trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>")
    )
    inner.add_special_tokens(["<end>"])
    ends = [("<s>", 1), ("<end>", inner.token_to_id("<end>"))]
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A <end>", pair="<s> $A <end> $B <end>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>")


KINDS = [wordpiece, in_bytes, whole_words_first, with_prefix, unigram]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def fewer(tokenizer, texts):
    counts = corpus_token_counts(Examples(texts, [0] * len(texts)), tokenizer)
    kept = required_tokens(tokenizer, counts.nonzero()[:, 0].tolist())
    return shrink_tokenizer(tokenizer, kept, texts), kept


@every_kind
def test_text_of_tokens_that_are_left_is_read_as_before(kind):
    """Not the text alone that they come from: any text of them, split as the whole tokenizer splits it."""
    tokenizer, used = kind(), corpus()[:6]
    less, kept = fewer(tokenizer, used)
    new = {old: place for place, old in enumerate(kept)}
    assert len(kept) < len(tokenizer) and len(less) == len(kept)
    same = 0
    for text in [*used, *corpus(), *corpus(seed=1)]:
        before = tokenizer(text)["input_ids"]
        if new.keys() >= set(before):
            assert less(text)["input_ids"] == [new[old] for old in before]
            same += 1
    assert 6 <= same < 400
    pair = tokenizer(used[0], used[1])["input_ids"]
    assert less(used[0], used[1])["input_ids"] == [new[old] for old in pair]


@every_kind
def test_other_words_are_read_in_smaller_pieces(kind):
    tokenizer, texts = kind(), corpus(seed=1)
    less, _ = fewer(tokenizer, corpus()[:6])
    for text in texts:
        assert less.unk_token not in less.tokenize(text)
        assert less.decode(less(text)["input_ids"], skip_special_tokens=True) == tokenizer.decode(
            tokenizer(text)["input_ids"], skip_special_tokens=True
        )
    before, after = (sum(len(one.tokenize(text)) for text in texts) for one in (tokenizer, less))
    assert after > before


@every_kind
def test_it_is_the_same_when_it_is_read_again(kind, tmp_path):
    less, _ = fewer(kind(), corpus()[:6])
    less.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == less.get_vocab()
    assert sorted(again.get_vocab().values()) == list(range(len(again)))
    assert [again(text)["input_ids"] for text in corpus(20)] == [less(text)["input_ids"] for text in corpus(20)]
    assert again.pad_token == less.pad_token and again.all_special_tokens == less.all_special_tokens


@every_kind
def test_the_whole_vocabulary_is_the_same_tokenizer(kind):
    tokenizer = kind()
    kept = required_tokens(tokenizer, range(len(tokenizer)))
    assert kept == list(range(len(tokenizer)))
    whole = shrink_tokenizer(tokenizer, kept, corpus(5))
    assert whole.get_vocab() == tokenizer.get_vocab()
    assert [whole(text)["input_ids"] for text in corpus(20)] == [tokenizer(text)["input_ids"] for text in corpus(20)]


def test_special_tokens_and_characters_stay():
    tokenizer = wordpiece()
    _, kept = fewer(tokenizer, ["ba"])
    names = set(tokenizer.convert_ids_to_tokens(kept))
    every = tokenizer.get_vocab()
    assert names >= {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ba"}
    assert names >= {name for name in every if len(name.removeprefix("##")) == 1}
    assert "[unused1]" not in names
    assert {f"{c}" for c in pre_tokenizers.ByteLevel.alphabet()} <= set(fewer(in_bytes(), ["ba"])[0].get_vocab())


def test_tokens_are_counted_in_all_text_without_a_cut():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    counts = corpus_token_counts(Examples(["w5 w6 w7 w8 w9"] * 1500, [0] * 1500, ["w10"] * 1500), tokenizer)
    assert counts[5:12].tolist() == [1500] * 6 + [0]


def test_a_tokenizer_that_reads_otherwise_is_refused(monkeypatch):
    tokenizer = wordpiece()
    kept = required_tokens(tokenizer, range(len(tokenizer)))
    monkeypatch.setattr("whet.models.vocabulary.load_tokenizer", lambda folder: unigram())
    with pytest.raises(
        InvalidModel, match=r"must support the removal of tokens, but BertTokenizer splits 'ba' differently"
    ):
        shrink_tokenizer(tokenizer, kept, ["ba"])


def test_unsupported_tokenizers_are_refused():
    class Slow(BertTokenizer):
        is_fast = False

    with pytest.raises(InvalidModel, match=r"but Slow is not a fast tokenizer; leave out pruning.vocabulary"):
        required_tokens(Slow(), [])
