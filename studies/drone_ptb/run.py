"""Low rank for an LSTM language model of the Penn Treebank, without retraining: DRONE's second experiment.

    python studies/drone_ptb/run.py --data ../shared/data/ptb --model runs/drone_ptb/dense

factorises the model that train.py made, by every method at every size, measures perplexity on the test split and the
speed of all models in turn, and writes results.json, results.md, a picture and the learning curve beside this file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import AutoModelForCausalLM

from whet import Batches, LstmForCausalLM, Measurement, Recipe, Resources, Trial
from whet.evaluation import bootstrap, paired_ratio, time_interleaved
from whet.models import load_tokenizer, verify, versions
from whet.utils import current_machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from drone_ptb.stream import calibration_stretches, columns, perplexity, read_stream, token_losses

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "svd uniform": {"method": "svd"},
    "drone uniform": {"method": "drone"},
    "kfac uniform": {"method": "kfac", "allocation": "uniform"},
    "kfac by_loss": {"method": "kfac"},
}
KEEPS = (0.75, 0.5, 0.35, 0.25)
DENSE, BY_STEPS = "dense", "dense, step by step"
"""The second computes its recurrence as the factored models must: without torch's kernel for whole LSTM layers."""
CALIBRATION = {"count": 256, "length": 128, "batch_size": 8, "seed": 0}
"""32,768 tokens, 3.5 % of the training text, many times the largest rank; DRONE took 10 %."""
SPEEDS = {"throughput": (20, 35), "throughput_single": (1, 1)}
"""Columns and steps at once: many texts side by side, and one text word by word."""


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of ptb.train.txt, ptb.valid.txt, ptb.test.txt")
    parser.add_argument("--model", type=Path, default=Path("runs/drone_ptb/dense"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, help="read only so many of the test split, for a trial")
    parser.add_argument("--stretches", type=int, default=CALIBRATION["count"], help="calibration stretches")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(options.model)
    test = read_stream(options.data / "ptb.test.txt", tokenizer)[: options.tokens]
    text = read_stream(options.data / "ptb.train.txt", tokenizer)
    sample = {**CALIBRATION, "count": options.stretches}
    models, recipes = compressed(load(options.model), calibration_stretches(text, **sample))
    conditions = {
        "task": "Penn Treebank, test split",
        **current_machine().to_dict(),
        "precision": "fp32",
        "calibration": sample,
        "versions": versions(),
    }
    measured = measure(models, test)
    trials = [Trial(name, recipes[name], 0, own, None, conditions) for name, own in measured.items()]
    write(trials, options.out)
    for name in ("curve.csv", "curve.png"):
        (options.out / name).write_bytes((options.model / name).read_bytes())


def load(folder: Path) -> LstmForCausalLM:
    """Return the dense model, after checking that no file was altered."""
    verify(folder)
    model: LstmForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model


def compressed(
    dense: LstmForCausalLM, calibration: Batches
) -> tuple[dict[str, LstmForCausalLM], dict[str, list[dict[str, Any]]]]:
    """Return the models and their recipes by name; the dense one first, also without torch's kernel."""
    by_steps: Any = Recipe().apply(dense, Resources())
    for layer in by_steps.layers:
        # somebody who listens must see every step
        layer.recurrent.register_forward_pre_hook(lambda _module, _inputs: None)
    models: dict[str, Any] = {DENSE: dense, BY_STEPS: by_steps}
    recipes: dict[str, list[dict[str, Any]]] = {DENSE: [], BY_STEPS: []}
    for label, entry in METHODS.items():
        for keep in KEEPS:
            recipe = Recipe.from_list([{**entry, "keep": keep}])
            name = f"{label} {keep}"
            models[name] = recipe.apply(dense, Resources(calibration=calibration))
            recipes[name] = recipe.to_list()
            print(f"{name}: {ranks(models[name])}", flush=True)
    return models, recipes


def ranks(model: LstmForCausalLM) -> dict[str, int]:
    """Return the rank of every factored layer."""
    return {name: module.rank for name, module in model.named_modules() if hasattr(module, "rank")}


def measure(models: Mapping[str, LstmForCausalLM], test: Tensor) -> dict[str, list[Measurement]]:
    """Return perplexity, parameters and speed of every model; differences and ratios are against the dense one."""
    found: dict[str, list[Measurement]] = {}
    dense: Tensor | None = None
    for name, model in models.items():
        losses = token_losses(model, test[None])[0]
        quality = perplexity(losses, baseline=dense)
        print(f"{name}: perplexity {quality.value:.2f} ({quality.low:.2f} to {quality.high:.2f})", flush=True)
        dense = losses if dense is None else dense
        size = sum(weight.numel() for weight in model.parameters())
        found[name] = [quality, Measurement.count("parameters", size, "")]
    for metric in SPEEDS:
        for name, speed in speeds(models, test, metric).items():
            found[name].append(speed)
    return found


def speeds(models: Mapping[str, LstmForCausalLM], test: Tensor, metric: str) -> dict[str, Measurement]:
    """Return tokens per second of all models, which take turns."""
    side_by_side, steps = SPEEDS[metric]
    ids = columns(test[: side_by_side * 36], side_by_side)[:, :35]

    def runner(model: LstmForCausalLM) -> Callable[[], None]:
        def read() -> None:
            state = None
            for part in ids.split(steps, dim=1):
                state = model(part, state=state).state

        return read

    seconds = time_interleaved([runner(model) for model in models.values()], rounds=15)
    found = {}
    for number, name in enumerate(models):
        rates = ids.numel() / seconds[:, number]
        found[name] = Measurement(
            metric=metric,
            unit="tokens/s",
            **bootstrap(lambda drawn, rates=rates: float(np.median(rates[drawn])), len(rates), seed=0)._asdict(),  # type: ignore[misc]
            n=len(rates),
            better="higher",
            conditions={"columns": side_by_side, "steps at once": steps},
            versus=None if number == 0 else paired_ratio(list(seconds[:, 0]), list(seconds[:, number]), seed=0),
        )
    return found


def write(trials: Sequence[Trial], folder: Path) -> None:
    """Write all results in three forms."""
    lines = json.dumps([trial.to_dict() for trial in trials], indent=1)
    (folder / "results.json").write_text(lines + "\n")
    (folder / "results.md").write_text(table(trials))
    picture(trials).savefig(folder / "results.png", dpi=130, metadata={"Software": "whet"})


def table(trials: Sequence[Trial]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| model | test perplexity (95 % interval) | against dense (p) | parameters | tokens/s, 20 x 35, times dense |"
        " times dense step by step | tokens/s, word by word, times dense |",
        "|---|---|---|---|---|---|---|",
    ]
    steps = next((trial.get("throughput").value for trial in trials if trial.name == BY_STEPS), float("nan"))
    for trial in trials:
        quality, size = trial.get("perplexity"), trial.get("parameters")
        versus = "" if quality.versus is None else f"{quality.versus.value:+.2f} ({quality.versus.p_value:.2g})"
        lines.append(
            f"| {trial.name} | {quality.value:.2f} ({quality.low:.2f} to {quality.high:.2f}) | {versus} |"
            f" {size.value:,.0f} | {times(trial.get('throughput'))} | {trial.get('throughput').value / steps:.2f} |"
            f" {times(trial.get('throughput_single'))} |"
        )
    return "\n".join(lines) + "\n"


def times(speed: Measurement) -> str:
    """Return tokens per second and, in brackets, how many times faster than dense."""
    ratio = speed.versus
    faster = "" if ratio is None else f" ({ratio.value:.2f}, {ratio.low:.2f} to {ratio.high:.2f})"
    return f"{speed.value:,.0f}{faster}"


def picture(trials: Sequence[Trial]) -> Figure:
    """Return perplexity over the share kept, and over the speed."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    sizes, rates = figure.subplots(1, 2, sharey=True)
    by_name = {trial.name: trial for trial in trials}
    dense = by_name[DENSE].get("perplexity")
    for axes in (sizes, rates):
        axes.axhspan(dense.low, dense.high, color="0.9", label="dense, 95 % interval")
    for label in METHODS:
        own = [by_name[f"{label} {keep}"] for keep in KEEPS]
        scores = [trial.get("perplexity") for trial in own]
        arms = [[one.value - one.low for one in scores], [one.high - one.value for one in scores]]
        speed = [trial.get("throughput").value for trial in own]
        for axes, places in ((sizes, KEEPS), (rates, speed)):
            axes.errorbar(places, [one.value for one in scores], yerr=arms, marker="o", capsize=3, label=label)
    for name in (DENSE, BY_STEPS):
        rates.axvline(by_name[name].get("throughput").value, color="0.5", linestyle=":" if name == DENSE else "--")
    sizes.set(xlabel="share of linear parameters kept", ylabel="test perplexity", yscale="log")
    sizes.invert_xaxis()
    rates.set(xlabel="tokens/s (dotted: dense, dashed: step by step)")
    rates.locator_params(axis="x", nbins=5)
    figure.legend(*sizes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
