"""A smaller student by distillation, then low rank on top: what each stage costs and gains, on MRPC, RTE and SST-2.

    python studies/distilled_and_factored/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes a teacher for each task where `runs/glue/TASK/dense` is missing, distils a student of half its layers,
factors and recovers it, measures all stages side by side, and writes results.json, results.md and a picture beside this
file, after every task. Models stay under runs/, which git ignores; a second run goes on from what is there.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)


class Plan(NamedTuple):
    """How one task's student is trained."""

    epochs: float
    recovery: float
    """Epochs of recovery after low rank."""


PLANS = {
    "glue/mrpc": Plan(epochs=10, recovery=3),
    "glue/rte": Plan(epochs=10, recovery=3),
    "glue/sst2": Plan(epochs=3, recovery=0.5),
}
STUDENT = "layer_subset:evenly_spaced:3"
OBJECTIVE = whet.Objective(alpha=0.7, temperature=2, hidden_states=1)
PACE: dict[str, Any] = {"learning_rate": 1e-4, "precision": "bf16"}
"""Of students and of their recovery."""
KEEPS = (0.5, 0.25)
"""Shares of the student's block weights that low rank keeps."""
BENCHMARK = whet.Benchmark(rounds=10, metrics=("fidelity", "latency", "size"))


def main() -> None:
    """Run every task that was asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--tasks", nargs="+", default=list(PLANS), choices=PLANS)
    parser.add_argument("--runs", type=Path, default=Path("runs/distilled_and_factored"))
    parser.add_argument("--glue-runs", type=Path, default=Path("runs/glue"), help="with the fine-tuned teachers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--train-only", action="store_true", help="make the models, and measure another time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        teacher = glue.fine_tuned(options.base, task, options.glue_runs / name.replace("/", "_"))
        models = [teacher, *stages(teacher, task, options.runs / name.replace("/", "_"))]
        if options.train_only:
            continue
        found[name] = [trial.to_dict() for trial in whet.measure(models, task, benchmark=BENCHMARK)]
        results.write_text(json.dumps(found, indent=1) + "\n")
        (HERE / "results.md").write_text("\n".join(glue.table(one, rows) for one, rows in found.items()))
        picture(found).savefig(HERE / "results.png", dpi=130, metadata={"Software": "whet"})


def stages(teacher: Path, task: whet.Task, runs: Path) -> list[Path]:
    """Return the folders of the student and of what low rank makes of it, made where they are missing."""
    plan, student = PLANS[task.name], runs / "student"
    runs.mkdir(parents=True, exist_ok=True)
    if not student.is_dir():
        settings = whet.TrainingSettings(epochs=plan.epochs, **PACE)
        whet.distill(teacher, whet.student_from(STUDENT), task, student, settings=settings, objective=OBJECTIVE)
    made = [student]
    for keep in KEEPS:
        out = runs / f"student, kfac {keep}, recovered"
        recovery = {"epochs": max(1, plan.recovery), "share": min(1, plan.recovery), **PACE}
        steps = [{"method": "kfac", "keep": keep}, {"method": "recovery.distillation", **recovery}]
        if not out.is_dir():
            whet.compress(student, whet.Recipe.from_list(steps), out, task=task)
        made.append(out)
    return made


def picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return quality over speed, one panel a task."""
    figure = Figure(figsize=(4 * len(found), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        for i, row in enumerate(rows):
            by_name = {one["metric"]: one for one in row["measurements"]}
            score, speed = row["measurements"][0], by_name["throughput"]["versus"] or {"value": 1, "low": 1, "high": 1}
            arms = [[[one["value"] - one["low"]], [one["high"] - one["value"]]] for one in (speed, score)]
            label = "teacher" if i == 0 else row["name"]
            panel.errorbar(speed["value"], score["value"], xerr=arms[0], yerr=arms[1], fmt="o", capsize=3, label=label)
        panel.set(title=name, xlabel="sentences/s, times the teacher", ylabel=rows[0]["measurements"][0]["metric"])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
