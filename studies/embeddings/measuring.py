"""What is measured of any encoder of texts: the STS average, SciFact, sentences per second from text, and MiB.

An encoder is a function from texts to vectors, so that models of whet, of sentence-transformers and static embeddings
are measured alike, on the same texts, in one run, paired with the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import whet
from whet.evaluation import bootstrap, paired_ratio, quality_named, time_interleaved
from whet.tasks import Retrieval, SentencePairs, nearest, unit_vectors

Array = np.ndarray[Any, Any]
Encoder = Callable[[Sequence[str]], Array]
"""From texts to (texts, width) vectors of any norm."""
STS, RETRIEVAL = "sts12-16", "scifact"
METRICS = {STS: ("sts_average",), RETRIEVAL: ("ndcg@10", "recall@100")}
TIMED = 256
"""Sentences that are timed, spread over the lengths."""
MIB = 2**20


class Predictions(NamedTuple):
    """What an encoder makes of the two tasks."""

    cosines: Array
    """(pairs,) of the STS pairs."""
    rankings: Array
    """(queries,) numbers of documents, the best first."""


class Data(NamedTuple):
    """The examples of both tasks."""

    sts: SentencePairs
    scifact: Retrieval

    @classmethod
    def read(cls, data_dir: Path) -> "Data":
        """Return the examples for the final measurement below a folder of public data."""
        tasks = [whet.load_task(name, data_dir=data_dir) for name in (STS, RETRIEVAL)]
        sts, scifact = (task.splits.dev for task in tasks)
        assert isinstance(sts, SentencePairs) and isinstance(scifact, Retrieval)
        return cls(sts, scifact)

    def sentences(self, count: int = TIMED) -> list[str]:
        """Return sentences of the STS pairs, spread evenly over the lengths."""
        texts = sorted(self.sts.texts, key=len)
        return [texts[i] for i in np.linspace(0, len(texts) - 1, count).round().astype(int)]


def predictions(encode: Encoder, data: Data, *, as_query: Encoder | None = None) -> Predictions:
    """Return an encoder's answers to both tasks.

    Args:
        encode: for sentences and documents.
        data: of both tasks.
        as_query: for queries, where the model has a prompt of its own for them.
    """
    first, second = (unit_vectors(encode(list(side))) for side in (data.sts.texts, data.sts.pairs or ()))
    queries = unit_vectors((as_query or encode)(list(data.scifact.texts))).astype(np.float32)
    documents = unit_vectors(encode(list(data.scifact.corpus.texts))).astype(np.float32)
    found = nearest(queries, documents)
    rankings = np.empty(len(found), dtype=object)
    rankings[:] = found
    return Predictions((first * second).sum(1), rankings)


def kept(path: Path, predict: Callable[[], Predictions]) -> Predictions:
    """Return predictions from a file if they were made before; else make them, and keep them there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        cosines, rankings = predict()
        draft = path.with_suffix(".draft.npz")
        np.savez(draft, cosines=cosines, rankings=np.stack(list(rankings)))
        draft.rename(path)
    with np.load(path, allow_pickle=False) as found:
        return Predictions(found["cosines"], _objects(list(found["rankings"])))


def qualities(data: Data, own: Predictions, baseline: Predictions | None, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return the measurements of both tasks, with their intervals, paired with a baseline where there is one."""
    labels = {STS: data.sts.labels, RETRIEVAL: data.scifact.labels}
    found = []
    for task, answers, others in zip(METRICS, own, baseline or (None, None), strict=True):
        for name in METRICS[task]:
            quality, wanted = quality_named(name), _objects(labels[task])
            statistic, strata = quality.statistic(wanted, answers), quality.strata(wanted)
            estimate = bootstrap(statistic, len(wanted), seed=seed, strata=strata)
            versus = None if others is None else asdict(quality.compare(wanted, answers, others, seed=seed))
            found.append({"task": task, "metric": name, **estimate._asdict(), "versus": versus})
    return found


def speeds(encoders: Mapping[str, Encoder], sentences: Sequence[str], *, rounds: int = 10) -> dict[str, dict[str, Any]]:
    """Return sentences per second from text by name, and how many times as fast as the first; encoders take turns."""
    runs = [partial(encode, list(sentences)) for encode in encoders.values()]
    seconds = time_interleaved(runs, rounds=rounds)
    return {
        name: {
            "sentences_per_second": len(sentences) / float(np.median(own)),
            "speedup": asdict(paired_ratio(seconds[:, 0], own, seed=0)) if i else None,
        }
        for i, (name, own) in enumerate(zip(encoders, seconds.T, strict=True))
    }


def mebibytes(files: Sequence[Path]) -> float:
    """Return the size of the files that a runtime reads."""
    return sum(path.stat().st_size for path in files) / MIB


def _objects(labels: Sequence[Any]) -> Array:
    array = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):
        array[i] = label
    return array
