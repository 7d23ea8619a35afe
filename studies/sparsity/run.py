"""Nine tenths of the weights at zero, on SST-2: pruned in one shot, and recovered.

    python studies/sparsity/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes the dense model where `runs/glue/glue_sst2/dense` is missing, prunes it, chooses a learning rate on held-out
training data, recovers, measures everything side by side, and writes chosen.json, results.json, results.md and a
picture beside this file. Models stay under runs/, which git ignores; a second run goes on from what is there.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import whet
from whet import Batches, Resources
from whet.calibration import prepare_resources
from whet.models import load_tokenizer, predict
from whet.tasks import encode, shortest_first

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

TASK = "glue/sst2"
METHODS = ("magnitude", "wanda", "sparsegpt")
SPARSITIES = (0.5, 0.7, 0.9)
CALIBRATION = whet.Calibration(examples=512, batch_size=32)
EMBEDDINGS = 0.8
"""Share of the token embeddings' weights that go: the least multiple of a tenth that brings the file below a fifth
of the dense one, by arithmetic alone."""
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
PILOT = 0.1
"""Share of the training data on which learning rates are tried."""
HELD_OUT = 1000
RECOVERED = {"distillation": "0.9 recovered", "sparse_training": "0.9 sparse training"}
"""What models are called that were trained, and for how many epochs behind a comma."""
STAGES = ("one_shot", "choose", "recover", "measure")


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--runs", type=Path, default=Path("runs/sparsity"))
    parser.add_argument("--glue-runs", type=Path, default=Path("runs/glue"), help="with the fine-tuned model")
    parser.add_argument("--epochs", type=float, default=1, help="of recovery")
    parser.add_argument("--recovered", nargs="+", default=list(RECOVERED), choices=RECOVERED, help="by what")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(TASK, data_dir=options.data_dir)
    dense = glue.fine_tuned(options.base, task, options.glue_runs / TASK.replace("/", "_"))
    options.runs.mkdir(parents=True, exist_ok=True)
    if "one_shot" in options.stages:
        for label, step in one_shot().items():
            make(dense, [step], options.runs / label, task)
    if "choose" in options.stages:
        choose(dense, task)
    if "recover" in options.stages:
        for kind in options.recovered:
            make(dense, recovered(kind, options.epochs), options.runs / name_of(kind, options.epochs), task)
    if "measure" in options.stages:
        measure(dense, options.runs, task, options.epochs)


def one_shot() -> dict[str, dict[str, Any]]:
    """Return every recipe without training: linear layers alone, and the sparsest with embeddings."""
    found: dict[str, dict[str, Any]] = {
        f"{method} {sparsity}": {"method": method, "sparsity": sparsity}
        for sparsity in reversed(SPARSITIES)
        for method in METHODS
    }
    return found | {f"embeddings {EMBEDDINGS}": {"method": "magnitude", "sparsity": 0.0, "embeddings": EMBEDDINGS}}


def start() -> dict[str, Any]:
    """Return what recovery begins with."""
    return {"method": "sparsegpt", "sparsity": 0.9, "embeddings": EMBEDDINGS}


def recovered(kind: str, epochs: float) -> list[dict[str, Any]]:
    """Return a recipe with training, at the learning rate that was chosen."""
    rate = json.loads((HERE / "chosen.json").read_text())["learning_rate"]
    settings = {"epochs": max(1, epochs), "share": min(1, epochs), "learning_rate": rate, "precision": "bf16"}
    if kind == "distillation":
        return [start(), {"method": "recovery.distillation", **settings}]
    return [start(), {"method": "sparse_training", "sparsity": 0.9, **settings}]


def name_of(kind: str, epochs: float) -> str:
    """Return what a model with training is called."""
    return f"{RECOVERED[kind]}, {epochs:g} epochs"


def make(dense: Path, steps: list[dict[str, Any]], out: Path, task: whet.Task) -> None:
    """Compress, where it has not been done."""
    if not out.is_dir():
        whet.compress(dense, whet.Recipe.from_list(steps), out, task=task, calibration=CALIBRATION)
        print(out.name, flush=True)


def choose(dense: Path, task: whet.Task) -> None:
    """Try learning rates on a part of the training data, and write what held-out training data say of each."""
    if (HERE / "chosen.json").is_file():
        return
    model, tokenizer = whet.load_model(dense), load_tokenizer(dense)
    needs = frozenset({"calibration", "train", "teacher"})
    resources = prepare_resources(model, tokenizer, task, CALIBRATION, seed=0, device="cpu", needs=needs)
    rows = shortest_first(task.splits.validation.sample(HELD_OUT, seed=0), tokenizer, max_length=128)
    held_out = encode(rows, tokenizer, max_length=128, batch_size=32)
    pruned = whet.Recipe.from_list([start()]).apply(model, resources)
    tried = {"dense": score(model, model, held_out), "pruned": score(model, pruned, held_out)}
    for rate in LEARNING_RATES:
        tried[str(rate)] = score(model, pilot(pruned, resources, rate), held_out)
        print(rate, tried[str(rate)], flush=True)
    best = min(LEARNING_RATES, key=lambda rate: tried[str(rate)]["kl"])
    (HERE / "chosen.json").write_text(json.dumps({"learning_rate": best, "tried": tried}, indent=1) + "\n")


def pilot(pruned: torch.nn.Module, resources: Resources, rate: float) -> torch.nn.Module:
    """Return the pruned model after a short recovery from the original."""
    step = {"method": "recovery.distillation", "epochs": 1, "share": PILOT, "learning_rate": rate}
    return whet.Recipe.from_list([step]).apply(pruned, resources)


def score(original: torch.nn.Module, model: torch.nn.Module, batches: Batches) -> dict[str, float]:
    """Return accuracy, and KL from the original."""
    wanted, found = (predict(one, batches, name="a model") for one in (original, model))
    right = float((found.logits.argmax(1) == batches.labels).mean())
    return {"accuracy": right, "kl": float(wanted.divergences(found).mean())}


def measure(dense: Path, runs: Path, task: whet.Task, epochs: float) -> None:
    """Measure what is there, and write the tables and the picture; parts that are not there stay as they were."""
    results = HERE / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for name, labels, metrics in (
        ("without training", list(one_shot()), ("fidelity", "size")),
        (
            f"recovered, {epochs:g} epochs",
            [name_of(kind, epochs) for kind in RECOVERED],
            ("fidelity", "latency", "size"),
        ),
    ):
        models = [runs / label for label in labels if (runs / label).is_dir()]
        if models:
            trials = whet.Benchmark(rounds=10, metrics=metrics).run([dense, *models], task)
            found[name] = [trial.to_dict() for trial in trials]
    results.write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "results.md").write_text("\n".join(table(name, rows) for name, rows in found.items()))
    picture(found).savefig(HERE / "results.png", dpi=130, metadata={"Software": "whet"})


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the models as a Markdown table."""
    head = "| model | accuracy (95 % interval) | against dense (p) | KL (95 % interval) | weights that are not zero |"
    lines = [f"### {name}", "", f"{head} file, of dense | sentences/s, times dense |", "|---|---|---|---|---|---|---|"]
    whole = by_metric(rows[0])["disk"]["value"]
    for row in rows:
        one = by_metric(row)
        versus, speed = one["accuracy"]["versus"], one.get("throughput", {}).get("versus")
        cells = (
            row["name"],
            glue.interval(one["accuracy"], 3),
            "" if versus is None else f"{versus['value']:+.3f} ({versus['p_value']:.2g})",
            glue.interval(one["kl"], 4),
            f"{one['nonzeros']['value']:,.0f}",
            f"{one['disk']['value'] / whole:.3f}",
            "" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def by_metric(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's measurements by name."""
    return {one["metric"]: one for one in row["measurements"]}


def picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return accuracy over the size of the file."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    rows = {row["name"]: by_metric(row) for part in found.values() for row in part}
    whole = rows["dense"]["disk"]["value"]
    accuracy = rows.pop("dense")["accuracy"]
    panel.axhspan(accuracy["low"], accuracy["high"], color="0.9", label="dense, 95 % interval")
    lines = {method: [f"{method} {sparsity}" for sparsity in SPARSITIES] for method in METHODS}
    alone = {name: [name] for name in rows if not name.startswith(METHODS)}
    for label, names in (lines | alone).items():
        ones = [rows[name] for name in names if name in rows]
        scores = [one["accuracy"] for one in ones]
        arms = [[one["value"] - one["low"] for one in scores], [one["high"] - one["value"] for one in scores]]
        sizes = [one["disk"]["value"] / whole for one in ones]
        panel.errorbar(sizes, [one["value"] for one in scores], yerr=arms, marker="o", capsize=3, label=label)
    panel.set(title=TASK, xlabel="file, share of the dense fp32 one", ylabel="accuracy")
    panel.invert_xaxis()
    panel.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    main()
