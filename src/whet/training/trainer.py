"""The training loop, on transformers.Trainer: resumable, with a progress bar and one row of a learning curve per epoch.

Several processes read the same batches, each its own rows of every batch, and sum their gradients. They take the same
steps as a single process, except for the random numbers of dropout.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from accelerate.data_loader import prepare_data_loader
from annotated_types import Interval
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalPrediction

from whet.errors import InvalidModel
from whet.tasks.data import Batches, Examples
from whet.tasks.encoding import pad, tokenize
from whet.training.callbacks import AfterStep, CallAfterStep, ShowProgress, trackers_named
from whet.training.checkpoints import claim_folder, guarding_checkpoints, last_checkpoint
from whet.training.distiller import TEACHER_LOGITS, Teacher
from whet.training.lora import LoraSettings
from whet.training.objective import Objective
from whet.utils.distributed import from_first_process, rows_of_process, wait_for_all
from whet.utils.parameters import check
from whet.utils.precision import ComputePrecision
from whet.utils.progress import ProgressBar, progress_bar
from whet.utils.scratch import temporary_folder

__all__ = ["Epoch", "Scorer", "TrainingSettings", "distil", "train"]

Scorer = Callable[[Any, Any], float]
"""Takes labels and logits, both (examples, ...), and returns the task's main metric."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The hyperparameters of a training run."""

    epochs: Annotated[float, Interval(gt=0, lt=math.inf)] = 5
    """Epochs of training, e.g. 3."""
    learning_rate: Annotated[float, Interval(gt=0, lt=math.inf)] = 5e-5
    """Peak learning rate of AdamW, e.g. 5e-5; it falls linearly to zero."""
    batch_size: Annotated[int, Interval(ge=1)] = 32
    """Examples per step, e.g. 32."""
    weight_decay: Annotated[float, Interval(ge=0, lt=math.inf)] = 0.01
    """Decoupled weight decay of AdamW, e.g. 0.01."""
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.06
    """Fraction of the steps over which the learning rate rises, e.g. 0.06."""
    max_length: Annotated[int, Interval(ge=2)] = 128
    """Largest number of tokens of an input, e.g. 128; longer inputs are truncated."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seed of the new head, the order of the examples and dropout."""
    precision: ComputePrecision = "fp32"
    """Precision of matrix products; bf16 is about twice as fast on processors with AMX."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


class Epoch(NamedTuple):
    """One row of the learning curve."""

    epoch: float
    """Number of epochs trained so far."""
    training_loss: float
    """Mean loss of the steps of this epoch."""
    validation_loss: float
    """Mean loss on the held-out examples."""
    validation_metric: float
    """The task's main metric on the held-out examples."""


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
    device: str = "cpu",
    teacher: Teacher | None = None,
    lora: LoraSettings | None = None,
    report_to: Sequence[str] = (),
    logs: Path | None = None,
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
        device: device to train on, such as cpu or cuda:0.
        teacher: the teacher to distil from, or None to learn from labels alone.
        lora: settings of the adapters that the model has, or None.
        report_to: names of trackers known to transformers, such as tensorboard.
        logs: folder for the files of trackers.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings, another model or other data; or a tracker is not
            installed.
        InvalidModel: the loss or a weight is no longer finite; the last good checkpoint stays in `scratch`.
        OutputNotWritten: a checkpoint cannot be written, e.g. because the disk is full.
    """
    trackers = trackers_named(report_to, logs)
    encoded = tokenize(examples, tokenizer, max_length=settings.max_length)
    collate = partial(pad, tokenizer=tokenizer)
    if teacher is not None and teacher.logits is not None:
        encoded = [
            {**row, TEACHER_LOGITS: logits} for row, logits in zip(encoded, teacher.logits.tolist(), strict=True)
        ]
    attached = nullcontext() if teacher is None else teacher.attached(model, collate([encoded[0]]))
    record = _identity(model, examples, settings, teacher, lora)
    steps = max(1, round(settings.epochs * -(-len(examples) // settings.batch_size)))
    arguments = TrainingArguments(
        **_shared(settings.epochs, settings.learning_rate, settings.seed, device),
        output_dir=str(scratch),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=64,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * steps),
        eval_strategy="epoch",
        logging_strategy="epoch",
        remove_unused_columns=teacher is None,  # the teacher may read columns that the student ignores
        save_steps=max(50, steps // 10),
        save_total_limit=1,
    )
    with attached:
        from_first_process(lambda: claim_folder(scratch, record))
        trainer = _Trainer(
            teacher,
            order=_ByLength(encoded, settings.batch_size, seed=settings.seed),
            precision=settings.precision,
            model=model,
            args=_on_device(arguments, device),
            train_dataset=encoded,
            eval_dataset=tokenize(validation, tokenizer, max_length=settings.max_length),
            data_collator=collate,
            compute_metrics=lambda output: _score(output, scorer),
            callbacks=[ShowProgress(progress), *trackers],
        )
        trainer.pop_callback(PrinterCallback)
        last = from_first_process(lambda: last_checkpoint(scratch))
        with guarding_checkpoints(scratch):
            trainer.train(
                resume_from_checkpoint=None if last is None else str(last),
                ignore_keys_for_eval=["attentions", "hidden_states", "past_key_values"],  # metrics need only logits
            )
            trainer.require_finite(*model.parameters())
    model.eval()
    return _curve(trainer.state.log_history)


def _identity(
    model: PreTrainedModel,
    examples: Examples,
    settings: TrainingSettings,
    teacher: Teacher | None,
    lora: LoraSettings | None,
) -> dict[str, Any]:
    """Return everything that must be equal for a run to resume from another's checkpoint."""
    record = {"model": model.name_or_path, "data_sha256": examples.digest(), **dataclasses.asdict(settings)}
    if lora is not None:
        record |= {f"lora_{key}": value for key, value in dataclasses.asdict(lora).items()}
    if teacher is not None:
        record |= {"student": teacher.student, **dataclasses.asdict(teacher.objective)}
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
        temporary_folder() as scratch,
        progress_bar("distilling", 1) as progress,
        distilled_from.attached(model, batches.batches[0]),
    ):
        arguments = TrainingArguments(
            **_shared(epochs, learning_rate, seed, device),
            output_dir=str(scratch),
            per_device_train_batch_size=1,
            weight_decay=0.0,
            warmup_steps=round(0.06 * epochs * len(batches)),
            save_strategy="no",
            remove_unused_columns=False,
        )
        trainer = _Trainer(
            distilled_from,
            order=RandomSampler(batches.batches, generator=torch.Generator().manual_seed(seed)),
            dropout=False,  # the teacher's outputs have no such noise
            precision=precision,
            model=model,
            args=_on_device(arguments, device),
            train_dataset=list(batches),
            data_collator=lambda batch: dict(batch[0]),
            callbacks=[ShowProgress(progress), *([] if after_step is None else [CallAfterStep(after_step)])],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
        trainer.require_finite(*model.parameters())
    model.eval()
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
        parameter.grad = None


def _shared(epochs: float, learning_rate: float, seed: int, device: str) -> dict[str, Any]:
    """Return the arguments that all training runs pass to the trainer."""
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
        "report_to": [],
        "label_names": ["labels"],  # the trainer does not find them in a model with adapters
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "average_tokens_across_devices": False,  # losses are means over examples, and each process weights its own rows
        "use_cpu": device == "cpu",
        "log_level": "error",
    }


def _on_device(arguments: TrainingArguments, device: str) -> TrainingArguments:
    """Bind the trainer to one device; with several GPUs, transformers would copy the model to all of them."""
    target = torch.device(device)
    if target.type == "cpu":
        return arguments
    # all of accelerate reads its device from this shared state
    arguments.distributed_state.device = target
    arguments._n_gpu = 1
    vars(arguments)["_setup_devices"] = target  # transformers caches the device under this name
    if target.index is not None and target.type == "cuda":
        torch.cuda.set_device(target)  # checkpoints hold the random state of the current device
    return arguments


def _score(output: EvalPrediction, scorer: Scorer) -> dict[str, float]:
    return {"metric": scorer(output.label_ids, output.predictions)}


def _curve(history: Sequence[dict[str, float]]) -> list[Epoch]:
    losses = {row["epoch"]: row["loss"] for row in history if "loss" in row}
    return [
        Epoch(row["epoch"], losses.get(row["epoch"], float("nan")), row["eval_loss"], row["eval_metric"])
        for row in history
        if "eval_loss" in row
    ]


class _ByLength(LengthGroupedSampler):
    """Batches of similar length, in an order that seed and epoch alone determine, as a resumed epoch requires."""

    def __init__(self, rows: Sequence[dict[str, Any]], size: int, *, seed: int) -> None:
        super().__init__(size, dataset=rows, model_input_name="input_ids")
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order is drawn next; the trainer calls it before each epoch."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


class _Trainer(Trainer):
    """A trainer that splits every batch between processes, can distil a teacher, and stops at a loss not finite."""

    def __init__(
        self,
        teacher: Teacher | None,
        *,
        order: Sampler[int],
        precision: ComputePrecision,
        dropout: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self._teacher = teacher
        self._order = order
        self._precision = precision
        self._dropout = dropout

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of whole batches in every process.

        If accelerate dealt batches out, two processes would take half as many steps.
        """
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def training_step(self, *args: Any, **others: Any) -> Tensor:
        """Return the loss of one step.

        Raises:
            InvalidModel: the loss is not finite.
        """
        loss: Tensor = super().training_step(*args, **others)
        self.require_finite(loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *rest: Any, **others: Any) -> Any:
        """Return this process's part of the loss of one batch; in eval mode, the loss on the labels alone."""
        if not model.training:
            return super().compute_loss(model, inputs, *rest, **others)
        rows, weight = rows_of_process(inputs)
        model.train(self._dropout)
        # the trainer's own bf16 mode would leave the model's forward method wrapped after training
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            if self._teacher is None:
                return weight * super().compute_loss(model, rows, *rest, **others)
            return weight * self._teacher.loss(model, rows)

    def require_finite(self, *tensors: Tensor) -> None:
        """Check losses or weights before they reach a checkpoint.

        Raises:
            InvalidModel: one of them is not finite.
        """
        if all(tensor.isfinite().all() for tensor in tensors):
            return
        scratch = Path(self.args.output_dir)
        last = last_checkpoint(scratch)
        advice = f"; the last good checkpoint is {last}; delete {scratch} and" if last else ";"
        raise InvalidModel(
            f"the loss and the weights must stay finite, but got others at step {self.state.global_step} with "
            f"learning_rate={self.args.learning_rate:g}{advice} give a smaller learning rate"
        )

    def _save_checkpoint(self, *args: Any, **others: Any) -> None:
        self.require_finite(*self.model.parameters())
        super()._save_checkpoint(*args, **others)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # every process writes its own random state before the trainer's state completes the checkpoint
        wait_for_all()
