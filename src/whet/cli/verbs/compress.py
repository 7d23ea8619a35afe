"""The verb `compress` of the command line."""

from whet.cli.console import print_json, print_step, show, tell, weights_in_mib
from whet.cli.options import MAX_LENGTH, InputLength, MachineOptions, OutputOptions, TaskOptions, in_words
from whet.cli.recipes import RecipeOptions
from whet.utils.ranges import BatchSize, Dimensions, Rows


def compress(
    model: str,
    /,
    *,
    output: OutputOptions,
    steps: RecipeOptions = RecipeOptions(),
    data: TaskOptions = TaskOptions(),
    calibration: Rows = 512,
    batch_size: BatchSize = 4,
    max_length: InputLength = MAX_LENGTH,
    dimensions: Dimensions | None = None,
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Make a model smaller by a recipe or by one method, and save it.

    Args:
        model: Folder or hub name of a fine-tuned model.
        calibration: Training examples that methods look at.
        batch_size: Calibration examples in one batch.
        dimensions: Leading dimensions that the vectors of an embedder keep, e.g. 128; all if not given.
    """
    from whet.models.model_files import ModelFiles

    ModelFiles.of(model)
    output.keep(steps.recipe)
    task, recipe = data.load_if_given(), steps.load()
    device = machine.use()  # what is wrong so far is said before what is slow to import
    from whet import api
    from whet.calibration.resources import Calibration
    from whet.models.inference import kind_of_model
    from whet.tasks.kinds.base import NO_HEAD

    done = api.compress(
        model,
        recipe,
        output.out,
        task=task,
        kind=data.kind,
        dimensions=dimensions,
        calibration=Calibration(examples=calibration, batch_size=batch_size, max_length=max_length),
        seed=machine.seed,
        device=device,
        overwrite=output.overwrite,
        report=(lambda step: None) if output.as_json else print_step,
    )
    if output.as_json:
        print_json([{**step._asdict(), "method": step.method.to_dict()} for step in done.steps])
    else:
        sizes = [weights_in_mib(source) for source in (model, output.out)]
        show(f"saved to {output.out}: weights of {sizes[1]} MiB instead of {sizes[0]}")
        words = data.words(max_length=max_length, pairs=NO_HEAD in kind_of_model(done.model).heads)
        tell(f"measure it: {in_words('whet', 'measure', model, output.out, *words)}")
