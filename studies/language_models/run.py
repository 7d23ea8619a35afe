"""A tiny decoder with 40 % of its linear parameters: the token KL of each method, without and with recovery.

    python studies/language_models/run.py --model ../shared/models/stories260k --stories ../shared/data/stories

lets the model write the text that methods learn from, compresses the model by every recipe, measures all of them on the
stories side by side, and writes results.json, results.md and a picture beside this file. Models stay under runs/.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet

HERE = Path(__file__).parent
KEEP = 0.4
RECOVERY = {"method": "recovery.distillation", "epochs": 2, "learning_rate": 3e-3, "hidden_states": 0.0}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "svd": [{"method": "svd", "keep": KEEP}],
    "drone": [{"method": "drone", "keep": KEEP}],
    "kfac uniform": [{"method": "kfac", "keep": KEEP, "allocation": "uniform"}],
    "kfac": [{"method": "kfac", "keep": KEEP}],
    "structure": [{"method": "structure", "keep": 0.18}],
    "structure, recovered": [{"method": "structure", "keep": 0.18}, RECOVERY],
    "kfac, recovered": [{"method": "kfac", "keep": KEEP}, RECOVERY],
}
"""`structure` reaches the feed-forward layers alone, so that it keeps fewer of their weights for the same share."""
WINDOW = 256
AT_ONCE = 64
"""Texts that are written side by side."""


def main() -> None:
    """Write texts, compress, measure, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of stories260k")
    parser.add_argument("--stories", type=Path, required=True, help="folder with stories.txt, one story a line")
    parser.add_argument("--texts", type=int, default=512, help="texts that the model writes itself, to learn from")
    parser.add_argument("--calibration", type=int, default=128, help="how many of them statistics are taken from")
    parser.add_argument("--runs", type=Path, default=Path("runs/language_models"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    stories = (options.stories / "stories.txt").read_text(encoding="utf-8").splitlines()
    task = whet.load_task(
        train_file=written_texts(options.model, options.texts, options.runs / "texts.json"),
        dev_file=[{"text": story} for story in stories],
        kind="language_modeling",
    )
    calibration = whet.Calibration(examples=options.calibration, batch_size=4, max_length=WINDOW)
    compare(options.model, RECIPES, task, calibration, options.runs, HERE / "results.json", linear_parameters)


def compare(
    model: Path,
    recipes: Mapping[str, list[dict[str, Any]]],
    task: whet.Task,
    calibration: whet.Calibration,
    runs: Path,
    results: Path,
    count: Callable[[Path], int],
) -> None:
    """Make the models that are missing, measure all side by side, and write measurements, table and picture.

    Args:
        model: folder of the dense one.
        recipes: by the names of the models.
        task: its data.
        calibration: of the recipes; its inputs are as long as those that are measured.
        runs: folder of the models.
        results: file of the measurements; table and picture lie beside it.
        count: returns the weights of a folder's linear layers.
    """
    folders = [model]
    for name, steps in recipes.items():
        folders.append(runs / name)
        if not folders[-1].is_dir():
            whet.compress(model, whet.Recipe.from_list(steps), folders[-1], task=task, calibration=calibration)
        print(name, flush=True)
    benchmark = whet.Benchmark(max_length=calibration.max_length, metrics=("fidelity", "size"))
    trials = whet.measure(folders, task, benchmark=benchmark)
    shares = {trial.name: count(folder) for trial, folder in zip(trials, folders, strict=True)}
    rows = [{**trial.to_dict(), "linear_parameters": shares[trial.name]} for trial in trials]
    results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    results.with_suffix(".md").write_text(table(trials, shares), encoding="utf-8")
    picture(trials, shares).savefig(results.with_suffix(".png"), dpi=130, metadata={"Software": "whet"})


def written_texts(source: Path, count: int, kept: Path) -> list[dict[str, str]]:
    """Return texts that the model samples itself, from a file if they were written before."""
    if kept.is_file():
        rows: list[dict[str, str]] = json.loads(kept.read_text(encoding="utf-8"))
        return rows[:count]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    texts: list[str] = []
    for _ in range(-(-count // AT_ONCE)):
        start = torch.full((AT_ONCE, 1), tokenizer.bos_token_id)
        ids = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=WINDOW - 1,
            min_new_tokens=100, pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
    rows = [{"text": text} for text in texts[:count]]
    kept.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def linear_parameters(folder: Path) -> int:
    """Return how many weights the linear layers of a model's blocks have."""
    model = whet.load_model(folder)
    return sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name and weight.dim() == 2)


def table(trials: Sequence[whet.Trial], shares: dict[str, int]) -> str:
    """Return the results as Markdown; KL is a mean over tokens, its interval over stories."""
    lines = [
        "| model | linear parameters kept | token KL, nats (95 % interval) | share of svd's | other most likely token |"
        " perplexity (95 % interval) | bits per byte |",
        "|---|---|---|---|---|---|---|",
    ]
    dense = shares[trials[0].name]
    plain = next(trial.get("kl").value for trial in trials if trial.name == "svd")
    for trial in trials:
        kl, changed, quality = trial.get("kl"), trial.get("disagreement"), trial.get("perplexity")
        lines.append(
            f"| {trial.name} | {shares[trial.name] / dense:.2f} | {kl.value:.3f} ({kl.low:.3f} to {kl.high:.3f}) |"
            f" {kl.value / plain:.2f} | {changed.value:.1%} | {quality.value:,.2f} ({quality.low:,.2f} to"
            f" {quality.high:,.2f}) | {trial.get('bits_per_byte').value:.3f} |"
        )
    return "\n".join(lines) + "\n"


def picture(trials: Sequence[whet.Trial], shares: dict[str, int]) -> Figure:
    """Return the token KL of every recipe, with a line at a third of plain SVD's."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    found = [trial.get("kl") for trial in trials[1:]]
    names = [f"{trial.name} ({shares[trial.name] / shares[trials[0].name]:.2f})" for trial in trials[1:]]
    arms = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
    axes.barh(names, [one.value for one in found], xerr=arms, color="0.7", capsize=3)
    axes.axvline(found[0].value / 3, color="C3", linestyle="--", label="a third of plain SVD's")
    axes.set(xlabel="token KL from the dense model, nats; in brackets the share kept")
    axes.invert_yaxis()
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
