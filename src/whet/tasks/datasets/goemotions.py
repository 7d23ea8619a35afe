"""Emotions of comments, one or several of 28: 43,410 for training and 5,427 for the final measurement.

Source: Demszky, Movshovitz-Attias, Ko, Cowen, Nemade, Ravi, "GoEmotions: A Dataset of Fine-Grained Emotions", ACL 2020,
arXiv 2005.00547; on the hub as google-research-datasets/go_emotions.
Differs: the final measurement is on the official test split, as in published results. The official dev split stays
unread: examples for choices are held out of the training data, as for every task.
"""

from typing import ClassVar

from whet.tasks.base import Task, local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import read_table
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.label_sets import label_sets, multi_hot

__all__ = ["GoEmotions"]

_EMOTIONS = """
    admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval disgust
    embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief remorse sadness
    surprise neutral
"""
_LABELS = tuple(_EMOTIONS.split())
_FILES = {"train": "train.tsv.gz", "test": "test.tsv.gz"}


class GoEmotions(Task):
    """Comments with 28 labels; `data_dir` holds train.tsv.gz and test.tsv.gz, or a folder goemotions with them."""

    names: ClassVar[tuple[str, ...]] = ("goemotions",)
    hub_name: ClassVar[str] = "google-research-datasets/go_emotions"

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return _LABELS

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("multi_label")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("micro_f1", "macro_label_f1", "mean_average_precision")

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self._read("train"), self._read("test")

    def _read(self, split: str) -> Examples:
        if self.data_dir is None:
            rows = read_hub(self.hub_name, split, name="simplified")
            return Examples(list(rows["text"]), [multi_hot(ids, len(_LABELS)) for ids in rows["labels"]])
        path = local_folder(self.data_dir, self.name, files=tuple(_FILES.values())) / _FILES[split]
        table = read_table(path, ("text", "labels"), header=("text", "labels", "id"))
        ids = label_sets(table["labels"], separator=",", source=path)
        numbers = [str(number) for number in range(len(_LABELS))]
        return Examples(table["text"], self.kind.read_labels(ids, numbers, source=path))
