"""Compressing from Python."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import nn

from whet.calibration.resources import Calibration, Resources, prepare_resources
from whet.errors import InvalidModel
from whet.evaluation import records
from whet.evaluation.formatting import number
from whet.evaluation.vectors import cosine_with
from whet.methods.recipe import Recipe, Step
from whet.models.architecture import reach_of, refuse_cascade
from whet.models.artifact import LoadedModel, load_with_tokenizer
from whet.models.inference import kind_of_model
from whet.models.load import check_head, common_max_length
from whet.models.recognition import recognized
from whet.models.weights import check_finite
from whet.tasks.base import Task
from whet.tasks.kinds.base import NO_HEAD
from whet.utils.calls import checked
from whet.utils.distributed import from_first_process, is_first
from whet.utils.outputs import holding_output
from whet.utils.progress import note
from whet.utils.ranges import Device, Dimensions, Seed

__all__ = ["Compressed", "compress"]

HALF = 0.5
"""Share of the weights below which it is said that methods reach no more."""


class Compressed(NamedTuple):
    """What compressing a model gave."""

    model: nn.Module
    """The compressed model, in eval mode."""
    steps: list[Step]
    """What each method did."""


@checked
@holding_output("model", "task")
def compress(
    model: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    task: Task | None = None,
    calibration: Calibration | None = None,
    kind: str | None = None,
    dimensions: Dimensions | None = None,
    seed: Seed = 0,
    device: Device = "cpu",
    overwrite: bool = False,
    report: Callable[[Step], None] = lambda step: None,
) -> Compressed:
    """Compress a fine-tuned model by a recipe and save the result to `out`.

    Args:
        model: folder or hub name.
        recipe: what to do.
        out: folder of the new model.
        task: gives the calibration data, from training data only; needed where a method needs data.
        calibration: how much of it.
        kind: of the model's answers, such as embedding, where neither the folder nor the task tells.
        dimensions: leading dimensions that vectors of an embedder keep, the original's too while the recipe is at
            work; all if None.
        seed: of the sample and of every random choice.
        device: where to compute, as torch names it.
        overwrite: whether `out` may be replaced.
        report: called after each step.

    Raises:
        WhetError: anything wrong with the model, the recipe, the data or the place, before any work.
    """
    folder = Path(out)
    steps = recipe.to_list()  # a step that cannot be recorded is refused before it costs anything
    texts = None
    if task is None:
        recipe.check(Resources(seed=seed))
    else:
        kind, read = recognized(model, task, kind, labels="unread")
        texts = read.unlabeled()  # no method reads labels
        _ = texts.splits  # bad data are refused before anything is loaded
    original, tokenizer = load_with_tokenizer(model, device=device, kind=kind, dimensions=dimensions)
    refuse_cascade(original)
    if recipe.methods:
        _say_reach(original)
    resources, sample = Resources(seed=seed), calibration or Calibration()
    if texts is not None:
        check_head(original, texts)
        resources = prepare_resources(original, tokenizer, texts, sample, seed=seed, device=device, needs=recipe.needs)
    done: list[Step] = []

    def finished(step: Step) -> None:
        done.append(step)
        report(step)

    made = LoadedModel(recipe.apply(original, resources, report=finished), recipe.tokenizer(tokenizer, resources))
    check_finite(made.model)
    from_first_process(
        lambda: records.save_model(
            *made,
            folder,
            recipe=steps,
            origin=str(model),
            seed=seed,
            calibration=asdict(sample) if recipe.needs else None,
            overwrite=overwrite,
        )
    )
    if is_first() and NO_HEAD in kind_of_model(made.model).heads:
        _say_moved(LoadedModel(original, tokenizer), made, texts, sample)
    return Compressed(made.model, done)


def _say_moved(original: LoadedModel, made: LoadedModel, task: Task | None, calibration: Calibration) -> None:
    """Say of an embedder that no index of the original's vectors fits it, and how far they moved."""
    told = "vectors moved"
    if task is not None:
        where, texts = "held-out", task.splits.validation
        if not len(texts):
            where, texts = "training", task.splits.train
        length = common_max_length(calibration.max_length, original.model)
        cosine = cosine_with(original, made, texts, max_length=length)
        told += f": their mean cosine with those of the original is {number(cosine, places=3)} on {where} text"
    note(f"{told}; make every index of them anew")


def _say_reach(model: nn.Module) -> None:
    """Say so where methods can change less than half of a model's weights, embeddings aside."""
    try:
        reach = reach_of(model)
    except InvalidModel:  # it has no blocks, and methods that need some say so
        return
    if reach.share < HALF and is_first():
        where = f"; others are in {', '.join(reach.others[:3])}" if reach.others else ""
        note(
            f"methods for linear layers reach {reach.share:.0%} of the weights outside the embeddings of this "
            f"{type(model).__name__}{where}: a keep of .5 keeps more of the model than half"
        )
