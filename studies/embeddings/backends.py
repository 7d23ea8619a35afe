"""Does sentence-transformers read what whet exports? Its OpenVINO backend and whet, on the same sentences.

    whet compress ../shared/models/all-MiniLM-L6-v2 --method neurons --keep 0.5 --calibration 32 --out half \
        --task glue/stsb --kind embedding --data-dir ../shared/data
    whet export half --to openvino --precision fp32,int8 --task glue/stsb --kind embedding --data-dir ../shared/data
    whet export ../shared/models/all-MiniLM-L6-v2 --to openvino --precision fp32,int8 --out dense \
        --task glue/stsb --kind embedding --data-dir ../shared/data
    python studies/embeddings/backends.py dense half

writes whet's own vectors of a few sentences into the folders. Then, in an
environment of its own, with no whet in it (`pip install 'sentence-transformers[openvino]==6.2.0'`, which needs another
version of transformers than whet):

    python studies/embeddings/backends.py dense half --sentence-transformers

loads the folders by sentence-transformers' OpenVINO backend, compares, and writes backends.json beside this file.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FILES = {"fp32": "openvino_model.xml", "int8": "openvino_model_int8.xml"}
VECTORS = "vectors-{precision}.npy"
SENTENCES = [
    "A man is playing a guitar.",
    "Somebody plays an instrument, and a crowd listens to him in front of the old town hall.",
    "Ice cream",
    "Which protein does the mutation of this gene change, and where is it expressed?",
]


def main() -> None:
    """Write vectors, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of embedders with exports for OpenVINO")
    parser.add_argument("--sentence-transformers", action="store_true", help="load the folder by it, and compare")
    options = parser.parse_args()
    if not options.sentence_transformers:
        for folder in options.folders:
            write_vectors(folder)
        return
    found = {folder.name: {file: compared(folder, file) for file in FILES} for folder in options.folders}
    versions = {name: version(name) for name in ("sentence-transformers", "transformers", "optimum-intel", "openvino")}
    (HERE / "backends.json").write_text(json.dumps({"versions": versions, "least_cosine": found}, indent=1) + "\n")
    print(found)


def write_vectors(folder: Path) -> None:
    """Write the vectors of all sentences by whet, one file for each precision."""
    import whet

    for precision in FILES:
        model = whet.load(folder, runtime="openvino", precision=precision)
        np.save(folder / VECTORS.format(precision=precision), model.predict(SENTENCES))


def compared(folder: Path, precision: str) -> float:
    """Return the least cosine between a sentence's vector by sentence-transformers and that by whet."""
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # not in this environment

    model = SentenceTransformer(
        str(folder),
        backend="openvino",
        model_kwargs={"file_name": FILES[precision], "ov_config": {"INFERENCE_PRECISION_HINT": "f32"}},
    )
    ours = np.load(folder / VECTORS.format(precision=precision), allow_pickle=False)
    return float((model.encode(SENTENCES, normalize_embeddings=True) * ours).sum(1).min())


if __name__ == "__main__":
    main()
