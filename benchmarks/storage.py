"""What storing a fine-tuned model in fewer bits costs in answers and saves in bytes, without any training.

    python benchmarks/storage.py --model runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir ../shared/data

compresses the model by every representation, measures all on the dev split in one run, and adds the task to
storage.json beside this file. A second call measures what the first has made.
"""

import json
from pathlib import Path
from typing import Any

from stored import measured

RESULTS = Path(__file__).with_suffix(".json")
RECIPES: dict[str, list[dict[str, Any]]] = {
    "half": [{"method": "half"}],
    "8 bits": [{"method": "weight_only", "bits": 8}],
    "4 bits, groups of 64": [{"method": "weight_only", "bits": 4, "group_size": 64}],
    "4 bits, groups of 32": [{"method": "weight_only", "bits": 4, "group_size": 32}],
    "16 clusters": [{"method": "kmeans", "n_clusters": 16}],
    "int8 products": [{"method": "dynamic_int8"}],
    "int8 products, 8 bits elsewhere": [
        {"method": "dynamic_int8"},
        {"method": "weight_only", "bits": 8, "include": "*embeddings*"},
    ],
    "kfac 0.4": [{"method": "kfac", "keep": 0.4}],
    "kfac 0.4, 8 bits": [{"method": "kfac", "keep": 0.4}, {"method": "weight_only", "bits": 8}],
    "kfac 0.4, 4 bits, groups of 32": [
        {"method": "kfac", "keep": 0.4},
        {"method": "weight_only", "bits": 4, "group_size": 32},
    ],
}


def main() -> None:
    """Make what is missing, measure and write."""
    options, _, _, trials = measured(__doc__, RECIPES, Path("runs/storage"))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.task] = [trial.to_dict() for trial in trials]
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for trial in trials:
        shown = (f"{trial.get(name).value:.4f}" for name in ("kl", "disagreement", "disk", "compressed"))
        print(f"{trial.name:<34}", f"{trial.measurements[0].value:.4f}", *shown)


if __name__ == "__main__":
    main()
