"""How what DRONE costs grows with layers, tokens and width, and how it compares with the textbook's way.

    python benchmarks/growth.py

takes BERTs with random weights of four widths up to BERT-large's, and random text. Both ways run in turn on the same
model and text, in one process; the error is that of the layers' outputs on the calibration text, summed over layers as
shares of their energy. Writes growth.json and growth.png beside this file.
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
from whet.architecture import Architecture, dense_weight
from whet.machine import machine
from whet.methods.factorization.drone import Drone
from whet.resources import Batches, Resources
from whet.spectrum import factors
from whet.statistics import Side, collect

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
    options = parser.parse_args()
    rows = [measure(name, options.rounds) for name in WIDTHS]
    (HERE / "growth.json").write_text(json.dumps({"machine": machine().to_dict(), "sizes": rows}, indent=1) + "\n")
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
    by_layers = {layers: seconds(partial(spectra, model, whole), rounds) for layers, model in models.items()}
    texts = {count * LENGTH: text(count) for count in SENTENCES}
    by_tokens = {
        tokens: seconds(partial(collect, largest, batches, linears(largest)), rounds)
        for tokens, batches in texts.items()
    }
    works = {"drone": partial(spectra, largest, whole), "textbook": partial(by_the_book, largest, whole)}
    times: dict[str, list[float]] = {way: [] for way in works}
    for _ in range(rounds):
        for way, work in works.items():
            times[way].append(seconds(work, 1))
    ratios = np.divide(times["textbook"], times["drone"])
    return {
        "size": name,
        "width": width,
        "layers, s": by_layers,
        "tokens, s of statistics": by_tokens,
        "drone, s": float(np.median(times["drone"])),
        "textbook, s": float(np.median(times["textbook"])),
        "textbook over drone": {"median": float(np.median(ratios)), "all": ratios.tolist()},
        "error": errors(largest, whole),
    }


def linears(model: nn.Module) -> tuple[str, ...]:
    """Return what both ways factor."""
    return Architecture.of(model).linears


def spectra(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Return everything that DRONE's factors of any rank follow from."""
    return dict(Drone(keep=KEEP).spectra(model, linears(model), Resources(calibration=batches)))


def by_the_book(model: nn.Module, batches: Batches) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the same by the textbook."""
    return textbook.decompose(model, textbook.moments(model, batches, linears(model)))


def errors(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Return the mean share of a layer's output energy that each way loses on the calibration text."""
    names = linears(model)
    inputs = collect(model, batches, names, sides=dict.fromkeys(names, Side.INPUT))
    ours, theirs = spectra(model, batches), by_the_book(model, batches)
    lost: dict[str, list[float]] = {"drone": [], "textbook": []}
    for name in names:
        weight = dense_weight(model.get_submodule(name)).double()
        rank = int(KEEP * weight.numel() / sum(weight.shape))
        u, v, _ = factors(weight, ours[name], rank)
        other = theirs[name][0][:, :rank] @ theirs[name][1][:rank]
        for way, product in (("drone", u @ v), ("textbook", other)):
            lost[way].append(energy(weight - product, inputs[name].second) / energy(weight, inputs[name].second))
    return {way: float(np.mean(shares)) for way, shares in lost.items()}


def energy(weight: Tensor, second: Tensor) -> float:
    """Return E‖W x‖²."""
    return float(((weight @ second) * weight).sum())


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the median time of a call."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


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
    head = ("size", "drone, s", "textbook, s", "ratio", "error drone", "error textbook")
    table = Table(*head, title=f"on {machine().cpu}, {torch.get_num_threads()} threads")
    for row in rows:
        ratio, error = row["textbook over drone"], row["error"]
        spread = f"{ratio['median']:.1f} ({min(ratio['all']):.1f} to {max(ratio['all']):.1f})"
        shares = (f"{error['drone']:.6f}", f"{error['textbook']:.6f}")
        table.add_row(row["size"], f"{row['drone, s']:.2f}", f"{row['textbook, s']:.2f}", spread, *shares)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
