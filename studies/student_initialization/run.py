"""Which layers a student should start from: seven starts of a three-layer student, from a fine-tuned six-layer teacher.

    python studies/student_initialization/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes a teacher in each of two settings, distils a student from every start with every seed, and writes
results.json, results.md and a picture beside this file, after every setting. Models stay under runs/, which git
ignores; a second run goes on from what is there. `--settings` without any writes the tables and the picture anew from
results.json.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import whet
from whet.evaluation import quality_named

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import seeds  # noqa: E402  (beside this folder)


class Setting(NamedTuple):
    """How much is trained on, for how long."""

    examples: int | None
    """Of the training data; all, if None."""
    epochs: float
    learning_rate: float
    seeds: int


SETTINGS = {
    "exercise": Setting(examples=1000, epochs=5, learning_rate=5e-5, seeds=5),
    "full": Setting(examples=None, epochs=3, learning_rate=1e-4, seeds=2),
}
"""The exercise's, and one that trains to the end."""
TEACHER_EPOCHS = {"exercise": 10, "full": 3}
PRECISION: Any = "bf16"
"""Of the products in training."""
LAYERS = 3
STARTS = {
    "top": f"layer_subset:top:{LAYERS}",
    "bottom": f"layer_subset:bottom:{LAYERS}",
    "odd": "layer_subset:odd",
    "even": "layer_subset:even",
    "evenly spaced": f"layer_subset:evenly_spaced:{LAYERS}",
    "influence": f"layer_subset:influence:{LAYERS}",
    "random": f"transformer:layers={LAYERS}",
}
OBJECTIVE = whet.Objective(alpha=0.5, temperature=1)
"""Labels and the teacher's predictions, at the exercise's temperature."""


def main() -> None:
    """Run the settings that were asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--task", default="sick", help="sick, or glue/mnli from the hub")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--runs", type=Path, default=Path("runs/student_initialization"))
    parser.add_argument("--seeds", type=int, help="instead of a setting's own number")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = seeds.read(HERE)
    whole = whet.load_task(options.task, data_dir=options.data_dir)
    for name in options.settings:
        found[name] = measure(name, options.base, whole, options.runs / name, options.seeds or SETTINGS[name].seeds)
        seeds.write(HERE, found, table, label="start")
    if not options.settings:
        seeds.write(HERE, found, table, label="start")


def measure(name: str, base: str, whole: whet.Task, runs: Path, count: int) -> list[dict[str, Any]]:
    """Return the teacher's row and one for every start."""
    setting = SETTINGS[name]
    task = part_of(whole, setting.examples, runs)
    teacher = runs / "teacher"
    if not teacher.is_dir():
        chosen = whet.TrainingSettings(epochs=TEACHER_EPOCHS[name], learning_rate=1e-4, precision=PRECISION)
        whet.finetune(base, task, teacher, settings=chosen)
    labels, quality = np.asarray(task.splits.dev.labels), quality_named(task.metrics[0])
    known = seeds.predictions(teacher, task)[None]
    rows = [{"start": "teacher", "accuracy": seeds.summary(labels, known, quality.score), **last([teacher])}]
    said: dict[str, Any] = {}
    for start, text in STARTS.items():
        students = [
            distilled(teacher, text, task, runs / start / f"seed {seed}", setting, seed) for seed in range(count)
        ]
        said[start] = np.array([seeds.predictions(student, task) for student in students])
        rows.append({"start": start, "accuracy": seeds.summary(labels, said[start], quality.score), **last(students)})
    for row in rows[1:]:
        own = said[str(row["start"])]
        row["against teacher"] = seeds.difference(labels, own, known, quality.score)
        row["against odd"] = seeds.difference(labels, own, said["odd"], quality.score)
        row["seeds"] = count
        row["parameters"] = size(runs / str(row["start"]) / "seed 0")
    return rows


def part_of(whole: whet.Task, count: int | None, runs: Path) -> whet.Task:
    """Return the task with fewer training examples, written to files; the dev split stays."""
    if count is None:
        return whole
    runs.mkdir(parents=True, exist_ok=True)
    names = whole.label_names
    assert names is not None
    splits = {"train": whole.splits.train.sample(count, seed=0), "dev": whole.splits.dev}
    for name, examples in splits.items():
        with (runs / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "text_pair", "label"))
            pairs = examples.pairs or ()
            writer.writerows(
                (*texts, names[int(label)])
                for *texts, label in zip(examples.texts, pairs, examples.labels, strict=True)
            )
    return whet.load_task(train_file=runs / "train.csv", dev_file=runs / "dev.csv", text_pair="text_pair")


def distilled(teacher: Path, text: str, task: whet.Task, out: Path, setting: Setting, seed: int) -> Path:
    """Return the folder of a student, trained where it is missing."""
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        whet.distill(
            teacher,
            whet.student_from(text),
            task,
            out,
            settings=whet.TrainingSettings(
                epochs=setting.epochs, learning_rate=setting.learning_rate, seed=seed, precision=PRECISION
            ),
            objective=OBJECTIVE,
            cache=teacher.with_name("teacher's predictions"),
        )
    return out


def last(folders: list[Path]) -> dict[str, float]:
    """Return the losses of the last epoch, mean over models."""
    ends = [seeds.curve(folder)[-1] for folder in folders]
    return {name: float(np.mean([end[name] for end in ends])) for name in ("training_loss", "validation_loss")}


def size(folder: Path) -> int:
    """Return how many parameters a model has."""
    return int(sum(weight.numel() for weight in whet.load_model(folder).parameters()))


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return one setting as a Markdown table."""
    setting = SETTINGS[name]
    data = f"{setting.examples or 'all'} examples, {setting.epochs:g} epochs at {setting.learning_rate:g}"
    lines = [
        f"### {name}: {data}, {rows[1]['seeds']} seeds",
        "",
        "| start | accuracy (95 % interval) | against odd (p) | against teacher | training loss | validation loss |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        versus = [row.get(f"against {other}") for other in ("odd", "teacher")]
        cells = ["" if one is None else f"{one['value']:+.4f} ({one['p_value']:.2g})" for one in versus]
        accuracy = row["accuracy"]
        cells += [f"{row[loss]:.4f}" for loss in ("training_loss", "validation_loss")]
        interval = f"{accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f})"
        lines.append(f"| {row['start']} | {interval} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
