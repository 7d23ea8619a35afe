"""LoRA on decoders and an encoder, and recurrent students alone and taught, on CoLA; the LSTM on SST-2 too.

    python studies/lora_and_rnn_cola/pretrain.py --data-dir ../shared/data
    python studies/lora_and_rnn_cola/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2 \
        --decoder ../shared/models/stories260k

trains what is missing under runs/, which git ignores, and writes results.json, results.md and a picture beside this
file. `--decoder gpt2` takes the exercise's own decoder from the hub; `--parts` without any writes the tables and the
picture anew from results.json.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

import whet
from whet import Examples, Splits
from whet.evaluation import quality_named
from whet.tasks import ResplitTask

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import seeds  # noqa: E402  (beside this folder)

SEEDS = 5
ALONE = whet.Objective(alpha=0)
GRID = [whet.Objective(alpha=alpha, temperature=t) for alpha in (0.5, 0.9) for t in (2, 5)]
"""The exercise's 0.5 and 2 are the first; the held-out training data choose."""
LORA = {
    "full": (None, 1e-4),
    "LoRA 4": (whet.LoraSettings(rank=4, alpha=8, norms=True), 1e-3),
    "LoRA 16": (whet.LoraSettings(rank=16, alpha=32, norms=True), 1e-3),
}
"""The exercise's rank, and a larger one, at the exercise's learning rate."""
TUNING_EPOCHS = 5


class Recurrent(NamedTuple):
    """How a task's recurrent students are trained."""

    students: tuple[str, ...]
    epochs: float
    batch_size: int
    text: Literal["changed", "reviews"]
    """What the teacher labels beside the training data; the student that learns alone cannot use it."""
    epochs_with_text: float
    teacher: whet.TrainingSettings
    """Of this study's own."""
    judge: whet.TrainingSettings | None = None
    """Of what the teacher learns before: to tell sentences from changed ones."""


class Kind(NamedTuple):
    """What a student starts and learns from."""

    student: str
    objective: whet.Objective
    text: Examples | None = None


RECURRENT = {
    "glue/cola": Recurrent(
        ("recurrent:lstm:256", "recurrent:rnn:256"),
        epochs=8,
        batch_size=64,
        text="changed",
        epochs_with_text=4,
        teacher=whet.TrainingSettings(epochs=5, learning_rate=1e-4),
        judge=whet.TrainingSettings(epochs=1, learning_rate=1e-4, precision="bf16", max_length=64),
    ),
    "glue/sst2": Recurrent(
        ("recurrent:lstm:256",),
        epochs=2,
        batch_size=128,
        text="reviews",
        epochs_with_text=2,
        teacher=whet.TrainingSettings(epochs=2, learning_rate=5e-5, precision="bf16"),
    ),
}
SENTENCES = 80_000
"""That the teacher labels beside the training data."""
SHORT = 15
"""Words of a sentence that is to be told from changed ones, at most: CoLA's are short."""
CONTROLS = ("alone", "alone, own words")
"""The second knows nothing of the teacher, not even its words."""
PARTS = ["lora", *RECURRENT]
LEARNING_RATE = 1e-3


def main() -> None:
    """Run the parts that were asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--decoder", default="gpt2", help="folder or hub name")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="none: tables and picture anew")
    parser.add_argument("--runs", type=Path, default=Path("runs/lora_and_rnn_cola"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = seeds.read(HERE)
    for part in options.parts:
        task = whet.load_task("glue/cola" if part == "lora" else part, data_dir=options.data_dir)
        if part == "lora":
            decoders = [Path(options.decoder), options.runs / "own gpt"]
            found[part] = tuned([Path(options.base), *decoders], task, options.runs)
        else:
            folder = Path(part.replace("/", "_"))
            teacher = fine_tuned(options.base, task, options.runs / folder)
            found[part] = recurrent(teacher, task, more_text(task), options.runs / folder)
        seeds.write(HERE, found, table, label="model")
    if not options.parts:
        seeds.write(HERE, found, table, label="model")


def tuned(bases: list[Path], task: whet.Task, runs: Path) -> list[dict[str, Any]]:
    """Return a row for every base, with all weights trained and by LoRA."""
    rows = []
    for base in bases:
        for name, (lora, rate) in LORA.items():
            out = runs / base.name / name
            shares: list[Any] = []
            if not out.is_dir():
                out.parent.mkdir(parents=True, exist_ok=True)
                settings = whet.TrainingSettings(epochs=TUNING_EPOCHS, learning_rate=rate)
                whet.finetune(base, task, out, settings=settings, lora=lora, report=shares.append)
                (out / "trained.json").write_text(json.dumps(shares[0]))
            trained, whole = json.loads((out / "trained.json").read_text())
            rows.append(
                {"model": f"{base.name}, {name}", "trained": trained, "parameters": whole, **scores(task, [out])}
            )
    return rows


def fine_tuned(base: str, task: whet.Task, runs: Path) -> Path:
    """Return the folder of the task's teacher, trained where it is missing."""
    plan, out = RECURRENT[task.name], runs / "teacher"
    if not out.is_dir():
        runs.mkdir(parents=True, exist_ok=True)
        start = Path(base)
        if plan.judge is not None and not (start := runs / "judge").is_dir():
            whet.finetune(base, real_or_changed(task), start, settings=plan.judge)
        whet.finetune(start, task, out, settings=plan.teacher)
    return out


def real_or_changed(task: whet.Task) -> whet.Task:
    """Return a task that wants reviews' sentences called acceptable, and changed ones not."""
    real, others = real_and_changed(task.data_dir)
    both = Examples(real + others, [1] * len(real) + [0] * len(others))
    both = both.take(np.random.default_rng(1).permutation(len(both)))
    held_out = both.take(np.arange(1000))
    return ResplitTask(
        name="real_or_changed", whole=task, own=Splits(both.take(np.arange(1000, len(both))), held_out, held_out)
    )


def recurrent(teacher: Path, task: whet.Task, text: Examples, runs: Path) -> list[dict[str, Any]]:
    """Return the rows of the teacher and of every recurrent student, alone and taught."""
    rows: list[dict[str, Any]] = [{"model": "teacher", **scores(task, [teacher])}]
    for student in RECURRENT[task.name].students:
        tried = []
        for objective in GRID:
            candidate = trained(teacher, Kind(student, objective), task, 0, runs)
            tried.append(seeds.curve(candidate)[-1]["validation_metric"])
        best = GRID[int(np.argmax(tried))]
        kinds = {
            "alone": Kind(student, ALONE),
            "alone, own words": Kind(f"{student}:own", ALONE),
            "taught": Kind(student, best),
            "taught, more text": Kind(student, best, text),
        }
        grid = {f"alpha {one.alpha:g}, T {one.temperature:g}": score for one, score in zip(GRID, tried, strict=True)}
        said = {}
        for name, kind in kinds.items():
            models = [trained(teacher, kind, task, seed, runs) for seed in range(SEEDS)]
            said[name] = np.array([seeds.predictions(model, task) for model in models])
            rows.append({"model": f"{student}, {name}", **scores(task, models)})
            if name not in CONTROLS:
                rows[-1] |= {f"against {control}": versus(task, said[name], said[control]) for control in CONTROLS}
                rows[-1]["held-out metric by objective"] = grid
                rows[-1]["objective"] = {"alpha": best.alpha, "temperature": best.temperature}
    return rows


def trained(teacher: Path, kind: Kind, task: whet.Task, seed: int, runs: Path) -> Path:
    """Return the folder of a student, trained where it is missing."""
    objective, plan = kind.objective, RECURRENT[task.name]
    source = "alone" if objective.alpha == 0 else f"alpha {objective.alpha:g} T {objective.temperature:g}"
    out = runs / f"{kind.student.replace(':', ' ')} {source}{' more text' if kind.text else ''}" / f"seed {seed}"
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        settings = whet.TrainingSettings(
            epochs=plan.epochs_with_text if kind.text else plan.epochs,
            learning_rate=LEARNING_RATE,
            batch_size=plan.batch_size,
            max_length=64,
            seed=seed,
        )
        whet.distill(
            teacher,
            whet.student_from(kind.student),
            task,
            out,
            settings=settings,
            objective=objective,
            unlabeled=kind.text,
            cache=runs / ("predictions on more text" if kind.text else "predictions"),
        )
    return out


def more_text(task: whet.Task) -> Examples:
    """Return what the task's teacher labels beside its training data; labels of 0 are not read."""
    if RECURRENT[task.name].text == "changed":
        real, others = real_and_changed(task.data_dir)
        part = SENTENCES // 4
        texts = changed(task.splits.train.texts, 2 * part) + real[:part] + others[:part]
    else:
        texts = reviews(task.data_dir)
    return Examples(texts, [0] * len(texts)).sample(SENTENCES, seed=0)


def real_and_changed(data_dir: Path | None) -> tuple[list[str], list[str]]:
    """Return short sentences of reviews, and as many others that were changed."""
    found = [text for text in dict.fromkeys(reviews(data_dir)) if len(text.split()) <= SHORT]
    np.random.default_rng(0).shuffle(found)
    half = SENTENCES // 2
    return found[:half], changed(found[half : 2 * half], half)


def changed(texts: Sequence[str], count: int) -> list[str]:
    """Return sentences in one or two places of which words change places, go, come or are others.

    Words that come are drawn as often as they are written. After Wei and Zou, "EDA", 2019, arXiv 1901.11196, whose
    words that come are synonyms, since labels must stay; here the teacher judges anew.
    """
    random = np.random.default_rng(0)
    vocabulary = [word for text in texts for word in text.split()]
    long_enough = [words for words in map(str.split, texts) if len(words) > 2]
    found = []
    for _ in range(count):
        words = list(long_enough[random.integers(len(long_enough))])
        for _ in range(random.integers(1, 3)):
            place, word = random.integers(len(words) - 1), vocabulary[random.integers(len(vocabulary))]
            match random.integers(4):
                case 0:
                    words[place : place + 2] = words[place + 1], words[place]
                case 1 if len(words) > 3:
                    del words[place]
                case 2:
                    words[place] = word
                case _:
                    words.insert(place, word)
        found.append(" ".join(words))
    return found


def reviews(data_dir: Path | None) -> list[str]:
    """Return single sentences of IMDB's training reviews, of 4 to 40 words."""
    texts = whet.load_task("imdb", data_dir=data_dir).splits.train.texts
    parts = [part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|<br\s*/?>", text)]
    return [part.lower() for part in parts if 4 <= len(part.split()) <= 40]


def scores(task: whet.Task, models: list[Path]) -> dict[str, Any]:
    """Return all of the task's metrics and accuracy, over seeds."""
    labels, said = np.asarray(task.splits.dev.labels), np.array([seeds.predictions(model, task) for model in models])
    names = dict.fromkeys((task.metrics[0], "accuracy"))
    return {name: seeds.summary(labels, said, quality_named(name).score) for name in names}


def versus(task: whet.Task, said: Any, control: Any) -> dict[str, Any]:
    """Return the difference of a student to a control in the metric that counts, paired."""
    return seeds.difference(np.asarray(task.splits.dev.labels), said, control, quality_named(task.metrics[0]).score)


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return one part as a Markdown table."""
    metrics = [key for key in rows[0] if key in seeds.METRICS]
    against = [f"against {control}" for control in CONTROLS]
    head = ["model", *(f"{metric} (95 % interval)" for metric in metrics), *against, "trained of all"]
    lines = [f"### {name}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"{row[m]['value']:.3f} ({row[m]['low']:.3f} to {row[m]['high']:.3f})" for m in metrics]
        for one in (row.get(key) for key in against):
            cells.append("" if one is None else "{value:+.3f} ({low:+.3f} to {high:+.3f}; {p_value:.2g})".format(**one))
        cells.append(f"{row['trained']:,} of {row['parameters']:,}" if "trained" in row else "")
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
