"""Two sentences: entailment, contradiction or neither, and how related they are, for 10,000 pairs of descriptions.

`sick` has the three classes, `sick-relatedness` the scores 1 ... 5.

Source: Marelli, Menini, Baroni, Bentivogli, Bernardi, Zamparelli, "A SICK cure for the evaluation of compositional
distributional semantic models", LREC 2014; on the hub as RobZamp/sick.
Differs: unlike the hub, the file SICK.txt has no splits; it is cut into 80 % and 20 %, always in the same way, so that
results from the file and from the hub are not comparable.
"""

from typing import ClassVar

import numpy as np

from whet.tasks.base import local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import read_table
from whet.tasks.scored_pairs import ScoredTexts

__all__ = ["Sick"]

_RELATEDNESS = "sick-relatedness"
_LABELS = ("entailment", "neutral", "contradiction")
_FILE = "SICK.txt"
_TRAIN_SHARE = 0.8


class Sick(ScoredTexts):
    """Pairs of sentences in three classes or with a score; `data_dir` holds SICK.txt, or a folder sick with it."""

    names: ClassVar[tuple[str, ...]] = ("sick", _RELATEDNESS)
    hub_name: ClassVar[str] = "RobZamp/sick"

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return None if self.name == _RELATEDNESS else _LABELS

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("pearson", "spearman") if self.name == _RELATEDNESS else ("accuracy",)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.data_dir is None:
            return self._read_hub("train"), self._read_hub("test")
        path = local_folder(self.data_dir, "sick", files=(_FILE,)) / _FILE
        column = "relatedness_score" if self.label_names is None else "entailment_judgment"
        table = read_table(path, ("sentence_A", "sentence_B", column))
        labels = self.kind.read_labels([label.lower() for label in table[column]], self.label_names, source=path)
        examples = Examples(table["sentence_A"], labels, table["sentence_B"])
        order = np.random.default_rng(0).permutation(len(examples))
        cut = int(len(examples) * _TRAIN_SHARE)
        return examples.take(order[:cut]), examples.take(order[cut:])

    def _read_hub(self, split: str) -> Examples:
        rows = read_hub(self.hub_name, split)
        labels = rows["label" if self.label_names is not None else "relatedness_score"]
        return Examples(list(rows["sentence_A"]), list(labels), list(rows["sentence_B"]))
