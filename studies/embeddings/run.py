"""all-MiniLM-L6-v2 as an embedder: dense and smaller models, where each runs, on STS 2012 to 2016 and SciFact.

    python studies/embeddings/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2 --threads 1

makes each model where it is missing, exports it, measures all in one run, and writes results.json, results.md and a
picture beside this file. A stopped run goes on with what is missing: models stay under runs/, which git ignores.
`--make-only` leaves measuring to another time, and `--only` without any writes the tables and the picture anew.

No model learns from scores or judgments. All learn from general text: sentences of STS-B's and SICK's training pairs,
paragraphs and questions of SQuAD and TyDi QA. What is called "on its corpus" learns from SciFact's documents, as a user
has them who searches a corpus, and from as many of the general texts.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import whet
from whet.models import exported

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import deployments  # noqa: E402  (beside this folder)
import glue  # noqa: E402
from embeddings import measuring  # noqa: E402

MAX_LENGTH = 256
"""Tokens that all-MiniLM-L6-v2 reads."""
CALIBRATION = whet.Calibration(examples=512, batch_size=32, max_length=MAX_LENGTH)
RECOVERY = {**deployments.RECOVERY, "epochs": 2, "learning_rate": 2e-4}
SPEED = {"method": "structure", **deployments.IN_INT8}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "low rank, half": [{"method": "kfac", "keep": 0.5}],
    "structure 1.7": [{**SPEED, "speedup": 1.7}],
    "structure 1.7, on its corpus": [{**SPEED, "speedup": 1.7}],
    "structure 2, recovered": [{**SPEED, "speedup": 2.0}, RECOVERY],
    "structure 2, recovered on its corpus": [{**SPEED, "speedup": 2.0}, RECOVERY],
    "structure 3, recovered": [{**SPEED, "speedup": 3.0}, RECOVERY],
    "structure 3, recovered on its corpus": [{**SPEED, "speedup": 3.0}, RECOVERY],
}
"""The speeds that `structure` is asked for count in ONNX Runtime int8."""
STUDENT = "student of 3 layers"
ON_CORPUS = "on its corpus"
"""What ends the name of a model that learns from the documents of the search too."""
PYTORCH = ("pytorch", "fp32")
TITLES = {"sts_average": "STS 2012 to 2016", "ndcg@10": "SciFact nDCG@10", "recall@100": "SciFact recall@100"}
Found = dict[str, dict[str, Any]]
"""What was measured of each model and place, dense PyTorch first."""


def main() -> None:
    """Make, export and measure."""
    parser = deployments.parser(__doc__, "runs/embeddings")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, STUDENT], help="names of models; all if not given")
    parser.add_argument("--runtimes", nargs="*", choices=deployments.RUNTIMES, help="besides PyTorch; all if not given")
    parser.add_argument("--static", type=Path, help="folder of static vectors by model2vec, which has to be installed")
    parser.add_argument("--results", default="results", help="name of what is written beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / f"{options.results}.json"
    found: Found = json.loads(results.read_text()) if results.is_file() else {}
    names = [*RECIPES, STUDENT] if options.only is None else options.only
    folders = models(names, options.base, options.data_dir, options.runs) if names else []
    if folders and not options.make_only:
        runtimes = deployments.RUNTIMES if options.runtimes is None else options.runtimes
        places = [PYTORCH, *(place for place in deployments.HERE_TOO if place[0] in runtimes)]
        data = measuring.Data.read(options.data_dir)
        known = encoders(folders, places, options.threads)
        if options.static is not None:
            known[f"{options.static.name} ({deployments.STATIC})"] = static(options.static)
        measure(known, data, found, options.runs)
    if found:
        write(found, results)


def models(names: Sequence[str], base: str, data_dir: Path, runs: Path) -> list[Path]:
    """Return the folders of models, exported; what is missing is made."""
    lines, corpus = texts(data_dir), measuring.Data.read(data_dir).scifact.corpus.texts
    general = task_of(lines)
    tasks = {True: task_of([*lines[:: len(lines) // len(corpus)], *corpus]), False: general}
    folders = [folder_of(name, base, tasks[name.endswith(ON_CORPUS)], runs) for name in names]
    deployments.export_all(folders, general, calibration=CALIBRATION)
    return folders


def task_of(lines: Sequence[str]) -> whet.Task:
    """Return a task of texts alone, each once."""
    return whet.load_task(train_file=[{"text": text} for text in dict.fromkeys(lines)], kind="embedding")


def texts(data_dir: Path) -> list[str]:
    """Return general text: short sentences, questions and paragraphs; no model is measured on any of them."""
    names = ("glue/stsb", "sick-relatedness", "squad", "tydiqa_en")
    parts = [whet.load_task(name, data_dir=data_dir).splits.train for name in names]
    return [text for part in parts for side in (part.texts, part.pairs or ()) for text in side]


def folder_of(name: str, dense: str, task: whet.Task, runs: Path) -> Path:
    """Return the folder of a model, made where it is missing."""
    folder = runs / name
    if name != STUDENT:
        return deployments.made(task, Path(dense), folder, RECIPES[name], calibration=CALIBRATION)
    if not folder.is_dir():
        settings = whet.TrainingSettings(
            epochs=2, learning_rate=2e-4, max_length=MAX_LENGTH, precision=deployments.FASTEST
        )
        objective = whet.Objective(alpha=1, temperature=1, hidden_states=1)
        student = whet.student_from("layer_subset:evenly_spaced:3")
        whet.distill(dense, student, task, folder, settings=settings, objective=objective)
    return folder


def encoders(
    folders: Sequence[Path], places: Sequence[tuple[str, str]], threads: int
) -> dict[str, tuple[measuring.Encoder, float]]:
    """Return what makes vectors of texts, and the MiB that it reads, by model and place; all of PyTorch first."""
    known: dict[str, tuple[measuring.Encoder, float]] = {}
    for place in places:
        for folder in folders:
            loaded = whet.load(folder, runtime=place[0], precision=place[1], threads=threads, max_length=MAX_LENGTH)
            files = ["model.safetensors"] if place == PYTORCH else exported(folder, *place).files
            name = folder.name if place == PYTORCH else f"{folder.name} ({' '.join(place)})"
            known[name] = (partial(vectors, loaded), measuring.mebibytes([folder / file for file in files]))
    return known


def static(folder: Path) -> tuple[measuring.Encoder, float]:
    """Return what makes vectors of texts from a folder that model2vec wrote, in one process, and the MiB of it."""
    from model2vec import StaticModel  # type: ignore[import-not-found]  # in no extra: only this option needs it

    encode = partial(StaticModel.from_pretrained(folder).encode, max_length=MAX_LENGTH, use_multiprocessing=False)
    return encode, measuring.mebibytes([folder / "model.safetensors"])


def vectors(predictor: Any, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the (texts, width) vectors of a loaded model."""
    found: np.ndarray[Any, Any] = predictor.predict(list(texts))
    return found


def measure(
    encoders: dict[str, tuple[measuring.Encoder, float]], data: measuring.Data, found: Found, runs: Path
) -> None:
    """Measure what each encoder is worth, and the speed of all, the first the baseline; predictions are kept."""
    baseline = None
    for name, (encode, mebibytes) in encoders.items():
        own = measuring.kept(runs / "predictions" / f"{name}.npz", partial(measuring.predictions, encode, data))
        found[name] = {"qualities": measuring.qualities(data, own, baseline), "mebibytes": mebibytes}
        baseline = baseline or own
    speeds = measuring.speeds({name: encode for name, (encode, _) in encoders.items()}, data.sentences())
    for name, speed in speeds.items():
        found[name] |= speed


def write(found: Found, results: Path) -> None:
    """Write what was measured, and the table and the picture that follow from it."""
    results.write_text(json.dumps(found) + "\n")
    results.with_suffix(".md").write_text(table(found), encoding="utf-8")
    picture(found).savefig(results.with_suffix(".png"), dpi=110, metadata={"Software": "whet"})


def table(found: Found) -> str:
    """Return all rows as Markdown: values, and in points the differences from dense PyTorch, with 95 % intervals."""
    names = ("model", "where", "texts/s, times dense PyTorch", *TITLES.values(), "MiB")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, row in found.items():
        model, place = deployments.named({"name": name})
        speed = glue.interval(row["speedup"], 2) if row["speedup"] else f"1 ({row['sentences_per_second']:.0f}/s)"
        cells = [model, place, speed, *(quality(one) for one in row["qualities"]), f"{row['mebibytes']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def quality(one: dict[str, Any]) -> str:
    """Return a value and its difference from the baseline in points; the baseline's own with its interval."""
    versus = one["versus"]
    if versus is None:
        return glue.interval(one, 3)
    points = [f"{100 * versus[key]:+.1f}" for key in ("value", "low", "high")]
    return f"{one['value']:.3f}, {points[0]} ({points[1]} to {points[2]})"


def picture(found: Found) -> Figure:
    """Return what each model loses over its speed, a panel for each first metric; a mark for every place."""
    models = list(dict.fromkeys(deployments.named({"name": name})[0] for name in found))
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    for panel, metric in zip(figure.subplots(1, 2), ("sts_average", "ndcg@10"), strict=True):
        panel.axhline(-1, color="C3", linestyle="--", linewidth=0.8)
        for name, row in list(found.items())[1:]:
            model, place = deployments.named({"name": name})
            lost = next(one["versus"] for one in row["qualities"] if one["metric"] == metric)
            points, speed = {key: 100 * lost[key] for key in ("value", "low", "high")}, row["speedup"]
            panel.errorbar(
                speed["value"],
                points["value"],
                xerr=[[speed["value"] - speed["low"]], [speed["high"] - speed["value"]]],
                yerr=[[points["value"] - points["low"]], [points["high"] - points["value"]]],
                marker=deployments.MARKS[place],
                color=f"C{models.index(model)}",
                elinewidth=0.6,
            )
        panel.set(title=TITLES[metric], xlabel="texts/s, times dense PyTorch", ylabel="points against dense PyTorch")
    places = {deployments.named({"name": name})[1] for name in found}
    figure.legend(handles=deployments.legend(models, places), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    main()
