"""How far predictions are softened before kfac's gradients start from them.

    python studies/first_light/temperature.py --data-dir ../shared/data

measures KL to the original on held-out training data, for the models that run.py fine-tuned, over temperatures and
shares kept, and writes temperature.json beside this file.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

import whet
from whet import Calibration
from whet.calibration import prepare_resources
from whet.models import load_tokenizer, predict
from whet.tasks import encode

HERE = Path(__file__).parent
TASKS = ("glue/mrpc", "glue/cola", "glue/rte", "glue/sst2")
TEMPERATURES = (1.0, 2.0, 3.0, 5.0, 8.0)
KEEPS = (0.6, 0.4, 0.2)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--runs", type=Path, default=Path("runs/glue"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for name in TASKS:
        task = whet.load_task(name, data_dir=options.data_dir)
        found[name] = table(task, options.runs / name.replace("/", "_") / "dense")
        (HERE / "temperature.json").write_text(json.dumps(found, indent=1) + "\n")


def table(task: whet.Task, folder: Path) -> dict[str, dict[str, float]]:
    """Return KL on held-out training data by temperature and share kept."""
    model, tokenizer = whet.load_model(folder), load_tokenizer(folder)
    resources = prepare_resources(model, tokenizer, task, Calibration(examples=366), seed=0, device="cpu")
    held_out = encode(task.splits.validation, tokenizer, max_length=128, batch_size=16)
    original = predict(model, held_out, name="the original")

    def divergence(temperature: float, keep: float) -> float:
        recipe = whet.Recipe.from_list([{"method": "kfac", "keep": keep, "temperature": temperature}])
        compressed: nn.Module = recipe.apply(model, resources)
        return float(original.divergences(predict(compressed, held_out, name="the compressed model")).mean())

    return {str(one): {str(keep): divergence(one, keep) for keep in KEEPS} for one in TEMPERATURES}


if __name__ == "__main__":
    main()
