"""Weight clustering of a fine-tuned MiniLM on SST-2, embeddings included, with 16 values a layer.

    python studies/weight_clustering/sst2.py --data-dir ../shared/data --model runs/glue/glue_sst2/dense

compresses the model in several ways, measures quality and size side by side, and writes sst2.json and sst2.md beside
this file. `--epochs` and `--learning-rate` were chosen on held-out training examples; see README.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import whet

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "density": {"init": "density"},
    "density, by inputs": {"init": "density", "importance": "inputs"},
}
BEST = "density, by inputs"
"""On held-out training examples."""


def main() -> None:
    """Compress, measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--model", type=Path, default=Path("runs/glue/glue_sst2/dense"))
    parser.add_argument("--runs", type=Path, default=Path("runs/weight_clustering"))
    parser.add_argument("--clusters", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=0.02)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task("glue/sst2", data_dir=options.data_dir)
    entries = dict(METHODS)
    if options.epochs > 0:
        training = {"epochs": options.epochs, "learning_rate": options.learning_rate}
        entries[f"{BEST}, trained"] = {**METHODS[BEST], **training}
    folders = [options.model]
    for name, entry in entries.items():
        folders.append(options.runs / f"{options.clusters} {name}")
        if not folders[-1].is_dir():
            recipe = whet.Recipe.from_list([{"method": "kmeans", "n_clusters": options.clusters, **entry}])
            whet.compress(options.model, recipe, folders[-1], task=task)
    trials = whet.measure(folders, task, benchmark=whet.Benchmark(metrics=("size", "fidelity")))
    rows = [trial.to_dict() for trial in trials]
    (HERE / "sst2.json").write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "sst2.md").write_text(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| model | dev accuracy (95 % interval) | against dense (95 % interval, p) | KL (95 % interval) | MiB |"
        " share of the file |",
        "|---|---|---|---|---|---|",
    ]
    whole = by_name(rows[0])["disk"]["value"]
    for row in rows:
        own = by_name(row)
        accuracy, kl, disk = own["accuracy"], own["kl"], own["disk"]["value"]
        versus = accuracy["versus"]
        against = (
            ""
            if versus is None
            else f"{versus['value']:+.4f} ({versus['low']:+.4f} to {versus['high']:+.4f}, {versus['p_value']:.2g})"
        )
        lines.append(
            f"| {row['name']} | {accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f}) | {against} |"
            f" {kl['value']:.4f} ({kl['low']:.4f} to {kl['high']:.4f}) | {disk:.2f} | {disk / whole:.4f} |"
        )
    return "\n".join(lines) + "\n"


def by_name(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a model's measurements by metric."""
    return {one["metric"]: one for one in row["measurements"]}


if __name__ == "__main__":
    main()
