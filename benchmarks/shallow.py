"""Students without blocks: how many times as fast as their teacher they are, and what that costs.

    python benchmarks/shallow.py runs/mymodel --data-dir ../shared/data --threads 1

distils `static:256` and `cnn:256` from the classifier of `first_steps.py`, with the labels of the teacher alone, on its
5,000 phrases of SST-2 and 30,000 drawn from all; makes cascades of the second and the teacher by phrases that neither
has seen; exports all to ONNX Runtime; and measures all on the dev split in one run. Models stay in --out. Writes
shallow.json beside this file.
"""

import argparse
import csv
import json
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import torch

import first_steps  # beside this file
import whet

RESULTS = Path(__file__).with_suffix(".json")
STUDENTS = ("static:256", "cnn:256")
SETTINGS = whet.TrainingSettings(epochs=5, learning_rate=2e-3)
PRECISIONS = ("fp32", "int8")
MORE = 30_000
"""Phrases that only the teacher labels."""
DISAGREEMENTS = (0.5, 1)
"""Percent of the cascades' answers that may differ from the teacher's."""


def main() -> None:
    """Train, export, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for the models; a temporary one if not given")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or Path(mkdtemp())
    task = first_steps.own_data(options.data_dir)
    more, fresh = other_phrases(options.data_dir, task, out)
    unlabeled = task.more_text(more, text="text")
    folders = [options.teacher]
    for text in STUDENTS:
        folder = out / text.partition(":")[0]
        if not folder.is_dir():
            objective = whet.Objective(alpha=1)
            student = whet.student_from(text)
            whet.distill(
                options.teacher, student, task, folder, settings=SETTINGS, objective=objective, unlabeled=unlabeled
            )
        folders.append(folder)
    for percent in DISAGREEMENTS:
        folder = out / f"cnn, then teacher, {percent} %"
        if not folder.is_dir():
            texts = whet.load_task(train_file=fresh)
            whet.cascade([out / "cnn", options.teacher], texts, folder, max_disagreement=percent)
        folders.append(folder)
    benchmark = whet.Benchmark(runtimes=("pytorch", "onnxruntime"), precisions=PRECISIONS)
    trials = whet.measure(folders, task, benchmark=benchmark)
    RESULTS.write_text(json.dumps([trial.to_dict() for trial in trials], indent=1) + "\n", encoding="utf-8")
    print(trials, f"models in {out}", sep="\n")


def other_phrases(data_dir: Path, task: whet.Task, out: Path) -> tuple[Path, Path]:
    """Write phrases that the teacher labels, and phrases that no model learns from; return both files."""
    file = data_dir / "glue" / "SST-2" / "train.tsv"
    phrases = pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE)["sentence"].str.strip().drop_duplicates()
    dev = {text.strip() for text in task.splits.dev.texts}
    known = {text.strip() for part in (task.splits.train, task.splits.validation) for text in part.texts}
    more = phrases.sample(MORE, random_state=0)
    more = more[~more.isin(dev)]
    fresh = phrases[~phrases.isin(dev | known | {*more})]
    files = (out / "more.csv", out / "fresh.csv")
    for path, texts in zip(files, (more, fresh), strict=True):
        texts.to_frame("text").to_csv(path, index=False)
    return files


if __name__ == "__main__":
    main()
