"""The verbs of the command line as functions: fine-tune, compress, measure, inspect."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import transformers
from transformers import PreTrainedModel

from whet import artifact
from whet.checkpoint import load_model, load_tokenizer, max_positions, new_head
from whet.metric import quality_named
from whet.output import check_output
from whet.progress import bar
from whet.recipe import Recipe
from whet.report import curve_csv, curve_picture
from whet.task import Task
from whet.training import Epoch, TrainingSettings, train

__all__ = ["finetune"]


def finetune(
    base: str | Path,
    task: Task,
    out: Path,
    *,
    settings: TrainingSettings,
    device: str = "cpu",
    overwrite: bool = False,
) -> list[Epoch]:
    """Train a base model for a task, save it to `out` with its learning curve as PNG and CSV, and return the curve.

    An interrupted run leaves `.OUT.training` beside `out`; the same call again goes on from there.

    Args:
        base: folder or hub name of a base model.
        task: what to train for.
        out: folder of the new model.
        settings: how long and how fast.
        device: where to train, as torch names it.
        overwrite: whether `out` may be replaced.

    Raises:
        WhetError: anything wrong with the base, the task's data, the settings or the place, before any work.
    """
    check_output(out, overwrite=overwrite, inputs=(Path(base),))
    splits = task.splits
    transformers.set_seed(settings.seed)
    tokenizer = load_tokenizer(base)
    model = new_head(base, task.label_names, tokenizer)
    quality = quality_named(task.metrics[0])
    scratch = out.resolve().with_name(f".{out.resolve().name}.training")
    with bar(f"fine-tuning on {task.name}", 1) as progress:
        curve = train(
            model,
            tokenizer,
            examples=splits.train,
            validation=splits.validation,
            settings=settings,
            scorer=lambda labels, logits: quality.score(labels, quality.predict(logits)),
            scratch=scratch,
            progress=progress,
            device=device,
        )
    pictures = {"curve.csv": curve_csv(curve), "curve.png": curve_picture(curve, metric=quality.name)}
    artifact.save(
        model,
        tokenizer,
        out,
        recipe=Recipe(),
        origin=str(base),
        seed=settings.seed,
        overwrite=overwrite,
        extras=pictures,
    )
    shutil.rmtree(scratch)
    return curve
