"""Rank plans before fine-tuning: a general model is factored by plans, and fine-tuned with its factors kept.

    python studies/tinybert_rank_plans/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

factors the attention output, intermediate and output layers of the base by DRONE on IMDB's text, fine-tunes on CoLA,
measures on its dev split, and writes errors.json, results.json, results.md and a picture beside this file. Models stay
under runs/, which git ignores; a second run goes on from what is there.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from matplotlib.figure import Figure
from torch import Tensor

import whet
from whet import Batches, Resources
from whet.calibration import collect_moments
from whet.evaluation import save_model
from whet.models import Architecture, dense_weight, load_tokenizer, load_with_new_head
from whet.numerics import Moments, Side, factors_at_rank, narrower_side, output_pca
from whet.tasks import encode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

KINDS = ("attention.output.dense", "intermediate.dense", ".output.dense")
"""What the plans factor; the first wildcard that matches counts."""
PLANS: dict[str, dict[str, float]] = {
    "quarter": {"*.attention.output.dense": 0.25, "*.intermediate.dense": 0.25, "*.output.dense": 0.25},
    "half": {"*.attention.output.dense": 0.5, "*.intermediate.dense": 0.5, "*.output.dense": 0.5},
    "mixed": {"*.attention.output.dense": 0.25, "*.intermediate.dense": 0.5, "*.output.dense": 0.25},
}
"""The replication's Small, Medium and Int-expanded, as shares of the base's width."""
COLUMNS = (0.25, 0.5, 0.75)
TOKENS = 5000
"""Tokens that a norm in the table of errors stands for, as in the replication."""
TEXTS = 100
SETTINGS = whet.TrainingSettings(epochs=5, learning_rate=1e-4)
"""Those of CoLA in the other studies."""


def main() -> None:
    """Make the table of errors, fine-tune every plan with every seed, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/tinybert_rank_plans"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task("glue/cola", data_dir=options.data_dir)
    text = whet.load_task("imdb", data_dir=options.data_dir)
    if not (HERE / "errors.json").is_file():
        (HERE / "errors.json").write_text(json.dumps(errors(options.base, text), indent=1) + "\n")
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        models = [trained(options.base, task, text, plan, seed, options.runs) for plan in (None, *PLANS)]
        benchmark = whet.Benchmark(rounds=6, timed=128)
        trials = whet.measure(models, task, benchmark=benchmark)
        found[f"seed {seed}"] = [trial.to_dict() for trial in trials]
        (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        (HERE / "results.md").write_text("\n".join(glue.table(name, rows) for name, rows in found.items()))
    picture(json.loads((HERE / "errors.json").read_text())).savefig(
        HERE / "errors.png", dpi=130, metadata={"Software": "whet"}
    )


def calibration(text: whet.Task, base: str, *, seed: int) -> Batches:
    """Return texts that the base was not tuned on, cut to 128 tokens; labels are not read."""
    examples = text.splits.train.sample(TEXTS, seed=seed)
    return encode(examples, load_tokenizer(base), max_length=128, batch_size=4)


def trained(base: str, task: whet.Task, text: whet.Task, plan: str | None, seed: int, runs: Path) -> Path:
    """Return the folder of a fine-tuned model whose factors were there before fine-tuning; dense without a plan."""
    settings = dataclasses.replace(SETTINGS, seed=seed)
    out = runs / f"seed {seed}" / (plan or "dense")
    if out.is_dir():
        return out
    start: str | Path = base
    if plan is not None:
        start = out.with_name(f"{plan} before fine-tuning")
        transformers.set_seed(seed)
        tokenizer = load_tokenizer(base)
        model = load_with_new_head(base, task.kind, task.label_names, tokenizer).eval()
        step = {"method": "drone", "allocation": "ranks", "ranks": PLANS[plan], "calibration": "sequential"}
        recipe = whet.Recipe.from_list([step])
        factored = recipe.apply(model, Resources(calibration=calibration(text, base, seed=seed), seed=seed))
        save_model(factored, tokenizer, start, recipe=recipe.to_list(), origin=base, seed=seed, overwrite=True)
    whet.finetune(start, task, out, settings=settings)
    return out


def errors(base: str, text: whet.Task) -> list[dict[str, Any]]:
    """Return ‖WX − UVᵀX‖ of every layer at the three ranks, on the text that was calibrated with and on other text."""
    model = load_with_new_head(base, text.kind, ("0", "1"), load_tokenizer(base)).eval()
    layers = [name for name in Architecture.of(model).linears if name.endswith(KINDS)]
    own = calibration(text, base, seed=0)
    seen, unseen = (
        collect_moments(model, batches, layers, sides=dict.fromkeys(layers, Side.INPUT))
        for batches in (own, calibration(text, base, seed=1))
    )
    narrow = collect_moments(model, own, layers)
    rows = []
    for name in layers:
        weight = dense_weight(model.get_submodule(name))
        spectrum = output_pca(weight, narrow[name].second)
        row: dict[str, Any] = {"layer": name, "shape": list(weight.shape), "side": narrower_side(weight).value}
        row["norm"] = norm(weight, seen[name])
        for column in COLUMNS:
            u, v, _ = factors_at_rank(weight.double(), spectrum, round(column * min(weight.shape)))
            lost = weight.double() - u @ v
            row[str(column)] = {"calibration": norm(lost, seen[name]), "other text": norm(lost, unseen[name])}
        rows.append(row)
    return rows


def norm(weight: Tensor, inputs: Moments) -> float:
    """Return ‖W X‖ for as many tokens as the table stands for."""
    energy = ((weight.double() @ inputs.second) * weight.double()).sum()
    return float((TOKENS * energy).sqrt())


def picture(rows: list[Mapping[str, Any]]) -> Figure:
    """Return the share of each layer's output that is lost, by rank."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, len(KINDS), sharey=True)
    for panel, title in zip(panels, ("attention output", "intermediate", "output"), strict=True):
        suffix = {"attention output": "attention.output.dense", "intermediate": "intermediate.dense"}.get(title, "")
        own = [
            row
            for row in rows
            if (row["layer"].endswith(suffix) if suffix else row["layer"].endswith(".output.dense"))
            and (bool(suffix) or "attention" not in row["layer"])
        ]
        for block, row in enumerate(own):
            shares = [row[str(column)]["other text"] / row["norm"] for column in COLUMNS]
            panel.plot(COLUMNS, shares, marker="o", color=f"C{block}", label=f"block {block}")
        panel.set(title=title, xlabel="rank over width", yscale="log")
    panels[0].set_ylabel("‖WX − UVᵀX‖ / ‖WX‖ on other text")
    panels[0].legend(fontsize="small")
    return figure


if __name__ == "__main__":
    main()
