"""Entailment, contradiction or neither between two sentences: about 10,000 pairs of plain descriptions.

Source: Marelli, Menini, Baroni, Bentivogli, Bernardi, Zamparelli, "A SICK cure for the evaluation of compositional
distributional semantic models", LREC 2014; on the hub as RobZamp/sick.
Differs: unlike the hub, the file SICK.txt has no splits; it is cut into 80 % and 20 %, always in the same way, so that
results from the file and from the hub are not comparable.
"""

from typing import ClassVar

import numpy as np

from whet.tasks.base import Task, local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import class_indices, read_table

__all__ = ["Sick"]

_LABELS = ("entailment", "neutral", "contradiction")
_FILE = "SICK.txt"
_TRAIN_SHARE = 0.8


class Sick(Task):
    """Pairs of sentences in three classes; `data_dir` holds SICK.txt, or a folder sick with it."""

    names: ClassVar[tuple[str, ...]] = ("sick",)
    hub_name: ClassVar[str] = "RobZamp/sick"

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return _LABELS

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("accuracy",)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.data_dir is None:
            return _read_hub("train"), _read_hub("test")
        path = local_folder(self.data_dir, self.name, files=(_FILE,)) / _FILE
        table = read_table(path, ("sentence_A", "sentence_B", "entailment_judgment"))
        judgments = [judgment.lower() for judgment in table["entailment_judgment"]]
        examples = Examples(table["sentence_A"], class_indices(judgments, _LABELS, source=path), table["sentence_B"])
        order = np.random.default_rng(0).permutation(len(examples))
        cut = int(len(examples) * _TRAIN_SHARE)
        return examples.take(order[:cut]), examples.take(order[cut:])


def _read_hub(split: str) -> Examples:
    rows = read_hub(Sick.hub_name, split)
    return Examples(list(rows["sentence_A"]), list(rows["label"]), list(rows["sentence_B"]))
