"""Question answering: what structure and low rank cost an extractive model, in every runtime, on SQuAD.

    python studies/question_answering/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes the base on TyDi QA's English questions and on two thirds of the articles of SQuAD's dev file, compresses it,
exports every model, measures all of them in one run on the other articles, and writes results.json, results.md and a
picture beside this file. Models stay under runs/, which git ignores; a second run goes on from what is there.
`--make-only` leaves measuring to another time, and `--write-only` writes the tables and the picture anew.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)
from deployments import IN_INT8, RECOVERY  # noqa: E402

MAX_LENGTH = 256
"""Tokens of a window: nine of ten contexts fit into one."""
SETTINGS = whet.TrainingSettings(
    epochs=1, learning_rate=1e-4, batch_size=8, max_length=MAX_LENGTH, precision=deployments.FASTEST
)
CALIBRATION = whet.Calibration(examples=300, batch_size=8, max_length=MAX_LENGTH)
RECOVERED = {**RECOVERY, "epochs": 1}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "kfac 1.5": [{"method": "kfac", "speedup": 1.5}],
    **{f"structure {speed:g}": [{"method": "structure", "speedup": speed, **IN_INT8}] for speed in (1.5, 2.0)},
    **{
        f"structure {speed:g}, recovered": [{"method": "structure", "speedup": speed, **IN_INT8}, RECOVERED]
        for speed in (2.0, 2.6)
    },
}
"""The speed of low rank counts in PyTorch, that of structure in ONNX Runtime int8."""
NAME = "SQuAD, 16 articles"


def main() -> None:
    """Make every model that is missing, measure all of them, and write what was measured."""
    deployments.one_task(
        __doc__,
        HERE / "results.json",
        "runs/question_answering",
        NAME,
        lambda options: questions(options.data_dir, options.runs),
        RECIPES,
        settings=SETTINGS,
        calibration=CALIBRATION,
    )


def questions(data_dir: Path | None, runs: Path) -> whet.Task:
    """Return the task of both data sets: all of TyDi QA and the articles of SQuAD for training are trained on."""
    squad = whet.load_task("squad", data_dir=data_dir).splits
    tydi = whet.load_task("tydiqa_en", data_dir=data_dir).splits
    files = {"train": (squad.train, squad.validation, *tydi), "dev": (squad.dev,)}
    for name, parts in files.items():
        runs.mkdir(parents=True, exist_ok=True)
        path = runs / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for part in parts for row in lines(part)), encoding="utf-8")
    return whet.load_task(
        train_file=runs / "train.jsonl", dev_file=runs / "dev.jsonl", kind="question_answering", metric="answer_f1"
    )


def lines(examples: whet.Examples) -> Iterable[dict[str, Any]]:
    """Return questions as whet reads them, one a line."""
    for question, context, answers in zip(examples.texts, examples.pairs or (), examples.labels, strict=True):
        accepted = [{"text": text, "answer_start": start} for text, start in answers]
        yield {"question": question, "context": context, "answers": accepted}


if __name__ == "__main__":
    main()
