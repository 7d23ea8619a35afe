"""Rerankers: what structure and low rank cost a model that orders the candidates of a search, on SciFact.

    python studies/reranking/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2 --threads 1

lets the base, an embedder, find 20 candidates for each claim, fine-tunes a reranker on the training claims, makes the
models of every recipe, exports them, measures all in one run on the test claims, and writes results.json, results.md
and a picture beside this file. Models stay under runs/, which git ignores; a second run goes on from what is there.
`--make-only` leaves measuring to another time, and `--write-only` writes the tables and the picture anew.
"""

import sys
from pathlib import Path

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)

NAME = "SciFact, 20 candidates a claim"
COUNT = 20
MAX_LENGTH = 256
"""Tokens of a claim and an abstract; longer abstracts are cut."""
SETTINGS = whet.TrainingSettings(
    epochs=2, learning_rate=5e-5, batch_size=4, max_length=MAX_LENGTH, precision=deployments.FASTEST
)
"""A batch is of claims, each with its candidates."""
CALIBRATION = whet.Calibration(examples=128, batch_size=4, max_length=MAX_LENGTH)
RECIPES = {
    name: steps for name, steps in deployments.WHOLE.items() if not name.startswith(("drone", "structure 1.7, low"))
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
        whet.make_candidates(embedder, data_dir / "scifact_beir", found, count=COUNT, max_length=MAX_LENGTH)
    return whet.load_task("retrieval", data_dir=found, kind="reranking")


if __name__ == "__main__":
    main()
