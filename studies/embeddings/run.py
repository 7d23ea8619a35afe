"""all-MiniLM-L6-v2 as an embedder: dense and smaller models, where each runs, on STS 2012 to 2016 and SciFact.

    python studies/embeddings/run.py --data-dir ../shared/data --model ../shared/models/all-MiniLM-L6-v2 --out FOLDER

makes each model where it is missing, exports it, measures all in one run, and writes results.json beside this file.
A stopped run goes on with what is missing. Calibration and training read the sentences of STS-B's and SICK's training
pairs, and no scores.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)
from embeddings import measuring  # noqa: E402

RECOVERY = {"method": "recovery.distillation", "epochs": 3, "learning_rate": 1e-4, "precision": "bf16"}
SPEED = {"method": "structure", "runtime": "onnxruntime", "precision": "int8"}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "low rank 0.5": [{"method": "kfac", "keep": 0.5}],
    "structure 1.7": [{**SPEED, "speedup": 1.7}],
    "structure 2.2": [{**SPEED, "speedup": 2.2}],
    "structure 2, recovered": [{**SPEED, "speedup": 2.0}, RECOVERY],
    "structure 3, recovered": [{**SPEED, "speedup": 3.0}, RECOVERY],
}
STUDENT = "student of 3 layers"
PLACES = [("pytorch", "fp32"), *deployments.HERE_TOO]


def main() -> None:
    """Make, export and measure."""
    options = arguments()
    text = training_text(options.data_dir)
    task = whet.load_task(train_file=text, kind="embedding")
    names = options.only or [*RECIPES, STUDENT]
    folders = [folder_of(name, options.model, task, options.out) for name in names]
    deployments.export_all(folders, task)
    data = measuring.Data.read(options.data_dir)
    encoders: dict[str, measuring.Encoder] = {
        f"{folder.name} ({place} {precision})": partial(vectors, whet.load(folder, runtime=place, precision=precision))
        for place, precision in PLACES
        for folder in folders
    }
    write(encoders, data, HERE / "results.json")


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, STUDENT], help="names of models; all if not given")
    return parser.parse_args()


def training_text(data_dir: Path) -> pd.DataFrame:
    """Return the sentences of STS-B's and SICK's training pairs, each once; none of them is measured on."""
    tasks = [whet.load_task(name, data_dir=data_dir) for name in ("glue/stsb", "sick-relatedness")]
    pairs = [task.splits.train for task in tasks]
    texts = [text for split in pairs for side in (split.texts, split.pairs or ()) for text in side]
    return pd.DataFrame({"text": list(dict.fromkeys(texts))})


def folder_of(name: str, dense: Path, task: whet.Task, out: Path) -> Path:
    """Return the folder of a model, made where it is missing."""
    folder = out / name.replace(" ", "_").replace(",", "")
    if name != STUDENT:
        return deployments.made(task, dense, folder, RECIPES[name])
    if not folder.is_dir():
        student = whet.student_from("layer_subset:evenly_spaced:3")
        whet.distill(dense, student, task, folder, settings=whet.TrainingSettings(epochs=3, learning_rate=1e-4))
    return folder


def vectors(predictor: Any, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the (texts, width) vectors of a loaded model."""
    found: np.ndarray[Any, Any] = predictor.predict(list(texts))
    return found


def write(encoders: dict[str, measuring.Encoder], data: measuring.Data, path: Path) -> None:
    """Measure all encoders, the first as the baseline, and write what was found after each."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    baseline = None
    for name, encode in encoders.items():
        if baseline is None or name not in known:
            own = measuring.predictions(encode, data)
            known[name] = {"qualities": measuring.qualities(data, own, baseline)}
            baseline = baseline or own
            path.write_text(json.dumps(known, indent=1) + "\n")
    for name, speed in measuring.speeds(encoders, data.sentences()).items():
        known[name] |= speed
    path.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
