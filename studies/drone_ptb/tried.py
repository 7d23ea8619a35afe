"""What was tried for a lower perplexity at half the parameters, on the validation split.

    python studies/drone_ptb/tried.py --data ../shared/data/ptb --model runs/drone_ptb/dense

factorises the model that train.py made by each recipe below, and writes the perplexities to tried.json beside this
file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from whet import Recipe, Resources
from whet.models import load_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from drone_ptb.run import CALIBRATION, HERE, load
from drone_ptb.stream import calibration_stretches, perplexity, read_stream, token_losses

TRIED: dict[str, dict[str, Any]] = {
    "drone": {"method": "drone", "keep": 0.5},
    "drone by_loss": {"method": "drone", "keep": 0.5, "allocation": "by_loss"},
    "feature_mimicking": {"method": "feature_mimicking", "keep": 0.5},
    "kfac by_loss": {"method": "kfac", "keep": 0.5},
}


def main() -> None:
    """Score every recipe and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of ptb.train.txt and ptb.valid.txt")
    parser.add_argument("--model", type=Path, default=Path("runs/drone_ptb/dense"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer, dense = load_tokenizer(options.model), load(options.model)
    text, validation = (read_stream(options.data / f"ptb.{name}.txt", tokenizer) for name in ("train", "valid"))
    resources = Resources(calibration=calibration_stretches(text, **CALIBRATION))
    losses = token_losses(dense, validation[None])[0]
    found = {"dense": perplexity(losses).to_dict()}
    for name, entry in TRIED.items():
        model = Recipe.from_list([entry]).apply(dense, resources)
        found[name] = perplexity(token_losses(model, validation[None])[0], baseline=losses).to_dict()
        print(f"{name}: {found[name]['value']:.2f}", flush=True)
        (HERE / "tried.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
