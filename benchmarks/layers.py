"""Where two thin products lose to one dense one.

    python benchmarks/layers.py

times layers of MiniLM's and BERT-base's shapes, and query, key and value stacked, dense and in two factors, in turn in
one process, for few and for many tokens, at ranks up to the one where parameters break even. What a table of latencies
says on this machine decides in `by_time`; this one shows how far the count of parameters is from it. Writes layers.json
and layers.png beside this file.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from whet.evaluation import paired_ratio, time_interleaved
from whet.models import LowRank
from whet.numerics import break_even
from whet.utils import current_machine

HERE = Path(__file__).parent
SHAPES = ((384, 384), (1536, 384), (384, 1536), (1152, 384), (768, 768), (3072, 768), (768, 3072), (2304, 768))
"""(out, in); 1152x384 and 2304x768 are query, key and value stacked."""
TOKENS = (64, 512, 2048)
"""In one batch."""
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Ranks, as shares of the one where parameters break even."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(shape, tokens, options.rounds) for shape in SHAPES for tokens in TOKENS]
    (HERE / "layers.json").write_text(
        json.dumps({"machine": current_machine().to_dict(), "layers": rows}, indent=1) + "\n"
    )
    picture(rows).savefig(HERE / "layers.png", dpi=130, metadata={"Software": "whet"})
    show(rows)


def measure(shape: tuple[int, int], tokens: int, rounds: int) -> dict[str, Any]:
    """Return how many times as fast as the dense layer two factors are, over ranks."""
    out_features, in_features = shape
    dense = nn.Linear(in_features, out_features)
    limit = break_even(dense.weight)
    ranks = [round(limit * share) for share in SHARES]
    layers = [dense, *(LowRank(in_features, out_features, rank, bias=True) for rank in ranks)]
    inputs = torch.randn(tokens, in_features)
    # a call of few tokens takes as long as the clock's own noise; several of them do not
    repeats = max(1, 2048 // tokens)
    seconds = time_interleaved([partial(repeated, layer, inputs, repeats) for layer in layers], rounds=rounds)
    ratios = [paired_ratio(list(seconds[:, 0]), list(seconds[:, i + 1]), seed=0) for i in range(len(ranks))]
    speedups = [
        {"rank": rank, "value": ratio.value, "low": ratio.low, "high": ratio.high}
        for rank, ratio in zip(ranks, ratios, strict=True)
    ]
    faster = [one["rank"] for one in speedups if float(one["low"]) > 1]
    return {
        "shape": f"{out_features}x{in_features}",
        "tokens": tokens,
        "milliseconds": float(1e3 * torch.as_tensor(seconds[:, 0]).median() / repeats),
        "break_even": limit,
        "faster_up_to": max(faster, default=0),
        "speedups": speedups,
    }


def repeated(layer: nn.Module, inputs: Tensor, times: int) -> None:
    """Call the layer several times."""
    for _ in range(times):
        layer(inputs)


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Return the speed of two factors over their parameters, one panel a count of tokens and one line a shape."""
    figure = Figure(figsize=(4 * len(TOKENS), 4), layout="constrained")
    panels = figure.subplots(1, len(TOKENS), sharey=True)
    for panel, tokens in zip(panels, TOKENS, strict=True):
        for i, row in enumerate(row for row in rows if row["tokens"] == tokens):
            values = [one["value"] for one in row["speedups"]]
            arms = [
                [value - one["low"] for value, one in zip(values, row["speedups"], strict=True)],
                [one["high"] - value for value, one in zip(values, row["speedups"], strict=True)],
            ]
            panel.errorbar(SHARES, values, yerr=arms, marker="osD^v*PX"[i], capsize=2, label=row["shape"])
        panel.axhline(1, color="0.5", linewidth=0.8)
        panel.set(title=f"{tokens} tokens", xlabel="parameters, times dense", yscale="log")
    panels[0].set(ylabel="speed, times dense")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize="small")
    return figure


def show(rows: list[dict[str, Any]]) -> None:
    """Print the ranks up to which two factors are faster."""
    table = Table(
        "layer", "tokens", "dense, ms", "rank at equal parameters", "faster up to rank", "at half, times dense"
    )
    for row in rows:
        half = row["speedups"][SHARES.index(0.5)]
        cells = (row["break_even"], row["faster_up_to"])
        span = f"{half['value']:.2f} [{half['low']:.2f}, {half['high']:.2f}]"
        table.add_row(row["shape"], str(row["tokens"]), f"{row['milliseconds']:.3f}", *map(str, cells), span)
    Console().print(table)


if __name__ == "__main__":
    main()
