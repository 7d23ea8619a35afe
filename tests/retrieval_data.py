"""Small retrieval data in BEIR's layout, whose words the tests' tokenizer knows."""

import json
from pathlib import Path

import numpy as np


def write_retrieval(folder: Path, *, documents: int = 40, queries: int = 60, seed: int = 0) -> Path:
    """Write documents of random words, and queries that are two words of the one document that answers them.

    Two thirds of the queries are judged in train, the others in test.
    """
    random = np.random.default_rng(seed)
    texts = [
        " ".join(f"w{word}" for word in random.integers(5, 99, size=random.integers(4, 12))) for _ in range(documents)
    ]
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    answers = random.integers(documents, size=queries)
    asked = [" ".join(random.choice(texts[answer].split(), size=2)) for answer in answers]
    rows = [{"_id": f"q{i}", "text": text} for i, text in enumerate(asked)]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    cut = queries * 2 // 3
    for split, own in (("train", range(cut)), ("test", range(cut, queries))):
        judged = [f"q{i}\td{answers[i]}\t1" for i in own]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged, ""]))
    return folder
