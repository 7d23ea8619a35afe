"""Sentiment of tweets, negative, neutral or positive: 27,480 for training and 3,534 for the final measurement.

Source: Maggie, Culliton, Chen, "Tweet Sentiment Extraction", Kaggle, 2020; on the hub as
mteb/tweet_sentiment_extraction.
Differs: the competition predicts the words that carry the sentiment; this task predicts the sentiment itself. Rows
without text are dropped.
"""

from collections.abc import Sequence
from typing import ClassVar

from whet.tasks.base import Task, local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import class_indices, read_table

__all__ = ["TweetSentiment"]

_HUB = "mteb/tweet_sentiment_extraction"
_LABELS = ("negative", "neutral", "positive")


class TweetSentiment(Task):
    """Tweets in three classes; `data_dir` holds train.csv and test.csv, or a folder tweet_sentiment with them."""

    names: ClassVar[tuple[str, ...]] = ("tweet_sentiment",)
    hub_name: ClassVar[str] = _HUB

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return _LABELS

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("accuracy", "macro_f1", "weighted_f1")

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self._read("train"), self._read("test")

    def _read(self, split: str) -> Examples:
        if self.data_dir is None:
            rows = read_hub(_HUB, split)
            return _with_text(list(rows["text"]), list(rows["label_text"]), f"{_HUB}, {split}")
        folder = local_folder(self.data_dir, self.name, files=("train.csv", "test.csv"))
        path = folder / f"{split}.csv"
        table = read_table(path, ("text", "sentiment"), missing_as="")
        return _with_text(table["text"], table["sentiment"], str(path))


def _with_text(texts: Sequence[str | None], labels: Sequence[str], source: str) -> Examples:
    kept = [(text, label) for text, label in zip(texts, labels, strict=True) if text and text.strip()]
    return Examples([text for text, _ in kept], class_indices([label for _, label in kept], _LABELS, source=source))
