"""Fine-tuning and distilling from Python."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.calibration.resources import Calibration, Resources, prepare_resources, require_held_out
from whet.errors import InvalidParameter
from whet.evaluation import records
from whet.evaluation.metrics.base import task_qualities
from whet.models.artifact import check_source, load_with_tokenizer
from whet.models.inference import predict
from whet.models.load import class_order, common_max_length, load_tokenizer, load_with_new_head
from whet.models.manifest import DISTILLED, FINE_TUNED, Made
from whet.models.recognition import recognized
from whet.models.weights import check_finite
from whet.report.plots import curve_files
from whet.tasks.base import Task
from whet.tasks.data import Batches, Examples
from whet.tasks.encoding import encode, say_cut
from whet.tasks.kinds.base import Answers, TaskKind
from whet.training.checkpoints import discard, scratch_of
from whet.training.curve import Epoch
from whet.training.distiller import Teacher
from whet.training.lora import TrainableCount, attach_lora, merge_lora, trainable_count
from whet.training.objective import Objective
from whet.training.settings import LoraSettings, TrainingSettings
from whet.training.students.base import BuiltStudent, Student, require_runs
from whet.training.teacher_cache import cached_logits, teacher_logits
from whet.training.trainer import Scorer, train
from whet.utils.calls import checked
from whet.utils.distributed import from_first_process
from whet.utils.files import check_path
from whet.utils.outputs import holding_output
from whet.utils.progress import progress_bar
from whet.utils.ranges import Device

__all__ = ["distill", "finetune"]

LABELLING_BATCH = 64
"""Texts without labels that a teacher reads at once."""


@checked
@holding_output("base", "task")
def finetune(
    base: str | Path,
    task: Task,
    out: str | Path,
    *,
    settings: TrainingSettings,
    lora: LoraSettings | None = None,
    device: Device = "cpu",
    overwrite: bool = False,
    report_to: Sequence[str] = (),
    report: Callable[[TrainableCount], None] = lambda share: None,
) -> list[Epoch]:
    """Train a base model for a task, save it to `out` with its learning curve as PNG and CSV, and return the curve.

    An interrupted run leaves `.OUT.training` beside `out`; the same call again goes on from there.

    Args:
        base: folder or hub name of a base model.
        task: what to train for.
        out: folder of the new model.
        settings: how long and how fast.
        lora: trains corrections of the weights instead of the weights, which they are added to in the end.
        device: where to train, as torch names it.
        overwrite: whether `out` may be replaced.
        report_to: trackers that transformers knows, such as tensorboard, whose files go to `OUT.logs`.
        report: called with how much is trained, before it is.

    Raises:
        WhetError: anything wrong with the base, the task's data, the settings or the place, before any work.
    """
    folder = Path(out)
    scratch_of(folder)
    if task.label_map:
        raise InvalidParameter(
            "--label-map must go with a model that has classes, but fine-tuning gives it those of the data; "
            "leave it out"
        )
    require_held_out(task)
    if not task.kind.has_labels:
        raise InvalidParameter(
            f"whet finetune must have labels to learn, but {task.name} is for {task.kind.holds}; train it with "
            "sentence-transformers, then whet compress or whet distill"
        )
    if task.kind.pretrained:
        raise InvalidParameter(
            f"whet finetune must have labels to learn, but {task.name} is text for {task.kind.holds}; make the model "
            "smaller by whet compress or whet distill"
        )
    transformers.set_seed(settings.seed)
    tokenizer = load_tokenizer(check_source(base))
    model = load_with_new_head(base, task.kind, task.label_names, tokenizer)
    if lora is not None:
        model = attach_lora(model, lora)
    report(trainable_count(model))
    place = _Place(folder, str(base), device, overwrite, report_to)
    fitting = replace(settings, max_length=common_max_length(settings.max_length, model))
    order = class_order(model, task)
    train_on, held_out = _numbered(task, order)
    made = Made(how=FINE_TUNED, task=task.name)
    scoring = _scoring(task, order, model)
    return _trained(model, tokenizer, task, place, fitting, train_on, held_out, scoring=scoring, made=made, lora=lora)


@checked
@holding_output("teacher", "task", "cache")
def distill(
    teacher: str | Path,
    student: Student,
    task: Task,
    out: str | Path,
    *,
    settings: TrainingSettings,
    objective: Objective | None = None,
    calibration: Calibration | None = None,
    cache: str | Path | None = None,
    unlabeled: Examples | None = None,
    device: Device = "cpu",
    overwrite: bool = False,
    report_to: Sequence[str] = (),
    report: Callable[[BuiltStudent], None] = lambda built: None,
) -> list[Epoch]:
    """Train a smaller model from a fine-tuned one, save it to `out` with its learning curve, and return the curve.

    An interrupted run leaves `.OUT.training` beside `out`; the same call again goes on from there.

    Args:
        teacher: folder or hub name of a fine-tuned model.
        student: what is trained.
        task: gives the training data.
        out: folder of the new model.
        settings: how long and how fast.
        objective: what the student minimises.
        calibration: how much training text a student that is chosen by measurement looks at.
        cache: folder of the teacher's predictions, which is made if it is not there; the teacher is then asked once
            for all runs.
        unlabeled: more training text, which the teacher gives its labels; its own are not read.
        device: where to train, as torch names it.
        overwrite: whether `out` may be replaced.
        report_to: trackers that transformers knows, such as tensorboard, whose files go to `OUT.logs`.
        report: called with the student before it is trained.

    Raises:
        WhetError: anything wrong with the teacher, the student, the data or the place, before any training.
    """
    folder, kept = Path(out), None if cache is None else Path(cache)
    if kept is not None:
        check_path(kept, "the cache")
    if kept is not None and folder.resolve() in (kept.resolve(), *kept.resolve().parents):
        raise InvalidParameter(f"the cache must lie outside of the new model, but got cache={cache}; name another")
    kind, task = recognized(teacher, task)
    goal = objective or Objective.for_kind(task.kind)
    goal.check_kind(task.kind)
    _require_predictions(task, goal, kept, unlabeled)
    scratch_of(folder)
    require_held_out(task)
    transformers.set_seed(settings.seed)
    source, tokenizer = load_with_tokenizer(teacher, device=device, kind=kind)
    order = class_order(source, task)
    say_cut(task, task.splits.train, tokenizer, max_length=common_max_length(settings.max_length, source))
    resources = Resources(seed=settings.seed)
    if student.reads:
        sample = calibration or Calibration()
        resources = prepare_resources(
            source, tokenizer, task, sample, seed=settings.seed, device=device, needs=student.reads
        )
    built = student.build(source, resources)
    require_runs(built.model)
    report(built)
    place = _Place(folder, str(teacher), device, overwrite, report_to)
    fitting = replace(settings, max_length=common_max_length(settings.max_length, source, built.model))
    train_on, held_out = _numbered(task, order)
    distillation = Teacher(source, goal, f"{student.name()}, {built.plan}")
    whole = train_on if unlabeled is None else train_on.joined(unlabeled)
    logits: Tensor | None = None
    if kept is not None:
        rows = whole.encode(tokenizer, max_length=fitting.max_length).rows
        logits = from_first_process(lambda: cached_logits(kept, source, tokenizer, rows))
        distillation = distillation._replace(teacher=None, logits=logits)
    if unlabeled is not None:
        said = None if logits is None else logits[len(train_on) :]
        labels = _labels_by(source, tokenizer, unlabeled, said, kind=task.kind, max_length=fitting.max_length)
        whole = replace(whole, labels=[*train_on.labels, *labels])
    made = Made(how=DISTILLED, task=task.name, student=built.title)
    return _trained(
        built.model,
        tokenizer,
        task,
        place,
        fitting,
        whole,
        held_out,
        scoring=_scoring(task, order, source),
        made=made,
        teacher=distillation,
    )


def _require_predictions(task: Task, goal: Objective, cache: Path | None, unlabeled: Examples | None) -> None:
    """Refuse a cache of predictions, and text that a teacher labels, where more than predictions are read."""
    if cache is not None and not goal.reads_predictions_alone:
        raise InvalidParameter(
            f"a cache holds predictions alone, but got cache={cache} and weights of hidden states or relations; "
            "leave one out"
        )
    if not task.kind.one_row and (cache is not None or (unlabeled is not None and not task.kind.has_classes)):
        raise InvalidParameter(
            f"a cache and text without labels must go with one answer a text, but {task.name} is "
            f"{task.kind.name().replace('_', ' ')}; leave them out"
        )


def _labels_by(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Examples,
    logits: Tensor | None,
    *,
    kind: TaskKind,
    max_length: int,
) -> list[Any]:
    """The labels that a teacher gives to texts; its logits may be known, where a text has one row of them."""
    if kind.one_row:
        rows = texts.encode(tokenizer, max_length=max_length).rows if logits is None else []
        return kind.guesses((teacher_logits(teacher, tokenizer, rows) if logits is None else logits).numpy())
    batches = encode(texts, tokenizer, max_length=max_length, batch_size=LABELLING_BATCH)
    return list(kind.predictions(predict(teacher, batches), batches))


def _numbered(task: Task, order: Sequence[int]) -> list[Examples]:
    """The training and the held-out examples, with their labels as the model numbers them."""
    return [replace(part, labels=task.kind.renumbered(part.labels, order)) for part in task.splits[:2]]


class _Place(NamedTuple):
    """Where a trained model comes from and goes."""

    out: Path
    origin: str
    device: str
    overwrite: bool
    report_to: Sequence[str]


class _Scoring(NamedTuple):
    """What a learning curve shows besides losses."""

    metric: str
    scorer: Scorer


def _scoring(task: Task, order: Sequence[int], teacher: PreTrainedModel) -> _Scoring:
    """The task's main metric; of texts that nothing scores, how near vectors are to the teacher's."""
    if task.metrics:
        quality = task_qualities(task, order)[0].renumbered(order)
        return _Scoring(
            quality.name, lambda answers, dev: quality.score(dev.labels, answers.kind.predictions(answers, dev))
        )
    wanted: list[Answers] = []

    def cosine(answers: Answers, held_out: Batches) -> float:
        if not wanted:
            wanted.append(predict(teacher, held_out))
        return 1 - float(wanted[0].divergences(answers).mean())

    return _Scoring("cosine", cosine)


def _trained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    place: _Place,
    settings: TrainingSettings,
    examples: Examples,
    held_out: Examples,
    *,
    scoring: _Scoring,
    made: Made,
    teacher: Teacher | None = None,
    lora: LoraSettings | None = None,
) -> list[Epoch]:
    say_cut(task, examples, tokenizer, max_length=settings.max_length)
    out, scratch = place.out.resolve(), scratch_of(place.out)
    with progress_bar(f"{'distilling' if teacher else 'fine-tuning'} on {task.name}", 1) as progress:
        curve = train(
            model,
            tokenizer,
            examples=examples,
            validation=held_out,
            settings=settings,
            scorer=scoring.scorer,
            scratch=scratch,
            progress=progress,
            metric=scoring.metric,
            device=place.device,
            teacher=teacher,
            lora=lora,
            report_to=place.report_to,
            logs=out.with_name(f"{out.name}.logs"),
            overwrite=place.overwrite,
        )
    if lora is not None:
        model = merge_lora(model)
    check_finite(model)

    def save() -> None:
        origin = None if teacher is None else Path(place.origin)
        files = curve_files(curve, place.out.name, metric=scoring.metric, teacher=origin)
        records.save_model(
            model,
            tokenizer,
            place.out,
            recipe=[],
            origin=place.origin,
            seed=settings.seed,
            made=made,
            overwrite=place.overwrite,
            extras=files,
        )
        discard(scratch)

    from_first_process(save)
    return curve
