"""Emotions of comments, several for one text: what a smaller and faster model costs on GoEmotions.

    python studies/multi_label/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes MiniLM-L6 where `runs/multi_label/fine_tuned/dense` is missing, makes what a user would take from it, with
and without recovery, measures all of them in every runtime beside what these make of the dense model by themselves, in
one run, and writes results.json, results.md and a picture beside this file. Models stay under runs/, which git ignores;
a second run goes on from what is there. `--only` names models, `--make-only` leaves measuring to another time, and
`--tasks` without any writes the tables and the picture anew.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)
import glue  # noqa: E402

TASK = "goemotions"
STUDENT = "layer_subset:evenly_spaced:3"
OBJECTIVE = whet.Objective(alpha=0.7, temperature=2, hidden_states=1)
PACE: dict[str, Any] = {"epochs": 4, "learning_rate": 1e-4, "precision": deployments.FASTEST}
"""Of the student."""
RECIPES = {name: steps for name, steps in deployments.WHOLE.items() if not name.startswith("drone")}
STUDENTS: dict[str, list[dict[str, Any]]] = {
    "student, 3 layers": [deployments.FIRST],
    "student, structure 2, recovered": [
        deployments.FIRST,
        {"method": "structure", "speedup": 2.0, **deployments.IN_INT8},
        deployments.RECOVERY,
    ],
}
"""What is made of the student."""
CASCADES = {"cascade, .5 %": ("structure 3, recovered", 0.5), "cascade, 1 %": ("structure 3, recovered", 1.0)}
"""The fast model before the dense one, and the percent of texts whose labels may differ, with 95 % confidence."""


def main() -> None:
    """Make and measure what was asked for, and write what is known."""
    parser = deployments.parser(__doc__, "runs/multi_label")
    parser.add_argument("--tasks", nargs="*", default=[TASK], choices=[TASK])
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[*RECIPES, *STUDENTS, *CASCADES],
        help="models besides the dense one; all if not given",
    )
    options = parser.parse_args()
    names = [*RECIPES, *STUDENTS, *CASCADES] if options.only is None else options.only
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, deployments.Rows] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        folders = models(task, options.base, options.runs, names)
        cascades = [cascaded(task, folders[0], options.runs, one) for one in names if one in CASCADES]
        if not options.make_only:
            found[name] = deployments.in_runtimes(folders, task, options.rounds, cascades=cascades)
    deployments.write(results, found, others)


def models(task: whet.Task, base: str, runs: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of the dense model and of those named but cascades, exported; what is missing is made."""
    dense = glue.fine_tuned(base, task, runs / "fine_tuned")
    folders = [deployments.made(task, dense, runs / "dense", [])]
    for name in names:
        if name in STUDENTS:
            folders.append(deployments.made(task, taught(task, dense, runs), runs / name, STUDENTS[name]))
        elif RECIPES.get(name):
            folders.append(deployments.made(task, dense, runs / name, RECIPES[name]))
    deployments.export_all(folders, task)
    return folders


def cascaded(task: whet.Task, dense: Path, runs: Path, name: str) -> Path:
    """Return the folder of a cascade, made and exported where it is missing."""
    (fast, most), out = CASCADES[name], runs / name
    if not out.is_dir():
        before = deployments.made(task, dense, runs / fast, RECIPES[fast])
        whet.cascade([before, dense], task, out, max_disagreement=most)
        whet.export(out, ["onnxruntime"], precisions=["int8"], task=task)
    return out


def taught(task: whet.Task, dense: Path, runs: Path) -> Path:
    """Return the folder of the student, distilled where it is missing."""
    student = runs / "student"
    if not student.is_dir():
        settings = whet.TrainingSettings(**PACE)
        whet.distill(dense, whet.student_from(STUDENT), task, student, settings=settings, objective=OBJECTIVE)
    return student


def others(name: str, rows: deployments.Rows) -> str:
    """Return the task's other metrics of all models as a Markdown table."""
    metrics = whet.load_task(name).metrics[1:]
    lines = [f"### {name}, other metrics", "", f"| model | where | {' | '.join(metrics)} |", "|---" * 4 + "|"]
    for row in rows:
        model, place = deployments.named(row)
        values = [glue.interval(deployments.known(row)[metric], 3) for metric in metrics]
        lines.append(f"| {model} | {place} | {' | '.join(values)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
