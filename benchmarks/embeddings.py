"""What smaller word embeddings cost in answers and save in bytes: fewer directions, or fewer words, without training.

    python benchmarks/embeddings.py --model runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir ../shared/data

compresses the model by every recipe, measures all on the dev split in one run, each with its own tokenizer, counts what
of the dev text the smaller vocabularies lack, and adds the task to embeddings.json beside this file. A second call
measures what the first has made.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from stored import measured
from whet import Examples
from whet.models import load_tokenizer

RESULTS = Path(__file__).with_suffix(".json")
ALIKE = 1e9
"""So large a smoothing or damping that all words or directions count alike."""
KEEPS = (0.5, 0.25, 0.125)
RECIPES: dict[str, list[dict[str, Any]]] = {
    **{f"embedding {keep}": [{"method": "embedding", "keep": keep}] for keep in KEEPS},
    **{
        f"embedding {keep}, by words alone": [{"method": "embedding", "keep": keep, "damping": ALIKE}] for keep in KEEPS
    },
    **{
        f"embedding {keep}, unweighted": [
            {"method": "embedding", "keep": keep, "damping": ALIKE, "smoothing": ALIKE},
        ]
        for keep in KEEPS
    },
    "vocabulary": [{"method": "vocabulary"}],
    "vocabulary, least_count 5": [{"method": "vocabulary", "least_count": 5}],
    "embedding 0.5, vocabulary": [{"method": "embedding", "keep": 0.5}, {"method": "vocabulary"}],
    "vocabulary, 8 bits": [{"method": "vocabulary"}, {"method": "weight_only"}],
}


def main() -> None:
    """Make what is missing, measure and write."""
    options, task, folders, trials = measured(__doc__, RECIPES, Path("runs/embeddings"))
    lacking = {folder.name: lacks(options.model, folder, task.splits.dev) for folder in folders}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.task] = [trial.to_dict() | {"dev": lacking[trial.name]} for trial in trials]
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for trial in trials:
        shown = (f"{trial.get(name).value:.4f}" for name in ("kl", "disagreement", "disk", "compressed"))
        print(f"{trial.name:<34}", f"{trial.measurements[0].value:.4f}", *shown, lacking[trial.name])


def lacks(original: Path, smaller: Path, dev: Examples) -> dict[str, int]:
    """Return how much of the dev text the smaller vocabulary lacks, and how it reads that: in more pieces, or not."""
    whole, less = load_tokenizer(original), load_tokenizer(smaller)
    known = less.get_vocab()
    texts = [*dev.texts, *(dev.pairs or ())]
    counts = Counter(piece for text in texts for piece in whole.tokenize(text))
    read = Counter(piece for text in texts for piece in less.tokenize(text))
    missing = {piece: count for piece, count in counts.items() if piece not in known}
    return {
        "vocabulary": len(known),
        "pieces": counts.total(),
        "pieces_missing": sum(missing.values()),
        "kinds": len(counts),
        "kinds_missing": len(missing),
        "pieces_read": read.total(),
        "pieces_unknown": read[str(less.unk_token)] - counts[str(whole.unk_token)],
    }


if __name__ == "__main__":
    main()
