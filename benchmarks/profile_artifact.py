"""Where an exported model's time goes: its operators by the runtimes' own profilers, at batches of 1, 8 and 32.

    python benchmarks/profile_artifact.py runs/small --dev-file dev.csv --threads 1

runs every export that a folder holds on the shortest-first dev texts, and adds each operator's share of the time, and
that of each kind of operator, to profile_artifact.json beside this file, under the model's name. What ONNX Runtime
spends between its operators is `outside`. Profiling costs time itself: shares compare with each other, not with times.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from rich.console import Console
from rich.table import Table

import whet
from whet.models import exported, input_names, load_tokenizer
from whet.run import ONNX_FILES, OPENVINO_FILES, SLOW_FUSIONS
from whet.tasks import encode, shortest_first
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
KINDS = {
    "products": {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "FullyConnected"},
    "products with rounding": {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "FullyConnectedQuantizedLegacy"},
    "attention": {"Attention", "MultiHeadAttention", "ScaledDotProductAttention"},
    "rounding": {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Quantize"},
    "softmax": {"Softmax"},
    "norms": {"LayerNormalization", "SkipLayerNormalization", "MVN", "RMSNorm"},
    "GELU": {"Gelu", "BiasGelu", "FastGelu", "Erf", "QuickGelu"},
    "words": {"Gather", "EmbedLayerNormalization"},
    "copies": {"Transpose", "Reshape", "Concat", "Split", "Slice", "Expand", "Cast", "Convert", "Reorder", "Unsqueeze"},
}
"""Operators by what they do; all others are `rest`."""
BATCHES = (1, 8, 32)
Inputs = Sequence[Mapping[str, np.ndarray[Any, Any]]]
Shares = dict[str, float]


def main() -> None:
    """Profile and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with exports")
    parser.add_argument("--dev-file", type=Path, required=True)
    parser.add_argument("--text", default="text", help="column of the sentences")
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    task = whet.load_task(train_file=options.dev_file, dev_file=options.dev_file, text=options.text)
    dev = task.splits.dev.take(np.arange(min(options.examples, len(task.splits.dev))))
    forms: dict[str, dict[str, dict[str, Shares]]] = {}
    for (runtime, precision), profile in forms_of(options.model).items():
        for size in BATCHES:
            spent = profile(in_batches(options.model, dev, size, options.max_length), options.threads)
            forms.setdefault(f"{runtime} {precision}", {})[str(size)] = {
                "kinds": shares(by_kind(spent)),
                "operators": shares(spent),
            }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.model.name] = {
        "machine": current_machine().to_dict(),
        "threads": options.threads,
        "examples": len(dev),
        "forms": forms,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for form, found in forms.items():
        Console().print(table(form, found))


def in_batches(folder: Path, dev: whet.Examples, size: int, max_length: int) -> Inputs:
    """Return what a session reads of the dev texts."""
    model, tokenizer = whet.load_model(folder), load_tokenizer(folder)
    names = input_names(model, tokenizer.model_input_names)
    ordered = shortest_first(dev, tokenizer, max_length=max_length)
    batches = encode(ordered, tokenizer, batch_size=size, max_length=max_length).batches
    return [{name: batch[name].numpy() for name in names} for batch in batches]


def forms_of(folder: Path) -> dict[tuple[str, str], Callable[[Inputs, int], Counter[str]]]:
    """Return what profiles each export of a folder."""
    found: dict[tuple[str, str], Callable[[Inputs, int], Counter[str]]] = {}
    for runtime, files in (("onnxruntime", ONNX_FILES), ("openvino", {k: v[0] for k, v in OPENVINO_FILES.items()})):
        for precision, name in files.items():
            try:
                exported(folder, runtime, precision)
            except whet.InvalidArtifact:
                continue
            profiler = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}[runtime]
            found[runtime, precision] = partial(profiler, folder / name)
    return found


def by_onnxruntime(path: Path, inputs: Inputs, threads: int) -> Counter[str]:
    """Return the microseconds of each operator, and `outside` of all, by ONNX Runtime's profiler."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/profile"
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
        )
        read = {value.name for value in session.get_inputs()}
        for batch in inputs:
            session.run(None, {name: value for name, value in batch.items() if name in read})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    whole = sum(event["dur"] for event in events if event["name"] == "model_run")
    spent["outside"] = max(0, whole - spent.total())
    return spent


def by_openvino(path: Path, inputs: Inputs, threads: int) -> Counter[str]:
    """Return the microseconds of each kind of node by OpenVINO's counters."""
    hints = {"PERF_COUNT": "YES", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(path, "CPU", {**hints, "INFERENCE_PRECISION_HINT": "f32"})
    read, request = {value.get_any_name() for value in model.inputs}, model.create_infer_request()
    spent: Counter[str] = Counter()
    for batch in inputs:
        request.infer({name: value for name, value in batch.items() if name in read})
        for node in request.get_profiling_info():
            spent[node.node_type] += node.real_time.total_seconds() * 1e6
    return spent


def by_kind(spent: Counter[str]) -> Counter[str]:
    """Return the time of each kind of operator."""
    kinds: Counter[str] = Counter()
    for name, time in spent.items():
        kinds[next((kind for kind, names in KINDS.items() if name in names), "rest")] += time
    kinds["rest"] -= spent["outside"]
    kinds["outside"] = spent["outside"]
    return kinds


def shares(spent: Counter[str]) -> Shares:
    """Return each part of the whole, largest first, without those below a thousandth."""
    whole = spent.total()
    return {name: round(time / whole, 4) for name, time in spent.most_common() if time >= whole / 1000}


def table(form: str, found: Mapping[str, Mapping[str, Shares]]) -> Table:
    """Return the kinds of operators over the sizes of batches."""
    made = Table("operators", *(f"batches of {size}" for size in found), title=f"{form}: share of the time, %")
    for kind in dict.fromkeys(kind for own in found.values() for kind in own["kinds"]):
        made.add_row(kind, *(f"{100 * own['kinds'].get(kind, 0):.0f}" for own in found.values()))
    return made


if __name__ == "__main__":
    main()
