"""The one training path, on transformers.Trainer: resumable, with a progress bar, and a row of figures per epoch.

Several processes read the same batches, each its own rows of them, and add their gradients up: they take the same steps
as one process does, up to what dropout draws.
"""

import dataclasses
import math
import tempfile
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
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalPrediction

from whet.errors import InvalidModel
from whet.tasks.data import Batches, Examples
from whet.tasks.encoding import pad, tokenize
from whet.training.checkpoints import claim, last_checkpoint, writing
from whet.training.distiller import KNOWN, Teacher
from whet.training.lora import LoraSettings
from whet.training.objective import Objective
from whet.training.trackers import trackers_named
from whet.utils.distributed import of_first, rows_of, wait_for_all
from whet.utils.parameters import check
from whet.utils.precision import ComputePrecision
from whet.utils.progress import Bar, bar

__all__ = ["AfterStep", "Epoch", "Scorer", "TrainingSettings", "distil", "train"]

Scorer = Callable[[Any, Any], float]
"""From labels and logits, both (examples, ...), to the metric that counts."""
AfterStep = Callable[[int, int, Optimizer], None]
"""Gets the number of the step, that of all steps, and the optimizer; gradients are still there."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how fast to train."""

    epochs: Annotated[float, Interval(gt=0, lt=math.inf)] = 5
    """Passes over the training data."""
    learning_rate: Annotated[float, Interval(gt=0, lt=math.inf)] = 5e-5
    """Peak of AdamW's learning rate; it falls linearly to zero."""
    batch_size: Annotated[int, Interval(ge=1)] = 32
    """Examples a step."""
    weight_decay: Annotated[float, Interval(ge=0, lt=math.inf)] = 0.01
    """AdamW's decoupled weight decay."""
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.06
    """Share of the steps over which the learning rate rises."""
    max_length: Annotated[int, Interval(ge=2)] = 128
    """Longer inputs are cut, in tokens."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Of the head, the order of examples and dropout."""
    precision: ComputePrecision = "fp32"
    """Of matrix products alone; bf16 is about twice as fast on processors with AMX."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


class Epoch(NamedTuple):
    """One row of the learning curve."""

    epoch: float
    training_loss: float
    validation_loss: float
    validation_metric: float


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    examples: Examples,
    validation: Examples,
    settings: TrainingSettings,
    scorer: Scorer,
    scratch: Path,
    progress: Bar,
    device: str = "cpu",
    lesson: Teacher | None = None,
    lora: LoraSettings | None = None,
    report_to: Sequence[str] = (),
    logs: Path | None = None,
) -> list[Epoch]:
    """Train `model` in place, from labels or from a teacher too, and return its learning curve.

    Checkpoints go to `scratch`; a run that finds one there goes on from it. `lora` says what adapters the model has;
    `report_to` names trackers that transformers knows, such as tensorboard, whose files go to `logs`.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings, of another model or with other data; or a tracker
            is not installed.
        InvalidModel: the loss or the weights are no longer finite; the last good checkpoint stays in `scratch`.
        OutputNotWritten: a checkpoint could not be written, on a full disk for one.
    """
    trackers = trackers_named(report_to, logs)
    encoded = tokenize(examples, tokenizer, max_length=settings.max_length)
    collate = partial(pad, tokenizer=tokenizer)
    if lesson is not None and lesson.logits is not None:
        encoded = [{**row, KNOWN: known} for row, known in zip(encoded, lesson.logits.tolist(), strict=True)]
    lasting = nullcontext() if lesson is None else lesson.begun(model, collate([encoded[0]]))
    record = {"model": model.name_or_path, "data_sha256": examples.digest(), **dataclasses.asdict(settings)}
    if lora is not None:
        record |= {f"lora_{key}": value for key, value in dataclasses.asdict(lora).items()}
    if lesson is not None:
        record |= {"student": lesson.student, **dataclasses.asdict(lesson.objective)}
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
        remove_unused_columns=lesson is None,  # the teacher may read more of them than the student
        save_steps=max(50, steps // 10),
        save_total_limit=1,
    )
    with lasting:
        of_first(lambda: claim(scratch, record))
        trainer = _Trainer(
            lesson,
            order=_ByLength(encoded, settings.batch_size, seed=settings.seed),
            precision=settings.precision,
            model=model,
            args=_placed(arguments, device),
            train_dataset=encoded,
            eval_dataset=tokenize(validation, tokenizer, max_length=settings.max_length),
            data_collator=collate,
            compute_metrics=lambda output: _score(output, scorer),
            callbacks=[_Progress(progress), *trackers],
        )
        trainer.pop_callback(PrinterCallback)
        last = of_first(lambda: last_checkpoint(scratch))
        with writing(scratch):
            trainer.train(
                resume_from_checkpoint=None if last is None else str(last),
                ignore_keys_for_eval=["attentions", "hidden_states", "past_key_values"],  # scored by logits alone
            )
            trainer.require_finite(*model.parameters())
    model.eval()
    return _curve(trainer.state.log_history)


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
    """Train `model` in place to give the teacher's predictions and hidden states.

    Args:
        model: of the same depth and width as the teacher.
        teacher: in eval mode.
        batches: what both read; every step takes one of them, in an order drawn anew each epoch.
        epochs: passes over the batches.
        learning_rate: AdamW's peak; it falls linearly to zero.
        temperature: divides the logits of both.
        hidden_states: weight of the error after each block, against 1 for the predictions; see `distillation`.
        seed: of the order.
        precision: see `TrainingSettings`.
        after_step: called after every step of the optimizer.

    Raises:
        InvalidModel: the loss or the weights are no longer finite.
    """
    lesson = Teacher(teacher, Objective(alpha=1.0, temperature=temperature, hidden_states=hidden_states))
    device = str(next(model.parameters()).device)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with (
        tempfile.TemporaryDirectory() as scratch,
        bar("distilling", 1) as progress,
        lesson.begun(model, batches.batches[0]),
    ):
        arguments = TrainingArguments(
            **_shared(epochs, learning_rate, seed, device),
            output_dir=scratch,
            per_device_train_batch_size=1,
            weight_decay=0.0,
            warmup_steps=round(0.06 * epochs * len(batches)),
            save_strategy="no",
            remove_unused_columns=False,
        )
        trainer = _Trainer(
            lesson,
            order=RandomSampler(batches.batches, generator=torch.Generator().manual_seed(seed)),
            dropout=False,  # noise that the teacher's answers do not have
            precision=precision,
            model=model,
            args=_placed(arguments, device),
            train_dataset=list(batches),
            data_collator=lambda batch: dict(batch[0]),
            callbacks=[_Progress(progress), *([] if after_step is None else [_After(after_step)])],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
        trainer.require_finite(*model.parameters())
    model.eval()
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
        parameter.grad = None


def _shared(epochs: float, learning_rate: float, seed: int, device: str) -> dict[str, Any]:
    """What every training asks of the trainer."""
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
        "report_to": [],
        "label_names": ["labels"],  # it would not find them below adapters
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "average_tokens_across_devices": False,  # losses are means over examples, of which each process knows its share
        "use_cpu": device == "cpu",
        "log_level": "error",
    }


def _placed(arguments: TrainingArguments, device: str) -> TrainingArguments:
    """Keep to the device that was named: of several GPUs, transformers takes the first and copies the model to all."""
    place = torch.device(device)
    if place.type == "cpu":
        return arguments
    # one state for all of accelerate, which reads its device there
    arguments.distributed_state.device = place
    arguments._n_gpu = 1
    vars(arguments)["_setup_devices"] = place  # where the choice is kept once it is made
    if place.index is not None and place.type == "cuda":
        torch.cuda.set_device(place)  # its random state is the one that checkpoints keep
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
    """Batches of like length; seed and epoch alone decide their order, so that a resumed epoch goes on with its own."""

    def __init__(self, rows: Sequence[dict[str, Any]], size: int, *, seed: int) -> None:
        super().__init__(size, dataset=rows, model_input_name="input_ids")
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next; the trainer says so before each."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


class _Trainer(Trainer):
    """Splits every batch between processes, learns from a teacher if it has a lesson, stops at what is not finite."""

    def __init__(
        self,
        lesson: Teacher | None,
        *,
        order: Sampler[int],
        precision: ComputePrecision,
        dropout: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self._lesson = lesson
        self._order = order
        self._precision = precision
        self._dropout = dropout

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return whole batches in every process: dealt out by accelerate, two processes took half as many steps."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        placed: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return placed

    def training_step(self, *args: Any, **others: Any) -> Tensor:
        """Return the loss of one step, if it is finite."""
        loss: Tensor = super().training_step(*args, **others)
        self.require_finite(loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *rest: Any, **others: Any) -> Any:
        """Return this process's part of the loss of one batch; held-out examples are scored by their labels alone."""
        if not model.training:
            return super().compute_loss(model, inputs, *rest, **others)
        own, weight = rows_of(inputs)
        model.train(self._dropout)
        # (not the trainer's own bf16, which leaves the model's forward pass changed when it ends)
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            if self._lesson is None:
                return weight * super().compute_loss(model, own, *rest, **others)
            return weight * self._lesson.loss(model, own)

    def require_finite(self, *tensors: Tensor) -> None:
        """Stop where a loss or weights are no longer finite, before they reach a checkpoint.

        Raises:
            InvalidModel: they are not.
        """
        if all(one.isfinite().all() for one in tensors):
            return
        scratch = Path(self.args.output_dir)
        last = last_checkpoint(scratch)
        kept = f"; the last good checkpoint is {last}; delete {scratch} and" if last else ";"
        raise InvalidModel(
            f"the loss and the weights must stay finite, but got others at step {self.state.global_step} with "
            f"learning_rate={self.args.learning_rate:g}{kept} give a smaller one"
        )

    def _save_checkpoint(self, *args: Any, **others: Any) -> None:
        self.require_finite(*self.model.parameters())
        super()._save_checkpoint(*args, **others)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        wait_for_all()  # every process has one, and a checkpoint is whole with the state that comes next


class _Progress(TrainerCallback):
    """Moves the bar at every step."""

    def __init__(self, progress: Bar) -> None:
        self._progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Set the bar to the share of steps done."""
        self._progress.reach(state.global_step / state.max_steps)


class _After(TrainerCallback):
    """Calls a function after every step of the optimizer."""

    def __init__(self, act: AfterStep) -> None:
        self._act = act

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Pass on the step that was taken, which the state does not yet count."""
        self._act(state.global_step + 1, state.max_steps, others["optimizer"])
