"""What it costs that plain loading compares a compressed model's files with their digests.

    python benchmarks/plain_loading.py --model MODEL

The model is compressed by SVD. `from_pretrained` reads it with its manifest and without, in turn, in one process.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import whet


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model, with or without a head")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        dense, whole, bare = (Path(scratch) / name for name in ("dense", "whole", "bare"))
        AutoModelForSequenceClassification.from_pretrained(given.model).save_pretrained(dense)
        AutoTokenizer.from_pretrained(given.model).save_pretrained(dense)
        whet.compress(dense, whet.Recipe.from_list([{"method": "svd", "keep": 0.9}]), whole)
        shutil.copytree(whole, bare)
        (bare / "manifest.json").unlink()
        times: dict[str, list[float]] = {"with a manifest": [], "without": []}
        for _ in range(given.rounds):
            for (_, spent), folder in zip(times.items(), (whole, bare), strict=True):
                start = time.perf_counter()
                AutoModelForSequenceClassification.from_pretrained(folder)
                spent.append(time.perf_counter() - start)
        size = (whole / "model.safetensors").stat().st_size / 2**20
        for name, spent in times.items():
            print(f"{size:.1f} MiB {name}: {statistics.median(spent):.2f} s")


if __name__ == "__main__":
    main()
