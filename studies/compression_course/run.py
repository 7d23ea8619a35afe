"""A published course's table of compression methods, run again on the same tweets with its faults mended.

    python studies/compression_course/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes the model, makes what is missing of the others, measures each part of the table in one interleaved run, and
writes results.json, results.md and a picture beside this file after every part. Models stay under runs/, which git
ignores; a second run goes on from what is there. `--base bert-base-cased` is the course's own model.
"""

import argparse
import copy
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.utils import prune

import whet
from whet import Examples, InvalidArtifact, Resources
from whet.evaluation import ModelUnderTest, bootstrap, paired_ratio, quality_named, time_batches
from whet.models import class_order, exported, load_tokenizer, predict, versions, weight_files
from whet.runtimes import runtime_named
from whet.tasks import Batch, encode, shortest_first
from whet.utils import current_machine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

TASK = "tweet_sentiment"
LENGTH = 50
"""Tokens; the course's."""
FINE_TUNING = whet.TrainingSettings(epochs=1, learning_rate=1e-4, batch_size=32, max_length=LENGTH)
CALIBRATION = whet.Calibration(examples=512, batch_size=8, max_length=LENGTH)
EXPORTS = whet.Calibration(examples=300, batch_size=8, max_length=LENGTH)
OBJECTIVE = whet.Objective(alpha=0.5, temperature=2)
RECIPES: dict[str, list[dict[str, Any]]] = {
    "random 10 %": [{"method": "random", "sparsity": 0.1}],
    "magnitude 10 %": [{"method": "magnitude", "sparsity": 0.1}],
    "low rank": [{"method": "kfac", "keep": 0.4}],
    "structured": [
        {"method": "neurons", "keep": 0.25},
        {"method": "heads", "keep": 0.67},
        {"method": "first_token"},
    ],
    "sparse training 10 %": [
        {"method": "sparse_training", "sparsity": 0.1, "epochs": 1, "share": 0.3, "learning_rate": 1e-4}
    ],
}
STUDENTS = {"half": ("layer_subset:odd", 1e-4), "tiny": ("transformer:layers=2,width=128", 5e-4)}
"""What each student is, and its learning rate."""
PRUNED = 0.1
"""Share of the weights of every module, as the course pruned."""
QUALITIES = ("accuracy", "macro_f1", "weighted_f1")
INT8 = "PyTorch dynamic int8"
PLACES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
STAGES = ("make", "course", "deployed", "distilled")
Array = np.ndarray[Any, Any]
Made = Callable[[nn.Module], nn.Module]


class Row(NamedTuple):
    """One line of a table."""

    name: str
    model: str
    """Its folder."""
    runtime: str = "pytorch"
    precision: str = "fp32"
    change: Made | None = None
    """What is done to the model once it is loaded."""


class Timing(NamedTuple):
    """How models are timed."""

    rounds: int
    batched: int
    """Sentences in batches of 32."""
    singles: int
    """Sentences one by one."""


def as_the_course(method: type[prune.BasePruningMethod]) -> Made:
    """Return its pruning: every module with a weight but embeddings, and so the gains of layer norms too."""

    def change(model: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for module in list(model.modules()):
            if hasattr(module, "weight") and not isinstance(module, nn.Embedding):
                method.apply(module, "weight", PRUNED)
                prune.remove(module, "weight")
        return model

    return change


def dynamic_int8(model: nn.Module) -> nn.Module:
    """Return the model with linear layers in int8 whose inputs are quantized batch by batch, as the course made it."""
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return quantized


COURSE = (
    Row("original", "original"),
    Row(INT8, "original", change=dynamic_int8),
    Row("random 10 %, as the course", "original", change=as_the_course(prune.RandomUnstructured)),
    Row("magnitude 10 %, as the course", "original", change=as_the_course(prune.L1Unstructured)),
    *(Row(name, name) for name in RECIPES if "10 %" in name),
)
DENSE_INT8 = (INT8, "original, ONNX Runtime int8", "original, OpenVINO int8")
DEPLOYED = (
    Row("original", "original"),
    Row(INT8, "original", change=dynamic_int8),
    *(
        Row(f"original, {PLACES[runtime]} {precision}", "original", runtime, precision)
        for runtime in ("onnxruntime", "openvino")
        for precision in ("fp32", "int8")
    ),
    Row("low rank", "low rank"),
    Row("low rank, ONNX Runtime int8", "low rank", "onnxruntime", "int8"),
    Row("structured", "structured"),
    Row("structured, ONNX Runtime int8", "structured", "onnxruntime", "int8"),
    Row("structured, OpenVINO int8", "structured", "openvino", "int8"),
    Row("student half, ONNX Runtime int8", "student half", "onnxruntime", "int8"),
)


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--runs", type=Path, default=Path("runs/compression_course"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--models", nargs="+", help="make these alone, such as 'low rank' or 'student half'")
    parser.add_argument("--rounds", type=int, default=10, help="of timing")
    parser.add_argument("--timed", type=int, default=256, help="test sentences that are timed in batches")
    parser.add_argument("--singles", type=int, default=50, help="test sentences that are timed one by one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(TASK, data_dir=options.data_dir)
    timing = Timing(options.rounds, options.timed, options.singles)
    options.runs.mkdir(parents=True, exist_ok=True)
    if "make" in options.stages:
        make(options.base, options.runs, task, options.models)
    for part, rows in (("course", COURSE), ("deployed", DEPLOYED)):
        if part in options.stages:
            write(part, measure(available(rows, options.runs), options.runs, task, timing))
    if "distilled" in options.stages:
        write("distilled", measure(students(options.runs), options.runs, task, timing._replace(singles=100)))


def make(base: str, runs: Path, task: whet.Task, wanted: list[str] | None) -> None:
    """Train, compress and export what is not there yet; cheap things first."""
    original = runs / "original"
    if not original.is_dir():
        whet.finetune(base, task, original, settings=FINE_TUNING)
    export(original, task)
    for name, steps in RECIPES.items():
        if wanted is None or name in wanted:
            if not (runs / name).is_dir():
                whet.compress(original, whet.Recipe.from_list(steps), runs / name, task=task, calibration=CALIBRATION)
            export(runs / name, task)
    for kind, (text, rate) in STUDENTS.items():
        out = runs / f"student {kind}"
        if wanted is None or out.name in wanted:
            if not out.is_dir():
                settings = replace(FINE_TUNING, learning_rate=rate)
                student, cache = whet.student_from(text), runs / "what the original says"
                whet.distill(original, student, task, out, settings=settings, objective=OBJECTIVE, cache=cache)
            export(out, task)


def export(folder: Path, task: whet.Task) -> None:
    """Export a model for every row that runs it elsewhere, where it has not been done."""
    for row in DEPLOYED:
        elsewhere = row.model == folder.name and row.runtime != "pytorch"
        if elsewhere and not is_exported(folder, row.runtime, row.precision):
            whet.export(folder, [row.runtime], precisions=[row.precision], task=task, calibration=EXPORTS)
    print(folder.name, flush=True)


def is_exported(folder: Path, runtime: str, precision: str) -> bool:
    """Return whether a model was exported as it is now."""
    try:
        exported(folder, runtime, precision)
    except InvalidArtifact:
        return False
    return True


def available(rows: tuple[Row, ...], runs: Path) -> list[Row]:
    """Return those rows whose models are there."""
    return [
        row
        for row in rows
        if (runs / row.model).is_dir()
        and (row.runtime == "pytorch" or is_exported(runs / row.model, row.runtime, row.precision))
    ]


def subject(row: Row, runs: Path, task: whet.Task, timing: Timing) -> tuple[ModelUnderTest, dict[str, float]]:
    """Return one model with its answers to the whole test set, with its sizes and the seconds that they took, once."""
    folder = runs / row.model
    loaded, tokenizer = whet.load_model(folder).eval(), load_tokenizer(folder)
    model = loaded if row.change is None else row.change(copy.deepcopy(loaded)).eval()
    runtime = runtime_named(row.runtime)
    files = tuple(runtime.files(folder, row.precision))
    model = runtime.load(model, folder, precision=row.precision, threads=torch.get_num_threads())
    examples, order = shortest_first(task.splits.dev, tokenizer, max_length=LENGTH), class_order(loaded, task)
    dev = encode(examples, tokenizer, max_length=LENGTH, batch_size=32)
    start = time.perf_counter()
    answers = predict(model, dev, name=row.name).ordered(order)
    seconds = time.perf_counter() - start
    found = ModelUnderTest(
        name=row.name,
        source=str(folder),
        model=model,
        device="cpu",
        max_length=LENGTH,
        dev=dev,
        answers=answers,
        singles=encode(spread(examples, timing.singles), tokenizer, max_length=LENGTH, batch_size=1),
        timed=encode(spread(examples, timing.batched), tokenizer, max_length=LENGTH, batch_size=32),
        rounds=timing.rounds,
        seed=0,
        files=files,
    )
    changed = row.change is not None
    return found, {**counts(model), "mib": stored(found, changed=changed) / 2**20, "seconds": seconds}


def spread(examples: Examples, count: int) -> Examples:
    """Return a sample of sorted examples, evenly over their lengths."""
    return examples.take(np.unique(np.linspace(0, len(examples) - 1, count).round().astype(int)))


def measure(rows: list[Row], runs: Path, task: whet.Task, timing: Timing) -> dict[str, Any]:
    """Return conditions and what was measured; all take turns on the same batches, and the first is the baseline."""
    subjects, sizes = zip(*(subject(row, runs, task, timing) for row in rows), strict=True)
    batched = take_times(subjects, [one.timed.batches for one in subjects])
    singles = take_times(subjects, [one.singles.batches for one in subjects])
    dense = [i for i, one in enumerate(subjects) if one.name in DENSE_INT8]
    fastest = min(dense, key=lambda i: np.median(batched[i]), default=None)
    found = []
    for i, one in enumerate(subjects):
        row = {"name": one.name, **sizes[i], **scores(one)}
        row["single_seconds"] = {"median": float(np.median(singles[i])), "all": singles[i].tolist()}
        if i:
            row["versus"] = versus(one, subjects[0], batched[[0, i]], singles[[0, i]])
        if fastest is not None and i != fastest:
            pair = [fastest, i]
            against = versus(one, subjects[fastest], batched[pair], singles[pair])
            row["versus_int8"] = {"name": subjects[fastest].name, **against}
        found.append(row)
    conditions = {"batch_size": 32, "max_length": LENGTH, "data_sha256": task.splits.dev.digest()}
    conditions |= {**timing._asdict(), **current_machine("cpu").to_dict(), "versions": versions()}
    return {"conditions": conditions, "rows": found}


def take_times(subjects: Sequence[ModelUnderTest], batches: Sequence[Sequence[Batch]]) -> Array:
    """Return (models, rounds) seconds that each model takes for all of its own batches."""
    calls = [
        [partial(answer, one.model, batch) for one, batch in zip(subjects, own, strict=True)]
        for own in zip(*batches, strict=True)
    ]
    seconds: Array = time_batches(calls, rounds=subjects[0].rounds, seed=subjects[0].seed, label="timing").sum(1).T
    return seconds


def answer(model: nn.Module, batch: Batch) -> None:
    """Let a model answer a batch."""
    model(**batch)


def scores(one: ModelUnderTest) -> dict[str, Any]:
    """Return every quality with its 95 % interval over examples."""
    labels = one.dev.labels
    found: dict[str, Any] = {}
    for name in QUALITIES:
        quality = quality_named(name)
        predicted = one.predictions
        found[name] = bootstrap(
            lambda drawn, q=quality, p=predicted: q.score(labels[drawn], p[drawn]),  # type: ignore[misc]
            len(labels),
            seed=0,
        )._asdict()
    return found


def versus(one: ModelUnderTest, other: ModelUnderTest, batched: Array, singles: Array) -> dict[str, Any]:
    """Return paired differences of quality and ratios of speed; times are (2, rounds), the other's first."""
    labels, qualities = one.dev.labels, {name: quality_named(name) for name in QUALITIES}
    differences = {
        name: quality.compare(labels, one.predictions, other.predictions, seed=0) for name, quality in qualities.items()
    }
    ratios = {name: paired_ratio(*times, seed=0) for name, times in (("speed", batched), ("single_speed", singles))}
    return {name: vars(comparison) for name, comparison in {**differences, **ratios}.items()}


def counts(model: nn.Module) -> dict[str, float]:
    """Return parameters and those that are not zero, packed int8 weights too, and what `.parameters()` alone counts."""
    weights = [weight.detach() for weight in model.parameters()]
    linear = torch.ao.nn.quantized.dynamic.Linear
    layers = [module for module in model.modules() if isinstance(module, linear)]
    packed = [one for layer in layers for one in (layer.weight().int_repr(), layer.bias().detach())]
    return {
        "parameters": sum(weight.numel() for weight in [*weights, *packed]),
        "nonzeros": sum(int(weight.count_nonzero()) for weight in [*weights, *packed]),
        "left_in_parameters": sum(weight.numel() for weight in weights),
    }


def stored(one: ModelUnderTest, *, changed: bool) -> int:
    """Return bytes on disk: of what is there, or of the state of a model that was changed once it was loaded."""
    if not changed:
        return sum(path.stat().st_size for path in one.files or weight_files(one.source))
    buffer = io.BytesIO()
    torch.save(one.model.state_dict(), buffer)
    return buffer.getbuffer().nbytes


def students(runs: Path) -> list[Row]:
    """Return the teacher, and each student that is there before and after training."""
    rows = [Row("teacher", "original")]
    for kind, (text, _) in STUDENTS.items():
        if (runs / f"student {kind}").is_dir():
            rows.append(Row(f"{kind}, before training", "original", change=untrained(text)))
            rows.append(Row(f"{kind}, trained", f"student {kind}"))
    return rows


def untrained(text: str) -> Made:
    """Return what makes the student of a teacher as it is before it learns."""
    return lambda teacher: whet.student_from(text).build(teacher, Resources(seed=0)).model


def write(part: str, measured: dict[str, Any]) -> None:
    """Add a part to results.json, and write the tables and the picture that follow."""
    results = HERE / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    found[part] = measured
    results.write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "results.md").write_text("\n".join(table(name, one["rows"]) for name, one in found.items()))
    picture(found).savefig(HERE / "results.png", dpi=130, metadata={"Software": "whet"})


def table(part: str, rows: list[dict[str, Any]]) -> str:
    """Return one part as a Markdown table."""
    head = (
        "model | parameters | not zero | MiB | test set, s | speed, times the first (95 %) | single sentences, s "
        "(least to most) | macro F1 (95 %) | against the first | weighted F1 (95 %) | against the first | accuracy"
    )
    return "\n".join([f"### {part}", "", f"| {head} |", "|" + "---|" * 12, *map(line, rows), ""])


def line(row: dict[str, Any]) -> str:
    """Return one model's line of a table."""
    against, singles = row.get("versus"), row["single_seconds"]
    cells = [
        row["name"],
        f"{row['parameters']:,}",
        f"{row['nonzeros']:,}",
        f"{row['mib']:.1f}",
        f"{row['seconds']:.1f}",
        "1" if against is None else glue.interval(against["speed"], 2),
        f"{singles['median']:.2f} ({min(singles['all']):.2f} to {max(singles['all']):.2f})",
    ]
    for name in ("macro_f1", "weighted_f1"):
        cells += [glue.interval(row[name], 3), "" if against is None else glue.interval(against[name], 3)]
    cells.append(f"{row['accuracy']['value']:.3f}")
    return f"| {' | '.join(cells)} |"


def picture(found: dict[str, Any]) -> Figure:
    """Return macro F1 over speed, one panel a part."""
    figure = Figure(figsize=(6 * len(found), 4.5), layout="constrained")
    panels: Any = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (part, measured) in zip(panels, found.items(), strict=True):
        rows = measured["rows"]
        first = rows[0]["macro_f1"]
        panel.axhspan(first["low"], first["high"], color="0.92")
        for i, row in enumerate(rows):
            speed = row["versus"]["speed"] if "versus" in row else {"value": 1, "low": 1, "high": 1}
            arms = [[[one["value"] - one["low"]], [one["high"] - one["value"]]] for one in (speed, row["macro_f1"])]
            marker = {"fmt": "os^"[i // 10], "color": f"C{i % 10}", "label": row["name"]}
            panel.errorbar(speed["value"], row["macro_f1"]["value"], xerr=arms[0], yerr=arms[1], capsize=3, **marker)
        panel.set(title=part, xlabel="sentences/s, times the first", ylabel="macro F1")
        panel.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(0, -0.15), ncols=2)
    return figure


if __name__ == "__main__":
    main()
