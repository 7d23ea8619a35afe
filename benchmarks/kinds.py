"""Every verb on real data of every kind, by the command line, as a user calls it.

    python benchmarks/kinds.py --data-dir ../shared/data --models ../shared/models --threads 1

starts from a tiny random model for each kind that learns from labels, from all-MiniLM-L6-v2 as an embedder and from
stories260k, and fine-tunes, distils, compresses, measures, exports, searches and reports it. Writes each command with
its exit code and seconds, and what the search won, to kinds.json beside this file, after every kind; `--only` takes
some of them. These are no results of methods: models are tiny, and a search has two minutes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import whet
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
EMBEDDER = "all-MiniLM-L6-v2"
TRAINING, INT8, BUDGET = ("--epochs", "1"), ("--precision", "int8"), ("--time", "2m", "--max-drop", "2")
CANDIDATES = "candidates"


class Walk(NamedTuple):
    """Where a kind starts."""

    data: tuple[str, ...]
    """The options that name its data."""
    start: str | None = None
    """A folder of a model, which needs no fine-tuning; a random base that does, if None."""


WALKS = {
    "classification": Walk(("--task", "tweet_sentiment")),
    "regression": Walk(("--task", "glue/stsb")),
    "multi_label": Walk(("--task", "goemotions")),
    "token_classification": Walk(("--task", "conll2003")),
    "question_answering": Walk(("--task", "squad")),
    "embedding": Walk(("--task", "glue/stsb", "--kind", "embedding"), EMBEDDER),
    "reranking": Walk(("--task", "retrieval", "--kind", "reranking")),
    "language_modeling": Walk(("--task", "ptb"), "stories260k"),
    "masked_language_modeling": Walk(("--task", "ptb", "--kind", "masked_language_modeling"), "masked"),
}


def main() -> None:
    """Walk through all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help=f"folder of {EMBEDDER} and stories260k")
    parser.add_argument("--only", nargs="*", choices=WALKS, default=list(WALKS), help="kinds; all if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/kinds"))
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for kind in options.only:
        root = options.runs / kind
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        found[kind] = {**walked(kind, root, options), "machine": current_machine("cpu").to_dict()}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def walked(kind: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return every command of a kind with its exit code and seconds, and what the search printed."""
    walk, dense, search = WALKS[kind], root / "dense", root / "search"
    data_dir = options.data_dir
    if kind == "reranking":
        data_dir = whet.make_candidates(
            options.models / EMBEDDER, options.data_dir / "scifact_beir", root / CANDIDATES, count=8, max_length=64
        )
    data = (*walk.data, "--data-dir", data_dir, "--threads", options.threads)
    commands: list[tuple[Any, ...]] = []
    if walk.start is None:
        commands.append(("finetune", random_base(root / "base", options.models), "--out", dense, *TRAINING, *data))
    else:
        known = options.models / walk.start
        dense = known if known.is_dir() else random_base(root / walk.start, options.models, masked=True)
    commands += [
        ("distill", dense, "--student", "layer_subset:top:1", "--out", root / "student", *TRAINING, *data),
        ("compress", dense, "--method", "neurons", "--keep", "0.5", "--out", root / "small", *data),
        ("measure", dense, root / "small", root / "student", "--out", root / "measured", *data),
        ("export", root / "small", "--to", "onnxruntime", *INT8, *data),
        ("search", dense, *BUDGET, "--runtime", "pytorch,onnxruntime", *INT8, "--out", search, "--json", *data),
        ("report", root / "measured", "--out", root / "report"),
    ]
    rows = []
    for command in commands:
        begun = time.perf_counter()
        called = [sys.executable, "-m", "whet", *map(str, command)]
        done = subprocess.run(called, capture_output=True, text=True, check=False)  # what fails is written down
        rows.append({"verb": command[0], "exit": done.returncode, "seconds": round(time.perf_counter() - begun, 1)})
        print(kind, rows[-1], done.stderr[-300:] if done.returncode else "", flush=True)
        if command[0] == "search":
            rows[-1]["won"] = won(json.loads(done.stdout)) if done.returncode in (0, 3) else done.stderr[-300:]
    return {"data": " ".join(walk.data), "commands": rows}


def won(printed: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of what a search printed: whether the bar holds, what won, and how it compares."""
    best = printed["best"]
    compared = {one["metric"]: one["versus"] for one in best["measurements"] if one["versus"] is not None}
    return {"accepted": printed["accepted"], "name": best["name"], "recipe": best["recipe"], "versus": compared}


def random_base(folder: Path, models: Path, *, masked: bool = False) -> Path:
    """Write a BERT of two blocks and width 128 with random weights, and the tokenizer of the embedder."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig

    tokenizer = AutoTokenizer.from_pretrained(models / EMBEDDER)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2
    )
    (AutoModelForMaskedLM if masked else AutoModel).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
