r"""Students without blocks: how many times as fast as their teacher they are, and what that costs.

    python benchmarks/shallow.py runs/mymodel --train-file train.csv --dev-file dev.csv --unlabeled more.csv \
        --fresh fresh.csv --threads 1

distils `static:256` and `cnn:256` from a fine-tuned classifier, with the labels of the teacher alone, makes cascades of
the second and the teacher by texts that neither has seen, exports all to ONNX Runtime, and measures all in one run.
Models stay in --out. Writes shallow.json beside this file.
"""

import argparse
import json
from pathlib import Path
from tempfile import mkdtemp

import torch

import whet

RESULTS = Path(__file__).with_suffix(".json")
STUDENTS = ("static:256", "cnn:256")
SETTINGS = whet.TrainingSettings(epochs=5, learning_rate=2e-3)
PRECISIONS = ("fp32", "int8")
DISAGREEMENTS = (0.5, 1)
"""Percent of the cascades' answers that may differ from the teacher's."""


def main() -> None:
    """Train, export, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--train-file", type=Path, required=True)
    parser.add_argument("--dev-file", type=Path, required=True)
    parser.add_argument("--unlabeled", type=Path, help="more texts, in a column `text`")
    parser.add_argument("--fresh", type=Path, help="texts that no model learned from, which choose cascades")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for the models; a temporary one if not given")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or Path(mkdtemp())
    task = whet.load_task(train_file=options.train_file, dev_file=options.dev_file)
    more = None if options.unlabeled is None else task.more_text(options.unlabeled, text="text")
    folders = [options.teacher]
    for text in STUDENTS:
        folder = out / text.partition(":")[0]
        if not folder.is_dir():
            objective = whet.Objective(alpha=1)
            student = whet.student_from(text)
            whet.distill(options.teacher, student, task, folder, settings=SETTINGS, objective=objective, unlabeled=more)
        folders.append(folder)
    if options.fresh is not None:
        fresh = whet.load_task(train_file=options.fresh)
        for percent in DISAGREEMENTS:
            folder = out / f"cnn, then teacher, {percent} %"
            if not folder.is_dir():
                whet.cascade([out / "cnn", options.teacher], fresh, folder, max_disagreement=percent)
            folders.append(folder)
    benchmark = whet.Benchmark(runtimes=("pytorch", "onnxruntime"), precisions=PRECISIONS)
    trials = whet.measure(folders, task, benchmark=benchmark)
    RESULTS.write_text(json.dumps([trial.to_dict() for trial in trials], indent=1) + "\n", encoding="utf-8")
    print(trials, f"models in {out}", sep="\n")


if __name__ == "__main__":
    main()
