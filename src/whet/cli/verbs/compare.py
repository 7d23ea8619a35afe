"""The verb `compare` of the command line."""

from whet.cli.console import print_json, print_trials, show, tell
from whet.cli.options import (
    MAX_LENGTH,
    InputLength,
    MachineOptions,
    OutputOptions,
    Precisions,
    TaskOptions,
    Untimed,
    names_in,
)
from whet.cli.recipes import RecipesOptions
from whet.utils.ranges import BatchSize, Rounds, Rows

FAILED = 2
"""Exit code where a recipe failed, after the others were measured."""


def compare(
    model: str,
    /,
    *,
    output: OutputOptions,
    steps: RecipesOptions = RecipesOptions(),
    data: TaskOptions = TaskOptions(),
    runtime: str = "pytorch",
    precision: Precisions = "fp32",
    batch_size: BatchSize = 32,
    max_length: InputLength = MAX_LENGTH,
    rounds: Rounds = 10,
    untimed: Untimed = False,
    calibration: Rows = 512,
    machine: MachineOptions = MachineOptions(),
) -> int:
    """Make a model by several recipes, measure all of them beside it, and write one table and one report.

    Each model goes to OUT/NAME. The same command again keeps the models that are there. A recipe that fails is told
    below the table, the others go on, and the exit code is 2.

    Args:
        model: Folder or hub name of a fine-tuned model, the baseline.
        runtime: Where the models run, separated by commas: pytorch, onnxruntime, openvino. What is missing is exported.
        batch_size: Examples in one batch that is timed.
        rounds: Interleaved rounds of timing.
        calibration: Training examples that methods look at.
    """
    from whet.models.model_files import ModelFiles

    ModelFiles.of(model)
    task, recipes = data.load(), steps.load()
    device = machine.use(processes="one")  # what is wrong so far is said before what is slow to import
    from whet import api
    from whet.calibration.resources import Calibration
    from whet.evaluation.benchmark import Benchmark
    from whet.evaluation.metrics.base import untimed_metrics

    benchmark = Benchmark(
        batch_size=batch_size,
        max_length=max_length,
        rounds=rounds,
        metrics=untimed_metrics() if untimed else None,
        seed=machine.seed,
        device=device,
        runtimes=names_in(runtime),
        precisions=names_in(precision),
    )
    found = api.compare(
        model,
        recipes,
        task,
        output.out,
        benchmark=benchmark,
        calibration=Calibration(examples=calibration, max_length=max_length),
        seed=machine.seed,
        overwrite=output.overwrite,
        report=(lambda line: None) if output.as_json else tell,
    )
    if output.as_json:
        trials = [trial.to_dict() for trial in found.trials]
        print_json({"trials": trials, "failures": found.failures, "report": str(found.page)})
    else:
        print_trials(found.trials, f"{task.name}, {found.trials[0].measurements[0].n} dev examples")
        for name, reason in found.failures.items():
            show(f"{name}: not in the table: {reason}")
        show(f"see {found.page}")
    return FAILED if found.failures else 0
