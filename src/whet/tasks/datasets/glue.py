"""The nine GLUE tasks, from the hub or from the official TSV files.

Source: Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding", 2018,
arXiv 1804.07461.
Differs: MNLI is measured on the matched dev set. The dev set of WNLI is adversarial, so that its majority class is hard
to beat.
"""

from pathlib import Path
from typing import ClassVar, NamedTuple

from whet.tasks.base import local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import read_table
from whet.tasks.scored_pairs import ScoredTexts

__all__ = ["Glue"]


class GlueLayout(NamedTuple):
    """Metrics and labels of one GLUE task, and its columns on the hub and in the official files."""

    folder: str
    """Folder of the official files."""
    metrics: tuple[str, ...]
    """Quality metrics, the main metric first."""
    label_names: tuple[str, ...] | None
    """Names of the classes in order, or None for scores."""
    hub_columns: tuple[str, ...]
    """Columns of the sentences on the hub."""
    file_columns: tuple[str, ...]
    """Columns of the sentences in the files."""
    file_label: str
    """Column of the labels in the files."""
    file_labels: tuple[str, ...] = ("0", "1")
    """Labels in the files, in the order of the classes."""
    header: tuple[str, ...] | None = None
    """Names of all columns of files without a header line."""
    dev: str = "dev"
    """Name of the dev file without its ending."""
    hub_dev: str = "validation"
    """Name of the dev split on the hub."""


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")

GLUE_LAYOUTS = {
    "glue/cola": GlueLayout(
        "CoLA",
        ("matthews", "accuracy"),
        ("unacceptable", "acceptable"),
        ("sentence",),
        ("sentence",),
        "label",
        header=("source", "label", "mark", "sentence"),
    ),
    "glue/mnli": GlueLayout(
        "MNLI",
        ("accuracy",),
        _NLI,
        ("premise", "hypothesis"),
        _PAIR,
        "gold_label",
        _NLI,
        None,
        "dev_matched",
        "validation_matched",
    ),
    "glue/mrpc": GlueLayout(
        "MRPC",
        ("accuracy", "f1"),
        ("not_equivalent", "equivalent"),
        _PAIR,
        ("#1 String", "#2 String"),
        "Quality",
    ),
    "glue/qnli": GlueLayout(
        "QNLI",
        ("accuracy",),
        _ENTAILMENT,
        ("question", "sentence"),
        ("question", "sentence"),
        "label",
        _ENTAILMENT,
    ),
    "glue/qqp": GlueLayout(
        "QQP",
        ("accuracy", "f1"),
        ("not_duplicate", "duplicate"),
        ("question1", "question2"),
        ("question1", "question2"),
        "is_duplicate",
    ),
    "glue/rte": GlueLayout("RTE", ("accuracy",), _ENTAILMENT, _PAIR, _PAIR, "label", _ENTAILMENT),
    "glue/sst2": GlueLayout("SST-2", ("accuracy",), ("negative", "positive"), ("sentence",), ("sentence",), "label"),
    "glue/stsb": GlueLayout("STS-B", ("pearson", "spearman"), None, _PAIR, _PAIR, "score"),
    "glue/wnli": GlueLayout("WNLI", ("accuracy",), ("not_entailment", "entailment"), _PAIR, _PAIR, "label"),
}


class Glue(ScoredTexts):
    """A GLUE task; `data_dir` holds the folders CoLA, MRPC, ..., or a folder glue with them."""

    names: ClassVar[tuple[str, ...]] = tuple(GLUE_LAYOUTS)
    hub_name: ClassVar[str] = "nyu-mll/glue"

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return GLUE_LAYOUTS[self.name].label_names

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return GLUE_LAYOUTS[self.name].metrics

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        layout = GLUE_LAYOUTS[self.name]
        if self.data_dir is None:
            return self._read_hub("train"), self._read_hub(layout.hub_dev)
        folder = local_folder(self.data_dir, f"glue/{layout.folder}")
        return self._read_file(folder / "train.tsv"), self._read_file(folder / f"{layout.dev}.tsv")

    def _read_file(self, path: Path) -> Examples:
        layout = GLUE_LAYOUTS[self.name]
        table = read_table(path, (*layout.file_columns, layout.file_label), header=layout.header)
        columns = [table[column] for column in layout.file_columns]
        labels = self.kind.read_labels(table[layout.file_label], layout.file_labels, source=path)
        return Examples(columns[0], labels, columns[1] if len(columns) > 1 else None)

    def _read_hub(self, split: str) -> Examples:
        layout = GLUE_LAYOUTS[self.name]
        rows = read_hub(self.hub_name, split, name=self.name.removeprefix("glue/"))
        columns = [list(rows[column]) for column in layout.hub_columns]
        return Examples(columns[0], list(rows["label"]), columns[1] if len(columns) > 1 else None)
