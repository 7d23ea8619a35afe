"""Whether Optimum's own class loads what whet exported, and answers as plain ONNX Runtime does.

    python -m venv optimum && optimum/bin/pip install torch==2.13.0 'optimum-onnx[onnxruntime]'
    optimum/bin/python studies/compression_course/optimum_loads.py FOLDER ...

runs in an environment of its own, without whet, since Optimum excludes the transformers that whet needs. Reads every
ONNX file of every folder, and writes optimum_loads.json beside this file.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

SENTENCES = ["a gripping film", "dull , lifeless and far too long to be worth the price of a ticket", "fine"]
PACKAGES = ("optimum-onnx", "transformers", "onnxruntime")


def main() -> None:
    """Load and compare."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    rows = []
    for file in (file for folder in sys.argv[1:] for file in sorted(Path(folder).glob("*.onnx"))):
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent)
        model = ORTModelForSequenceClassification.from_pretrained(file.parent, file_name=file.name)
        by_optimum = model(**tokenizer(SENTENCES, padding=True, return_tensors="pt")).logits.numpy()
        session = onnxruntime.InferenceSession(file)
        feed = tokenizer(SENTENCES, padding=True, return_tensors="np")
        [plain] = session.run(["logits"], {one.name: feed[one.name] for one in session.get_inputs()})
        apart = float(np.abs(by_optimum - plain).max())
        rows.append({"model": file.parent.name, "file": file.name, "largest difference": apart})
        print(rows[-1])
    found = {"versions": {name: version(name) for name in PACKAGES}, "loaded": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
