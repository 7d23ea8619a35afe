"""The verb `measure` of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whet.cli.console import print_json, print_trials
from whet.cli.options import (
    MAX_LENGTH,
    Flag,
    InputLength,
    Json,
    MachineOptions,
    Precisions,
    TaskOptions,
    Untimed,
    names_in,
)
from whet.utils.precision import VectorType
from whet.utils.ranges import BatchSize, BatchTokens, Dimensions, Rounds

if TYPE_CHECKING:
    from whet.evaluation.trial import Trial


def measure(
    baseline: str,
    /,
    *models: str,
    data: TaskOptions = TaskOptions(),
    batch_size: BatchSize | None = None,
    batch_tokens: BatchTokens | None = None,
    max_length: InputLength = MAX_LENGTH,
    rounds: Rounds = 10,
    from_text: Flag = False,
    untimed: Untimed = False,
    runtime: str | None = None,
    precision: Precisions | None = None,
    cache: Path | None = None,
    dimensions: Dimensions | None = None,
    vectors: VectorType = "float32",
    picture: Path | None = None,
    out: Path | None = None,
    overwrite: Flag = False,
    machine: MachineOptions = MachineOptions(),
    as_json: Json = False,
) -> None:
    """Measure models side by side: quality, fidelity, speed, size, memory; each with its interval and a paired test.

    Args:
        baseline: Folder or hub name of the model that the others are compared with.
        models: Folders or hub names of the others.
        batch_size: Examples in one batch; 32 if not given.
        batch_tokens: Tokens in one batch, padding included, instead of --batch-size.
        rounds: Interleaved rounds of timing.
        from_text: Time the tokenizer too, as users wait for it, and not the model alone.
        runtime: Where the models run, separated by commas: pytorch, onnxruntime, openvino. Models without an export
            are exported into the cache. If not given: pytorch, and what each folder was exported for.
        cache: Folder that keeps such exports; if not given, the one that WHET_CACHE names, or ~/.cache/whet.
        dimensions: Leading dimensions of an embedder's vectors that an index keeps, e.g. 128; all if not given.
        vectors: How an index keeps each number of a vector: float32, int8 or binary. With this or --dimensions, the
            baseline has a further row with its vectors as they are.
        picture: PNG or SVG file to write, with quality against speed.
        out: Folder that keeps all that was measured, for `whet report`.
        overwrite: Replace the output folder.
    """
    from whet.models.model_files import ModelFiles

    for model in (baseline, *models):
        ModelFiles.of(model)  # before slow imports
    task = data.load()  # what is wrong with options is said before what is slow to import
    device = machine.use(processes="one")
    from whet import api
    from whet.evaluation.benchmark import Benchmark
    from whet.evaluation.metrics.base import untimed_metrics
    from whet.report.pictures import check_picture, draw

    benchmark = Benchmark(
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        max_length=max_length,
        rounds=rounds,
        from_text=from_text,
        metrics=untimed_metrics() if untimed else None,
        seed=machine.seed,
        device=device,
        runtimes=None if runtime is None else names_in(runtime),
        precisions=None if precision is None else names_in(precision),
        cache=cache,
        dimensions=dimensions,
        vectors=vectors,
    )
    if picture is not None:
        check_picture(picture, name="--picture")

    def print_measured(trials: "Sequence[Trial]") -> None:
        if as_json:
            print_json([trial.to_dict() for trial in trials])
        else:
            print_trials(trials, f"{task.name}, {trials[0].measurements[0].n} dev examples")

    trials = api.measure(
        [baseline, *models], task, benchmark=benchmark, out=out, overwrite=overwrite, report=print_measured
    )
    if picture is not None:
        draw(trials, picture)
