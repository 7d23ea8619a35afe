"""The verbs of the command line: those of `whet.api`, with progress bars, and tables or JSON.

A verb imports what it needs when it runs, so that `whet --help` answers without torch.
"""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, Parameter

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
from whet.cli.options import (
    Flag,
    InputLength,
    Json,
    LoraOptions,
    MachineOptions,
    OutputOptions,
    Precisions,
    SeedOptions,
    TaskOptions,
    Texts,
    ThreadOptions,
    TrainingOptions,
    conditions_in,
    in_words,
    names_in,
    silence_transformers,
)
from whet.cli.recipes import RecipeOptions
from whet.cli.search import search
from whet.utils.progress import say

if TYPE_CHECKING:
    from whet.evaluation.trial import Trial

__all__ = ["app"]

app = App(
    name="whet",
    help="Make fine-tuned NLP Transformers smaller and faster, and prove what that cost. Every verb takes --debug, "
    "which shows the traceback of an error.",
    version=lambda: f"whet {importlib.metadata.version('whet')}",
    version_flags=("--version",),
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)


@app.command
def finetune(
    base: str,
    /,
    *,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    training: TrainingOptions = TrainingOptions(),
    adapters: LoraOptions = LoraOptions(),
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Train a base model for a task; an interrupted run goes on where it stopped.

    Args:
        base: Folder or hub name of a base model.
    """
    from whet import api

    device = machine.use()
    settings = training.settings(machine.seed)
    task, lora = data.load(), adapters.settings()
    curve = api.finetune(
        base,
        task,
        output.out,
        settings=settings,
        lora=lora,
        device=device,
        overwrite=output.overwrite,
        report_to=training.report_to,
        report=lambda share: None if output.as_json or lora is None else show(str(share)),
    )
    print_curve(curve, f"{output.out}: {task.metrics[0]} on held-out training data", as_json=output.as_json)


@app.command
def distill(
    teacher: str,
    /,
    *,
    student: str,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    alpha: float = 0.5,
    temperature: float = 2,
    hidden_states: float = 0,
    cosine: float = 0,
    relations: float = 0,
    unlabeled: Path | None = None,
    cache: Path | None = None,
    training: TrainingOptions = TrainingOptions(),
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Train a smaller model from a fine-tuned one; an interrupted run goes on where it stopped.

    Args:
        teacher: Folder or hub name of a fine-tuned model.
        student: What to train: layer_subset:odd, :even, :top:3, :bottom:3, :evenly_spaced:3, :influence:3, :kl:3 or
            :0,2,4; recurrent:lstm:256, :bilstm:256:2 or :rnn:128:own; transformer:layers=2,width=128 or :NAME.
        alpha: Weight of the teacher's predictions; the labels get the rest.
        temperature: Divides the logits of both models.
        hidden_states: Weight of the hidden states' error.
        cosine: Weight of 1 - cosine of the last hidden states.
        relations: Weight of the relations in the last attention.
        unlabeled: File with more text, in the columns --text and --text-pair; its labels are not read.
        cache: Folder that keeps the teacher's predictions for more runs.
    """
    from whet import api
    from whet.training.objective import Objective
    from whet.training.students.base import student_from

    device = machine.use()
    settings = training.settings(machine.seed)
    objective = Objective(
        alpha=alpha, temperature=temperature, hidden_states=hidden_states, cosine=cosine, relations=relations
    )
    wanted = student_from(student)
    task = data.load()
    output.keep(unlabeled)
    curve = api.distill(
        teacher,
        wanted,
        task,
        output.out,
        settings=settings,
        objective=objective,
        cache=cache,
        unlabeled=None if unlabeled is None else data.more_text(unlabeled, task),
        device=device,
        overwrite=output.overwrite,
        report_to=training.report_to,
        report=lambda built: None if output.as_json else show(f"student: {built.plan}"),
    )
    print_curve(curve, f"{output.out}: {task.metrics[0]} on held-out training data", as_json=output.as_json)


@app.command
def compress(
    model: str,
    /,
    *,
    output: OutputOptions,
    steps: RecipeOptions = RecipeOptions(),
    data: TaskOptions = TaskOptions(),
    calibration: int = 512,
    batch_size: int = 4,
    max_length: InputLength = 128,
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Make a model smaller by a recipe or by one method, and save it.

    Args:
        model: Folder or hub name of a fine-tuned model.
        calibration: Training examples that methods look at.
        batch_size: Calibration examples in one batch.
    """
    from whet import api
    from whet.calibration.resources import Calibration

    device = machine.use()
    recipe = steps.load()
    output.keep(steps.recipe)
    done = api.compress(
        model,
        recipe,
        output.out,
        task=data.load_if_given(),
        calibration=Calibration(examples=calibration, batch_size=batch_size, max_length=max_length),
        seed=machine.seed,
        device=device,
        overwrite=output.overwrite,
        report=(lambda step: None) if output.as_json else print_step,
    )
    if output.as_json:
        print_json([{**step._asdict(), "method": step.method.to_dict()} for step in done.steps])
    else:
        show(f"saved to {output.out}; measure it: {in_words('whet', 'measure', model, output.out, *data.words())}")


@app.command
def measure(
    baseline: str,
    /,
    *models: str,
    data: TaskOptions = TaskOptions(),
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    max_length: InputLength = 128,
    rounds: int = 10,
    runtime: str = "pytorch",
    precision: Precisions = "fp32",
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
        runtime: Where the models run, separated by commas: pytorch, onnxruntime, openvino.
        picture: PNG file to write, with quality against latency.
        out: Folder that keeps all that was measured, for `whet report`.
        overwrite: Replace the output folder.
    """
    from whet import api
    from whet.evaluation.benchmark import Benchmark
    from whet.report.plots import trade_off_picture
    from whet.report.tables import trial_table

    device = machine.use(processes="one")
    task = data.load()
    benchmark = Benchmark(
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        max_length=max_length,
        rounds=rounds,
        seed=machine.seed,
        device=device,
        runtimes=names_in(runtime),
        precisions=names_in(precision),
    )
    check_picture(picture)

    def print_trials(trials: "Sequence[Trial]") -> None:
        if as_json:
            print_json([trial.to_dict() for trial in trials])
        else:
            show(trial_table(trials, title=f"{task.name}, {len(task.splits.dev)} dev examples"))

    trials = api.measure(
        [baseline, *models], task, benchmark=benchmark, out=out, overwrite=overwrite, report=print_trials
    )
    if picture is not None:
        drawn = trade_off_picture(trials, quality=task.metrics[0], costs=("latency_median", "throughput"))
        write_picture(picture, drawn)


@app.command
def report(folder: Path, /, *folders: Path, out: Path | None = None, only: Texts = (), overwrite: Flag = False) -> None:
    """Write what was measured as a web page, a picture and Markdown: report.html, report.png, report.md.

    Args:
        folder: Folder with models that were measured, at any depth.
        folders: More such folders.
        out: Folder to write to; FOLDER itself if it is the only one.
        only: Show only what was measured under this condition, as NAME=VALUE, e.g. threads=2; repeatable.
        overwrite: Also replace files of these names that are not reports.
    """
    from whet.report.write import write_report

    silence_transformers()
    page = write_report(
        [folder, *folders],
        out,
        only=conditions_in(only),
        overwrite=overwrite,
        warn=lambda sentence: say(f"note: not shown: {sentence}"),
    )
    show(f"see {page}")


@app.command
def export(
    model: Path,
    /,
    *,
    to: str,
    precision: Precisions = "fp32",
    max_kl: float | None = None,
    opset: int | None = None,
    max_length: InputLength = 128,
    data: TaskOptions = TaskOptions(),
    machine: SeedOptions = SeedOptions(),
    as_json: Json = False,
) -> None:
    """Write what other runtimes run beside the weights, once it gives the model's own answers.

    Args:
        model: Folder of a model that whet wrote.
        to: Runtimes, separated by commas: onnxruntime (or onnx), openvino.
        max_kl: Largest mean KL on held-out training data, in nats; layers that cost most stay in fp32 until it is met.
        opset: Version of ONNX's operators, 18 to 23, for older versions of ONNX Runtime; the fastest if not given.
    """
    from dataclasses import replace

    from whet.runtimes.export import CALIBRATION
    from whet.runtimes.export import export as export_model

    machine.use_cpu()
    agreements = export_model(
        model,
        names_in(to),
        precisions=names_in(precision),
        task=data.load_if_given(),
        calibration=replace(CALIBRATION, max_length=max_length),
        seed=machine.seed,
        max_kl=max_kl,
        threads=machine.threads,
        opset=opset,
    )
    if as_json:
        print_json({" ".join(target): agreement._asdict() for target, agreement in agreements.items()})
    else:
        print_agreements(agreements)


app.command(search)


@app.command
def inspect(
    model: str,
    /,
    *,
    batch_size: int = 32,
    length: int = 64,
    machine: ThreadOptions = ThreadOptions(),
    as_json: Json = False,
) -> None:
    """Show where a model's parameters and time are, and which methods can help on this machine.

    Args:
        model: Folder or hub name.
        batch_size: Examples in the batch that is timed.
        length: Tokens in each example.
    """
    from whet.evaluation.inspection import inspect as inspect_model

    machine.use_cpu()
    inspection = inspect_model(model, batch=(batch_size, length))
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection)


@app.command
def methods(*names: str, as_json: Json = False) -> None:
    """List methods with their parameters, ranges and sources.

    Args:
        names: Methods to show; all if not given.
    """
    from whet.methods.base import all_methods, method_named

    chosen = {method.name(): method for method in map(method_named, names)} or all_methods()
    if as_json:
        print_json({name: method.about() for name, method in chosen.items()})
    else:
        print_methods(chosen)


@app.command
def demo(*, out: Path = Path("runs/demo"), machine: SeedOptions = SeedOptions()) -> None:
    """Run the main job on a built-in task: train, compress by three recipes, measure, save, reload.

    Args:
        out: Folder to write.
    """
    from whet.cli.demo import run_demo

    machine.use_cpu()
    run_demo(out, seed=machine.seed, say=show)
