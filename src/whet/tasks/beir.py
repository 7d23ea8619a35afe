"""Retrieval data in the layout of BEIR: a corpus, queries, and judgments of which documents answer which query.

A folder holds corpus.jsonl (`_id`, `title`, `text`), queries.jsonl (`_id`, `text`), and qrels with a table for each
split, such as qrels/test.tsv (`query-id`, `corpus-id`, `score`). Any file may be packed with gzip. Candidates for a
reranker lie in such tables too, below candidates, the best first; their scores are not read.

Source: Thakur, Reimers, Rücklé, Srivastava, Gurevych, "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of
Information Retrieval Models", 2021, arXiv 2104.08663.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from whet.errors import InvalidData
from whet.tasks.files import finite_scores, listed, read_table
from whet.tasks.retrieval import Candidates, Corpus, Judgments, Retrieval, most_relevant
from whet.utils.inputs import one_line

__all__ = ["CANDIDATES", "BeirFolder"]

CORPUS, QUERIES, QRELS, CANDIDATES = "corpus.jsonl", "queries.jsonl", "qrels", "candidates"
_JUDGED = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class BeirFolder:
    """A folder of retrieval data; files are read once, when they are first needed."""

    folder: Path
    """Holds corpus.jsonl, queries.jsonl and qrels."""
    candidates: Path | None = None
    """Holds a table of candidates for each split; None means the folder candidates, where there is one."""

    def has(self, split: str) -> bool:
        """Return whether there are judgments for a split."""
        return _found(self.folder / QRELS, f"{split}.tsv") is not None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have judgments.

        Raises:
            InvalidData: there is none.
        """
        names = sorted({path.name.split(".")[0] for path in self._tables})
        if not names:
            raise InvalidData(f"retrieval data must hold qrels/*.tsv, but {one_line(self.folder)} has none; add one")
        return tuple(names)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of corpus, queries and judgments."""
        return (_require(self.folder, CORPUS), _require(self.folder, QUERIES), *self._tables)

    @property
    def _tables(self) -> list[Path]:
        folder = self.folder / QRELS
        return sorted([*folder.glob("*.tsv"), *folder.glob("*.tsv.gz")])

    @cached_property
    def corpus(self) -> Corpus:
        """The documents: title and text, with a blank between them.

        Raises:
            InvalidData: the file is missing or cannot be read, or an id is missing or there twice.
        """
        path = _require(self.folder, CORPUS)
        table = read_table(path, ("_id",), missing_as="", optional=("title", "text"))
        texts = [f"{title} {text}".strip() for title, text in zip(table["title"], table["text"], strict=True)]
        return Corpus.of(_by_id(table["_id"], texts, path, what="document"))

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """The text of each query by its id.

        Raises:
            InvalidData: the file is missing or cannot be read, an id is missing or there twice, or a text is empty.
        """
        path = _require(self.folder, QUERIES)
        table = read_table(path, ("_id", "text"), missing_as="")
        queries = _by_id(table["_id"], table["text"], path, what="query")
        if empty := [name for name, text in queries.items() if not text.strip()]:
            raise InvalidData(
                f"every query must have a text, but {one_line(path)} has none for {listed(empty)}; add it"
            )
        return queries

    @property
    def empty_documents(self) -> int:
        """How many documents have neither title nor text."""
        return sum(not text for text in self.corpus.texts)

    def unjudged(self) -> int:
        """Return how many queries no split judges."""
        judged = {name for path in self._tables for name in read_table(path, _JUDGED)["query-id"]}
        return len(self.queries.keys() - judged)

    def retrieval(self, split: str) -> Retrieval:
        """Return the queries that a split judges.

        Raises:
            InvalidData: a file is missing or cannot be read, a relevance is no number, or a judgment names a query or a
                document that is not there.
        """
        judged = self._judged(split)
        return Retrieval([self.queries[name] for name in judged], list(judged.values()), corpus=self.corpus)

    def reranking(self, split: str, *, others: int | None = None) -> Candidates:
        """Return the queries that a split judges, with their candidates.

        Args:
            split: such as test.
            others: how many candidates a query has besides relevant ones, the best first; all of them if None.

        Raises:
            InvalidData: see `retrieval`; or a query has no candidates.
        """
        judged, found = self._judged(split), self._candidates(split)
        if lacking := [name for name in judged if name not in found]:
            raise InvalidData(
                f"every judged query must have candidates, but got none for {listed(lacking)} in {split}; add them"
            )
        chosen = [_limited(found[name], gains, others) for name, gains in judged.items()]
        return candidates_of(
            [self.queries[name] for name in judged], [sorted(numbers) for numbers in chosen], judged, self.corpus
        )

    def table(self, split: str, rankings: Sequence[Sequence[int]]) -> str:
        """Return candidates as the table that `reranking` reads.

        Args:
            split: such as test.
            rankings: numbers of documents for each query of `retrieval`, the best first.
        """
        queries = zip(self._judged(split), rankings, strict=True)
        rows = [f"{query}\t{self.corpus.ids[number]}" for query, ranking in queries for number in ranking]
        return "\n".join(["\t".join(_JUDGED[:2]), *rows, ""])

    def _judged(self, split: str) -> dict[str, Judgments]:
        """The judgments of each query that has any, by its id, in the order of the queries."""
        path = _require(self.folder / QRELS, f"{split}.tsv")
        table = read_table(path, _JUDGED)
        scores = finite_scores(table["score"], source=path)
        found: dict[str, dict[int, float]] = {}
        pairs = self._numbered(table, path)
        for (query, document), score in zip(pairs, scores, strict=True):
            found.setdefault(query, {})[document] = score
        judged: dict[str, Judgments] = {name: found[name] for name in self.queries if name in found}
        if judged and not any(score > 0 for scores in judged.values() for score in scores.values()):
            raise InvalidData(
                f"a relevant document must have a score above 0, but {one_line(path)} has none; give at least one"
            )
        return judged

    def _candidates(self, split: str) -> dict[str, list[int]]:
        """The candidates of each query, the best first."""
        path = _found(folder := self.candidates or self.folder / CANDIDATES, f"{split}.tsv")
        if path is None:
            raise InvalidData(
                f"a reranker's queries must have candidates, but {one_line(folder)} holds no {split}.tsv; let an "
                "embedder find them: whet.make_candidates(EMBEDDER, FOLDER, OUT) in Python"
            )
        found: dict[str, list[int]] = {}
        for query, document in self._numbered(read_table(path, _JUDGED[:2]), path):
            found.setdefault(query, []).append(document)
        return found

    def _numbered(self, table: Mapping[str, Sequence[str]], path: Path) -> list[tuple[str, int]]:
        """The query and the number of the document of each row."""
        for column, known, file in (("query-id", self.queries, QUERIES), ("corpus-id", self.corpus.numbers, CORPUS)):
            if unknown := sorted(set(table[column]) - known.keys()):
                raise InvalidData(
                    f"each {column} in {one_line(path)} must be in {file}, but got {listed(unknown)}; "
                    "correct or remove these rows"
                )
        numbers = [self.corpus.numbers[name] for name in table["corpus-id"]]
        return list(zip(table["query-id"], numbers, strict=True))


def candidates_of(
    queries: Sequence[str], chosen: Sequence[Sequence[int]], judged: Mapping[str, Judgments], corpus: Corpus
) -> Candidates:
    """Return queries with candidates from a corpus.

    Args:
        queries: texts.
        chosen: the numbers of each query's candidates.
        judged: the judgments of each query, in the same order, by numbers in the corpus.
        corpus: all documents.
    """
    labels = []
    for numbers, gains in zip(chosen, judged.values(), strict=True):
        # relevant documents that are no candidates come behind, where no ranking reaches them
        places = {number: place for place, number in enumerate([*numbers, *(set(gains) - set(numbers))])}
        labels.append({places[number]: gain for number, gain in gains.items()})
    candidates = [tuple(corpus.texts[number] for number in numbers) for numbers in chosen]
    return Candidates(list(queries), labels, candidates, most=most_relevant(labels))


def _limited(numbers: Sequence[int], gains: Judgments, others: int | None) -> list[int]:
    if others is None:
        return list(numbers)
    relevant = [number for number, gain in gains.items() if gain > 0]
    return [*relevant, *[number for number in numbers if number not in relevant][:others]]


def _found(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _require(folder: Path, name: str) -> Path:
    path = _found(folder, name)
    if path is None:
        raise InvalidData(f"retrieval data must hold {name}, but {one_line(folder)} does not; see whet.tasks.beir")
    return path


def _by_id(names: Sequence[str], texts: Sequence[str], path: Path, *, what: str) -> dict[str, str]:
    """Texts by id, after a check that each has an id of its own."""
    for row, name in enumerate(names, start=1):
        if not name:
            raise InvalidData(f"every {what} must have an id, but row {row} of {one_line(path)} has none; add it")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidData(
            f"every {what} must have an id of its own, but {one_line(path)} has {listed(twice)} twice; rename them"
        )
    return dict(zip(names, texts, strict=True))
