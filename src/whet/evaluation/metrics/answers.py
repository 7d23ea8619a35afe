"""Exact match and F1 of answers to questions, equal to those of the official evaluation of SQuAD.

Case, punctuation, articles and spaces do not count. Of several accepted answers the best counts. Where a question has
no answer, only giving none is right.

Source: Rajpurkar, Zhang, Lopyrev, Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016,
arXiv 1606.05250; Rajpurkar, Jia, Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD", ACL 2018, arXiv
1806.03822. Data with unanswerable questions are scored as the evaluation script of 2.0 does, others as that of 1.1.
Differs: values are fractions, not percentages.
"""

import re
import string
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.metrics.base import SummedQuality

__all__ = ["AnswerF1", "ExactMatch", "normalized"]

Array = np.ndarray[Any, Any]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=100_000)
def normalized(answer: str) -> str:
    """Return an answer in lower case, without punctuation and articles, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


class _OfAnswers(SummedQuality):
    """A mean over questions, of the best score of a prediction against any accepted answer."""

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`: the score of each question, and 1.

        Args:
            labels: (questions,) accepted answers with their starts, a sequence of pairs for each.
            predictions: (questions,) text; empty if no answer is given.
        """
        may_lack_answer = any(not len(answers) for answers in labels)
        scores = [
            max(
                self.against(predicted, answer, may_lack_answer=may_lack_answer)
                for answer in _accepted(answers, may_lack_answer=may_lack_answer)
            )
            for answers, predicted in zip(labels, predictions, strict=True)
        ]
        return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`; the mean."""
        return float(totals[0] / totals[1])

    @abstractmethod
    def against(self, predicted: str, answer: str, *, may_lack_answer: bool) -> float:
        """Return the score of a prediction against one answer, 0 to 1."""


class ExactMatch(_OfAnswers):
    """Fraction of questions whose answer is an accepted one."""

    name: ClassVar[str] = "exact_match"

    def against(self, predicted: str, answer: str, *, may_lack_answer: bool) -> float:
        """See `_OfAnswers.against`."""
        return float(normalized(predicted) == normalized(answer))


class AnswerF1(_OfAnswers):
    """Mean over questions of the F1 of the words of an answer against those of the nearest accepted one."""

    name: ClassVar[str] = "answer_f1"

    def against(self, predicted: str, answer: str, *, may_lack_answer: bool) -> float:
        """See `_OfAnswers.against`; two answers without words are equal where answers may lack, as in SQuAD 2.0."""
        words, wanted = normalized(predicted).split(), normalized(answer).split()
        if not words or not wanted:
            return float(may_lack_answer and words == wanted)
        common = (Counter(words) & Counter(wanted)).total()
        return 2 * common / (len(words) + len(wanted))


def _accepted(answers: Sequence[tuple[str, int]], *, may_lack_answer: bool) -> list[str]:
    """The texts that a prediction is compared with; SQuAD 2.0 leaves out those without words."""
    texts = [text for text, _ in answers]
    if may_lack_answer:
        texts = [text for text in texts if normalized(text)] or [""]
    return texts
