"""Candidates for rerankers: the documents that a model of sentence embeddings finds for each query."""

import shutil
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from whet.errors import InvalidModel
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import kind_of_model, predict
from whet.models.load import common_max_length
from whet.tasks.beir import CANDIDATES, BeirFolder
from whet.tasks.encoding import encode
from whet.tasks.retrieval import Retrieval
from whet.utils.calls import checked
from whet.utils.files import write_files
from whet.utils.outputs import new_folder
from whet.utils.ranges import BatchSize, MaxLength

__all__ = ["make_candidates"]

Array = np.ndarray[Any, Any]


@checked
def make_candidates(
    model: str | Path,
    data_dir: str | Path,
    out: str | Path,
    *,
    count: Annotated[int, Interval(ge=1, le=100)] = 50,
    max_length: MaxLength = 256,
    batch_size: BatchSize = 32,
) -> Path:
    """Write a copy of retrieval data with candidates for each judged query, and return its folder.

    The folder serves `load_task("retrieval", data_dir=folder, kind="reranking")`, again and again.

    Args:
        model: folder or hub name of a model of sentence embeddings, which searches the whole corpus.
        data_dir: retrieval data in the layout of BEIR: corpus.jsonl, queries.jsonl, and qrels.
        out: folder to write; it appears whole or not at all.
        count: how many documents each query gets, the most similar ones.
        max_length: longer texts are cut, in tokens.
        batch_size: texts in a batch.

    Raises:
        InvalidData: the data cannot be used.
        InvalidModel: the model gives no embeddings, or cannot be loaded.
        OutputExists: `out` is not empty.
    """
    folder, data = Path(out), BeirFolder(Path(data_dir))
    with new_folder(folder, overwrite=False) as draft:
        splits = {name: data.retrieval(name) for name in data.splits}
        whole = reduce(Retrieval.joined, splits.values())
        rankings = iter(_rankings(model, whole, max_length=max_length, batch_size=batch_size))
        for path in data.files:
            copy = draft / path.relative_to(data.folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        for name, examples in splits.items():
            own = [next(rankings)[:count] for _ in examples.texts]
            write_files(draft / CANDIDATES, {f"{name}.tsv": data.table(name, own).encode()})
    return folder


def _rankings(model: str | Path, queries: Retrieval, *, max_length: int, batch_size: int) -> Array:
    loaded, tokenizer = load_with_tokenizer(model)
    kind = kind_of_model(loaded)
    if kind.name() != "embedding":
        raise InvalidModel(
            f"candidates must come from a model of sentence embeddings, but {model} is {kind.holds}; give another"
        )
    length = common_max_length(max_length, loaded)
    batches = encode(queries, tokenizer, max_length=length, batch_size=batch_size)
    return kind.predictions(predict(loaded, batches, name=str(model)), batches)
