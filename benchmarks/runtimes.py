"""What runtimes and precisions give a dense model and compressed ones: speed and quality, all in one run.

    python benchmarks/runtimes.py --model runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir DIR --out runs/runtimes

compresses a fine-tuned model by three recipes, exports all to ONNX Runtime and OpenVINO in fp32 and int8, times them in
turn on the dev split in batches of 8 sorted by length, and adds a table to runtimes.json beside this file. Then all are
compared in int8 with the dense model in either runtime's int8: what a user has without whet. `--parts held_out` asks
held-out training examples instead, which may say what to take. A second call measures what the first has made.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

import whet
from whet.models import load_tokenizer, predict
from whet.tasks import encode, shortest_first
from whet.utils import FP32, INT8, MANIFEST

RESULTS = Path(__file__).with_suffix(".json")
RUNTIMES = ("onnxruntime", "openvino")
RECIPES = {
    "kfac 0.4": whet.Recipe.from_list([{"method": "kfac", "keep": 0.4}]).methods,
    **{name.replace("_", " "): whet.Recipe.read(Path(name)).methods for name in ("structured", "structured_mild")},
}
PARTS = {
    "everything": (("pytorch", *RUNTIMES), (FP32, INT8)),
    "against onnxruntime int8": (RUNTIMES, (INT8,)),
    "against openvino int8": (RUNTIMES[::-1], (INT8,)),
}
"""All against dense PyTorch; and int8 against what a user has without whet: the dense model in a runtime's int8."""
HELD_OUT = "held_out"
MOST = 2000
"""Held-out examples."""
SEED = 0


def main() -> None:
    """Make what is missing, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/runtimes"), help="folder of the models")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--timed", type=int, default=256, help="dev sentences that are timed in batches")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parts", nargs="*", choices=[*PARTS, HELD_OUT], default=list(PARTS))
    parser.add_argument("--make-only", action="store_true", help="measure another time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    folders = made(options.model, task, options.out / options.task.replace("/", "_"))
    if options.make_only:
        return
    for name in options.parts:
        results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if name == HELD_OUT:
            rows = held_out(folders, task)
            print(json.dumps(rows, indent=1))
        else:
            rows = measured(folders, task, *PARTS[name], rounds=options.rounds, timed=options.timed)
            print(name, *(row_of(row) for row in rows), sep="\n  ", flush=True)
        results.setdefault(options.task, {})[name] = rows
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def made(model: Path, task: whet.Task, out: Path) -> list[Path]:
    """Return the folders of the dense model and of every recipe's, with their exports."""
    dense = out / "dense"
    if not dense.is_dir():
        shutil.copytree(model, dense)
    for name, methods in RECIPES.items():
        if not (out / name).is_dir():
            whet.compress(dense, whet.Recipe(methods), out / name, task=task, seed=SEED)
    folders = [dense, *(out / name for name in RECIPES)]
    for folder in folders:
        if "exports" not in json.loads((folder / MANIFEST).read_text()):
            found = whet.export(folder, RUNTIMES, precisions=[FP32, INT8], task=task, seed=SEED)
            print(folder.name, {" ".join(place): f"{one.kl:.2g}" for place, one in found.items()}, flush=True)
    return folders


def held_out(folders: list[Path], task: whet.Task) -> list[dict[str, Any]]:
    """Return accuracy, and KL from the dense model, on training examples that were held out, in PyTorch."""
    tokenizer = load_tokenizer(folders[0])
    rows = shortest_first(task.splits.validation.sample(MOST, seed=SEED), tokenizer, max_length=128)
    batches = encode(rows, tokenizer, max_length=128, batch_size=32)
    said = [predict(whet.load_model(folder).eval(), batches, name=folder.name) for folder in folders]
    return [
        {
            "name": folder.name,
            "examples": len(own),
            "accuracy": float((own.logits.argmax(1) == batches.labels).mean()),
            "kl": float(said[0].divergences(own).mean()),
        }
        for folder, own in zip(folders, said, strict=True)
    ]


def measured(
    folders: list[Path],
    task: whet.Task,
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    *,
    rounds: int,
    timed: int,
) -> list[dict[str, Any]]:
    """Return a row for every model, runtime and precision, against the first."""
    benchmark = whet.Benchmark(
        batch_size=8,
        rounds=rounds,
        timed=timed,
        singles=20,
        runtimes=runtimes,
        precisions=precisions,
        metrics=("fidelity", "latency", "size"),
        seed=SEED,
    )
    return [trial.to_dict() for trial in benchmark.run(folders, task)]


def row_of(trial: dict[str, Any]) -> str:
    """Return a trial as a line: the task's metric with its difference, and the speedup, each with its interval."""
    known = {one["metric"]: one for one in trial["measurements"]}
    quality = trial["measurements"][0]
    cells = [f"{trial['name']:<34} {quality['metric']} {quality['value']:.4f}"]
    for one, sign in ((quality, "+"), (known["throughput"], "")):
        if (versus := one.get("versus")) is not None:
            cells.append(f"{versus['value']:{sign}.3f} ({versus['low']:{sign}.3f} to {versus['high']:{sign}.3f})")
    return "  ".join([*cells, f"{known['disk']['value']:.1f} MiB"])


if __name__ == "__main__":
    main()
