"""How what DRONE costs grows with layers, tokens and width, and how it compares with the textbook's way.

    python benchmarks/growth.py

takes BERTs with random weights of four widths up to BERT-large's, and random text. A plain forward pass and both ways
run in turn on the same model and text, in one process; the error is that of the layers' outputs on the calibration
text, as a share of their energy, averaged over layers. Writes growth.json and growth.png beside this file.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import textbook
import whet
from whet import Batches, Resources
from whet.calibration import collect_moments
from whet.models import Architecture, dense_weight
from whet.numerics import Side, factors_at_rank
from whet.utils import current_machine, track

HERE = Path(__file__).parent
WIDTHS = {"BERT-mini": 256, "MiniLM": 384, "BERT-base": 768, "BERT-large": 1024}
LAYERS = (1, 2, 4)
"""Layers of every size; the last is what is compared with the textbook."""
SENTENCES = (32, 64, 128)
LENGTH = 64
KEEP = 0.5


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(name, options.rounds) for name in track(WIDTHS, "sizes")]
    (HERE / "growth.json").write_text(
        json.dumps({"machine": current_machine().to_dict(), "sizes": rows}, indent=1) + "\n"
    )
    picture(rows).savefig(HERE / "growth.png", dpi=130, metadata={"Software": "whet"})
    show(rows)


def bert(width: int, layers: int) -> nn.Module:
    """Return a BERT with random weights, of a small vocabulary, since embeddings are not compressed."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    model: nn.Module = BertForSequenceClassification(BertConfig(vocab_size=1000, num_hidden_layers=layers, **sizes))
    return model.eval()


def text(sentences: int) -> Batches:
    """Return random sentences of one length."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 1000, (sentences // 4, 4, LENGTH), generator=generator)
    return Batches([{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids], np.zeros(sentences))


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of statistics and decompositions of one size, and of the textbook's."""
    width = WIDTHS[name]
    models = {layers: bert(width, layers) for layers in LAYERS}
    largest, whole = models[LAYERS[-1]], text(SENTENCES[-1])
    by_layers = {layers: seconds(partial(spectra, model, whole)) for layers, model in models.items()}
    texts = {count * LENGTH: text(count) for count in SENTENCES}
    by_tokens = {
        tokens: seconds(partial(collect_moments, largest, batches, linears(largest)))
        for tokens, batches in texts.items()
    }
    works: dict[str, Callable[[], Any]] = {
        "forward": partial(forward, largest, whole),
        "drone": partial(spectra, largest, whole),
        "textbook": partial(by_the_book, largest, whole),
    }
    times = {way: np.empty(rounds) for way in works}
    for i in range(rounds):
        for way, work in works.items():
            times[way][i] = seconds(work)
    ratios = times["textbook"] / times["drone"]
    beyond = (times["textbook"] - times["forward"]) / (times["drone"] - times["forward"])
    return {
        "size": name,
        "width": width,
        "layers, s": by_layers,
        "tokens, s of statistics": by_tokens,
        **{f"{way}, s": float(np.median(own)) for way, own in times.items()},
        "textbook over drone": {"median": float(np.median(ratios)), "all": ratios.tolist()},
        "beyond the forward pass": {"median": float(np.median(beyond)), "all": beyond.tolist()},
        "error": errors(largest, whole),
    }


def linears(model: nn.Module) -> tuple[str, ...]:
    """Return what both ways factor."""
    return Architecture.of(model).linears


def spectra(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Return everything that DRONE's factors of any rank follow from."""
    drone: Any = whet.method_named("drone")
    return dict(drone(keep=KEEP).spectra(model, linears(model), Resources(calibration=batches)))


def by_the_book(model: nn.Module, batches: Batches) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the same by the textbook."""
    return textbook.decompose(model, textbook.moments(model, batches, linears(model)))


def errors(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Return the mean share of a layer's output energy that each way loses on the calibration text."""
    names = linears(model)
    inputs = collect_moments(model, batches, names, sides=dict.fromkeys(names, Side.INPUT))
    ours, theirs = spectra(model, batches), by_the_book(model, batches)
    lost: dict[str, list[float]] = {"drone": [], "textbook": []}
    for name in names:
        weight = dense_weight(model.get_submodule(name)).double()
        rank = int(KEEP * weight.numel() / sum(weight.shape))
        u, v, _ = factors_at_rank(weight, ours[name], rank)
        other = theirs[name][0][:, :rank] @ theirs[name][1][:rank]
        for way, product in (("drone", u @ v), ("textbook", other)):
            lost[way].append(energy(weight - product, inputs[name].second) / energy(weight, inputs[name].second))
    return {way: float(np.mean(shares)) for way, shares in lost.items()}


def energy(weight: Tensor, second: Tensor) -> float:
    """Return E‖W x‖²."""
    return float(((weight @ second) * weight).sum())


def forward(model: nn.Module, batches: Batches) -> None:
    """Run the model on all of the text, which both ways must."""
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Return the cost over layers and over tokens, one line a size, and both ways side by side."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    over_layers, over_tokens, beside = figure.subplots(1, 3)
    for row in rows:
        for panel, key in ((over_layers, "layers, s"), (over_tokens, "tokens, s of statistics")):
            panel.plot(list(row[key]), list(row[key].values()), marker="o", label=row["size"])
    over_layers.set(xlabel="layers", ylabel="statistics and decompositions, s")
    over_tokens.set(xlabel="tokens", ylabel="statistics, s")
    over_layers.legend(fontsize="small")
    names = [row["size"] for row in rows]
    for way in ("drone", "textbook"):
        beside.plot(names, [row[f"{way}, s"] for row in rows], marker="o", label=way)
    beside.set(ylabel=f"{LAYERS[-1]} layers, s", yscale="log")
    beside.legend(fontsize="small")
    return figure


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    head = ("size", "forward, s", "drone, s", "textbook, s", "ratio", "beyond forward", "error drone", "error textbook")
    table = Table(*head, title=f"on {current_machine().cpu}, {torch.get_num_threads()} threads")
    for row in rows:
        ratios = (row["textbook over drone"], row["beyond the forward pass"])
        spreads = (f"{one['median']:.1f} ({min(one['all']):.1f} to {max(one['all']):.1f})" for one in ratios)
        times = (f"{row[f'{way}, s']:.2f}" for way in ("forward", "drone", "textbook"))
        shares = (f"{row['error'][way]:.6f}" for way in ("drone", "textbook"))
        table.add_row(row["size"], *times, *spreads, *shares)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
