"""Whether OpenVINO's decompression of sparse weights gains time here.

    python studies/sparsity/decompression.py runs/glue/glue_sst2/dense

sets nine tenths of the linear layers' weights to zero, converts the model, and times it with and without
CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE, in fp32 and, where nncf is installed, in int8; both take turns.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

import whet
from whet.benchmark import load_any
from whet.checkpoint import load_tokenizer
from whet.onnx_export import to_onnx
from whet.runtime import example_batch, input_names

HERE = Path(__file__).parent
RATE = "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"
ROUNDS, SHAPE = 40, (16, 24)
"""Examples and tokens of the batch that is timed."""


def main() -> None:
    """Time, and write decompression.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    step = {"method": "magnitude", "sparsity": 0.9}
    model = whet.Recipe.from_list([step]).apply(load_any(options.model), whet.Resources())
    names = input_names(model, load_tokenizer(options.model).model_input_names)
    batch = {name: one.numpy() for name, one in example_batch(model, names, *SHAPE).items()}
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(model, example_batch(model, names, 2, 6), Path(folder) / "model.onnx")
        converted = openvino.convert_model(Path(folder) / "model.onnx")
    found = {"fp32": ratio(converted, batch, options.threads)}
    if importlib.util.find_spec("nncf"):
        import nncf

        data = nncf.Dataset([batch] * 10)
        int8 = nncf.quantize(converted, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=10)
        found["int8"] = ratio(int8, batch, options.threads)
    (HERE / "decompression.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


def ratio(model: Any, batch: dict[str, Any], threads: int) -> dict[str, Any]:
    """Return the median time without decompression over that with it, and the middle half of the rounds."""
    shared = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    plain, sparse = (core.compile_model(model, "CPU", {**shared, RATE: rate}) for rate in (1.0, 0.5))
    seconds = np.array([[timed(one, batch) for one in (plain, sparse)] for _ in range(ROUNDS + 5)])[5:]
    low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], (0.25, 0.5, 0.75))
    return {"ratio": round(middle, 3), "low": round(low, 3), "high": round(high, 3), "ms": 1e3 * np.median(seconds)}


def timed(compiled: Any, batch: dict[str, Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    compiled(batch)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
