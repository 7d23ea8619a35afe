"""What a teacher costs at each step of training, asked every time or once, and what products in bf16 save.

    python benchmarks/distillation_cost.py --data-dir ../shared/data --model runs/glue/glue_mrpc/dense

takes steps of training a copy of half the model's layers, and of all of them, on the same batches of MRPC in turn: from
labels alone, with the teacher's predictions known beforehand, with the teacher asked, and from labels alone in bf16. A
step collates, goes forward and back, and updates the weights by AdamW, as transformers does. Writes
distillation_cost.json beside this file.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

import whet
from whet import Objective, Resources, student_from
from whet.evaluation import paired_ratio
from whet.models import load_tokenizer
from whet.training import TEACHER_LOGITS, Teacher, teacher_logits
from whet.utils import ComputePrecision, current_machine

HERE = Path(__file__).parent
STUDENTS = ("layer_subset:evenly_spaced:3", "layer_subset:top:6")
BATCH = 32
WARM_UP = 3
PLAIN, CACHED, ASKED, IN_BF16 = "labels alone", "known predictions", "teacher asked", "labels alone, in bf16"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model fine-tuned on MRPC")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher, tokenizer = whet.load_model(options.model), load_tokenizer(options.model)
    examples = whet.load_task("glue/mrpc", data_dir=options.data_dir).splits.train.sample(
        BATCH * options.rounds, seed=0
    )
    rows: Any = examples.encode(tokenizer, max_length=128).rows
    known = teacher_logits(teacher, tokenizer, rows).tolist()
    rows = [{**row, TEACHER_LOGITS: own} for row, own in zip(rows, known, strict=True)]
    found = []
    for student in STUDENTS:
        lessons = {PLAIN: None, CACHED: Teacher(None, Objective()), ASKED: Teacher(teacher, Objective())}
        steps = {name: step_of(student, teacher, lesson, tokenizer) for name, lesson in lessons.items()}
        steps[IN_BF16] = step_of(student, teacher, None, tokenizer, precision="bf16")
        seconds = in_turn(steps, [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)])
        ratios = {name: paired_ratio(seconds[name], seconds[PLAIN], seed=0) for name in (CACHED, ASKED, IN_BF16)}
        found.append(
            {
                "student": student,
                "milliseconds of labels alone": 1e3 * float(torch.tensor(seconds[PLAIN]).median()),
                "times labels alone": {
                    name: {"value": one.value, "low": one.low, "high": one.high} for name, one in ratios.items()
                },
            }
        )
    result = {"machine": current_machine().to_dict(), "batch": BATCH, "rounds": options.rounds, "students": found}
    (HERE / "distillation_cost.json").write_text(json.dumps(result, indent=1) + "\n")
    show(found)


def step_of(
    student: str, teacher: nn.Module, lesson: Teacher | None, tokenizer: Any, precision: ComputePrecision = "fp32"
) -> Callable[[Sequence[Any]], None]:
    """Return what takes one step of training on a batch of rows."""
    model = student_from(student).build(teacher, Resources()).model.train()
    optimizer, collate = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True), DataCollatorWithPadding(tokenizer)

    def step(rows: Sequence[Mapping[str, Any]]) -> None:
        # those who learn from labels have no more columns than they read
        own = [
            {key: value for key, value in row.items() if lesson is not None or key != TEACHER_LOGITS} for row in rows
        ]
        batch: dict[str, Tensor] = dict(collate(own))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).loss if lesson is None else lesson.loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_turn(steps: Mapping[str, Callable[[Any], None]], batches: Sequence[Any]) -> dict[str, list[float]]:
    """Return the seconds of every kind of step on every batch; all take turns, and the first few do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for batch in batches:
        for name, step in steps.items():
            start = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - start)
    return {name: own[WARM_UP:] for name, own in seconds.items()}


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the ratios."""
    shown = Table("student", CACHED, ASKED, IN_BF16, title="times a step from labels alone (95 % interval)")
    for row in found:
        cells = [row["times labels alone"][name] for name in (CACHED, ASKED, IN_BF16)]
        shown.add_row(row["student"], *(f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in cells))
    Console(emoji=False).print(shown)


if __name__ == "__main__":
    main()
