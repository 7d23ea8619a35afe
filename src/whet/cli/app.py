"""The command line: the verbs of `whet.verbs`, with progress bars, tables or JSON, and errors as sentences."""

from pathlib import Path
from typing import Annotated

import typer

from whet import api
from whet.calibration.resources import Calibration
from whet.cli.console import (
    check_picture,
    print_agreements,
    print_curve,
    print_inspection,
    print_json,
    print_methods,
    print_step,
    show,
    write_picture,
)
from whet.cli.demo import run as run_demo
from whet.cli.options import (
    AsJson,
    BatchSize,
    BatchTokens,
    Cache,
    DataDir,
    DevFile,
    Device,
    Epochs,
    Keep,
    KeepTime,
    Label,
    LearningRate,
    Lora,
    LoraAlpha,
    LoraDropout,
    LoraNorms,
    LoraTargets,
    MaxKl,
    MaxLength,
    MethodName,
    MetricName,
    Out,
    Overwrite,
    Precision,
    RecipeFile,
    ReportTo,
    Seed,
    Settings,
    Speedup,
    TaskName,
    Text,
    TextPair,
    Threads,
    TrainFile,
    TrainingPrecision,
    Unlabeled,
    Verb,
    Version,
    conditions_in,
    lora_of,
    more_text,
    names_in,
    optional_task,
    recipe_of,
    task_of,
    training_of,
    use_device,
)
from whet.cli.search import search
from whet.cli.shell import run
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.inspection import inspect as inspect_model
from whet.methods.base import all_methods
from whet.report.plots import trade_off_picture
from whet.report.tables import trial_table
from whet.report.write import write_report
from whet.runtimes.export import export as export_model
from whet.training.objective import Objective
from whet.training.students.base import student_from
from whet.utils.precision import FP32

__all__ = ["app", "main"]

app = typer.Typer(
    help="Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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
    epochs: Epochs = 5,
    learning_rate: LearningRate = 5e-5,
    batch_size: BatchSize = 32,
    precision: TrainingPrecision = "fp32",
    lora: Lora = None,
    lora_alpha: LoraAlpha = None,
    lora_dropout: LoraDropout = None,
    lora_targets: LoraTargets = None,
    lora_norms: LoraNorms = False,
    report_to: ReportTo = None,
    max_length: MaxLength = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a base model for a task; an interrupted run goes on where it stopped."""
    device = use_device(device, threads)
    settings = training_of(epochs, learning_rate, batch_size, max_length, seed, precision)
    chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    adapters = lora_of(lora, lora_alpha, lora_dropout, lora_targets, lora_norms)
    curve = api.finetune(
        base,
        chosen,
        out,
        settings=settings,
        lora=adapters,
        device=device,
        overwrite=overwrite,
        report_to=report_to or (),
        report=lambda share: None if as_json or adapters is None else show(str(share)),
    )
    print_curve(curve, f"{out}: {chosen.metrics[0]} on held-out training data", as_json=as_json)


@app.command(cls=Verb)
def distill(
    teacher: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    student: Annotated[
        str,
        typer.Option(
            help="layer_subset:odd, :even, :top:3, :bottom:3, :evenly_spaced:3, :influence:3, :kl:3 or :0,2,4; "
            "recurrent:lstm:256, :bilstm:256:2, :rnn:128:own; transformer:layers=2,width=128 or :NAME."
        ),
    ],
    out: Out,
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    alpha: Annotated[float, typer.Option(help="Weight of the teacher's predictions; the labels get the rest.")] = 0.5,
    temperature: Annotated[float, typer.Option(help="Divides both models' logits.")] = 2,
    hidden_states: Annotated[float, typer.Option(help="Weight of the hidden states' error.")] = 0,
    cosine: Annotated[float, typer.Option(help="Weight of 1 - cosine of the last hidden states.")] = 0,
    relations: Annotated[float, typer.Option(help="Weight of the relations in the last attention.")] = 0,
    unlabeled: Unlabeled = None,
    cache: Cache = None,
    report_to: ReportTo = None,
    epochs: Epochs = 5,
    learning_rate: LearningRate = 5e-5,
    batch_size: BatchSize = 32,
    precision: TrainingPrecision = "fp32",
    max_length: MaxLength = 128,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a smaller model from a fine-tuned one; an interrupted run goes on where it stopped."""
    device = use_device(device, threads)
    settings = training_of(epochs, learning_rate, batch_size, max_length, seed, precision)
    objective = Objective(
        alpha=alpha, temperature=temperature, hidden_states=hidden_states, cosine=cosine, relations=relations
    )
    wanted = student_from(student)
    chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    curve = api.distill(
        teacher,
        wanted,
        chosen,
        out,
        settings=settings,
        objective=objective,
        cache=cache,
        unlabeled=None if unlabeled is None else more_text(unlabeled, chosen, text, text_pair),
        device=device,
        overwrite=overwrite,
        report_to=report_to or (),
        report=lambda built: None if as_json else show(f"student: {built.plan}"),
    )
    print_curve(curve, f"{out}: {chosen.metrics[0]} on held-out training data", as_json=as_json)


@app.command(cls=Verb)
def compress(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    out: Out,
    recipe: RecipeFile = None,
    method: MethodName = None,
    keep: Keep = None,
    speedup: Speedup = None,
    keep_time: KeepTime = None,
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
    device = use_device(device, threads)
    steps = recipe_of(recipe, method, keep=keep, speedup=speedup, keep_time=keep_time, settings=parameter or [])
    done = api.compress(
        model,
        steps,
        out,
        task=optional_task(task, data_dir, train_file, dev_file, text, text_pair, label, metric),
        calibration=Calibration(examples=calibration, batch_size=batch_size, max_length=max_length),
        seed=seed,
        device=device,
        overwrite=overwrite,
        report=(lambda step: None) if as_json else print_step,
    )
    if as_json:
        print_json([{**step._asdict(), "method": step.method.to_dict()} for step in done.steps])
    else:
        show(f"saved to {out}; measure it: whet measure {model} {out} --task ...")


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
    batch_size: Annotated[int | None, typer.Option(help="Sentences a batch; 32 if not given.")] = None,
    batch_tokens: BatchTokens = None,
    max_length: MaxLength = 128,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of timing.")] = 10,
    runtime: Annotated[str, typer.Option(help="Where they run, with commas between: onnxruntime, ...")] = "pytorch",
    precision: Precision = FP32,
    picture: Annotated[Path | None, typer.Option(help="PNG of quality against latency to write.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep all that was measured in, for whet report.")] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure models side by side: quality, fidelity, speed, size, memory; each with its interval and a paired test."""
    device = use_device(device, threads, alone=True)
    chosen = task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric)
    benchmark = Benchmark(
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        max_length=max_length,
        rounds=rounds,
        seed=seed,
        device=device,
        runtimes=names_in(runtime),
        precisions=names_in(precision),
    )
    check_picture(picture)
    trials = api.measure(models, chosen, benchmark=benchmark, out=out, overwrite=overwrite)
    if picture is not None:
        write_picture(
            picture, trade_off_picture(trials, quality=chosen.metrics[0], costs=("latency_median", "throughput"))
        )
    if as_json:
        print_json([trial.to_dict() for trial in trials])
    else:
        show(trial_table(trials, title=f"{chosen.name}, {len(chosen.splits.dev)} dev examples"))


@app.command(cls=Verb)
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders with models that were measured.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; the one given, if it is one.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Condition as NAME=VALUE, such as threads=2.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are no reports too.")] = False,
) -> None:
    """Write what was measured as a web page, a picture and Markdown: report.html, report.png, report.md."""
    show(f"see {write_report(folders, out, only=conditions_in(only or []), overwrite=overwrite)}")


@app.command(cls=Verb)
def export(
    model: Annotated[Path, typer.Argument(help="Folder of a model that whet wrote.")],
    to: Annotated[str, typer.Option(help="With commas between: onnxruntime (or onnx), openvino.")],
    precision: Precision = FP32,
    max_kl: MaxKl = None,
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write what other runtimes run beside the weights, once it gives the model's own answers."""
    use_device("cpu", threads, alone=True)
    found = export_model(
        model,
        names_in(to),
        precisions=names_in(precision),
        task=optional_task(task, data_dir, train_file, dev_file, text, text_pair, label, metric),
        seed=seed,
        max_kl=max_kl,
        threads=threads,
    )
    if as_json:
        print_json({" ".join(place): agreement._asdict() for place, agreement in found.items()})
    else:
        print_agreements(found)


app.command(cls=Verb)(search)


@app.command(cls=Verb)
def inspect(
    model: Annotated[str, typer.Argument(help="Folder or hub name.")],
    batch_size: Annotated[int, typer.Option(help="Sentences a batch.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens a sentence.")] = 64,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show where a model's parameters and time are, and which methods can help on this machine."""
    use_device("cpu", threads, alone=True)
    found = inspect_model(model, batch=(batch_size, length))
    if as_json:
        print_json(found.to_dict())
    else:
        print_inspection(found)


@app.command(cls=Verb)
def methods(as_json: AsJson = False) -> None:
    """List every method with its parameters, their ranges, and its source."""
    if as_json:
        print_json({name: method.about() for name, method in all_methods().items()})
        return
    print_methods(all_methods())


@app.command(cls=Verb)
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Run the main job on a built-in task: train, compress by three recipes, measure, save, reload."""
    use_device("cpu", threads, alone=True)
    run_demo(out, seed=seed, say=show)


def main() -> None:
    """Run the command line; bad input ends with a sentence and exit code 2."""
    run(app)
