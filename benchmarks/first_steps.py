"""The three commands of README.md on a real model: what runtimes give, what whet adds, and what a deployment takes.

    python benchmarks/first_steps.py --base ../shared/models/all-MiniLM-L6-v2 --data-dir ../shared/data --threads 1

fine-tunes the base for two epochs on 5,000 phrases of SST-2 drawn at random, compresses it by `structured_mild`, and
measures both on the dev split, in PyTorch and in ONNX Runtime int8. Then it deploys the smaller one, and a process of
its own loads that and answers. Models stay in --out. Writes first_steps.json beside this file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import torch

import whet

RESULTS = Path(__file__).with_suffix(".json")
EXAMPLES, EPOCHS, LEARNING_RATE = 5000, 2, 1e-4
ANSWER = """
import json, re, sys, time
import whet
whet.load(sys.argv[1])("a warm and funny film")
seconds = time.process_time()
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
names = sorted({"torch", "transformers"} & sys.modules.keys())
print(json.dumps({"processor_seconds": seconds, "peak_mib": peak, "imported": names}))
"""
"""A new process: import, load, one answer. Its `ru_maxrss` would count what this process held when it began."""


def main() -> None:
    """Make, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a new folder for the models; a temporary one if not given")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or Path(mkdtemp())
    task, model, small = own_data(options.data_dir), out / "mymodel", out / "small"
    settings = whet.TrainingSettings(epochs=EPOCHS, learning_rate=LEARNING_RATE)
    whet.finetune(options.base, task, model, settings=settings)
    whet.compress(model, whet.Recipe.read("structured_mild"), small, task=task)
    benchmark = whet.Benchmark(runtimes=("pytorch", "onnxruntime"), precisions=("int8",))
    trials = whet.measure([model, small], task, benchmark=benchmark)
    whet.export(small, ["onnxruntime"], precisions=["int8"], task=task)
    deployment = whet.deploy(small, out / "deployment", runtime="onnxruntime", precision="int8")
    answer = first_answer(deployment.folder) | {"mib": deployment.size / 2**20}
    results = {"deployment": answer, "trials": [trial.to_dict() for trial in trials]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(trials, json.dumps(answer), f"models in {out}", sep="\n")


def own_data(data_dir: Path) -> whet.Task:
    """SST-2 as a user's own data would be: some phrases with words for labels, and the dev split."""
    splits = whet.load_task("glue/sst2", data_dir=data_dir).splits
    chosen = np.random.default_rng(0).choice(len(splits.train), EXAMPLES, replace=False)
    return whet.load_task(train_file=frame(splits.train.take(chosen)), dev_file=frame(splits.dev))


def frame(examples: whet.Examples) -> pd.DataFrame:
    """Texts and the words for their labels."""
    return pd.DataFrame(
        {"text": examples.texts, "label": [("negative", "positive")[int(label)] for label in examples.labels]}
    )


def first_answer(folder: Path) -> dict[str, Any]:
    """What a new process takes to load a deployment and answer once."""
    told = subprocess.run([sys.executable, "-c", ANSWER, folder], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


if __name__ == "__main__":
    main()
