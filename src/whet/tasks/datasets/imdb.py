"""Sentiment of film reviews, negative or positive: 25,000 for training and 25,000 for the final measurement.

Source: Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL 2011; on the hub as
stanfordnlp/imdb.
"""

from typing import ClassVar

from whet.tasks.base import Task, local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import class_indices, read_table

__all__ = ["Imdb"]


class Imdb(Task):
    """Film reviews in two classes; `data_dir` holds train.csv.gz and test.csv.gz, or a folder imdb with them."""

    names: ClassVar[tuple[str, ...]] = ("imdb",)
    hub_name: ClassVar[str] = "stanfordnlp/imdb"

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return ("negative", "positive")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("accuracy",)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self._read("train"), self._read("test")

    def _read(self, split: str) -> Examples:
        if self.data_dir is None:
            rows = read_hub(self.hub_name, split)
            return Examples(list(rows["text"]), list(rows["label"]))
        folder = local_folder(self.data_dir, self.name, files=("train.csv.gz", "test.csv.gz"))
        path = folder / f"{split}.csv.gz"
        table = read_table(path, ("text", "label"))
        return Examples(table["text"], class_indices(table["label"], ("0", "1"), source=path))
