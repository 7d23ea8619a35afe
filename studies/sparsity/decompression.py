"""Whether OpenVINO's sparse weight decompression makes a model with nine tenths of its weights at zero faster here.

    python studies/sparsity/decompression.py --data-dir ../shared/data --threads 1

exports the model to OpenVINO in int8, which the option is for, compiles it with and without it, runs both in turn on
dev sentences in sorted batches of 8 and one by one, and writes decompression.json beside this file.
"""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

import whet
from whet.evaluation import paired_ratio, time_interleaved
from whet.models import load_tokenizer
from whet.run import OPENVINO_FILES
from whet.tasks import encode, shortest_first
from whet.utils import current_machine

TASK = "glue/sst2"
OPTION = "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"
RATE = 0.8
"""Share of zeros from which on a product's weights are packed."""


def main() -> None:
    """Export, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/sparsity/0.9 recovered, 0.2 epochs"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(TASK, data_dir=options.data_dir)
    whet.export(options.model, ["openvino"], precisions=["int8"], task=task, threads=options.threads)
    tokenizer = load_tokenizer(options.model)
    dev = shortest_first(task.splits.dev.take(np.arange(options.examples)), tokenizer, max_length=128)
    compiled = {name: ready(options, more) for name, more in (("dense", {}), ("packed", {OPTION: RATE}))}
    found: dict[str, Any] = {"machine": current_machine().to_dict(), "threads": options.threads, "rate": RATE}
    for size in (8, 1):
        batches = encode(dev, tokenizer, batch_size=size, max_length=128).batches
        names = [one.get_any_name() for one in compiled["dense"].inputs]
        inputs = [{name: batch[name].numpy() for name in names} for batch in batches]
        seconds = time_interleaved(
            [partial(answer_all, one, inputs) for one in compiled.values()], rounds=options.rounds
        )
        found[f"times as fast, batches of {size}"] = asdict(paired_ratio(*seconds.T.tolist(), seed=0))
    (Path(__file__).with_suffix(".json")).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def ready(options: argparse.Namespace, more: dict[str, Any]) -> Any:
    """Return the exported model, compiled with these options."""
    wanted = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
        **more,
    }
    return openvino.Core().compile_model(options.model / OPENVINO_FILES["int8"][0], "CPU", wanted)


def answer_all(compiled: Any, inputs: list[dict[str, Any]]) -> None:
    """Run every batch."""
    for batch in inputs:
        compiled(batch)


if __name__ == "__main__":
    main()
