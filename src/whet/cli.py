"""The command line: the verbs of `whet.verbs`, with progress bars, tables or JSON, and errors as sentences."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whet import demonstration, verbs
from whet.benchmark import Benchmark
from whet.errors import InvalidParameter, OutputNotWritten, WhetError
from whet.inspection import Inspection
from whet.inspection import inspect as inspect_model
from whet.method import all_methods
from whet.options import (
    AsJson,
    DataDir,
    DevFile,
    Device,
    Keep,
    Label,
    MaxLength,
    MethodName,
    MetricName,
    Out,
    Overwrite,
    RecipeFile,
    Seed,
    Settings,
    Speedup,
    TaskName,
    Text,
    TextPair,
    Threads,
    TrainFile,
    Verb,
    Version,
    recipe_of,
    task_of,
)
from whet.parameter import parameters
from whet.recipe import Step
from whet.report import table, trade_off_picture
from whet.training import TrainingSettings

__all__ = ["app", "main"]

app = typer.Typer(
    help="Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


_UsageError: Any = typer.BadParameter.__bases__[0]
"""What typer raises for options it does not know; click's own or typer's copy of it, by version."""
_WIDE = 1000
"""Columns that every table fits into."""
_STOPPED = 130
"""The exit code that typer answers Ctrl-C with."""


@app.callback()
def _root(version: Version = False) -> None:
    """See the app's help."""


@app.command(cls=Verb)
def finetune(
    base: Annotated[str, typer.Argument(help="Folder or hub name of a base model.")],
    out: Out,
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training data.")] = 5,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 32,
    max_length: MaxLength = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a base model for a task; an interrupted run goes on where it stopped."""
    _use(device, threads)
    settings = TrainingSettings(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length, seed=seed
    )
    chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    curve = verbs.finetune(base, chosen, out, settings=settings, device=device, overwrite=overwrite)
    if as_json:
        _print_json([row._asdict() for row in curve])
        return
    shown = Table(title=escape(f"{out}: {chosen.metrics[0]} on held-out training data"))
    for name in curve[0]._fields:
        shown.add_column(name.replace("_", " "), justify="right")
    for row in curve:
        shown.add_row(*(f"{value:.4g}" for value in row))
    _show(shown)


@app.command(cls=Verb)
def compress(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    out: Out,
    recipe: RecipeFile = None,
    method: MethodName = None,
    keep: Keep = None,
    speedup: Speedup = None,
    parameter: Settings = None,
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    calibration: Annotated[int, typer.Option(help="Training examples that methods look at.")] = 512,
    batch_size: Annotated[int, typer.Option(help="Of those, a batch.")] = 4,
    max_length: MaxLength = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a model smaller by a recipe or by one method, and save it."""
    _use(device, threads)
    steps = recipe_of(recipe, method, keep, speedup, parameter or [])
    chosen = None
    if any(given is not None for given in (task, data_dir, train_file, dev_file)):
        chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    done = verbs.compress(
        model,
        steps,
        out,
        task=chosen,
        calibration=verbs.Calibration(examples=calibration, batch_size=batch_size, max_length=max_length),
        seed=seed,
        device=device,
        overwrite=overwrite,
        report=(lambda step: None) if as_json else _print_step,
    )
    if as_json:
        _print_json([{**step._asdict(), "method": step.method.to_dict()} for step in done.steps])
    else:
        _show(f"saved to {out}; measure it: whet measure {model} {out} --task ...")


@app.command(cls=Verb)
def measure(
    models: Annotated[list[str], typer.Argument(help="Folders or hub names; the first is the baseline.")],
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    batch_size: Annotated[int, typer.Option(help="Sentences a batch.")] = 32,
    max_length: MaxLength = 128,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of timing.")] = 10,
    picture: Annotated[Path | None, typer.Option(help="PNG of quality against latency to write.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure models side by side: quality, fidelity, speed, size, memory; each with its interval and a paired test."""
    _use(device, threads)
    chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    benchmark = Benchmark(batch_size=batch_size, max_length=max_length, rounds=rounds, seed=seed, device=device)
    if picture is not None and (picture.is_dir() or not picture.parent.is_dir()):
        raise OutputNotWritten(f"--picture must be a file in a folder that exists, but got {picture}; name another")
    trials = verbs.measure(models, chosen, benchmark=benchmark)
    if picture is not None:
        _write(picture, trade_off_picture(trials, quality=chosen.metrics[0], costs=("latency_median", "throughput")))
    if as_json:
        _print_json([json.loads(trial.to_json()) for trial in trials])
    else:
        _show(table(trials, title=f"{chosen.name}, {len(chosen.splits.dev)} dev examples"))


@app.command(cls=Verb)
def inspect(
    model: Annotated[str, typer.Argument(help="Folder or hub name.")],
    batch_size: Annotated[int, typer.Option(help="Sentences a batch.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens a sentence.")] = 64,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show where a model's parameters and time are, and which methods can help on this machine."""
    _use("cpu", threads)
    found = inspect_model(model, batch=(batch_size, length))
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_inspection(found)


@app.command(cls=Verb)
def methods(as_json: AsJson = False) -> None:
    """List every method with its parameters, their ranges, and its source."""
    if as_json:
        _print_json(
            {
                name: {
                    "summary": method.summary(),
                    "stage": method.stage.name,
                    "needs": sorted(method.needs),
                    "parameters": [row._asdict() for row in parameters(method)],
                    "source": method.source(),
                }
                for name, method in all_methods().items()
            }
        )
        return
    for name, method in all_methods().items():
        shown = Table(
            "parameter", "range", "default", "meaning", title=f"{name} ({method.stage.name})", title_justify="left"
        )
        for row in parameters(method):
            shown.add_row(
                row.name, row.stated or row.kind, "" if row.default is None else str(row.default), row.meaning
            )
        _show(method.summary(), shown, f"Source: {method.source()}\n")


@app.command(cls=Verb)
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Run the main job on a built-in task: train, compress by three recipes, measure, save, reload."""
    _use("cpu", threads)
    demonstration.run(out, seed=seed, say=_show)


def main() -> None:
    """Run the command line; bad input ends with a sentence and exit code 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        code = app(prog_name="whet", standalone_mode=False)
    except WhetError as error:
        _say(f"{type(error).__name__}: {error}")
        sys.exit(2)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "whet"
        problem = (error.format_message() or "No command.").strip().rstrip(".")
        _say(f"UsageError: the command line must be one that whet knows, but got: {problem}; see {command} --help")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = _STOPPED
    if code == _STOPPED:
        _say("stopped; nothing half-written was left")
    sys.exit(code)


def _say(sentence: str) -> None:
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


def _show(*parts: str | Table) -> None:
    """Print lines as they are, and tables as wide as they need to be where no terminal limits them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    for part in parts:
        line = isinstance(part, str)
        console.print(part, markup=not line, soft_wrap=line)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputNotWritten(f"{path} must be writable, but {error}; free some space or name another") from error


def _use(device: str, threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise InvalidParameter(f"1 <= threads must hold, but got threads={threads}; leave it out to use all cores")
        torch.set_num_threads(threads)
    try:
        # a device without memory, such as meta, has no number to give back
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InvalidParameter(f"the device must be one that torch can use, but got {device!r}; try cpu") from error


def _print_step(step: Step) -> None:
    share = step.parameters_after / step.parameters_before
    _show(
        f"{step.method}: {step.layers} layers changed, parameters {step.parameters_before:,} → "
        f"{step.parameters_after:,} ({share:.1%}), {step.seconds:.1f} s"
    )


def _print_inspection(found: Inspection) -> None:
    size, length = found.batch
    modules = Table("module", "kind", "shape", title=f"{size} sentences of {length} tokens")
    for name in ("parameters", "share", "ms", "time"):
        modules.add_column(name, justify="right")
    for row in found.modules:
        modules.add_row(
            row.name, row.kind, row.shape, f"{row.parameters:,}", f"{row.share:.1%}", f"{row.milliseconds:.2f}",
            f"{row.time_share:.1%}",
        )  # fmt: skip
    evens = Table("layers", "shape", title="where two thin products pay")
    for name in ("fewer parameters below rank", "faster up to rank", "speedup of the smallest rank"):
        evens.add_column(name, justify="right")
    for even in found.break_evens:
        evens.add_row(
            str(even.layers),
            even.shape,
            str(even.by_parameters),
            str(even.by_time or "none"),
            f"{even.best_speedup:.2f}",
        )
    _show(modules, evens, *(f"• {line}" for line in found.advice))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
