"""What int8 costs factored layers, with and without the rotation of their components, and dense ones.

    python benchmarks/rotation.py --models runs/runtimes/glue_mrpc --task glue/mrpc --data-dir ../shared/data

exports the models that runtimes.py made to int8, in both runtimes, the factored one twice: as it is, its factors
balanced by scales alone, and rotated as `whet export` does; and adds the mean KL to the model itself, on held-out
training examples, to rotation.json beside this file.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from torch import nn

import whet
from whet.calibration import equalize_low_rank_layers
from whet.utils import INT8

RESULTS = Path(__file__).with_suffix(".json")
RUNTIMES = ("onnxruntime", "openvino")
FACTORED = "kfac 0.4"


def main() -> None:
    """Export, and write what was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with dense and the factored model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    found = {
        "dense": lost(options.models / "dense", task),
        "factored": lost(options.models / FACTORED, task, rotated=False),
        "factored, rotated": lost(options.models / FACTORED, task),
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(results | {options.task: found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def lost(model: Path, task: whet.Task, *, rotated: bool = True) -> dict[str, float | None]:
    """Return the KL of int8 in every runtime; the folder stays as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(model, Path(scratch) / "model"))
        with mock.patch(
            "whet.runtimes.export.equalize_low_rank_layers", equalize_low_rank_layers if rotated else as_it_is
        ):
            found = whet.export(folder, RUNTIMES, precisions=[INT8], task=task)
    return {runtime: one.kl for (runtime, _), one in found.items()}


def as_it_is(model: nn.Module, layers: Sequence[str]) -> None:
    """Leave the factors as factorization made them, which is balanced."""


if __name__ == "__main__":
    main()
