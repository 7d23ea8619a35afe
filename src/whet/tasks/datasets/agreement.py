"""Acceptability of sentences from a small grammar: 24,000 generated sentences, so that experiments run without the hub.

The task is a stand-in for CoLA that a four-layer model can learn from scratch: 11,000 minimal pairs for training and
1,000 for the final measurement, all different. One wrong word makes half of the sentences unacceptable;
`datasets._grammar` describes the rules.
"""

from typing import ClassVar

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.datasets._grammar import Sentence, grammar_words, sentences

__all__ = ["SubjectVerbAgreement", "tokenizer"]

TRAIN = 22_000
"""Number of sentences for training."""
DEV = 2_000
"""Number of sentences for the final measurement."""
MAX_LENGTH = 64
"""Largest number of tokens of an input; a pair of sentences fits."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class SubjectVerbAgreement(Task):
    """Acceptable and unacceptable sentences, always the same."""

    names: ClassVar[tuple[str, ...]] = ("agreement",)
    # a pair must stay in one split: a model that remembers one sentence would know the label of the other
    group_size: ClassVar[int] = 2
    generated: ClassVar[bool] = True

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
        generated = sentences(TRAIN + DEV, seed=0)
        return _examples(generated[:TRAIN]), _examples(generated[TRAIN:])

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """See `Task.tokenizer`."""
        return tokenizer()


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a whole-word tokenizer for the grammar's words, with BERT's special tokens and templates."""
    ids = {token: i for i, token in enumerate((*_SPECIAL, *grammar_words()))}
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
