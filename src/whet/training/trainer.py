"""The training loop, on transformers.Trainer: resumable, with a progress bar and one row of a learning curve per epoch.

Several processes read the same batches, each its own rows of every batch, and sum their gradients. They take the same
steps as a single process, except for the random numbers of dropout.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import RandomSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from whet.models.inference import predict
from whet.tasks.data import Batches, Examples
from whet.tasks.encoding import in_batches, pad
from whet.tasks.kinds.base import Answers
from whet.training.callbacks import AfterStep, CallAfterStep, ShowProgress, trackers_named
from whet.training.checkpoints import claim_folder, guarding_checkpoints, is_finished
from whet.training.curve import Epoch
from whet.training.distiller import TEACHER_LOGITS, Teacher
from whet.training.loop import ByLength, Loop, on_device, shared_arguments
from whet.training.objective import Objective
from whet.training.settings import LoraSettings, TrainingSettings
from whet.training.states import rows_digest, weights_digest
from whet.utils.distributed import from_first_process, process_count
from whet.utils.files import json_digest
from whet.utils.precision import ComputePrecision
from whet.utils.progress import ProgressBar, progress_bar

__all__ = ["Scorer", "distil", "train"]

EVALUATION_BATCH = 64
Scorer = Callable[[Answers, Batches], float]
"""Takes the answers to held-out examples and the examples, and returns the task's main metric."""


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    examples: Examples,
    validation: Examples,
    settings: TrainingSettings,
    scorer: Scorer,
    scratch: Path,
    progress: ProgressBar,
    metric: str = "",
    device: str = "cpu",
    teacher: Teacher | None = None,
    lora: LoraSettings | None = None,
    report_to: Sequence[str] = (),
    logs: Path | None = None,
    overwrite: bool = False,
) -> list[Epoch]:
    """Train `model` in place, on labels, a teacher or both, and return its learning curve.

    Args:
        model: left in eval mode.
        tokenizer: encodes the examples and pads batches.
        examples: the training data.
        validation: the held-out examples, which are scored after every epoch.
        settings: the hyperparameters.
        scorer: the metric of the learning curve.
        scratch: folder of checkpoints; a run resumes from the last one there.
        progress: bar that shows the fraction of steps done.
        metric: name of the scorer.
        device: device to train on, such as cpu or cuda:0.
        teacher: the teacher to distil from, or None to learn from labels alone.
        lora: settings of the adapters that the model has, or None.
        report_to: names of trackers known to transformers, such as tensorboard.
        logs: folder for the files of trackers.
        overwrite: whether an interrupted run with other settings is thrown away.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings, another model or other data; or a tracker is not
            installed.
        InvalidModel: the loss or a weight is no longer finite; the last good checkpoint stays in `scratch`.
        OutputNotWritten: a checkpoint cannot be written, e.g. because the disk is full.
    """
    trackers = trackers_named(report_to, logs)
    encoded = examples.encode(tokenizer, max_length=settings.max_length).rows
    collate = partial(pad, tokenizer=tokenizer)
    if teacher is not None and teacher.logits is not None:
        encoded = [
            {**row, TEACHER_LOGITS: logits} for row, logits in zip(encoded, teacher.logits.tolist(), strict=True)
        ]
    attached = nullcontext() if teacher is None else teacher.attached(model, collate([encoded[0]]))
    held_out = validation.encode(tokenizer, max_length=settings.max_length)
    scored = in_batches(validation, held_out, tokenizer, batch_size=EVALUATION_BATCH)
    steps = max(1, round(settings.epochs * -(-len(encoded) // settings.batch_size)))
    arguments = TrainingArguments(
        **shared_arguments(settings.epochs, settings.learning_rate, settings.seed, device, inputs=encoded[0]),
        output_dir=str(scratch),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * steps),
        eval_strategy="epoch",
        logging_strategy="epoch",
        remove_unused_columns=teacher is None,  # the teacher may read columns that the student ignores
        save_steps=max(50, steps // 10),
    )
    record = _identity(model, settings, teacher, lora) | {
        "metric": metric,
        "data_sha256": rows_digest(encoded),
        "validation_sha256": rows_digest(held_out.rows),
    }
    with attached, guarding_checkpoints(scratch):
        last = from_first_process(lambda: claim_folder(scratch, record, overwrite=overwrite))
        trainer = Loop(
            teacher,
            order=ByLength(encoded, settings.batch_size, seed=settings.seed),
            precision=settings.precision,
            settings=record,
            model=model,
            args=on_device(arguments, device),
            train_dataset=encoded,
            eval_dataset=held_out.rows,
            data_collator=collate,
            score=lambda trained: scorer(predict(trained, scored), scored),
            callbacks=[ShowProgress(progress), *trackers],
        )
        if last is not None and is_finished(last):
            trainer.finish(last)
        else:
            trainer.train(
                resume_from_checkpoint=None if last is None else str(last),
            )
        trainer.require_finite(*model.parameters())
    model.eval()
    return _curve(trainer.state.log_history)


def _identity(
    model: PreTrainedModel, settings: TrainingSettings, teacher: Teacher | None, lora: LoraSettings | None
) -> dict[str, Any]:
    """Return what must be equal, besides the data, for a run to resume from another's checkpoint."""
    config = json.loads(model.config.to_json_string())
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    record = {
        "model": model.name_or_path,
        "model_sha256": weights_digest(model),
        "config_sha256": json_digest(config),
        "processes": process_count(),
        **dataclasses.asdict(settings),
    }
    if lora is not None:
        record |= {f"lora_{key}": value for key, value in dataclasses.asdict(lora).items()}
    if teacher is not None:
        record |= {"student": teacher.student, **dataclasses.asdict(teacher.objective)}
        # logits of a teacher that is not there are a part of the data
        record |= {} if teacher.teacher is None else {"teacher_sha256": weights_digest(teacher.teacher)}
    return record


def distil(
    model: nn.Module,
    teacher: nn.Module,
    batches: Batches,
    *,
    epochs: float,
    learning_rate: float,
    temperature: float,
    hidden_states: float,
    seed: int,
    precision: ComputePrecision = "fp32",
    after_step: AfterStep | None = None,
) -> None:
    """Train `model` in place on the teacher's predictions and hidden states, without labels.

    Args:
        model: the student, of the same depth and width as the teacher; left in eval mode.
        teacher: in eval mode.
        batches: the training data; every step takes one batch, in a new random order each epoch.
        epochs: epochs of training.
        learning_rate: peak learning rate of AdamW; it falls linearly to zero.
        temperature: divides the logits of both models.
        hidden_states: weight of the error of the hidden states; the predictions have the weight 1.
        seed: seed of the order of the batches.
        precision: precision of matrix products; see `TrainingSettings`.
        after_step: called after every step of the optimizer.

    Raises:
        InvalidModel: the loss or a weight is no longer finite.
    """
    distilled_from = Teacher(teacher, Objective(alpha=1.0, temperature=temperature, hidden_states=hidden_states))
    device = str(next(model.parameters()).device)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with (
        progress_bar("distilling", 1) as progress,
        distilled_from.attached(model, batches.batches[0]),
    ):
        arguments = TrainingArguments(
            **shared_arguments(epochs, learning_rate, seed, device, inputs=batches.batches[0]),
            output_dir=os.curdir,  # the trainer wants a folder that exists; without checkpoints it writes nothing there
            per_device_train_batch_size=1,
            weight_decay=0.0,
            warmup_steps=round(0.06 * epochs * len(batches)),
            save_strategy="no",
            remove_unused_columns=False,
        )
        trainer = Loop(
            distilled_from,
            order=RandomSampler(batches.batches, generator=torch.Generator().manual_seed(seed)),
            dropout=False,  # the teacher's outputs have no such noise
            precision=precision,
            model=model,
            args=on_device(arguments, device),
            train_dataset=list(batches),
            data_collator=lambda batch: dict(batch[0]),
            callbacks=[ShowProgress(progress), *([] if after_step is None else [CallAfterStep(after_step)])],
        )
        trainer.train()
        trainer.require_finite(*model.parameters())
    model.eval()
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
        parameter.grad = None


def _curve(history: Sequence[dict[str, float]]) -> list[Epoch]:
    losses = {row["epoch"]: row["loss"] for row in history if "loss" in row}
    return [
        Epoch(row["epoch"], losses.get(row["epoch"], nan), row.get("eval_loss", nan), row["eval_metric"])
        for row in history
        if "eval_metric" in row
    ]
