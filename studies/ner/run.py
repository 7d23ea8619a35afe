"""Names in text: how fast a tagger gets, and what it loses, on CoNLL-2003 and WNUT-17.

    python studies/ner/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2 --threads 1

fine-tunes a tagger for each task where it is missing, makes the models of every recipe, exports them, measures all of
them in PyTorch, ONNX Runtime and OpenVINO in one run, and writes results.json, results.md and a picture beside this
file, after every task. Models stay under runs/, which git ignores; a second run goes on from what is there. `--tasks`
without any writes the tables and the picture anew, and `--make-only` leaves measuring to another time.
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

TASKS = ("conll2003", "wnut17")
RECIPES: dict[str, list[dict[str, Any]]] = {
    label: [step for step in steps if step != deployments.FIRST]
    for label, steps in deployments.WHOLE.items()
    if label != "structure 1.7, low rank too"
}
"""What a user would take; every word is answered, so that nothing can be left out after the first token."""


def main() -> None:
    """Run every task that was asked for, and write what all runs so far gave."""
    parser = deployments.parser(__doc__, "runs/ner")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument(
        "--only", nargs="*", choices=[*RECIPES], help="recipes besides the dense model; all if not given"
    )
    options = parser.parse_args()
    names = list(RECIPES) if options.only is None else options.only
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, deployments.Rows] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        dense = glue.fine_tuned(options.base, task, options.runs / name)
        folders = made(task, dense, options.runs / name, names)
        if not options.make_only:
            found[name] = deployments.in_runtimes(folders, task, options.rounds)
            deployments.write(results, found, by_type)
    if not options.tasks:
        deployments.write(results, found, by_type)


def made(task: whet.Task, dense: Path, runs: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of the dense model and those of recipes, exported; what is missing is made."""
    folders = [dense, *(deployments.made(task, dense, runs / name, RECIPES[name]) for name in names if RECIPES[name])]
    deployments.export_all(folders, task)
    return folders


def by_type(name: str, rows: deployments.Rows) -> str:
    """Return the F1 of every type of entity of one task's models, as a Markdown table."""
    prefix = "entity_f1_"
    types = [one["metric"].removeprefix(prefix) for one in rows[0]["measurements"] if one["metric"].startswith(prefix)]
    lines = [f"### {name}, F1 by type", "", f"| model | where | {' | '.join(types)} |", "|---" * (2 + len(types)) + "|"]
    for row in rows:
        known, (model, place) = deployments.known(row), deployments.named(row)
        scores = [f"{known[prefix + kind]['value']:.3f}" for kind in types]
        lines.append(f"| {model} | {place} | {' | '.join(scores)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
