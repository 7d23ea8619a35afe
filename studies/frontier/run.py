"""The frontier of accuracy and latency on six tasks: DRONE, low rank, one budget of measured time, and recovery.

    python studies/frontier/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

has two stages. `equal_speed`: dense, and what each method makes of it at the same measured speed in PyTorch, nothing
trained. `whole`: what a user would take, in the best runtime and number format, beside what runtimes make of the dense
model by themselves, all in one run. Both fine-tune what is missing, and write results.json, results.md and a picture
beside this file, after every task; `--tasks` without any writes the tables and the picture anew.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

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
        {"method": "structure", "speedup": SPEEDUP, "structures": ["neurons", "heads", "ranks", "nothing"]}
    ],
}
FIRST = {"method": "first_token"}
IN_INT8 = {"runtime": "onnxruntime", "precision": "int8"}
RECOVERY = {"method": "recovery.distillation", "epochs": 3, "learning_rate": 1e-4, "precision": "bf16"}
WHOLE: dict[str, list[dict[str, Any]]] = {
    "structure 1.7": [FIRST, {"method": "structure", "speedup": 1.7, **IN_INT8}],
    "structure 2.2": [FIRST, {"method": "structure", "speedup": 2.2, **IN_INT8}],
    "structure 2, recovered": [FIRST, {"method": "structure", "speedup": 2.0, **IN_INT8}, RECOVERY],
    "structure 3, recovered": [FIRST, {"method": "structure", "speedup": 3.0, **IN_INT8}, RECOVERY],
}
"""The second stage, whose speed counts in ONNX Runtime int8."""


def main() -> None:
    """Run every task and stage that was asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--stages", nargs="+", default=["equal_speed", "whole"], choices=["equal_speed", "whole"])
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--glue-runs", type=Path, default=Path("runs/glue"), help="with the fine-tuned models")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, dict[str, Any]] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.task_named(name, data_dir=options.data_dir)
        place = name.replace("/", "_")
        dense = ELSEWHERE.get(name) or glue.fine_tuned(options.base, task, options.glue_runs / place)
        for stage in options.stages:
            own = equal_speed if stage == "equal_speed" else in_runtimes
            found.setdefault(stage, {})[name] = own(task, dense, options.runs / place, options.rounds)
            write(results, found)
    write(results, found)


def equal_speed(task: whet.Task, dense: Path, runs: Path, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the first stage, the dense model's first."""
    folders = [dense, *(made(task, dense, runs / label, steps) for label, steps in EQUAL_SPEED.items())]
    benchmark = whet.Benchmark(rounds=rounds, timed=128, singles=10, metrics=("fidelity", "latency", "size"))
    return [json.loads(trial.to_json()) for trial in whet.measure(folders, task, benchmark=benchmark)]


def in_runtimes(task: whet.Task, dense: Path, runs: Path, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the second stage: dense in PyTorch first, then all in both runtimes' int8."""
    folders = [made(task, dense, runs / "dense", [])]
    folders += [made(task, dense, runs / label, steps) for label, steps in WHOLE.items()]
    for folder in folders:
        if not (folder / "openvino_model_int8.bin").is_file():
            whet.export(folder, ("onnxruntime", "openvino"), precisions=["fp32", "int8"], task=task)
    benchmark = whet.Benchmark(
        batch_size=8,
        rounds=rounds,
        timed=128,
        singles=10,
        runtimes=("pytorch", "onnxruntime", "openvino"),
        precisions=("fp32", "int8"),
        metrics=("fidelity", "latency", "size"),
    )
    return [json.loads(trial.to_json()) for trial in benchmark.run(folders, task)]


def made(task: whet.Task, dense: Path, out: Path, steps: list[dict[str, Any]]) -> Path:
    """Return the folder of a recipe's model, compressed where it is missing."""
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        whet.compress(dense, whet.Recipe.from_list(steps), out, task=task)
    return out


def write(results: Path, found: dict[str, dict[str, Any]]) -> None:
    """Write what was measured, and the tables and the picture that follow from it."""
    results.write_text(json.dumps(found, indent=1) + "\n")
    tables = []
    for stage, tasks in found.items():
        tables += [f"## {stage}", "", *([summed(tasks)] if stage == "equal_speed" else [])]
        tables += [glue.table(name, rows) for name, rows in tasks.items()]
    results.with_suffix(".md").write_text("\n".join(tables))
    shown = found.get("whole") or found["equal_speed"]
    glue.picture(shown).savefig(results.with_suffix(".png"), dpi=130, metadata={"Software": "whet"})


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
