"""Semantic textual similarity: English pairs with scores 0 ... 5 of the five SemEval tasks of 2012 to 2016.

`sts12` to `sts16` are measured by Spearman's correlation over all scored pairs of a year, and `sts12-16` by the mean of
the five correlations, the figure by which models of sentence embeddings are compared. Pairs of the test sets are never
trained on: what there is for training are the training pairs of 2012.

Source: Agirre, Cer, Diab, Gonzalez-Agirre, "SemEval-2012 Task 6: A Pilot on Semantic Textual Similarity", *SEM 2012,
and those of the next four years; Muennighoff, Tazi, Magne, Reimers, "MTEB: Massive Text Embedding Benchmark", 2022,
arXiv 2210.07316, for the measure.
Differs: the files lack MSRvid (2012) and SMT (2013), which may not be passed on, so that figures of these two years
differ from published ones.
"""

from functools import reduce
from pathlib import Path
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task, local_folder
from whet.tasks.data import Examples
from whet.tasks.files import finite_scores, read_table
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.similarity import InSet, SentencePairs
from whet.utils.inputs import one_line

__all__ = ["SemanticTextualSimilarity"]

_YEARS = ("2012", "2013", "2014", "2015", "2016")
_ALL = "sts12-16"
_COLUMNS = ("score", "first", "second")


class SemanticTextualSimilarity(Task):
    """Pairs with scores, for models of sentence embeddings; `data_dir` holds the folders 2012 to 2016."""

    names: ClassVar[tuple[str, ...]] = (*(f"sts{year[2:]}" for year in _YEARS), _ALL)

    @property
    def label_names(self) -> None:
        """See `Task.label_names`."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("embedding")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("sts_average",) if self.name == _ALL else ("spearman", "pearson")

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.data_dir is None:
            raise InvalidData(f"--data-dir must be given for {self.name}, but got none; name the folder of its files")
        folder = local_folder(self.data_dir, _ALL, files=())
        years = _YEARS if self.name == _ALL else (f"20{self.name[3:]}",)
        train = self._pairs(folder, "2012", "train") if (folder / "2012").is_dir() else SentencePairs([], [], [])
        dev = [self._pairs(folder, year, "test") for year in years]
        return train, reduce(SentencePairs.joined, dev)

    def _pairs(self, folder: Path, year: str, split: str) -> SentencePairs:
        """The scored pairs of a year's files, in the order of their names; pairs without a score are left out."""
        paths = sorted((folder / year).glob(f"*.{split}.tsv*"))
        if not paths:
            raise InvalidData(f"--data-dir must hold files {year}/*.{split}.tsv, but {one_line(folder)} has none; add")
        tables = [read_table(path, _COLUMNS, header=_COLUMNS, missing_as="") for path in paths]
        rows = [row for table in tables for row in zip(*(table[column] for column in _COLUMNS), strict=True) if row[0]]
        scores = finite_scores([score for score, _, _ in rows], source=folder / year)
        labels = [InSet(year, score) for score in scores] if self.name == _ALL else scores
        return SentencePairs([first for _, first, _ in rows], labels, [second for _, _, second in rows])
