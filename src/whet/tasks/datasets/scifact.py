"""Retrieval: scientific claims and the abstracts that support or refute them, and a user's own data in the same layout.

`scifact` has 5,183 abstracts, 809 claims for training and 300 for the final measurement. `retrieval` reads a folder of
the user's. Both serve models of sentence embeddings, which search the whole corpus, and rerankers, which order the
candidates of each query; candidates come from an embedding model, see `whet.tasks.beir`.

Source: Wadden et al., "Fact or Fiction: Verifying Scientific Claims", EMNLP 2020, arXiv 2004.14974, in the layout of
BEIR, arXiv 2104.08663.
Differs: where nothing judges queries for training, the documents themselves are texts to calibrate by.
"""

from functools import cached_property
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task, local_folder
from whet.tasks.beir import BeirFolder
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.retrieval import Candidates, Retrieval
from whet.utils.inputs import require_folder

__all__ = ["BeirRetrieval"]

_FOLDERS = {"scifact": "scifact_beir", "retrieval": None}
_FILES = ("queries.jsonl",)
HARD = 7
"""Candidates besides the relevant ones by which a reranker is trained, for each query."""
TEXTS = 5000
"""Documents at most that are texts to calibrate by, where no queries are judged for training."""


class BeirRetrieval(Task):
    """Queries with judged documents; `data_dir` holds corpus.jsonl, queries.jsonl, qrels and maybe candidates."""

    names: ClassVar[tuple[str, ...]] = tuple(_FOLDERS)
    serves: ClassVar[tuple[str, ...]] = ("embedding", "reranking")

    @property
    def label_names(self) -> None:
        """See `Task.label_names`."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named(self.read_for or "embedding")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        recalls = () if self.kind.name() == "reranking" else ("recall@10", "recall@100")
        return ("ndcg@10", "mrr@10", *recalls)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        data = self._folder
        self._say(data)
        if not data.has("test"):
            raise InvalidData(f"--data-dir must hold qrels/test.tsv, but {data.folder} does not; add it")
        if self.kind.name() == "reranking":
            train = data.reranking("train", others=HARD) if data.has("train") else Candidates([], [], [])
            return train, data.reranking("test")
        dev = data.retrieval("test")
        return (data.retrieval("train") if data.has("train") else _texts(dev)), dev

    @cached_property
    def _folder(self) -> BeirFolder:
        if self.data_dir is None:
            raise InvalidData(f"--data-dir must be given for {self.name}, but got none; name the folder of its files")
        folder = _FOLDERS[self.name]
        if folder is None:
            require_folder(self.data_dir, what="--data-dir", error=InvalidData)
            return BeirFolder(self.data_dir)
        return BeirFolder(local_folder(self.data_dir, folder, files=_FILES))

    def _say(self, data: BeirFolder) -> None:
        if unjudged := data.unjudged():
            self.say_once("unjudged", f"{unjudged} of {len(data.queries)} queries have no judgments and are left out")
        if empty := data.empty_documents:
            self.say_once("empty", f"{empty} of {len(data.corpus)} documents are empty; they are ranked as they are")


def _texts(dev: Retrieval) -> Retrieval:
    """Documents as texts without judgments."""
    documents = list(dev.corpus.texts[:: -(-len(dev.corpus) // TEXTS)])
    return Retrieval(documents, [{} for _ in documents], corpus=dev.corpus, whole=False)
