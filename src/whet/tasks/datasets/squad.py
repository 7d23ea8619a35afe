"""Extractive question answering: SQuAD 1.1, the English questions of TyDi QA, and a user's own questions.

Validation is held out by whole contexts, so that no context is in two splits.

Source: Rajpurkar, Zhang, Lopyrev, Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016,
arXiv 1606.05250, on the hub as rajpurkar/squad; Clark et al., "TyDi QA: A Benchmark for Information-Seeking Question
Answering in Typologically Diverse Languages", TACL 2020, arXiv 2003.05002, its gold passages, on the hub as
google-research-datasets/tydiqa.
Differs: a folder with the dev file of SQuAD alone is split by article, two thirds for training. Where the dev file of
TyDi QA has no answers, an eighth of its training contexts serves the final measurement.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from whet.errors import InvalidData
from whet.tasks.base import Task, drawn_apart, local_folder, read_hub, split_official
from whet.tasks.datasets._squad_files import (
    COLUMNS,
    Columns,
    Question,
    as_questions,
    checked_questions,
    read_questions,
    repeated_ids,
)
from whet.tasks.frames import Source
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.own_files import OwnFiles
from whet.tasks.questions import Questions
from whet.tasks.spans import LONGEST_ANSWER
from whet.tasks.splits import ResplitTask

__all__ = ["OwnQuestions", "Squad", "TydiEnglish"]

KIND = "question_answering"
DEV_SHARE = 1 / 3
"""Fraction of SQuAD's articles for the final measurement, where its training file is missing."""
TYDI_DEV_SHARE = 1 / 8
"""Fraction of TyDi QA's training questions for the final measurement, where its dev file has no answers."""


@dataclass(frozen=True, kw_only=True)
class _QuestionTask(Task):
    """Questions that pieces of their contexts answer."""

    longest_answer: int = LONGEST_ANSWER
    """Tokens of the longest answer that is given."""

    @property
    def label_names(self) -> None:
        """See `Task.label_names`; answers have no classes."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named(KIND)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return self.kind.metrics

    @abstractmethod
    def read(self) -> tuple[Questions, Questions]:
        """See `Task.read`."""

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Questions:
        """See `Task.more_text`; questions and contexts, whose answers are not read."""
        return self._examples(read_questions(path, _columns(text, text_pair)), path, labelled=False)

    def _examples(self, questions: Sequence[Question], source: object, *, labelled: bool = True) -> Questions:
        """The questions as examples; see `as_questions`."""
        return replace(as_questions(questions, source=source, labelled=labelled), longest_answer=self.longest_answer)


class Squad(_QuestionTask):
    """SQuAD 1.1; `data_dir` holds train-v1.1.json and dev-v1.1.json, or the latter alone, maybe with .gz."""

    names: ClassVar[tuple[str, ...]] = ("squad",)
    hub_name: ClassVar[str] = "rajpurkar/squad"

    def read(self) -> tuple[Questions, Questions]:
        """See `Task.read`."""
        if self.data_dir is None:
            train, dev = (_from_hub(self.hub_name, split) for split in ("train", "validation"))
            return self._examples(train, self.hub_name), self._examples(dev, self.hub_name)
        folder = self._folder(self.data_dir)
        train_file, dev_file = (_file(folder, f"{name}-v1.1.json") for name in ("train", "dev"))
        if dev_file is None:
            raise InvalidData(f"{folder} must hold dev-v1.1.json, but it does not; copy it there")
        dev = read_questions(dev_file)
        if train_file is not None:
            return self._examples(read_questions(train_file), train_file), self._examples(dev, dev_file)
        train, dev = _split_articles(dev)
        self.say_once(
            "articles",
            f"{folder} has no train-v1.1.json, so that {_articles(train)} articles of dev-v1.1.json are for training "
            f"and {_articles(dev)} for the final measurement; figures are not those of all of it",
        )
        return self._examples(train, dev_file), self._examples(dev, dev_file)

    @staticmethod
    def _folder(data_dir: Path) -> Path:
        if data_dir.is_dir() and _file(data_dir, "dev-v1.1.json") is not None:
            return data_dir
        name = "squad_v1.1_dev" if (data_dir / "squad_v1.1_dev").is_dir() else "squad"
        return local_folder(data_dir, name)


class TydiEnglish(_QuestionTask):
    """TyDi QA's gold passages in English; `data_dir` holds both files tydiqa.goldp.en.*.json.gz, or tydiqa_en does."""

    names: ClassVar[tuple[str, ...]] = ("tydiqa_en",)
    hub_name: ClassVar[str] = "google-research-datasets/tydiqa"

    def read(self) -> tuple[Questions, Questions]:
        """See `Task.read`."""
        train, dev = (self._read(split) for split in ("train", "dev"))
        official = self._examples(train, f"the training data of {self.name}")
        if any(one.answers is not None for one in dev):
            return official, self._examples(dev, f"the dev data of {self.name}")
        official, held_out = drawn_apart(official, int(len(official) * TYDI_DEV_SHARE))
        self.say_once(
            "dev",
            f"the dev data of {self.name} have no answers, so that {len(held_out):,} of the {len(train):,} training "
            "questions are for the final measurement; figures are not those of the dev data",
        )
        return official, held_out

    def _read(self, split: str) -> list[Question]:
        if self.data_dir is None:
            rows = _from_hub(self.hub_name, {"dev": "validation"}.get(split, split), name="secondary_task")
            return [row for row in rows if row.id.startswith("english")]
        files = [f"tydiqa.goldp.en.{part}.json.gz" for part in ("train", "dev")]
        # ids are numbers of questions about one article; those of several articles are equal
        return read_questions(local_folder(self.data_dir, self.name, files=files) / f"tydiqa.goldp.en.{split}.json.gz")


@dataclass(frozen=True, kw_only=True)
class OwnQuestions(OwnFiles, _QuestionTask):
    """A user's own questions, from files or tables in memory; see `read_questions`."""

    name: str = field(default="tabular", init=False)
    """Always tabular, as of all own data."""
    text: str = "text"
    """Name of the column of questions; question, if it is text."""
    text_pair: str | None = None
    """Name of the column of contexts; context if None."""
    label: str = "label"
    """Name of the column of answers; answers, if it is label."""
    metric: str | None = None
    """The quality metric that counts; F1 of answers if None."""

    file_kinds: ClassVar[tuple[str, ...]] = (KIND,)
    file_endings: ClassVar[tuple[str, ...]] = (".json",)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`; the user's first."""
        others = tuple(name for name in self.kind.metrics if name != self.metric)
        return others if self.metric is None else (self.metric, *others)

    def read(self) -> tuple[Questions, Questions]:
        """See `Task.read`."""
        return self._read(self.train_file), self._read(self.dev_file)

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; no answers are read."""
        train = self._read(self.for_training, labelled=False)
        return ResplitTask(name=self.name, whole=self, own=split_official(train, self._read(None)))

    def _read(self, source: Source | None, *, labelled: bool = True) -> Questions:
        if source is None:
            return Questions([], [], [])
        questions = read_questions(source, _columns(self.text, self.text_pair, self.label))
        if repeated := repeated_ids(questions):
            self.say_once(
                f"ids of {source}",
                f"{repeated:,} of {len(questions):,} questions in {source} have the id of another one; each counts by "
                "itself",
            )
        return self._examples(questions, source, labelled=labelled)


def _columns(text: str, text_pair: str | None, label: str = "label") -> Columns:
    """The names of columns, where those that nobody gave are as in SQuAD."""
    return Columns(
        COLUMNS.question if text == "text" else text,
        text_pair or COLUMNS.context,
        COLUMNS.answers if label == "label" else label,
    )


def _split_articles(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """The questions of two thirds of the articles, and of the others; always the same."""
    titles = sorted({one.title for one in questions})
    order = np.random.default_rng(0).permutation(len(titles))
    dev = {titles[i] for i in order[: round(len(titles) * DEV_SHARE)]}
    return [one for one in questions if one.title not in dev], [one for one in questions if one.title in dev]


def _articles(questions: Sequence[Question]) -> int:
    return len({one.title for one in questions})


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _from_hub(path: str, split: str, *, name: str | None = None) -> list[Question]:
    rows = read_hub(path, split, name=name)
    return checked_questions(
        (
            Question(
                str(row["id"]),
                row["question"],
                row["context"],
                tuple(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)),
                str(row["title"]),
            )
            for row in rows
        ),
        path,
    )
