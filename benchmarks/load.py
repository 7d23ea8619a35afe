"""Large data: what each verb takes for 200,000 rows, texts of a million characters and 1,000 classes.

    python benchmarks/load.py --rows 200000

makes data and a tiny model, and runs every verb on them and on 200 rows, each in a process of its own. The difference
of the peaks of memory is what the rows take over the model. Training runs for one step: what is shown is how long it
takes to begin, with the validation of 1,000 rows. The results go to load.json beside this file.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import BertConfig, BertModel

import whet
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
FEW = 200
"""Rows of the small data that the large are compared with."""
ONE_STEP = "0.0001"
"""Epochs of a training that takes one step, or a few."""


class Cost(NamedTuple):
    """What a call took."""

    wall: float
    """Seconds by the clock."""
    processor: float
    """Seconds of all threads."""
    peak_mib: float
    """Largest memory of the process, in MiB."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--verbs", nargs="*", default=["finetune", "compress", "vocabulary", "measure", "search"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = make_base(folder / "base")
        write(folder / "few.csv", texts(words, FEW))
        write(folder / "many.csv", texts(words, options.rows))
        write(folder / "long.csv", [f"{words[i % 7]} " * (1_000_000 // (1 + len(words[i % 7]))) for i in range(40)])
        write(folder / "classes.csv", texts(words, 20_000), classes=1000)
        call(folder, "finetune", "base", "--out", "model", "--train-file", "few.csv", "--epochs", "1")
        rows = {}
        for verb in options.verbs:
            few = run(folder, verb, "few")
            many = run(folder, verb, "many")
            rows[f"{verb}, {options.rows:,} rows"] = {**many._asdict(), "over_few_mib": many.peak_mib - few.peak_mib}
        for data in ("long", "classes"):
            rows[f"finetune, {data}"] = run(folder, "finetune", data)._asdict()
    document = {"machine": current_machine().to_dict(), "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def make_base(folder: Path) -> list[str]:
    """Save a tiny base model with the tokenizer of the built-in task, and return the words that it knows."""
    tokenizer = whet.load_task("agreement").tokenizer()
    assert tokenizer is not None
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return [word for word in tokenizer.get_vocab() if word.isalpha()]


def texts(words: list[str], count: int) -> list[str]:
    """Return random texts of 5 to 35 words."""
    rng = np.random.default_rng(0)
    return [" ".join(words[i] for i in rng.integers(len(words), size=rng.integers(5, 36))) for _ in range(count)]


def write(path: Path, rows: list[str], *, classes: int = 2) -> None:
    """Write texts with labels that take turns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([text, f"class {i % classes}"] for i, text in enumerate(rows))


def run(folder: Path, verb: str, data: str) -> Cost:
    """Return what a verb takes for some data, and print it."""
    train = ["--train-file", f"{data}.csv"]
    out = ["--out", f"{verb}-{data}"]
    # as the issue of large dev data has it, measure reads all rows as dev rows
    words = {
        "finetune": ["finetune", "base", *out, *train, "--epochs", ONE_STEP],
        "compress": ["compress", "model", *out, *train, "--method", "drone", "--keep", "0.5"],
        "vocabulary": ["compress", "model", *out, *train, "--method", "vocabulary"],
        "measure": ["measure", "model", "--train-file", "few.csv", "--dev-file", f"{data}.csv", "--rounds", "6"],
        "search": ["search", "model", *out, *train, "--dev-file", "few.csv", "--time", "5s", "--runtime", "pytorch"],
    }
    cost = call(folder, *words[verb])
    print(f"{verb} {data}: {cost.wall:.0f} s, {cost.processor:.0f} s of the processor, {cost.peak_mib:.0f} MiB")
    return cost


def call(folder: Path, *words: str) -> Cost:
    """Return what a command line takes in a process of its own."""
    start = time.perf_counter()
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "whet", *words, "--threads", "1"]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # (3: no model of a search holds the bar)
        print(f"{' '.join(words)} ended with {(folder / 'output.txt').read_text(encoding='utf-8')[-500:]}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
