"""The frontier of accuracy and latency on six tasks: DRONE, low rank, one budget of measured time, and recovery.

    python studies/frontier/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

has two stages. `equal_speed`: dense, and what each method makes of it at the same measured speed in PyTorch, nothing
trained. `whole`: what a user would take, in every runtime and number format, beside what these make of the dense model
by themselves, all in one run. Both fine-tune what is missing, and write results.json, results.md and a picture beside
this file, after every task; `--tasks` without any writes the tables and the picture anew, and `--make-only` leaves
measuring to another time.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)
import glue  # noqa: E402

TASKS = ("glue/mrpc", "glue/rte", "glue/cola", "glue/stsb", "glue/sst2", "tweet_sentiment")
ELSEWHERE = {"tweet_sentiment": Path("runs/compression_course/original")}
"""Models that another study fine-tunes."""
SPEEDUP = 2.0
"""Asked of every model of the first stage, in PyTorch."""
EQUAL_SPEED: dict[str, list[dict[str, Any]]] = {
    "drone": [{"method": "drone", "speedup": SPEEDUP}],
    "kfac by_loss": [{"method": "kfac", "speedup": SPEEDUP}],
    "structure": [{"method": "structure", "speedup": SPEEDUP}],
    "structure, low rank too": [
        {"method": "structure", "speedup": SPEEDUP, "structures": ["neurons", "heads", "ranks", "drop"]}
    ],
}
IN_PYTORCH_INT8 = {"dense, int8": [{"method": "dynamic_int8"}]}
"""By PyTorch's own kernels."""


def main() -> None:
    """Run every task and stage that was asked for, and write what all runs so far gave."""
    parser = deployments.parser(__doc__, "runs/frontier")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--stages", nargs="+", default=["equal_speed", "whole"], choices=["equal_speed", "whole"])
    parser.add_argument("--glue-runs", type=Path, default=Path("runs/glue"), help="with the fine-tuned models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, dict[str, Any]] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        place = name.replace("/", "_")
        dense = ELSEWHERE.get(name) or glue.fine_tuned(options.base, task, options.glue_runs / place)
        for stage in options.stages:
            make, measure = (made_equal, equal_speed) if stage == "equal_speed" else (made_whole, in_runtimes)
            folders = make(task, dense, options.runs / place)
            if not options.make_only:
                found.setdefault(stage, {})[name] = measure(folders, task, options.rounds)
                write(results, found)
    if not options.tasks:
        write(results, found)


def made_equal(task: whet.Task, dense: Path, runs: Path) -> list[Path]:
    """Return the folders of the first stage's models, the dense one's first."""
    return [dense, *(deployments.made(task, dense, runs / label, steps) for label, steps in EQUAL_SPEED.items())]


def equal_speed(folders: list[Path], task: whet.Task, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the first stage, the dense model's first."""
    benchmark = whet.Benchmark(rounds=rounds, timed=128, singles=10, metrics=("fidelity", "latency", "size"))
    return [trial.to_dict() for trial in whet.measure(folders, task, benchmark=benchmark)]


def made_whole(task: whet.Task, dense: Path, runs: Path) -> list[Path]:
    """Return the folders of the second stage's models, exported, the dense one's first and PyTorch's int8 last."""
    folders = [deployments.made(task, dense, runs / label, steps) for label, steps in deployments.WHOLE.items()]
    deployments.export_all(folders, task)
    return [*folders, *(deployments.made(task, dense, runs / label, steps) for label, steps in IN_PYTORCH_INT8.items())]


def in_runtimes(folders: list[Path], task: whet.Task, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the second stage: all in PyTorch, dense first; then all but PyTorch's int8 elsewhere."""
    return deployments.in_runtimes(folders[:-1], task, rounds, in_pytorch_alone=folders[-1:])


def write(results: Path, found: dict[str, dict[str, Any]]) -> None:
    """Write what was measured, and the tables and the picture that follow from it."""
    # without indents, which would be a third of it
    results.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    tables = []
    if equal := found.get("equal_speed"):
        tables += ["## equal_speed", "", summed(equal), *(glue.table(name, rows) for name, rows in equal.items())]
    if whole := found.get("whole"):
        tables += [
            "## whole",
            "",
            *deployments.by_place(whole),
            *(deployments.sizes(name, rows) for name, rows in whole.items()),
        ]
        deployments.picture(whole).savefig(results.with_suffix(".png"), dpi=110, metadata={"Software": "whet"})
    results.with_suffix(".md").write_text("\n".join(tables))


def summed(tasks: dict[str, list[dict[str, Any]]]) -> str:
    """Return the KL of every method, summed over the tasks, and its mean speed, as a table."""
    lines = [f"### Summed over {', '.join(tasks)}", "", "| model | KL | times dense, least and most |", "|---|---|---|"]
    for place in range(1, 1 + len(EQUAL_SPEED)):
        rows = [{one["metric"]: one for one in own[place]["measurements"]} for own in tasks.values()]
        speeds = [row["throughput"]["versus"]["value"] for row in rows]
        total = sum(row["kl"]["value"] for row in rows)
        name = next(iter(tasks.values()))[place]["name"]
        lines.append(f"| {name} | {total:.4f} | {min(speeds):.2f} to {max(speeds):.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
