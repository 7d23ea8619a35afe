"""An LSTM with 40 % of its linear parameters: the token KL of each method, without and with recovery.

    python studies/drone_ptb/train.py --data ../shared/data/ptb --epochs 3 --out runs/language_models/lstm
    python studies/language_models/lstm.py --model runs/language_models/lstm --data ../shared/data/ptb

compresses the model that the first command trains on the Penn Treebank, measures all on its test split side by side,
and writes lstm.json, lstm.md and a picture beside this file. Models stay under runs/.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from language_models.run import RECIPES, compare  # noqa: E402  (beside this folder)

WINDOW = 128
RECOVERY = {"method": "recovery.distillation", "epochs": 1, "learning_rate": 3e-3, "hidden_states": 0.0}
OF_LSTM: dict[str, list[dict[str, Any]]] = {name: RECIPES[name] for name in ("svd", "drone", "kfac uniform", "kfac")}
OF_LSTM["kfac, recovered"] = [*RECIPES["kfac"], RECOVERY]
"""An LSTM has no heads and no feed-forward neurons, so that `structure` refuses it."""


def main() -> None:
    """Compress, measure, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the LSTM")
    parser.add_argument("--data", type=Path, required=True, help="folder of ptb.train.txt, ptb.valid.txt, ptb.test.txt")
    parser.add_argument("--runs", type=Path, default=Path("runs/language_models/of_lstm"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", default="lstm", help="name of what is written beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task("ptb", data_dir=options.data.parent)
    calibration = whet.Calibration(examples=256, batch_size=8, max_length=WINDOW)
    options.runs.mkdir(parents=True, exist_ok=True)
    compare(
        options.model, OF_LSTM, task, calibration, options.runs, HERE / f"{options.results}.json", linear_parameters
    )


def linear_parameters(folder: Path) -> int:
    """Return how many weights the LSTM's layers and its softmax layer have."""
    weights = whet.load_model(folder).named_parameters()
    return sum(weight.numel() for name, weight in weights if "embed" not in name and weight.dim() == 2)


if __name__ == "__main__":
    main()
