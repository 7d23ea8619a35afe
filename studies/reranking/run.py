"""Rerankers: what structure and low rank cost a model that orders the candidates of a search, on SciFact.

    python studies/reranking/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2 --threads 1

lets the base, an embedder, find 20 candidates for each claim, fine-tunes a reranker on the training claims, makes the
models of every recipe, exports them, measures all in one run on the test claims, and writes results.json, results.md
and a picture beside this file. Models stay under runs/, which git ignores; a second run goes on from what is there.
`--make-only` leaves measuring to another time, and `--write-only` writes the tables and the picture anew.
"""

import random
import sys
from pathlib import Path
from typing import Any

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)

NAME = "SciFact, 120 claims, 20 candidates each"
COUNT = 20
CLAIMS = 120
"""Test claims that are measured, of 300, so that a slow core has a result within half an hour."""
MAX_LENGTH = 192
"""Tokens of a claim and an abstract; longer abstracts are cut."""
READ = 256
"""Tokens of an abstract that the base reads where it finds candidates."""
SETTINGS = whet.TrainingSettings(
    epochs=1, learning_rate=5e-5, batch_size=4, max_length=MAX_LENGTH, precision=deployments.FASTEST
)
"""A batch is of claims, each with its candidates."""
CALIBRATION = whet.Calibration(examples=128, batch_size=4, max_length=MAX_LENGTH)
RECOVERED = {**deployments.RECOVERY, "epochs": 1}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "kfac 1.7": [deployments.FIRST, {"method": "kfac", "speedup": 1.7}],
    **{
        f"structure {speed:g}": [deployments.FIRST, {"method": "structure", "speedup": speed, **deployments.IN_INT8}]
        for speed in (1.7, 2.2)
    },
    **{
        f"structure {speed:g}, recovered": [
            deployments.FIRST,
            {"method": "structure", "speedup": speed, **deployments.IN_INT8},
            RECOVERED,
        ]
        for speed in (2.0, 2.6)
    },
}


def main() -> None:
    """Make every model that is missing, measure all of them, and write what was measured."""
    deployments.one_task(
        __doc__,
        HERE / "results.json",
        "runs/reranking",
        NAME,
        lambda options: candidates(options.base, options.data_dir, options.runs),
        RECIPES,
        settings=SETTINGS,
        calibration=CALIBRATION,
    )


def candidates(embedder: str, data_dir: Path, runs: Path) -> whet.Task:
    """Return the task of ordering what an embedder finds."""
    found = runs / "candidates"
    if not found.is_dir():
        whet.make_candidates(embedder, data_dir / "scifact_beir", found, count=COUNT, max_length=READ)
        draw_claims(found / "qrels" / "test.tsv")
    return whet.load_task("retrieval", data_dir=found, kind="reranking")


def draw_claims(judgments: Path) -> None:
    """Leave the judgments of some claims, which are then all that is measured."""
    head, *lines = judgments.read_text(encoding="utf-8").splitlines()
    claims = sorted({line.split("\t")[0] for line in lines})
    drawn = {*random.Random(0).sample(claims, min(CLAIMS, len(claims)))}
    kept = [line for line in lines if line.split("\t")[0] in drawn]
    judgments.write_text("".join(f"{line}\n" for line in (head, *kept)), encoding="utf-8")


if __name__ == "__main__":
    main()
