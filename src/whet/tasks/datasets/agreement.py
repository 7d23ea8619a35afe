"""Is a sentence acceptable? 24,000 sentences from a small grammar, so that a whole experiment runs without the hub.

A stand-in for CoLA that a four-layer model can learn from scratch: 11,000 minimal pairs for training and 1,000 for
the final measurement, all different, half of the sentences unacceptable by one wrong word. `whet.grammar` says which
rules they test.
"""

from typing import ClassVar

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.datasets._grammar import Sentence, sentences, vocabulary

__all__ = ["SubjectVerbAgreement", "tokenizer", "vocabulary"]

TRAIN = 22_000
"""Sentences for training."""
DEV = 2_000
"""Sentences for the final measurement."""
MAX_LENGTH = 64
"""Longest input in tokens; a pair of sentences fits."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class SubjectVerbAgreement(Task):
    """Acceptable and unacceptable sentences, always the same; `data_dir` is ignored."""

    names: ClassVar[tuple[str, ...]] = ("agreement",)
    # twins in two splits would tell a model that remembers one of them that the other has the other label
    group_size: ClassVar[int] = 2

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return ("unacceptable", "acceptable")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("accuracy", "matthews")

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        made = sentences(TRAIN + DEV, seed=0)
        return _examples(made[:TRAIN]), _examples(made[TRAIN:])

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """See `Task.tokenizer`."""
        return tokenizer()


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words over the grammar's vocabulary, with BERT's special tokens and templates."""
    ids = {token: i for i, token in enumerate((*_SPECIAL, *vocabulary()))}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        padding_side="right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _examples(part: list[Sentence]) -> Examples:
    return Examples([sentence.text for sentence in part], [sentence.label for sentence in part])
