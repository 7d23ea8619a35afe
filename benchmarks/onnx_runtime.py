"""Where ONNX Runtime's time goes in int8, and what changes of the graph and of its session gain there.

    python benchmarks/onnx_runtime.py --model runs/runtimes/glue_mrpc/dense --data-dir ../shared/data --threads 2

exports the model to int8 twice: with attention that reads split heads, as exporters write it, and as whet writes
it. Answers dev sentences in sorted batches of 8 by both, with and without the fusion that whet leaves out, and with
other options of the session, all in turn in one process; profiles the first and the last graph by operator; and adds
the model to onnx_runtime.json beside this file.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch

import whet
from whet.evaluation import paired_ratio, time_interleaved
from whet.models import dense_layers_in_blocks, input_names, load_tokenizer
from whet.run import ONNX_FILES, SLOW_FUSIONS
from whet.runtimes import Conversion, OnnxRuntime, flat_attention, to_onnx
from whet.tasks import encode, shortest_first
from whet.utils import INT8, current_machine

RESULTS = Path(__file__).with_suffix(".json")


class Way(NamedTuple):
    """One session."""

    flat: bool = True
    """Whether attention reads heads that are not split."""
    fused: bool = False
    """Whether addition and layer norm are one operator."""
    entries: Mapping[str, str] = {}
    """Of the session's configuration."""
    arena: bool = True


FIRST, LAST = "as exported", "as whet runs it"
WAYS = {
    FIRST: Way(flat=False, fused=True),
    "without the fusion": Way(flat=False),
    "heads not split": Way(fused=True),
    LAST: Way(),
    "no spinning": Way(entries={"session.intra_op.allow_spinning": "0"}),
    "no memory arena": Way(arena=False),
    "denormals are zero": Way(entries={"session.set_denormal_as_zero": "1"}),
    "work in 4 blocks a thread": Way(entries={"session.dynamic_block_base": "4"}),
}
Inputs = Sequence[Mapping[str, np.ndarray[Any, Any]]]


def main() -> None:
    """Export, measure, profile and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned or compressed model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    model, tokenizer = whet.load_model(options.model), load_tokenizer(options.model)
    dev = whet.load_task(options.task, data_dir=options.data_dir).splits.dev.take(np.arange(options.examples))
    batches = encode(shortest_first(dev, tokenizer, max_length=128), tokenizer, batch_size=8, max_length=128).batches
    names = input_names(model, tokenizer.model_input_names)
    inputs = [{name: batch[name].numpy() for name in names} for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        graphs = {flat: exported(model, names, Path(folder) / str(flat), flat=flat) for flat in (False, True)}
        sessions = {name: session(graphs[way.flat], way, options.threads) for name, way in WAYS.items()}
        runs = [partial(answer_all, one, inputs) for one in sessions.values()]
        seconds = dict(zip(WAYS, time_interleaved(runs, rounds=options.rounds).T.tolist(), strict=True))
        found = {
            "machine": current_machine().to_dict(),
            "threads": options.threads,
            "rounds": options.rounds,
            "examples": len(dev),
            "times as fast as exported": {
                name: asdict(paired_ratio(seconds[FIRST], own, seed=0)) for name, own in seconds.items()
            },
            "times as fast as whet": {
                name: asdict(paired_ratio(seconds[LAST], own, seed=0)) for name, own in seconds.items()
            },
            "share of time by operator": {
                name: profile(graphs[WAYS[name].flat], WAYS[name], options.threads, inputs) for name in (FIRST, LAST)
            },
        }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(options.task, {})[options.model.name] = found
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in list(found)[-3:]}, indent=1))


def exported(model: torch.nn.Module, names: list[str], folder: Path, *, flat: bool) -> Path:
    """Return the model in int8."""
    folder.mkdir()
    whole = folder / "whole.onnx"
    to_onnx(model, names, whole)
    with mock.patch("whet.runtimes.onnxruntime.flat_attention", flat_attention if flat else as_exported):
        OnnxRuntime().convert(Conversion(whole, INT8, layers=dense_layers_in_blocks(model)), folder)
    return folder / ONNX_FILES[INT8]


def as_exported(path: Path) -> onnx.ModelProto:
    """Return the model without shapes between its nodes, which stop being true in int8."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    return model


def session(graph: Path, way: Way, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """Return the graph ready to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_cpu_mem_arena = way.arena
    for key, value in way.entries.items():
        options.add_session_config_entry(key, value)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=[] if way.fused else list(SLOW_FUSIONS)
    )


def answer_all(one: onnxruntime.InferenceSession, inputs: Inputs) -> None:
    """Run every batch."""
    for batch in inputs:
        one.run(None, dict(batch))


def profile(graph: Path, way: Way, threads: int, inputs: Inputs) -> dict[str, float]:
    """Return each operator's share of the time of all, largest first, by ONNX Runtime's own profiler."""
    one = session(graph, way, threads, profile=graph.with_suffix(".profile"))
    answer_all(one, inputs)
    spent: Counter[str] = Counter()
    for event in json.loads(Path(one.end_profiling()).read_text()):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    return {name: duration / spent.total() for name, duration in spent.most_common()}


if __name__ == "__main__":
    main()
